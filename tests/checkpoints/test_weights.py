"""Checkpoints whose weights lerobot cannot read or does not load: named with the remedy, before and after a run."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from campaigns import Made
from checkpoints import change_weights, old_statistics
from safetensors.numpy import load_file, save_file

from tracka.checkpoints import checkpoint, checkpoint_format, tensors, weights
from tracka.core import files
from tracka.core.errors import TrackaError
from tracka.engines import load_warnings

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123456\n"
WEIGHTS = "model.safetensors"


def said_of(folder: Path) -> list[str]:
    """What is said of a checkpoint before a row of it would run."""
    try:
        checkpoint.resolve(str(folder), folder.parent)
        weights.require(folder, folder.parent)
    except TrackaError as error:
        return [str(finding) for finding in error.findings]
    return []


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def shard(folder: Path, index: bool) -> None:
    arrays = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(arrays)
    parts = {f"model-0000{k}-of-00002.safetensors": names[k - 1 :: 2] for k in (1, 2)}
    for part, inside in parts.items():
        save_file({name: arrays[name] for name in inside}, folder / part)
    if index:
        weight_map = {name: part for part, inside in parts.items() for name in inside}
        files.write_json(folder / f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": weight_map})


def pickle_of(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def header(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    """Changes the header of the weights and leaves the data as they are."""

    def apply(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(data[:8], "little")
        value = json.loads(data[8 : 8 + length])
        change(value)
        text = json.dumps(value).encode()
        write(folder / WEIGHTS, struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def first(value: dict[str, dict[str, object]]) -> dict[str, object]:
    return value[min(name for name in value if name != "__metadata__")]


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "pointer": (
        lambda folder: write(folder / WEIGHTS, POINTER.encode()),
        ("git-lfs pointer", "123456", "git lfs pull"),
    ),
    "pointer_to_statistics": (
        lambda folder: write(next(folder.glob("policy_pre*.safetensors")), POINTER.encode()),
        ("policy_preprocessor", "git-lfs pointer", "git lfs pull"),
    ),
    "cut": (
        lambda folder: write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-9]),
        ("the file is cut off", "again"),
    ),
    "cut_in_the_header": (
        lambda folder: write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:99]),
        ("the file is cut off",),
    ),
    "empty": (lambda folder: write(folder / WEIGHTS, b""), ("the file is cut off: it has 0 of 8 bytes",)),
    "longer": (
        lambda folder: write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes() + b"x"),
        ("not a valid safetensors file",),
    ),
    "text": (lambda folder: write(folder / WEIGHTS, b"<html>Not found</html>" * 9), ("not a safetensors file",)),
    "pickle_of_that_name": (
        lambda folder: write(folder / WEIGHTS, b"PK\x03\x04" + bytes(99)),
        ("not a safetensors file",),
    ),
    "type": (header(lambda value: first(value).update(dtype="F63")), ("not a valid safetensors file",)),
    "shape": (header(lambda value: first(value).update(shape=[1, 1])), ("not a valid safetensors file",)),
    "place": (header(lambda value: first(value).update(data_offsets=[0, 4])), ("not a valid safetensors file",)),
    "no_place": (header(lambda value: first(value).pop("data_offsets")), ("not a safetensors file", "offsets")),
    "shards": (
        lambda folder: shard(folder, True),
        ("spread over 2 files", "reads only model.safetensors", "python -c"),
    ),
    "shards_without_index": (lambda folder: shard(folder, False), ("spread over 2 files", "python -c")),
    "bin": (pickle_of("pytorch_model.bin"), ("pytorch_model.bin", "a pickle", "save_pretrained")),
    "pt": (pickle_of("policy.pt"), ("policy.pt", "a pickle")),
    "old": (
        lambda folder: (
            change_weights(folder, old_statistics),
            [path.unlink() for path in folder.glob("policy_*")],
        ),
        ("inside the weights", "lerobot.processor.migrate_policy_normalization --pretrained-path"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_lerobot_cannot_read_are_named_with_the_remedy_and_never_trusted(act: Path, name: str) -> None:
    change, words = BROKEN[name]
    change(act)
    said = said_of(act)
    assert said and all(any(word in line for line in said) for word in words), said
    assert not any("trust" in line for line in said)


def test_a_sound_checkpoint_is_read_without_a_word(act: Path) -> None:
    assert said_of(act) == []


@pytest.mark.parametrize("index", [True, False])
def test_the_command_that_merges_shards_makes_the_weights_of_before(act: Path, index: bool) -> None:
    before = load_file(act / WEIGHTS)
    shard(act, index)
    (said,) = said_of(act)
    code = said.split('python -c "')[1].rsplit('"', 1)[0]
    subprocess.run([sys.executable, "-c", code], check=True)
    assert said_of(act) == []
    after = load_file(act / WEIGHTS)
    assert after.keys() == before.keys() and all(np.array_equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/last", "checkpoints/000100"])
def test_the_folder_of_a_training_run_leads_to_its_policy(act: Path, tmp_path: Path, below: str) -> None:
    run = tmp_path / "outputs" / "train" / "run"
    policy = run / "checkpoints" / "000100" / "pretrained_model"
    shutil.copytree(act, policy)
    (run / "checkpoints" / "last").symlink_to("000100")
    (said,) = said_of(run / below)
    assert "the folder of a training run" in said
    named = Path(said.rpartition("Give ")[2].removesuffix(" as policy_path"))
    assert named.resolve() == policy.resolve() and said_of(named) == []


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8])
def test_the_numbers_of_a_file_are_read_in_every_plain_type(tmp_path: Path, dtype: type) -> None:
    numbers = np.arange(6).astype(dtype).reshape(2, 3)
    save_file({"a": numbers, "b": numbers[:1]}, tmp_path / "f.safetensors")
    read = tensors.read(tmp_path / "f.safetensors")
    assert (read.tensors["a"].shape, read.values("a"), read.values("b")) == ((2, 3), (0, 1, 2, 3, 4, 5), (0, 1, 2))


def test_half_precision_as_torch_has_it_is_read_too(tmp_path: Path) -> None:
    text = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    write(tmp_path / "f.safetensors", struct.pack("<Q", len(text)) + text + bytes([0x80, 0x3F, 0x20, 0xC0]))
    assert tensors.read(tmp_path / "f.safetensors").values("a") == (1.0, -2.5)


# after a run


LINES = {
    "missing": "WARNING 2026-11-28 utils.py:91 Missing key(s) when loading model: ['action_head.weight']",
    "unexpected": "WARNING 2026-11-28 utils.py:93 Unexpected key(s) when loading model: ['_orig_mod.x']",
    "pi0_missing": "Missing keys when loading state dict: 3 keys",
    "pi0_unexpected": "Unexpected keys when loading state dict: 3 keys",
    "pi0_random": "Warning: Could not load state dict: Error(s) in loading state_dict for PI0Policy",
    "pi0_no_file": "Returning model without loading pretrained weights",
    "vla_jepa": "reinit_modules: skipping 2 tensor(s) with mismatched shapes (randomly re-initialised):",
    "adapter": "UserWarning: Found missing adapter keys while loading the checkpoint: ['base_model.lora_A.default']",
}


@pytest.mark.parametrize("name", LINES)
def test_a_run_whose_policy_did_not_get_its_weights_fails_by_that_name_and_is_not_tried_again(
    ready: Made, name: str
) -> None:
    ready.behave(long_b1_e6=[f"say:{LINES[name]}"])
    result = ready.run_row("long_b1_e6")
    assert (result["status"], result["reason"]) == ("fail", "weights") and LINES[name] in result["error_message"]
    assert ready.layout.run("long_b1_e6").numbers() == [1]


def test_every_line_is_one_that_lerobot_or_peft_prints() -> None:
    from importlib.util import find_spec

    (lerobot,) = find_spec("lerobot").submodule_search_locations or ()  # type: ignore[union-attr]
    (peft,) = find_spec("peft").submodule_search_locations or ()  # type: ignore[union-attr]
    sources = [*(Path(lerobot) / "policies").rglob("*.py"), Path(peft) / "peft_model.py"]
    text = "".join(path.read_text() for path in sources)
    assert [sign for sign in load_warnings.SIGNS if sign not in text] == []


def noisy(text: str) -> Iterator[None]:
    with load_warnings.require_complete_weights():
        print(text)
        yield


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_loader_that_prints_it_is_an_error_where_the_policy_is_loaded(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(load_warnings.IncompleteWeights, match=r"key|Could not|Returning|reinit"):
        list(noisy(line))
    assert line in capsys.readouterr().out  # and the log has it nevertheless


def test_a_loader_that_logs_it_is_an_error_too_and_any_other_line_is_none() -> None:
    import logging

    with pytest.raises(load_warnings.IncompleteWeights, match="action_head"), load_warnings.require_complete_weights():
        logging.getLogger("lerobot").warning("Missing key(s) when loading model: %s", ["action_head.weight"])
    list(noisy("Loading weights from local directory"))


def test_a_loader_that_warns_of_it_is_an_error_each_time() -> None:
    import warnings

    for _ in range(2):  # a process shows a warning once
        lacks = pytest.raises(load_warnings.IncompleteWeights, match="adapter keys")
        with pytest.warns(UserWarning, match="adapter keys"), lacks, load_warnings.require_complete_weights():
            warnings.warn("Found missing adapter keys while loading the checkpoint: ['a'].", stacklevel=1)


def test_arrays_of_a_checkpoint_with_old_statistics_are_told_from_others(act: Path) -> None:
    assert checkpoint_format.old_statistics(act) is None
    change_weights(act, old_statistics)
    finding = checkpoint_format.old_statistics(act)
    assert finding is not None and "buffer" in finding.what
