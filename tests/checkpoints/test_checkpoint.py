"""Checkpoints: from the matrix's word to a local folder with a hash of all that is in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hub
import pytest
from campaigns import REPOSITORY, fake_checkpoint

from tracka.checkpoints import checkpoint, hub_dependencies
from tracka.core import files, user_cache
from tracka.core.errors import TrackaError

FILES = {
    "config.json": b'{"type": "act"}',
    "model.safetensors": b"no weights",
    "policy_preprocessor.json": b'{"steps": []}',
    "policy_postprocessor.json": b'{"steps": [], "name": "policy_postprocessor"}',
}
# The client reads its environment once, when it is imported, so each call has a process of its own.
RESOLVE = """
import json, sys
from pathlib import Path
from tracka.checkpoints import checkpoint
from tracka.core.errors import TrackaError
try:
    found = checkpoint.resolve(sys.argv[1], Path(sys.argv[2]))
    said = {"folder": str(found.folder), "revision": found.revision, "tree": found.tree_sha256, "source": found.source}
except TrackaError as error:
    said = {"findings": [[finding.where, finding.what, finding.remedy] for finding in error.findings]}
print(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A campaign's folder with a checkpoint in checkpoints/p."""
    fake_checkpoint(tmp_path / "campaign" / "checkpoints" / "p")
    return tmp_path / "campaign" / "checkpoints" / "p"


def tree(point: Path) -> str:
    return checkpoint.resolve(str(point), point.parent.parent).tree_sha256


# folders


@pytest.mark.parametrize("word", ["checkpoints/p", "./checkpoints/p", "checkpoints/../checkpoints/p/"])
def test_a_folder_is_taken_from_the_campaign(point: Path, word: str) -> None:
    found = checkpoint.resolve(word, point.parent.parent)
    assert (found.source, found.revision, found.folder, found.policy_type) == (word, None, point, "act")


def test_an_absolute_folder_and_one_at_home_are_taken_as_they_are(
    point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(point.parent))
    assert checkpoint.resolve(str(point), tmp_path).folder == point
    assert checkpoint.resolve("~/p", tmp_path).folder == point


def test_a_folder_of_the_campaign_stands_over_a_repository_of_that_name(tmp_path: Path) -> None:
    fake_checkpoint(tmp_path / "org" / "policy")
    assert checkpoint.resolve("org/policy", tmp_path).folder == tmp_path / "org" / "policy"


@pytest.mark.parametrize(
    "word", ["checkpoints/none", "./none", "../none", "/none/at/all", "none", "a/b/c", "org/policy@", "~nobody-here/p"]
)
def test_what_is_neither_a_folder_nor_a_repository_is_refused_by_name(tmp_path: Path, word: str) -> None:
    with pytest.raises(TrackaError) as caught:
        checkpoint.resolve(word, tmp_path)
    (finding,) = caught.value.findings
    assert finding.where == word
    assert "there is no folder" in finding.what
    assert finding.remedy


def test_all_missing_files_are_named_at_once(point: Path) -> None:
    for name in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
        (point / name).unlink()
    with pytest.raises(TrackaError) as caught:
        tree(point)
    assert [finding.where for finding in caught.value.findings] == [
        str(point / name) for name in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json")
    ]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"type": 7}'])
def test_a_config_that_names_no_policy_type_is_refused_by_name(point: Path, content: bytes) -> None:
    (point / "config.json").write_bytes(content)
    with pytest.raises(TrackaError, match=r"checkpoints/p/config\.json"):
        tree(point)


# the hash


def test_the_hash_changes_with_any_content_and_any_path(point: Path) -> None:
    hashes = [tree(point)]
    (point / "model.safetensors").write_bytes(b"some weights")
    hashes.append(tree(point))
    files.write_text(point / "extra" / "a.txt", "more")
    hashes.append(tree(point))
    (point / "extra").rename(point / "other")
    hashes.append(tree(point))
    (point / "other" / "a.txt").rename(point / "other" / "b.txt")
    hashes.append(tree(point))
    assert len(set(hashes)) == 5


def test_the_hash_does_not_change_with_times_modes_and_places(point: Path, tmp_path: Path) -> None:
    before = tree(point)
    os.utime(point / "model.safetensors", (1, 1))
    (point / "config.json").chmod(0o444)
    assert tree(point) == before
    shutil.copytree(point, tmp_path / "elsewhere")
    assert tree(tmp_path / "elsewhere") == before


def test_a_link_counts_as_the_file_that_it_names(point: Path) -> None:
    before = tree(point)
    shutil.copy(point / "config.json", point / "again.json")
    with_copy = tree(point)
    (point / "again.json").unlink()
    (point / "again.json").symlink_to("config.json")
    assert tree(point) == with_copy != before


def test_the_second_time_no_content_is_read(point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(point)
    monkeypatch.setattr("tracka.core.files.sha256_file", lambda path: "0" * 64)
    assert tree(point) == before
    shutil.rmtree(user_cache.folder())
    assert tree(point) != before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"model.safetensors": {}}', b'{"of": 1, "sha256": 2}'])
def test_a_damaged_cache_is_made_anew(point: Path, content: bytes) -> None:
    before = tree(point)
    (kept,) = (user_cache.folder() / "trees").iterdir()
    kept.write_bytes(content)
    assert tree(point) == before


# tokenizers


def test_the_tokenizers_of_the_processors_are_named_once(point: Path) -> None:
    steps: list[Any] = [{"config": {"tokenizer_name": "org/words"}}] * 2 + [{"config": {}}, {}, "odd"]
    files.write_json(point / "policy_preprocessor.json", {"steps": steps})
    found = hub_dependencies.named_dependencies(checkpoint.resolve(str(point), point))
    assert [(each.kind, each.name) for each in found] == [("tokenizer", "org/words")]


# the hub


def resolve(word: str, folder: Path, **environ: str) -> dict[str, Any]:
    """What `checkpoint.resolve` says with the hub's real client, whose cache is in `folder`."""
    home = {"HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", RESOLVE, word, str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, **home, **environ},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def snapshot(folder: Path, commit: str, names: tuple[str, ...] = tuple(FILES), ref: str = "main") -> Path:
    """A snapshot of org/policy in the client's cache, as an earlier download leaves it."""
    cached = folder / "hf" / "hub" / "models--org--policy"
    for name in names:
        files.write_atomic(cached / "snapshots" / commit / name, FILES[name])
    files.write_text(cached / "refs" / ref, commit)
    return cached / "snapshots" / commit


def test_a_repository_in_the_cache_needs_no_network(tmp_path: Path) -> None:
    place = snapshot(tmp_path, "a" * 40)
    found = resolve("org/policy", tmp_path, HF_HUB_OFFLINE="1")
    assert (found["folder"], found["revision"], found["source"]) == (str(place), "a" * 40, "org/policy")


def test_a_revision_is_a_commit_or_a_tag(tmp_path: Path) -> None:
    first, second = snapshot(tmp_path, "a" * 40), snapshot(tmp_path, "b" * 40, ref="v2")
    assert resolve("org/policy@v2", tmp_path, HF_HUB_OFFLINE="1")["folder"] == str(second)
    assert resolve(f"org/policy@{'a' * 40}", tmp_path, HF_HUB_OFFLINE="1")["folder"] == str(first)


def test_a_repository_and_a_folder_with_the_same_files_have_the_same_hash(point: Path, tmp_path: Path) -> None:
    place = snapshot(tmp_path, "a" * 40)
    shutil.copytree(place, point, dirs_exist_ok=True)
    assert resolve("org/policy", tmp_path, HF_HUB_OFFLINE="1")["tree"] == tree(point)


@pytest.mark.parametrize("word", ["org/policy", "org/policy@v9", f"org/policy@{'d' * 40}"])
def test_offline_and_not_cached_is_one_finding_with_the_way_out(tmp_path: Path, word: str) -> None:
    ((where, what, remedy),) = resolve(word, tmp_path, HF_HUB_OFFLINE="1")["findings"]
    assert where == "hub repository org/policy"
    said = "the repository is not in the cache, and HF_HUB_OFFLINE is set, so the hub is not asked"
    assert what == f"{said}; and there is no folder {tmp_path / word}"
    assert "hf download org/policy" in remedy
    assert "copy the repository here and give its folder as policy_path" in remedy


def test_the_download_that_a_remedy_names_is_of_the_revision_that_is_missing(tmp_path: Path) -> None:
    snapshot(tmp_path, "a" * 40)
    ((_, _, remedy),) = resolve("org/policy@v9", tmp_path, HF_HUB_OFFLINE="1")["findings"]
    assert "hf download org/policy --revision v9" in remedy


def test_a_hub_that_cannot_be_reached_is_one_finding(tmp_path: Path) -> None:
    ((where, what, _),) = resolve("org/policy", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")["findings"]
    assert where == "hub repository org/policy"
    assert what.startswith("the repository is not in the cache, and the hub cannot be reached (")


def test_a_repository_that_is_not_cached_is_downloaded_once(tmp_path: Path) -> None:
    with hub.serve(FILES) as served:
        found = resolve("org/policy@main", tmp_path, HF_ENDPOINT=served.address)
        assert found["revision"] == hub.COMMIT
        assert sorted(served.downloads) == sorted(FILES)
        resolve("org/policy@main", tmp_path, HF_ENDPOINT=served.address)
        assert len(served.downloads) == len(FILES)


def test_a_repository_of_which_a_part_is_cached_is_completed(tmp_path: Path) -> None:
    """Whatever asked for the config alone, such as lerobot's own loading, leaves a snapshot of one file."""
    snapshot(tmp_path, hub.COMMIT, ("config.json",))
    with hub.serve(FILES) as served:
        found = resolve("org/policy", tmp_path, HF_ENDPOINT=served.address)
    assert found.get("revision") == hub.COMMIT, found


def test_offline_a_repository_of_which_a_part_is_cached_is_to_be_downloaded(tmp_path: Path) -> None:
    snapshot(tmp_path, "a" * 40, ("config.json",))
    findings = resolve("org/policy", tmp_path, HF_HUB_OFFLINE="1")["findings"]
    assert any("hf download org/policy" in remedy for _, _, remedy in findings), findings


def test_a_repository_that_is_complete_and_no_policy_of_lerobot_06_is_named_by_its_missing_files(
    tmp_path: Path,
) -> None:
    with hub.serve({"config.json": FILES["config.json"], "model.safetensors": b"w"}) as served:
        findings = resolve("org/policy", tmp_path, HF_ENDPOINT=served.address)["findings"]
    assert [Path(where).name for where, _, _ in findings] == ["policy_preprocessor.json", "policy_postprocessor.json"]
