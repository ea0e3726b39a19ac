"""Where artifacts are written and policies lie: behind no link, in nobody else's reach, else refused with a remedy."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import campaigns
import pytest
from campaigns import REPOSITORY, Made, run_words

from tracka.campaign import matrix, path_safety, write_access
from tracka.campaign.layout import Layout
from tracka.checkpoints import checkpoint
from tracka.core import files
from tracka.core.errors import TrackaError, UsageError

LINKS = {  # those that can be there together
    "folders": (
        "artifacts/runs",
        "artifacts/state",
        "artifacts/summary",
        "artifacts/preflight/render_egl.log",
        "plan.md",
        "todo",
    ),
    "row": ("artifacts/runs/long_b1_e6", "artifacts/state/rows"),
    "files": (
        "artifacts/runs/long_b1_e6/attempts",
        "artifacts/runs/long_b1_e6/stdout.log",
        "artifacts/state/rows/long_b1_e6.json",
    ),
    "attempt": ("artifacts/runs/long_b1_e6/attempts/1",),
}
IN_THE_WAY_OF_A_ROW = [
    "artifacts/runs",
    "artifacts/runs/long_b1_e6",
    "artifacts/runs/long_b1_e6/attempts",
    "artifacts/runs/long_b1_e6/attempts/1",
    "artifacts/runs/long_b1_e6/stdout.log",
    "artifacts/state",
]
ROW = ["long_b1_e6", "libero_object", "1", "6", "cpu", "7", "egl", "checkpoints/fake", "1"]
BAD_IDS = [
    *(
        "../x",
        "/etc",
        "a/b",
        "a\\b",
        ".",
        "..",
        ".hidden",
        "-x",
        "a\n",
        "a\x00",
        " a",
        "a ",
        "",
        "x" * 300,
        "\uff41",
        "\u0430",
        "é",
    ),
    *("a\u202eb", "a\u200b", "~", "$(x)", "a;b", "a|b", "*", "%2e%2e"),
]


def link(made: Made, name: str) -> Path:
    """Puts a link in the place of what `name` is in the campaign, and returns the folder that it points at."""
    elsewhere = made.root.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    path = made.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(path.with_name("moved.away"))
    path.symlink_to(elsewhere if not path.suffix else elsewhere / path.name)
    return elsewhere


# links


@pytest.mark.parametrize("names", LINKS.values(), ids=LINKS)
def test_a_session_refuses_a_link_below_artifacts_and_writes_nothing_through_it(
    made: Made, names: Sequence[str]
) -> None:
    (elsewhere,) = {link(made, name) for name in names}
    ended = made.pytest("-n0")
    assert ended.returncode == 4
    said = ended.stderr.splitlines()
    for name in names:
        assert sum(f"{made.root / name}: it is a link to {elsewhere}" in line for line in said) == 1, name
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", IN_THE_WAY_OF_A_ROW)
def test_a_row_refuses_a_link_in_its_way(ready: Made, name: str) -> None:
    elsewhere = link(ready, name)
    ended = ready.call(*run_words(ready))
    assert (ended.returncode, "is a link to" in ended.stderr) == (2, True), ended.stderr
    assert list(elsewhere.iterdir()) == []
    assert ready.started() == []


def test_a_sweep_and_a_preflight_refuse_links_too(made: Made) -> None:
    link(made, "artifacts/preflight")
    for ended in (made.tracka(*made.sweep_words()), made.call(*made.preflight_words())):
        assert (ended.returncode, "is a link to" in ended.stderr) == (2, True), ended.stderr


def test_the_artifacts_folder_itself_may_be_a_link_to_a_larger_disk(made: Made) -> None:
    link(made, "artifacts")
    path_safety.require(made.layout)


def test_what_an_evaluation_links_in_its_own_folder_is_its_business(made: Made) -> None:
    link(made, "artifacts/runs/long_b1_e6/attempts/1/eval/last")
    path_safety.require(made.layout)


# the folder of the TODO pages


BAD_TODO_FOLDERS = {
    "../../../todo": "is outside of",
    "/etc": "is outside of",
    "artifacts/todo": "is in the campaign's artifacts",
    "configs": "is in the campaign's configs",
    "../other": "is in another campaign",
    "../other/artifacts": "is in another campaign",
    "../../link": "is a link to",
    "../../link/todo": "is a link to",
    "../../open": "every user may write to",
    "../../open/new": "every user may write to",
    "../../pytest.ini": "is not a folder",
    "../../pytest.ini/todo": "is not a folder",
}


@pytest.fixture
def in_project(tmp_path: Path) -> Made:
    """A campaign in a project with another campaign, a link, a folder that everybody may write to and a todo folder."""
    project = tmp_path / "project"
    for name in ("elsewhere", "project/open", "project/todo"):
        (tmp_path / name).mkdir(parents=True)
    (project / "pytest.ini").touch()
    (project / "link").symlink_to(tmp_path / "elsewhere")
    (project / "open").chmod(0o777)
    files.write_text(project / "tasks" / "other" / "configs" / "campaign.toml", "")
    return campaigns.make(project / "tasks" / "mine")


@pytest.mark.parametrize(("name", "what"), BAD_TODO_FOLDERS.items(), ids=[name[:25] for name in BAD_TODO_FOLDERS])
def test_a_todo_folder_where_pages_must_not_be_written_is_refused(in_project: Made, name: str, what: str) -> None:
    in_project.configure(f"[progress]\ntodo = '{name}'")
    with pytest.raises(UsageError) as caught:
        path_safety.require(in_project.spec.layout)
    (finding,) = caught.value.findings
    assert finding.where == f"{in_project.layout.settings}, key progress.todo" and what in finding.what
    assert finding.remedy


@pytest.mark.parametrize("name", ["todo", ".", "pages/todo", "../../todo", "../../new/todo", "../other/todo", "../.."])
def test_any_other_folder_of_the_project_may_have_the_todo_pages(in_project: Made, name: str) -> None:
    in_project.configure(f"[progress]\ntodo = '{name}'")
    path_safety.require(in_project.spec.layout)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_todo_folder_of_another_user_is_refused_unless_the_campaign_is_that_users_too(in_project: Made) -> None:
    in_project.configure("[progress]\ntodo = '../../todo'")
    os.chown(in_project.spec.layout.todo_folder, 12345, 12345)
    with pytest.raises(UsageError, match=r"belongs to another user \(uid 12345\)"):
        path_safety.require(in_project.spec.layout)
    os.chown(in_project.root, 12345, 12345)
    path_safety.require(in_project.spec.layout)


def test_a_campaign_whose_page_would_be_another_page_is_refused(in_project: Made) -> None:
    for name, todo in {"TODO": "todo", "plan": "."}.items():
        renamed = Layout(in_project.root.with_name(name), todo_name=todo)
        in_project.layout.root.rename(renamed.root)
        with pytest.raises(UsageError, match="would be two pages in one"):
            path_safety.require(renamed)
        renamed.root.rename(in_project.root)


def test_a_bad_todo_folder_ends_a_session_and_the_commands_before_anything_starts(in_project: Made) -> None:
    in_project.configure("[progress]\ntodo = '../../link'")
    before = campaigns.contents(in_project.root)
    ended = in_project.pytest("-n0")
    assert ended.returncode == 4 and "campaign.toml, key progress.todo: " in ended.stderr
    for words in (run_words(in_project), in_project.sweep_words()):
        refused = in_project.call(*words)
        assert refused.returncode == 2 and "campaign.toml, key progress.todo: " in refused.stderr
    assert campaigns.contents(in_project.root) == before and in_project.started() == []


# permissions


def test_artifacts_where_everybody_may_write_are_refused(made: Made) -> None:
    made.layout.artifacts.mkdir()
    made.layout.artifacts.chmod(0o777)
    ended = made.pytest("-n0")
    assert ended.returncode == 4
    assert (
        f"every user may write to this folder. Name a folder of your own, or run `chmod o-w {made.layout.artifacts}`"
        in ended.stderr
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_artifacts_of_another_user_are_refused(made: Made) -> None:
    made.layout.artifacts.mkdir()
    os.chown(made.layout.artifacts, 12345, 12345)
    with pytest.raises(UsageError, match=r"the folder belongs to another user \(uid 12345\). Run as that user"):
        path_safety.require(made.layout)


@pytest.mark.parametrize("name", ["configs", "configs/campaign.toml", "configs/eval_matrix.csv", "."])
def test_settings_that_everybody_may_change_are_refused_with_the_command_that_mends_it(made: Made, name: str) -> None:
    path = made.root / name
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(
        UsageError, match="every user may change the campaign's settings, which name programs"
    ) as refused:
        path_safety.require(made.layout)
    assert refused.value.findings[0].remedy == f"Run `chmod go-w {path}`"
    path.chmod(path.stat().st_mode & ~0o022)
    path_safety.require(made.layout)


def test_a_device_in_the_place_of_settings_is_called_so_and_nobody_is_told_to_change_its_mode(made: Made) -> None:
    made.layout.settings.unlink()
    made.layout.settings.symlink_to("/dev/zero")
    ended = made.call(*made.sweep_words())
    assert (ended.returncode, "a device" in ended.stderr, "chmod" in ended.stderr) == (2, True, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another group")
@pytest.mark.parametrize("name", ["configs", "configs/campaign.toml", "."])
def test_settings_that_a_group_may_change_are_refused_unless_it_is_the_owners_own(made: Made, name: str) -> None:
    path = made.root / name
    path.chmod(path.stat().st_mode | 0o020)
    path_safety.require(made.layout)  # root's own group
    os.chown(path, 0, 12345)
    with pytest.raises(UsageError, match="the group 12345 may change the campaign's settings"):
        path_safety.require(made.layout)
    assert made.call(*made.sweep_words()).returncode == 2 and made.started() == []


def test_a_session_on_settings_that_others_may_change_starts_nothing(made: Made) -> None:
    made.layout.settings.chmod(0o666)
    ended = made.pytest("-n0")
    assert (ended.returncode, f"chmod go-w {made.layout.settings}" in ended.stderr) == (4, True)
    assert not made.layout.artifacts.exists()


def test_a_folder_above_that_is_open_to_all_is_safe_with_the_sticky_bit_alone(made: Made) -> None:
    made.root.parent.chmod(0o1777)
    path_safety.require(made.layout)
    made.root.parent.chmod(0o777)
    with pytest.raises(UsageError, match="every user may change"):
        path_safety.require(made.layout)
    made.root.parent.chmod(0o700)


def test_settings_behind_a_link_are_judged_by_where_they_are(made: Made) -> None:
    shared = made.root.parent / "shared"
    shared.mkdir()
    made.layout.settings.rename(shared / "campaign.toml")
    made.layout.settings.symlink_to(shared / "campaign.toml")
    path_safety.require(made.layout)
    shared.chmod(0o777)
    with pytest.raises(UsageError, match=f"write access to {shared}"):
        path_safety.require(made.layout)


@pytest.mark.parametrize(
    ("user", "group", "own"),
    [
        (("ann", 7, 7), ("ann", []), True),
        (("ann", 7, 7), ("ann", ["ann"]), True),
        (("ann", 7, 7), ("ann", ["ann", "bob"]), False),
        (("ann", 7, 100), ("users", []), False),
        (("ann", 7, 100), ("ann", []), True),
        (None, None, True),
    ],
)
def test_a_group_is_the_owners_own_by_its_name_and_members(
    monkeypatch: pytest.MonkeyPatch, user: tuple[str, int, int] | None, group: tuple[str, list[str]] | None, own: bool
) -> None:
    def user_of(uid: int) -> SimpleNamespace:
        if user is None:
            raise KeyError(uid)
        return SimpleNamespace(pw_name=user[0], pw_gid=user[2])

    def group_of(gid: int) -> SimpleNamespace:
        assert group is not None
        return SimpleNamespace(gr_name=group[0], gr_mem=group[1])

    monkeypatch.setattr("pwd.getpwuid", user_of)
    monkeypatch.setattr("grp.getgrgid", group_of)
    assert write_access.is_own_group(7, user[2] if user else 7) is own


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_policy_that_everybody_may_change_runs_only_from_a_trusted_place(
    tmp_path: Path, made: Made, name: str
) -> None:
    folder = made.root / "checkpoints" / "fake"
    (folder / name).chmod(0o777)
    with pytest.raises(TrackaError, match=r"everybody may change the policy.*policy_roots"):
        checkpoint.resolve("checkpoints/fake", made.root)
    made.configure(f"[security]\npolicy_roots = ['{made.root}']")
    assert checkpoint.resolve("checkpoints/fake", made.root, made.spec.policy_roots).policy_type == "act"


def test_a_policy_behind_a_link_is_judged_by_where_it_is(made: Made) -> None:
    open_to_all = made.root.parent / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (made.root / "checkpoints" / "fake").rename(open_to_all / "fake")
    (made.root / "checkpoints" / "fake").symlink_to(open_to_all / "fake")
    with pytest.raises(TrackaError, match="every user may write to"):
        checkpoint.resolve("checkpoints/fake", made.root)
    open_to_all.chmod(0o1777)  # as /tmp is: everybody has his own there
    assert checkpoint.resolve("checkpoints/fake", made.root).policy_type == "act"


# run ids


@pytest.mark.parametrize("run_id", BAD_IDS)
def test_a_run_id_that_is_no_plain_name_is_refused(run_id: str) -> None:
    with pytest.raises(UsageError, match="is not a run id"):
        matrix.parse([run_id, *ROW[1:]], "command line")


def test_two_run_ids_that_differ_in_case_alone_are_refused(made: Made) -> None:
    with made.layout.matrix.open("a") as file:
        file.write(",".join(["LONG_b1_e6", *ROW[1:]]) + "\n")
    with pytest.raises(UsageError, match="is on line 3 already"):
        matrix.load(made.layout.matrix)


@pytest.mark.parametrize("seed", range(10))
def test_no_run_id_that_is_taken_leads_out_of_the_runs_folder(seed: int) -> None:
    source, layout = random.Random(seed), Layout(REPOSITORY)
    taken = 0
    for _ in range(3000):
        run_id = "".join(source.choices("a9._-/\\.\n\x00 ~é", k=source.randint(1, 6)))
        try:
            matrix.parse([run_id, *ROW[1:]], "command line")
        except UsageError:
            continue
        taken += 1
        for path in (layout.run(run_id).path, layout.marker(run_id), layout.locks / f"{run_id}.lock"):
            assert Path(os.path.normpath(path)) == path
            assert path.parent in (layout.runs, layout.rows, layout.locks)
    assert taken


@pytest.mark.parametrize("run_id", ["../x", "a/b", "x" * 300])
def test_the_command_line_refuses_such_run_ids_too(made: Made, run_id: str) -> None:
    assert made.call(*run_words(made, run_id=run_id)).returncode == 2
    assert made.call(*made.sweep_words("--rows", run_id)).returncode == 2
    assert not made.layout.artifacts.exists()
