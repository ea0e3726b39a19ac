"""Reads what a policy was made for, from its checkpoint's JSON and the headers of its statistics, and nothing else."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign.campaign import EvalSettings
from ..core import files
from ..core.errors import Finding, TrackaError
from ..core.lerobot_facts import ACTION, STATE
from . import tensors

# TOLERANT types run with those of their cameras that are there; STRICT types need every camera, in frames of the
# declared size.
TOLERANT = ("pi0", "pi05", "pi0_fast", "smolvla", "xvla")
STRICT = ("act", "diffusion", "multi_task_dit", "tdmpc", "vqbet")
# Keys of config.json for the size to which a policy resizes frames.
RESIZED = ("image_resolution", "resize_imgs_with_padding", "resize_shape", "image_resize_shape", "resize_images_to")
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
STEPS = {PREPROCESSOR: "normalizer_processor", POSTPROCESSOR: "unnormalizer_processor"}
CHANNELS = 3  # of a frame, whose shape is (channels, height, width)
Features = dict[str, tuple[str, tuple[int, ...]]]  # key -> type and shape


@dataclass(frozen=True)
class PolicyMetadata:
    """Describes what a policy was made for."""

    where: str
    kind: str
    config: Mapping[str, Any]
    inputs: Features
    outputs: Features
    statistics: Mapping[str, int]  # key -> how many numbers its statistics have, where they are used
    names: Mapping[str, str]  # the rename_map that the checkpoint was saved with
    step_names: tuple[str, ...]  # registered names of the preprocessor's steps

    @property
    def cameras(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each camera by key; a camera that only `empty_cameras` adds has the shape ()."""
        count = self.config.get("empty_cameras")
        empty = range(count if isinstance(count, int) else 0)
        added = {f"observation.images.empty_camera_{index}": () for index in empty}
        return {key: shape for key, (kind, shape) in self.inputs.items() if kind == "VISUAL"} | {
            key: shape for key, shape in added.items() if key not in self.inputs
        }

    @property
    def spare_cameras(self) -> int | None:
        """Returns how many of the cameras may be missing; None for a type whose code has not been examined."""
        if self.kind in TOLERANT:
            return len(self.cameras) - 1
        return {**dict.fromkeys(STRICT, 0), "evo1": int(self.config.get("empty_cameras") or 0)}.get(self.kind)


def read(folder: Path, settings: EvalSettings = EvalSettings()) -> PolicyMetadata:  # noqa: B008 - frozen
    """Returns what the checkpoint in `folder` was made for, the campaign's policy flags put over its config.json."""
    path = folder / "config.json"
    config = files.read_json(path) | overrides(settings)
    return PolicyMetadata(
        str(path),
        str(config.get("type")),
        config,
        _features(path, config, "input_features"),
        _features(path, config, "output_features"),
        dict(_statistics(folder)),
        _rename_map(folder),
        tuple(str(step.get("registry_name")) for step, _ in steps(folder / PREPROCESSOR)),
    )


def keeps_frames(config: Mapping[str, Any]) -> bool:
    """Returns whether a policy with this config.json is known to take frames as they are, without resizing them."""
    return config.get("type") in STRICT and not any(config.get(key) for key in RESIZED)


def frame_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns the (height, width) of the frames that a policy with this config.json needs.

    Returns None where the policy resizes frames, where that is not known, and where its cameras differ in size.
    """
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        inputs = features(config["input_features"]).values() if keeps_frames(config) else ()
        shapes = {shape for kind, shape in inputs if kind == "VISUAL"}
        if len(shapes) == 1 and len(shape := shapes.pop()) == 3 and shape[0] == CHANNELS and min(shape) > 0:
            return shape[1], shape[2]
    return None


def overrides(settings: EvalSettings) -> dict[str, Any]:
    """Returns what the campaign's own flags put over a checkpoint's config.json."""
    return {key.removeprefix("policy."): value for key, value in settings.flags.items() if key.startswith("policy.")}


def distinct_settings(settings: Iterable[EvalSettings]) -> list[EvalSettings]:
    """Returns the settings without those that put the same over a config.json as settings before them."""
    return list({repr(overrides(setting)): setting for setting in settings}.values())


def features(table: Mapping[str, Any] | None) -> Features:
    """Returns the features of a JSON table.

    Raises AttributeError, KeyError, TypeError or ValueError where the table has another form.
    """
    return {str(key): (str(item["type"]), tuple(map(int, item["shape"]))) for key, item in (table or {}).items()}


def _features(path: Path, config: Mapping[str, Any], key: str) -> Features:
    try:
        table = features(config[key])
    except KeyError:
        if key not in config:
            return {}  # lerobot then takes the environment's features
        table = None
    except (AttributeError, TypeError, ValueError):
        table = None
    if table is None:
        what = "the value is not a table of features, each with a type and a shape"
        raise TrackaError(Finding(f"{path}, key {key}", what, "Save the policy with save_pretrained of lerobot 0.6"))
    return table


def steps(processor: Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yields the steps in a processor's JSON file, each with its config."""
    items = files.read_json(processor).get("steps")
    for step in items if isinstance(items, list) else ():
        if isinstance(step, dict):
            config = step.get("config")
            yield step, config if isinstance(config, dict) else {}


def _steps_with_name(processor: Path, name: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yields the steps with this registered name, each with its config."""
    yield from ((step, config) for step, config in steps(processor) if step.get("registry_name") == name)


def _rename_map(folder: Path) -> dict[str, str]:
    for _, config in _steps_with_name(folder / PREPROCESSOR, "rename_observations_processor"):
        if isinstance(names := config.get("rename_map"), dict):
            return {str(key): str(value) for key, value in names.items()}
    return {}


def _statistics(folder: Path) -> Iterator[tuple[str, int]]:
    """Yields the state and the action, where they are normalised, each with how many numbers its statistics have."""
    for (file, name), key, kind in zip(STEPS.items(), (STATE, ACTION), ("STATE", "ACTION"), strict=True):
        for step, config in _steps_with_name(folder / file, name):
            modes = config.get("norm_map")
            is_normalised = isinstance(modes, dict) and modes.get(kind, "IDENTITY") != "IDENTITY"
            shapes = _shapes(folder / Path(str(step.get("state_file"))).name) if is_normalised else {}
            yield from ((key, shape[-1]) for word, shape in shapes.items() if word in (f"{key}.mean", f"{key}.min"))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes in a file of statistics.

    Returns none where the file cannot be read, which the check `statistics:` reports.
    """
    try:
        return {name: tensor.shape for name, tensor in tensors.read(path).tensors.items() if tensor.shape}
    except (OSError, TrackaError):
        return {}
