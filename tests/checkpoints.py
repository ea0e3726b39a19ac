"""Changes a checkpoint in a folder, in ways that happen to people: for tests of what must be refused."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Arrays = dict[str, NDArray[Any]]
PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
NAMES = {PRE: "normalizer_processor", POST: "unnormalizer_processor"}


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    """Changes the JSON value in the file `path` in place, by `change`."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_weights(folder: Path, change: Callable[[Arrays], Arrays]) -> None:
    """Replaces the checkpoint's weights by what `change` returns for them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def state_file(folder: Path, file: str) -> Path:
    """Returns the file with the statistics of a processor's normalising step."""
    (step,) = (step for step in json.loads((folder / file).read_text())["steps"] if is_normalizer(step, file))
    return folder / str(step["state_file"])


def change_statistics(folder: Path, change: Callable[[Arrays], Arrays], *files: str) -> None:
    """Replaces the statistics of these processors, of both by default, by what `change` returns for them."""
    for file in files or (PRE, POST):
        path = state_file(folder, file)
        save_file(change(load_file(path)), path)


def is_normalizer(step: Any, file: str) -> bool:
    """Returns whether a step of the processor in `file` is its normalising step."""
    return bool(step.get("registry_name") == NAMES[file])


def change_normalizer(folder: Path, change: Callable[[Any], object], *files: str) -> None:
    """Changes the normalising step in the JSON of these processors, of both by default."""
    for file in files or (PRE, POST):
        change_json(folder / file, partial(_change_steps, change, file))


def _change_steps(change: Callable[[Any], object], file: str, processor: Any) -> None:
    for step in processor["steps"]:
        if is_normalizer(step, file):
            change(step)


def number(name: str, *places: int, value: float) -> Callable[[Arrays], Arrays]:
    """Returns a change that puts `value` at these places of the array `name`."""

    def change(arrays: Arrays) -> Arrays:
        changed = arrays[name].copy()
        changed[list(places)] = value
        return {**arrays, name: changed}

    return change


def old_statistics(arrays: Arrays) -> Arrays:
    """Returns the weights with statistics among them, as lerobot wrote them before it had processors."""
    sides = {"normalize_inputs.buffer_observation_state": 8, "unnormalize_outputs.buffer_action": 7}
    return arrays | {f"{key}.{name}": np.ones(n, np.float32) for key, n in sides.items() for name in ("mean", "std")}
