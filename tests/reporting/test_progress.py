"""plan.md and todo/: boxes follow the handoffs, lines are only added, TODO.md comes last."""

import hashlib
import re
import shlex
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made, judged

from tracka.campaign import campaign
from tracka.campaign.layout import PHASES, Layout
from tracka.core import files, lock
from tracka.core.errors import Finding
from tracka.gates import handoff, validate
from tracka.reporting import checklist, progress

PI0 = "20260210-track-a-lerobot-pi0-libero"
SECTIONS_OF_THE_PLAN = [
    "Goal",
    "Implementation Phases",
    "File-Level Change Map",
    "Interface Contracts",
    "Testing Strategy",
    "Risk Register",
    "Acceptance Criteria",
    "Progress Tracking",
    "Progress",
]
LAST_LINE_OF_THE_USER = f"rerun commands from `tasks/{PI0}/runbook.md`.\n".encode()
SHA256_OF_THE_USERS_TEXT = "0faacd670ab227657a9592fc90eac2632ee348260edfcca22002e57bbe27d082"  # with all boxes cleared
TEMPLATE = re.compile(
    r"- \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \| phase=phase[1-5] \| owner=[^|]+ \| status=(pass|blocked|partial)"
    r" \| marker=\S+phase[1-5]_handoff\.json \| next=[^|]+"
)


def lines(page: Path) -> list[str]:
    """The progress lines of a page, as `phase status`."""
    return [f"{found['phase']} {found['status']}" for found in progress.LINE.finditer(page.read_text())]


def progress_lines(page: Path) -> list[str]:
    """The progress lines of a page as they are."""
    return [line for line in page.read_text().splitlines() if progress.LINE.match(line)]


def boxes(page: Path) -> str:
    """The boxes of a page, one letter each: x or a blank."""
    return "".join(re.findall(r"^- \[([ x])\]", page.read_text(), re.MULTILINE))


@pytest.fixture
def passed(tmp_path_factory: pytest.TempPathFactory, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of a campaign that all five gates have accepted."""
    shared = campaigns.finished(tmp_path_factory.getbasetemp(), "passed")
    assert judged(shared).returncode == 0
    return copy_of(shared)


def warnings(made: Made) -> list[Finding]:
    return [finding for finding in validate.validate(made.spec, strict=True) if finding.warning]


def test_a_campaign_gets_its_pages_with_its_first_handoff(made: Made) -> None:
    handoff.hand_over(made.spec, "phase1")
    layout = made.layout
    assert [boxes(page) for page in (layout.plan, layout.todo, layout.todo_list)] == [" " * 5, " " * 5, " "]
    assert "plan.md" in layout.todo.read_text() and f"({layout.root.name}.md)" in layout.todo_list.read_text()


def test_each_phase_that_passes_ticks_its_box_and_adds_its_line(ready: Made) -> None:
    for page in (ready.layout.plan, ready.layout.todo):
        assert boxes(page) == "xx   "
        assert lines(page) == ["phase1 pass", "phase2 pass"]


def test_a_line_has_the_form_of_the_plans_template(ready: Made) -> None:
    added = progress_lines(ready.layout.plan)
    assert len(added) == 2 and all(TEMPLATE.fullmatch(line) for line in added)


def test_a_line_names_its_owner_without_breaking_the_form(made: Made) -> None:
    handoff.hand_over(made.spec, "phase1", owner="a | b\nc")
    (line,) = progress_lines(made.layout.plan)
    assert "owner=a / b c |" in line and TEMPLATE.fullmatch(line)


def test_a_phase_that_is_judged_again_without_a_change_adds_a_line_that_says_so(ready: Made) -> None:
    before = ready.layout.plan.read_text()
    handoff.hand_over(ready.spec, "phase1")
    handoff.hand_over(ready.spec, "phase2")
    for page in (ready.layout.plan, ready.layout.todo):
        assert lines(page) == ["phase1 pass", "phase2 pass"] * 2
        added = progress_lines(page)[2:]
        assert all(TEMPLATE.fullmatch(line) for line in added)
        assert [line.partition(" | next=")[2].partition(": pytest")[0] for line in added] == [
            "Judged again, nothing changed. Run phase 2",
            "Judged again, nothing changed. Run phase 3",
        ]
    assert ready.layout.plan.read_text().startswith(before)
    assert re.search(r"^Next action: Run phase 3", ready.layout.todo.read_text(), re.MULTILINE)


def test_a_line_of_a_handoff_that_differs_does_not_say_that_nothing_changed(ready: Made) -> None:
    ready.configure("# the hash of this file is an input of each phase")
    handoff.hand_over(ready.spec, "phase1")
    assert lines(ready.layout.plan) == ["phase1 pass", "phase2 pass", "phase1 pass"]
    assert "nothing changed" not in progress_lines(ready.layout.plan)[-1]


def test_a_handoff_of_another_commit_alone_is_no_change(ready: Made) -> None:
    path = ready.layout.handoff("phase1")
    files.write_json(path, files.read_json(path) | {"git_commit": "0" * 40, "generated_at_utc": "2026-01-01T00:00:00Z"})
    handoff.hand_over(ready.spec, "phase1")
    assert "next=Judged again, nothing changed. Run phase 2" in progress_lines(ready.layout.plan)[-1]


def test_another_status_adds_a_line_and_keeps_those_before(ready: Made) -> None:
    before = ready.layout.plan.read_text()
    ready.layout.preflight_report.unlink()
    handoff.hand_over(ready.spec, "phase2")
    assert lines(ready.layout.plan) == ["phase1 pass", "phase2 pass", "phase2 blocked"]
    assert ready.layout.plan.read_text().startswith(before.rstrip())
    assert "does not exist" in ready.layout.plan.read_text().splitlines()[-1]


def test_a_line_that_a_crash_lost_is_added_by_the_next_handoff(ready: Made) -> None:
    text = ready.layout.plan.read_text()
    ready.layout.plan.write_text("".join(line for line in text.splitlines(True) if "phase=phase2" not in line))
    handoff.hand_over(ready.spec, "phase2")
    assert lines(ready.layout.plan) == ["phase1 pass", "phase2 pass"]


def test_a_blocked_preflight_is_complete_but_a_blocked_baseline_is_not(ready: Made) -> None:
    ready.layout.preflight_report.unlink()
    handoff.hand_over(ready.spec, "phase2")
    handoff.hand_over(ready.spec, "phase3")
    assert boxes(ready.layout.plan) == "xx   "


def test_the_next_action_is_the_next_phase_or_what_to_mend(ready: Made) -> None:
    assert re.search(r"^Next action: Run phase 3: .* -m phase3$", ready.layout.todo.read_text(), re.MULTILINE)
    ready.layout.preflight_report.unlink()
    handoff.hand_over(ready.spec, "phase2")
    action = re.findall(r"^Next action: (.*)$", ready.layout.todo.read_text(), re.MULTILINE)
    assert len(action) == 1 and "preflight.json: the file does not exist" in action[0]


def test_lines_go_to_the_end_of_their_section_whatever_follows_it(made: Made) -> None:
    files.write_text(
        made.layout.plan, "# Mine\n\n- [ ] Phase 1 done\n\n## Progress\n\n- Created.\n\n## Notes\n\nkeep\n"
    )
    handoff.hand_over(made.spec, "phase1")
    text = made.layout.plan.read_text()
    assert re.search(r"## Progress\n\n- Created\.\n- .*phase=phase1.*\n\n## Notes\n\nkeep\n$", text)


BOXES = r"(?:- \[ \] Phase [1-5].*\n){5}"


def test_a_plan_without_the_sections_gets_them(made: Made) -> None:
    files.write_text(made.layout.plan, "# Mine\n")
    handoff.hand_over(made.spec, "phase1")
    sections = rf"# Mine\n\n## Progress Tracking\n\n{BOXES}\n## Progress\n\n- .*phase=phase1.*\n"
    assert re.fullmatch(sections, made.layout.plan.read_text())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "# Mine\n\n## Progress\n\n- Created.\n",
            rf"# Mine\n\n## Progress Tracking\n\n{BOXES}\n## Progress\n\n- Created\.\n",
        ),
        ("# Mine\n\n## Progress Tracking\n\nkeep\n", rf"# Mine\n\n## Progress Tracking\n\n{BOXES}\nkeep\n"),
        ("- [x] Phase 2 mine\nkeep", r"- \[x\] Phase 2 mine\n(?:- \[ \] Phase [1345].*\n){4}keep"),
        ("- [x] Phase 2 mine", r"- \[x\] Phase 2 mine\n(?:- \[ \] Phase [1345].*\n){4}"),
    ],
)
def test_boxes_that_are_missing_come_to_where_boxes_are_and_all_else_stays(made: Made, before: str, after: str) -> None:
    files.write_text(made.layout.plan, before)
    progress.ensure(made.layout)
    assert re.fullmatch(after, made.layout.plan.read_text()), made.layout.plan.read_text()
    progress.ensure(made.layout)
    assert re.fullmatch(after, made.layout.plan.read_text())


def test_what_stood_on_a_failed_phase_loses_its_box(passed: Made) -> None:
    layout = passed.layout
    assert [boxes(page) for page in (layout.plan, layout.todo, layout.todo_list)] == ["xxxxx", "xxxxx", "x"]
    passed.behave(long_b1_e6=["crash", "crash"])
    shutil.rmtree(layout.run("long_b1_e6").path)
    passed.pytest("-m", "phase4")
    assert [boxes(page) for page in (layout.plan, layout.todo, layout.todo_list)] == ["xxx  ", "xxx  ", " "]
    assert lines(layout.plan) == [*(f"{phase} pass" for phase in PHASES), "phase4 partial"]


def test_the_todo_list_is_ticked_only_when_strict_validation_finds_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = campaigns.below_threshold(tmp_path_factory.getbasetemp())
    assert judged(made).returncode == 1
    assert boxes(made.layout.todo_list) == " "
    assert lines(made.layout.plan)[-2:] == ["phase4 partial", "phase5 partial"]
    assert "owner=me" in made.layout.plan.read_text()


def test_a_session_of_one_phase_leaves_the_todo_list_alone(ready: Made) -> None:
    before = ready.layout.todo_list.read_text()
    ready.pytest("-m", "phase3")
    assert ready.layout.todo_list.read_text() == before


def test_strict_validation_warns_of_pages_that_tell_otherwise(passed: Made) -> None:
    layout = passed.layout
    assert warnings(passed) == []
    layout.plan.write_text(layout.plan.read_text().replace("- [x] Phase 3", "- [ ] Phase 3"))
    layout.todo.write_text(re.sub("^- .*phase=phase4.*\n", "", layout.todo.read_text(), flags=re.MULTILINE))
    found = [(Path(finding.where).name, finding.what.split()[-3:]) for finding in warnings(passed)]
    assert found == [("plan.md", ["its", "status,", "pass"]), ("campaign.md", ["its", "status,", "pass"])]
    words = ("validate", "--phase", "all", "--root", str(passed.root))
    assert passed.call(*words).returncode == 0
    assert passed.call(*words, "--strict").returncode == 1
    assert passed.pytest("-m", "phase3 or phase4 or phase5").returncode == 0  # which mends them
    assert warnings(passed) == []


def test_strict_validation_warns_of_a_tick_that_is_not_earned(ready: Made) -> None:
    text = ready.layout.todo_list.read_text()
    ready.layout.todo_list.write_text(text.replace("[ ]", "[x]"))
    assert [Path(finding.where).name for finding in warnings(ready)] == ["TODO.md"]


# the plan's own campaign


@pytest.fixture
def pi0(tmp_path: Path) -> Layout:
    """A copy of the plan's campaign as it is in the repository, with the repository's todo folder."""
    (tmp_path / "pytest.ini").touch()
    for name in (f"tasks/{PI0}", "todo"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("artifacts", ".*"))
    return campaign.load(tmp_path / "tasks" / PI0).layout


def test_the_users_past_lines_stay_as_they_are(pi0: Layout) -> None:
    past = pi0.plan.read_text()
    handed: files.Json = {"phase": "phase2", "status": "blocked", "generated_at_utc": "2026-11-23T00:00:00Z"}
    progress.record(pi0, handed | {"notes": ["gpus: 0 visible, 8 expected"]}, {}, [], "somebody")
    text = pi0.plan.read_text()
    assert text.startswith(past.rstrip())
    (line,) = text.removeprefix(past.rstrip()).split("\n")[1:-1]
    assert TEMPLATE.fullmatch(line)
    assert f"owner=somebody | status=blocked | marker=tasks/{PI0}/artifacts/state/phase2_handoff.json |" in line


def test_the_plans_pages_are_in_the_repository_with_their_history(pi0: Layout) -> None:
    assert lines(pi0.plan)[:3] == ["phase1 pass", "phase2 pass", "phase3 blocked"]
    assert [boxes(pi0.plan), boxes(pi0.todo), boxes(pi0.todo_list)] == ["xx   ", "xx   ", " "]


def users_text(page: Path) -> bytes:
    """A plan without what the program may change: the marks of the boxes, and all behind the user's last line."""
    text = re.sub(rb"^- \[[ x]\] Phase", b"- [ ] Phase", page.read_bytes(), flags=re.MULTILINE)
    return text[: text.index(LAST_LINE_OF_THE_USER) + len(LAST_LINE_OF_THE_USER)]


def test_the_committed_plan_is_the_users_to_the_byte_but_for_boxes_and_added_lines(pi0: Layout) -> None:
    assert hashlib.sha256(users_text(pi0.plan)).hexdigest() == SHA256_OF_THE_USERS_TEXT
    rest = pi0.plan.read_bytes().partition(LAST_LINE_OF_THE_USER)[2].decode()
    assert all(TEMPLATE.fullmatch(line) for line in rest.splitlines())
    sections = re.findall(r"^## (.*)$", users_text(pi0.plan).decode(), re.MULTILINE)
    assert sections == SECTIONS_OF_THE_PLAN


def test_a_session_changes_only_boxes_of_the_users_plan_and_adds_lines_at_its_end(pi0: Layout) -> None:
    before = users_text(pi0.plan)
    spec = campaign.load(pi0.root)
    for phase in PHASES:
        handoff.hand_over(spec, phase)
    assert users_text(pi0.plan) == before and boxes(pi0.plan) == " x   "
    added = pi0.plan.read_bytes().partition(LAST_LINE_OF_THE_USER)[2].decode().splitlines()
    assert [line.split(" | ")[1] for line in added] == [f"phase={phase}" for phase in PHASES]
    assert all(TEMPLATE.fullmatch(line) for line in added)


def test_the_plans_search_for_links_matches_in_both_pages(pi0: Layout) -> None:
    for page in (pi0.plan, pi0.todo):
        for word in (f"tasks/{PI0}/plan.md", "Phase [1-5]", "Next action"):
            assert re.search(word, page.read_text()), (page, word)
    assert (pi0.todo.parent / re.findall(r"\]\((\S+)\)", pi0.todo.read_text())[0]).resolve() == pi0.plan
    assert (pi0.todo, pi0.todo_list) == (pi0.project / "todo" / f"{PI0}.md", pi0.project / "todo" / "TODO.md")


def test_handoffs_name_pages_outside_of_the_campaign_by_relative_paths(pi0: Layout) -> None:
    spec = campaign.load(pi0.root)
    handoff.hand_over(spec, "phase1")
    handoff.hand_over(spec, "phase5")
    first, last = (files.read_json(pi0.handoff(phase)) for phase in ("phase1", "phase5"))
    assert {"plan.md", f"../../todo/{PI0}.md"} <= first["inputs"].keys()
    assert {"plan.md", f"../../todo/{PI0}.md", "../../todo/TODO.md"} <= {*last["outputs"]}
    assert str(pi0.project) not in pi0.handoff("phase1").read_text() + pi0.handoff("phase5").read_text()


# a list that several campaigns share


@pytest.fixture
def sharing(tmp_path: Path) -> tuple[Layout, Layout]:
    """Two campaigns of one project with one TODO.md, which has a line of its owner."""
    (tmp_path / "pytest.ini").touch()
    files.write_text(tmp_path / "todo" / "TODO.md", "# Mine\r\n\r\n- [ ] milk, after [a](a.md)  \r\n\r\n\r\n")
    return Layout(tmp_path / "tasks" / "a", todo_name="../../todo"), Layout(
        tmp_path / "tasks" / "b", todo_name="../../todo"
    )


def test_campaigns_that_share_a_list_touch_their_own_line_alone(sharing: tuple[Layout, Layout]) -> None:
    a, b = sharing
    mine = a.todo_list.read_bytes()
    progress.close(a, accepted=True)
    with_a = a.todo_list.read_bytes()
    assert re.fullmatch(re.escape(mine) + rb"- \[x\] \[a\]\(a\.md\): .*\r\n", with_a)
    progress.close(b, accepted=False)
    assert re.fullmatch(re.escape(with_a) + rb"- \[ \] \[b\]\(b\.md\): .*\r\n", b.todo_list.read_bytes())
    progress.close(a, accepted=False)
    assert b.todo_list.read_bytes().count(b"[x]") == 0


def test_a_session_waits_while_another_one_writes_the_list_and_no_line_is_lost(sharing: tuple[Layout, Layout]) -> None:
    a, b = sharing
    progress.ensure(a)
    with lock.hold(a.todo_lock, "the list", wait=True):
        text = a.todo_list.read_text()
        other = threading.Thread(target=progress.close, args=(b, True))
        other.start()
        other.join(0.5)
        assert other.is_alive()
        a.todo_list.write_text(f"{text}- [ ] bread\n")
    other.join()
    assert "- [ ] bread\n" in a.todo_list.read_text() and "- [x] [b](b.md)" in a.todo_list.read_text()


def test_a_page_keeps_its_permissions_and_a_new_one_is_as_open_as_its_folder(made: Made) -> None:
    made.root.chmod(0o750)
    files.write_text(made.layout.plan, "# Mine\n")
    made.layout.plan.chmod(0o664)
    handoff.hand_over(made.spec, "phase1")
    pages = (made.layout.plan, made.layout.todo, made.layout.todo_list)
    assert [stat.S_IMODE(page.stat().st_mode) for page in pages] == [0o664, 0o640, 0o640]


@pytest.mark.parametrize(
    ("page", "after"),
    [
        ("## Progress\r\n\r\n- a  \r\n\r\n\r\n", "## Progress\r\n\r\n- a  \r\nNEW\r\n\r\n\r\n"),
        ("## Progress\n- a", "## Progress\n- a\nNEW\n"),
        ("## Progress\n\nwords\n\n# Next\n", "## Progress\n\nwords\n\nNEW\n\n# Next\n"),
        ("## Progress\n- a\n## Notes\n- b\n", "## Progress\n- a\nNEW\n## Notes\n- b\n"),
        ("\ufeff# Mine", "\ufeff# Mine\n\n## Progress\n\nNEW\n"),
    ],
    ids=["windows", "no last line end", "words", "no blank line", "no section"],
)
def test_a_line_is_inserted_and_every_byte_of_the_page_is_kept(page: str, after: str) -> None:
    assert checklist.with_line(page, "NEW") == after


def test_a_box_outside_of_its_section_is_left_alone() -> None:
    page = "- [ ] Phase 1 of my house\n\n## Progress Tracking\n* [X] Phase 1 complete\n"
    assert checklist.with_box(page, "Phase 1", True) == page
    assert checklist.with_box(page, "Phase 1", False) == page.replace("[X]", "[ ]")


def test_a_todo_list_of_ones_own_gets_the_campaigns_line_and_keeps_the_others(made: Made) -> None:
    mine = "# Mine\n\n- [ ] ask Bob whether campaign needs GPUs\n- [x] milk\n"
    files.write_text(made.layout.todo_list, mine)
    progress.close(made.layout, accepted=True)
    assert made.layout.todo_list.read_text().startswith(f"{mine}- [x] [campaign](campaign.md)")


def test_a_renamed_campaign_is_valid_and_gets_pages_of_its_new_name(passed: Made) -> None:
    passed.root.rename(passed.root.with_name("moved"))
    moved = Made(passed.root.with_name("moved"), passed.environ)
    assert validate.validate(moved.spec, strict=True) == []
    handoff.hand_over(moved.spec, "phase5")
    assert boxes(moved.layout.todo) == "    x" and "[x] [campaign]" in moved.layout.todo_list.read_text()


def test_a_page_that_cannot_be_read_is_set_aside_and_written_anew_and_the_session_says_so(ready: Made) -> None:
    ready.layout.plan.write_bytes(b"\xe9\xff")
    ended = ready.pytest("-m", "phase1")
    assert ended.returncode == 0
    assert "healed: plan.md was damaged; it was made again, and the old one is plan.md.damaged" in ended.stdout
    assert ready.layout.plan.with_name("plan.md.damaged").read_bytes() == b"\xe9\xff"
    assert boxes(ready.layout.plan) == "x    "


def test_an_owner_without_a_name_is_unknown(made: Made) -> None:
    handoff.hand_over(made.spec, "phase1", owner="")
    assert "| owner=unknown |" in made.layout.plan.read_text()


def test_commands_on_the_pages_survive_a_folder_with_a_space(tmp_path: Path) -> None:
    odd = campaigns.make(tmp_path / "my camp's")
    handoff.hand_over(odd.spec, "phase1")
    for page in (odd.layout.plan, odd.layout.todo):
        assert f"--campaign {shlex.quote(str(odd.root))}" in page.read_text()


def test_a_campaign_is_called_tasks_name_only_in_a_repository(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "tasks" / "camp")
    assert layout.display_name == str(layout.root)
    (tmp_path / "pytest.ini").touch()
    assert layout.display_name == "tasks/camp"
