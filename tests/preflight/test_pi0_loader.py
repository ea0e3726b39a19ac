"""pi0's and pi0.5's own loaders, which go on with random weights where a file does not fit: what is found of that.

The models are small ones, of lerobot's own code with smaller numbers.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import Arrays, change_weights
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi05 import modeling_pi05

from fixtures import small_pi0
from tracka.engines import load_warnings
from tracka.engines.load_warnings import IncompleteWeights
from tracka.preflight import model_tensors
from tracka.preflight.probes.model import CheckpointComparison, compare

MODULES = {"pi0": modeling_pi0, "pi05": modeling_pi05}
OUT = "model.action_out_proj.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a fresh `save_pretrained` of each type."""
    folder = tmp_path_factory.mktemp("fresh")
    with pytest.MonkeyPatch.context() as patch:
        for kind, module in MODULES.items():
            small_pi0.put(patch, module)
            inputs = {
                "observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 224, 224)),
                "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
            }
            outputs = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
            config = make_policy_config(
                kind, input_features=inputs, output_features=outputs, device="cpu", push_to_hub=False
            )
            get_policy_class(kind)(config).save_pretrained(folder / kind)
        yield folder


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


# What is done to the weights, and the field of the comparison that names it.
FAULTS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "one_missing": (without(OUT), "missing"),
    "one_renamed": (
        lambda arrays: {key.replace("action_out", "action"): value for key, value in arrays.items()},
        "missing",
    ),
    "one_too_many": (lambda arrays: arrays | {"model.extra": np.zeros(2, np.float32)}, "unused"),
    "one_cut": (lambda arrays: arrays | {OUT: arrays[OUT][:-1]}, "misshaped"),
    "of_another_prefix": (lambda arrays: {f"module.{key}": value for key, value in arrays.items()}, "missing"),
    "none": (lambda arrays: {"nothing": np.zeros(1, np.float32)}, "missing"),
}


def broken(sound: Path, kind: str, name: str, folder: Path) -> Path:
    made = Path(shutil.copytree(sound / kind, folder / name))
    change_weights(made, FAULTS[name][0])
    return made


def load(folder: Path) -> None:
    """Loads the policy as the resident engine does."""
    config = PreTrainedConfig.from_pretrained(folder)
    with load_warnings.require_complete_weights():
        get_policy_class(config.type).from_pretrained(str(folder), config=config)


@pytest.mark.parametrize("kind", MODULES)
def test_what_each_type_saves_is_complete_and_loads_without_a_word(sound: Path, kind: str) -> None:
    found = compare(sound / kind, [], processors=False)
    assert found.wanted > 50
    assert found == CheckpointComparison(folder=str(sound / kind), wanted=found.wanted, said=found.said)
    assert [
        line for line in found.said if line.startswith(model_tensors.SKIPS)
    ] == []  # others are of tensors that it takes
    load(sound / kind)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=[] if (kind, name) == ("pi0", "one_missing") else pytest.mark.slow)
        for kind in MODULES
        for name in FAULTS
    ],
)
def test_a_file_that_does_not_fit_is_found_before_the_run_and_stops_it(
    sound: Path, kind: str, name: str, tmp_path: Path
) -> None:
    folder = broken(sound, kind, name, tmp_path)
    assert getattr(compare(folder, [], processors=False), FAULTS[name][1])
    with pytest.raises(IncompleteWeights):
        load(folder)
