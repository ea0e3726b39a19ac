"""What a checkpoint's links and JSON name outside of its folder is refused before anything is hashed or started."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import Made, fake_checkpoint, run_words

from tracka.checkpoints import checkpoint, contained_files, hub_dependencies
from tracka.core import files
from tracka.core.errors import TrackaError

OUTSIDE = ("../stats.safetensors", "/tmp/stats.safetensors", "a/../../stats", "..", "file:///x", "https://h/x", "..\\x")
NO_NAMES = (*OUTSIDE, "~/x", "sub/x", "", ".", "a\\b", 7, ["x"], {"x": 1}, True, "C:x")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A checkpoint, with statistics beside its folder that lerobot would follow."""
    fake_checkpoint(tmp_path / "policy")
    (tmp_path / "stats.safetensors").write_bytes((tmp_path / "policy" / "model.safetensors").read_bytes())
    return tmp_path / "policy"


def name_state_file(policy: Path, name: object, file: str = "policy_preprocessor.json") -> None:
    steps = [{"registry_name": "rename_observations_processor", "config": {}}, {"state_file": name, "config": {}}]
    files.write_json(policy / file, {"steps": steps})


def refused(policy: Path) -> str:
    with pytest.raises(TrackaError) as caught:
        checkpoint.resolve(str(policy), policy.parent)
    return str(caught.value)


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_a_state_file_that_is_no_plain_name_is_refused_with_its_key(policy: Path, name: object) -> None:
    name_state_file(policy, name, "policy_postprocessor.json")
    said = refused(policy)
    assert "policy_postprocessor.json, key steps[1].state_file" in said and "not a plain name" in said


def test_a_state_file_of_the_folder_is_taken(policy: Path) -> None:
    (policy / "stats.safetensors").write_bytes((policy / "model.safetensors").read_bytes())
    name_state_file(policy, "stats.safetensors")
    before = checkpoint.resolve(str(policy), policy.parent).tree_sha256
    (policy / "stats.safetensors").write_bytes((3).to_bytes(8, "little") + b"{} ")
    assert checkpoint.resolve(str(policy), policy.parent).tree_sha256 != before


def test_a_row_whose_checkpoint_names_a_file_elsewhere_starts_nothing(ready: Made) -> None:
    name_state_file(ready.root / "checkpoints" / "fake", "../stats.safetensors")
    ended = ready.call(*run_words(ready))
    assert (ended.returncode, ready.started()) != (0, ["long_b1_e6"]) and ready.started() == []
    assert "steps[1].state_file" in ended.stderr + ended.stdout


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_of_weights_names_files_beside_it_alone(policy: Path, name: str) -> None:
    files.write_json(policy / "model.safetensors.index.json", {"weight_map": {"a": "model.safetensors", "b": name}})
    assert "key weight_map" in refused(policy)


@pytest.mark.parametrize("value", ["/tmp/vocab.json", "vocab.json", ["../tokenizer.4.json"]], ids=repr)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "tokenizer/Tokenizer_Config.json"])
def test_a_tokenizer_does_not_name_its_own_files(policy: Path, file: str, value: object) -> None:
    files.write_json(policy / file, {"vocab_files" if isinstance(value, list) else "vocab_file": value})
    assert f"{file}, key vocab_file" in refused(policy)


def test_what_tokenizers_of_the_hub_say_is_taken(policy: Path) -> None:
    harmless = {"tokenizer_file": None, "special_tokens_map_file": "/old", "fast_tokenizer_files": ["tokenizer.4.json"]}
    files.write_json(policy / "tokenizer_config.json", harmless)
    assert list(contained_files.findings(policy)) == []


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), "outside of the folder"),
        (lambda path: path.symlink_to(path.parent.parent, target_is_directory=True), "a link to the folder"),
        (lambda path: path.symlink_to(path.parent, target_is_directory=True), "a link to the folder"),
        (lambda path: path.symlink_to(path), "in a circle"),
        (os.mkfifo, "a named pipe"),
        (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "1099511627776 bytes"),
    ],
)
def test_links_pipes_and_giants_are_refused_before_anything_is_hashed(
    policy: Path, plant: Callable[[Path], object], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(policy / "extra.txt")
    monkeypatch.setattr("tracka.core.hashing.of_tree", lambda folder: pytest.fail("the folder was hashed"))
    said = refused(policy)
    assert "extra.txt" in said and what in said


def test_a_tokenizer_behind_such_a_link_is_refused(ready: Made) -> None:
    files.write_text(ready.root / "tokenizers" / "x" / "tokenizer.json", "{}")
    (ready.root / "tokenizers" / "x" / "out.json").symlink_to("/etc/hostname")
    step = {"registry_name": "tokenizer_processor", "config": {"tokenizer_name": "tokenizers/x"}}
    files.write_json(ready.root / "checkpoints" / "fake" / "policy_preprocessor.json", {"steps": [step]})
    point = checkpoint.resolve("checkpoints/fake", ready.root)
    (finding,) = hub_dependencies.faults(point, ready.spec, [ready.spec.defaults])
    assert "outside of the folder" in finding.what


@pytest.mark.parametrize("value", ["org/model", "/tmp/x", "../x", "~x", "a\\b", "https://h/x"])
@pytest.mark.parametrize(("file", "key"), [("config.json", "checkpoint_path"), ("adapter_config.json", "other")])
def test_a_name_of_something_that_nobody_hashes_is_refused_and_trusted_by_its_key(
    policy: Path, file: str, key: str, value: str
) -> None:
    files.write_json(policy / file, {"type": "act", key: value})
    (finding,) = hub_dependencies.own_faults(policy, ())
    assert finding.where == f"{policy / file}, key {key}" and f'trusted = ["{file}:{key}"]' in finding.remedy
    assert list(hub_dependencies.own_faults(policy, (f"{file}:{key}",))) == []


def test_a_name_that_is_hashed_or_that_nothing_loads_is_taken(policy: Path) -> None:
    known = {"vlm_model_name": "org/vlm", "repo_id": "me/policy", "pretrained_path": "/srv/me/run"}
    files.write_json(policy / "config.json", {"type": "smolvla", **known})
    assert list(hub_dependencies.own_faults(policy, ())) == []
    files.write_json(policy / "config.json", {"type": "act", "vlm_model_name": "org/vlm"})
    assert len(list(hub_dependencies.own_faults(policy, ()))) == 1
