"""What git says of a folder, and of a lerobot that is installed from one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from campaigns import Made

from tracka.core import errors, files, git
from tracka.core.lerobot_facts import LEROBOT_VERSION
from tracka.engines import software
from tracka.preflight import preflight

IDENTITY = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false")


def run_git(folder: Path, *words: str) -> str:
    """Runs git in `folder` with settings of nobody's; returns what it prints."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    ended = subprocess.run(["git", *IDENTITY, *words], cwd=folder, env=environ, capture_output=True, check=True)
    return ended.stdout.decode().strip()


def make_repository(folder: Path) -> Path:
    """A repository with one file in one commit."""
    files.write_text(folder / "code.py", "x = 1\n")
    files.write_text(folder / ".gitignore", "*.log\n")
    run_git(folder, "init", "--quiet")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "--quiet", "--message", "first")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


# a folder


def test_the_commit_is_that_of_the_repository_around_the_folder(repository: Path) -> None:
    (repository / "deeper").mkdir()
    head = run_git(repository, "rev-parse", "HEAD")
    assert len(head) == 40
    assert git.commit(repository) == git.commit(repository / "deeper") == head


def test_a_new_commit_is_a_new_answer(repository: Path) -> None:
    first = git.commit(repository)
    run_git(repository, "commit", "--quiet", "--allow-empty", "--message", "second")
    assert git.commit(repository) == run_git(repository, "rev-parse", "HEAD") != first


@pytest.mark.parametrize("folder", ["plain", "absent", "file"])
def test_a_place_without_a_repository_has_no_state_and_is_no_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()
    assert git.state(tmp_path / folder) == {"commit": None, "dirty": None, "remote": None}
    assert git.revision(tmp_path / folder) == "unknown"


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet")
    assert git.commit(tmp_path) is None
    assert git.state(tmp_path)["dirty"] is False
    assert git.revision(tmp_path) == "unknown"


def test_a_machine_without_git_has_no_answer_and_no_error(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert git.state(repository) == {"commit": None, "dirty": None, "remote": None}


def test_a_git_that_does_not_end_has_no_answer_and_no_error(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", hang)
    assert git.commit(repository) is None


def test_a_tree_is_dirty_by_an_edit_a_new_file_or_a_lost_one_and_not_by_an_ignored_one(repository: Path) -> None:
    assert git.state(repository)["dirty"] is False
    (repository / "run.log").touch()
    assert git.state(repository)["dirty"] is False
    (repository / "new.py").touch()
    assert git.state(repository)["dirty"] is True
    (repository / "new.py").unlink()
    (repository / "code.py").write_text("x = 2\n")
    assert git.state(repository)["dirty"] is True
    (repository / "code.py").unlink()
    assert git.state(repository)["dirty"] is True
    run_git(repository, "checkout", "--", "code.py")
    assert git.state(repository)["dirty"] is False


def test_the_remote_is_told_without_its_password(repository: Path) -> None:
    assert git.state(repository)["remote"] is None
    run_git(repository, "remote", "add", "origin", "https://user:sesame@host/team/repository.git")
    assert git.state(repository)["remote"] == "https://host/team/repository.git"


def test_a_revision_is_the_short_commit_and_whether_files_differ(repository: Path) -> None:
    head = run_git(repository, "rev-parse", "HEAD")
    assert git.revision(repository) == head[:12]
    (repository / "code.py").write_text("x = 2\n")
    assert git.revision(repository) == f"{head[:12]}.dirty"


def test_a_hook_of_another_repository_does_not_change_the_answer(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repository(tmp_path / "other")
    run_git(other, "commit", "--quiet", "--allow-empty", "--message", "second")
    head = run_git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as git does for its hooks
    assert git.commit(repository) == head


# a lerobot that is installed from a checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "my lerobot")


def install(site: Path, origin: files.Json | None, version: str = LEROBOT_VERSION) -> None:
    """Puts a lerobot into the folder `site` as far as its metadata go; `origin` says where pip had it from."""
    folder = site / f"lerobot-{version}.dist-info"
    files.write_text(folder / "METADATA", f"Metadata-Version: 2.1\nName: lerobot\nVersion: {version}\n")
    if origin:
        files.write_json(folder / "direct_url.json", origin)


def editable(folder: Path) -> files.Json:
    return {"url": folder.as_uri(), "dir_info": {"editable": True}}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages come before the installed ones, here and in child processes."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_the_version_of_an_editable_lerobot_names_its_commit_and_whether_it_was_edited(
    site: Path, checkout: Path
) -> None:
    install(site, editable(checkout))
    assert "%20" in checkout.as_uri()
    head = run_git(checkout, "rev-parse", "HEAD")
    assert software.versions()["lerobot"] == f"{LEROBOT_VERSION}+{head[:12]}"
    (checkout / "code.py").write_text("x = 2\n")
    assert software.versions()["lerobot"] == f"{LEROBOT_VERSION}+{head[:12]}.dirty"


def test_an_editable_lerobot_outside_a_repository_says_that_its_commit_is_unknown(site: Path, checkout: Path) -> None:
    install(site, editable(checkout))
    shutil.rmtree(checkout / ".git")
    assert software.versions()["lerobot"] == f"{LEROBOT_VERSION}+unknown"


@pytest.mark.parametrize("origin", [None, {"url": "file:///wheels/lerobot.whl", "archive_info": {}}])
def test_the_version_of_a_lerobot_from_a_wheel_is_its_version_alone(site: Path, origin: files.Json | None) -> None:
    install(site, origin)
    assert software.versions()["lerobot"] == LEROBOT_VERSION


def test_a_package_that_is_missing_is_said_to_be() -> None:
    assert software.versions(["no-such-package"]) == {"no-such-package": "missing"}


def test_a_row_that_passed_before_lerobot_was_edited_is_refused(site: Path, checkout: Path, ready: Made) -> None:
    install(site, editable(checkout))
    assert ready.run_row("long_b1_e6")["status"] == "pass"
    manifest = files.read_json(ready.layout.run("long_b1_e6").manifest)
    assert manifest["versions"]["lerobot"] == f"{LEROBOT_VERSION}+{git.revision(checkout)}"
    (checkout / "code.py").write_text("x = 2\n")
    with pytest.raises(errors.ChangedRun):
        ready.run_row("long_b1_e6")
    assert ready.started() == ["long_b1_e6"]


@pytest.mark.parametrize(
    ("version", "status"), [(LEROBOT_VERSION, "pass"), (f"{LEROBOT_VERSION}0", "fail"), ("0.4.0", "fail")]
)
def test_preflight_compares_the_version_of_an_editable_lerobot_without_its_commit(
    site: Path, checkout: Path, made: Made, monkeypatch: pytest.MonkeyPatch, version: str, status: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    install(site, editable(checkout), version)
    report = preflight.run_preflight(preflight.config_of(made.spec))
    [check] = [check for check in report["checks"] if check["name"] == "version:lerobot"]
    said = f"{version}+{git.revision(checkout)}, pinned {LEROBOT_VERSION}"
    assert (check["status"], check["evidence"]) == (status, said)
