"""Compares the tensors that a policy wants with those in its file, by lerobot's own loader, without memory for either.

Usage: python -m tracka.preflight.probes.model '[{"folder": ..., "words": ["--seed=7"], "processors": true}, ...]'
With `processors` the checkpoint's processors are loaded too, as lerobot-eval loads them; with `base`, the folder of the
policy that an adapter is for, the adapter's tensors are compared as well, by PEFT's loader.
Prints one JSON object for each checkpoint, whose keys are the fields of `CheckpointComparison`. The model's parameters
and the file's tensors have shapes and types but no storage. The loader maps, skips and renames tensors as always; where
the loader would copy a tensor of the file to the model, the two are compared instead.
"""

import contextlib
import io
import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ...checkpoints import checkpoint_format, tensors
from ...core import files
from ...engines import load_warnings

# Settings that keep a policy from loading other weights by name: these come from elsewhere, take minutes, and are then
# replaced by the policy's own weights.
LOADS_NOTHING_ELSE = {"pretrained_backbone_weights": None, "load_vlm_weights": False}
SMALL = 1 << 30  # the size in bytes of weights up to which a model may be made in memory
TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}


@dataclass
class TensorDifference:
    """Holds how the tensors of a file differ from those of a model."""

    wanted: int = 0  # the number of the model's tensors
    missing: list[str] = field(default_factory=list)  # tensors of the model that the file lacks
    unused: list[str] = field(default_factory=list)  # tensors of the file that the model lacks
    misshaped: dict[str, list[list[int]]] = field(default_factory=dict)  # name -> shape in the file and in the model
    mistyped: dict[str, list[str]] = field(default_factory=dict)  # name -> type in the file and in the model


@dataclass
class CheckpointComparison(TensorDifference):
    """Holds what was found of one checkpoint."""

    folder: str = ""
    words: list[str] = field(default_factory=list)  # overrides of its configuration, as by --policy.WORD=VALUE
    config: str | None = None  # why its configuration cannot be read
    error: str | None = None  # why its model cannot be made or compared
    processors: str | None = None  # why its processors cannot be loaded
    said: list[str] = field(default_factory=list)  # the warnings that the loader logged
    adapter: TensorDifference | None = None  # how the adapter's own tensors differ
    refused: str | None = None  # why PEFT cannot load the adapter


def main(requests: list[dict[str, Any]]) -> None:
    """Compares each of the checkpoints in `requests` and prints its JSON object."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # policies print to stdout, which is for the JSON objects
        import lerobot.policies.factory  # noqa: F401 - registers lerobot's own policy types
        import torch
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()
        torch.set_num_threads(1)  # this process runs beside the simulator's probes, and has little to compute
        for request in requests:
            comparison = compare(
                Path(request["folder"]), request["words"], request.get("processors", False), request.get("base")
            )
            print(json.dumps(asdict(comparison)), file=out, flush=True)


def compare(folder: Path, words: list[str], processors: bool, base: str | None = None) -> CheckpointComparison:
    """Loads the checkpoint in `folder` by lerobot's loader and returns what was found.

    Nothing is loaded into memory if the policy's class allows that.
    """
    from ...engines.resident.weights import without_storage

    source = Path(base or folder)
    comparison = CheckpointComparison(folder=str(folder), words=words)
    try:
        config = _config(folder, words)
    except BaseException as error:  # argparse reads the configuration, and exits on an error
        comparison.config = _text(error)
        return comparison
    _fill(comparison, source, config, without_storage())
    if comparison.error and (source / checkpoint_format.WEIGHTS).stat().st_size <= SMALL:
        # A policy's class may compute with its parameters when a policy is made, as VQ-BeT's does.
        comparison = CheckpointComparison(folder=str(folder), words=words)
        _fill(comparison, source, config, contextlib.nullcontext())
    comparison.processors = _processors(folder, config) if processors else None
    return comparison


def _processors(folder: Path, config: Any) -> str | None:
    """Loads the processors with lerobot-eval's overrides, and returns why that is not possible, or None if it is.

    The postprocessor's device may be one that this process does not have; the check `device:` judges that.
    """
    from lerobot.policies.factory import make_pre_post_processors

    device = {"device_processor": {"device": "cpu"}}
    stored = files.read_json(folder / "policy_postprocessor.json").get("steps", ())
    has_device_step = any(isinstance(step, dict) and step.get("registry_name") in device for step in stored)
    try:
        make_pre_post_processors(
            config,
            str(folder),
            preprocessor_overrides={**device, "rename_observations_processor": {"rename_map": {}}},
            postprocessor_overrides=device if has_device_step else {},
        )
    except Exception as error:
        return _text(error)
    return None


def _fill(
    comparison: CheckpointComparison, source: Path, config: Any, storage: contextlib.AbstractContextManager[None]
) -> None:
    """Has lerobot load the policy in `source`, and PEFT an adapter over it, and writes what was found to `comparison`.

    Within `storage` the policy's parameters are made with storage or without.
    """
    from lerobot.policies.factory import get_policy_class

    with load_warnings.capture_log() as comparison.said, storage:
        try:
            with _comparing(comparison):
                policy = get_policy_class(config.type).from_pretrained(str(source), config=config)
            if source != Path(comparison.folder):
                _adapt(comparison, policy)
        except Exception as error:
            comparison.error = _text(error)


def _adapt(comparison: CheckpointComparison, policy: Any) -> None:
    """Has PEFT load the adapter as lerobot's make_policy does, and writes what was found to `comparison`.

    The policy's own tensors do not count as tensors that the adapter lacks.
    """
    from peft import PeftConfig, PeftModel

    # The list keeps the policy's tensors alive, so that no other tensor gets the id of one of them.
    policy_tensors = list(policy.state_dict(keep_vars=True).values())
    comparison.adapter = TensorDifference()
    try:
        adapter = PeftConfig.from_pretrained(comparison.folder)
        with _comparing(comparison.adapter, {id(tensor) for tensor in policy_tensors}):
            PeftModel.from_pretrained(policy, comparison.folder, config=adapter, is_trainable=True)
    except NotImplementedError:  # raised by a computation with tensors that have no storage
        raise
    except Exception as error:
        comparison.refused = _text(error)
    comparison.adapter = _as_in_file(comparison.adapter)


def _as_in_file(adapter: TensorDifference) -> TensorDifference:
    """Returns the same difference with the tensor names of the adapter's file.

    In the model the names have PEFT's name of an adapter inside.
    """

    def file_name(name: str) -> str:
        return name.replace(".default.", ".")

    return TensorDifference(
        adapter.wanted,
        [file_name(name) for name in adapter.missing],
        [file_name(name) for name in adapter.unused],
        {file_name(name): shapes for name, shapes in adapter.misshaped.items()},
        {file_name(name): types for name, types in adapter.mistyped.items()},
    )


def _text(error: BaseException) -> str:
    """Returns the text of the error that caused `error`, at most 600 characters in one line.

    The parser of configurations itself says only that it could not make one.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


def _config(folder: Path, words: list[str]) -> Any:
    """Returns the checkpoint's configuration under the overrides `words`.

    Where the configuration names no features, it gets LIBERO's, as lerobot-eval fills them in.
    """
    from lerobot.configs import FeatureType, PreTrainedConfig
    from lerobot.envs.configs import LiberoEnv
    from lerobot.envs.utils import env_to_policy_features

    with contextlib.redirect_stderr(io.StringIO()):
        config = PreTrainedConfig.from_pretrained(folder, cli_overrides=words)
    config.device, config.pretrained_path = "cpu", folder
    features = env_to_policy_features(LiberoEnv())
    actions = {key: feature for key, feature in features.items() if feature.type is FeatureType.ACTION}
    config.output_features = config.output_features or actions
    config.input_features = config.input_features or {key: features[key] for key in features if key not in actions}
    for key, value in LOADS_NOTHING_ELSE.items():
        if hasattr(config, key):
            setattr(config, key, value)
    return config


@contextlib.contextmanager
def _comparing(difference: TensorDifference, ignored_ids: Collection[int] = ()) -> Iterator[None]:
    """Makes loaders, within the block, read files without storage and compare tensors instead of copying them.

    Tensors of the model whose ids are in `ignored_ids` may be missing in the file.
    """
    import safetensors.torch
    import torch
    from torch import nn

    def load_file(filename: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Returns the file's tensors without storage. Raises TrackaError for a file that is not sound."""
        file_tensors = tensors.read(Path(filename)).tensors
        return {
            name: torch.empty(tensor.shape, dtype=_dtype(tensor.dtype), device="meta")
            for name, tensor in file_tensors.items()
        }

    def load_state_dict(module: nn.Module, state: dict[str, torch.Tensor], **_: Any) -> Any:
        _compare(difference, module, state, ignored_ids)
        return nn.modules.module._IncompatibleKeys([], [])

    with (
        _peft_reads(load_file),
        patch.object(safetensors.torch, "load_file", load_file),
        patch.object(nn.Module, "load_state_dict", load_state_dict),
    ):
        yield


def _peft_reads(load_file: Any) -> contextlib.AbstractContextManager[Any]:
    """Makes PEFT, where it is imported, read its files by `load_file` within the block.

    PEFT has a name of its own for safetensors' function, which must be replaced too.
    """
    module = sys.modules.get("peft.utils.save_and_load")
    return patch.object(module, "safe_load_file", load_file) if module else contextlib.nullcontext()


def _dtype(word: str) -> Any:
    import torch

    return getattr(torch, TYPES[word]) if word in TYPES else torch.float8_e4m3fn


def _compare(difference: TensorDifference, module: Any, state: dict[str, Any], ignored_ids: Collection[int]) -> None:
    """Adds to `difference` how a state dict differs from what the module wants.

    Of tied tensors it is enough that one is in the file.
    """
    model = module.state_dict(keep_vars=True)
    model_tensors = {name: tensor for name, tensor in model.items() if id(tensor) not in ignored_ids}
    loaded_ids = {id(model[name]) for name in model.keys() & state.keys()}
    difference.wanted += len(model_tensors)
    difference.missing += [
        name for name, tensor in model_tensors.items() if name not in state and id(tensor) not in loaded_ids
    ]
    difference.unused += [name for name in state if name not in model]
    for name in model.keys() & state.keys():
        model_tensor, file_tensor = model[name], state[name]
        if model_tensor.shape != file_tensor.shape:
            difference.misshaped[name] = [list(file_tensor.shape), list(model_tensor.shape)]
        elif model_tensor.is_floating_point() != file_tensor.is_floating_point():
            difference.mistyped[name] = [str(file_tensor.dtype), str(model_tensor.dtype)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
