"""Bad input: one screen that names file, line or key and the remedy, with nothing written and nothing started."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from campaigns import ROWS, SETTINGS, Made, contents, run_words

from tracka.campaign.matrix import COLUMNS
from tracka.core import files
from tracka.core.files import Json

LONG = "long_b1_e6"
HEADER = ",".join(COLUMNS)
SCREEN, WIDTH = 24, 400  # lines, and characters a line
LOCKS = "locks"  # whose files say who was their last holder


def refusal(
    made: Made, run: Callable[..., subprocess.CompletedProcess[str]], words: Sequence[str], code: int = 2
) -> str:
    """What a command says when it refuses: on one screen, with nothing written and nothing started."""
    before, started = contents(made.root, LOCKS), made.journal()
    ended = run(*words)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.replace(str(made.root), "ROOT").splitlines()
    assert 0 < len(lines) <= SCREEN, f"{len(lines)} lines"
    assert [f"{len(line)} characters: {line[:200]}" for line in lines if len(line) > WIDTH] == []
    assert "Traceback" not in ended.stderr
    assert contents(made.root, LOCKS) == before
    assert made.journal() == started
    return "\n".join(lines)


# each command, on a campaign


def words_of_collect(made: Made, *more: str, **changed: str) -> list[str]:
    runs, tables = changed.get("runs_root", str(made.layout.runs)), made.root / "tables"
    return ["collect", "--runs-root", runs, "--summary-csv", f"{tables}/a.csv", "--summary-md", f"{tables}/a.md", *more]


def words_of_discover(made: Made, **changed: str) -> list[str]:
    python = changed.get("python_bin", sys.executable)
    return ["discover", "--artifacts-dir", str(made.layout.state), "--python-bin", python]


def words_of_validate(made: Made) -> list[str]:
    return ["validate", "--phase", "all", "--root", str(made.root)]


def words_of_schema(made: Made) -> list[str]:
    return ["schema", "--root", str(made.root)]


COMMANDS: dict[str, Callable[[Made], list[str]]] = {
    "run": run_words,
    "sweep": Made.sweep_words,
    "validate": words_of_validate,
    "collect": words_of_collect,
    "discover": words_of_discover,
    "preflight": Made.preflight_words,
    "schema": words_of_schema,
}
Refuse = Callable[[Made], str]


@pytest.fixture(params=[*COMMANDS, "shell", "pytest"])
def refused(request: pytest.FixtureRequest) -> Refuse:
    """Gives a campaign to each of the commands that read its definition, and to one in a shell, and returns what they
    say of it."""
    if request.param == "pytest":
        return lambda made: refusal(made, made.pytest, [], 4)
    if request.param == "shell":
        return lambda made: refusal(made, made.tracka, made.sweep_words())
    return lambda made: refusal(made, made.call, COMMANDS[request.param](made))


def sweep_refused(made: Made) -> str:
    return refusal(made, made.call, made.sweep_words())


def write_matrix(made: Made, *rows: str, header: str = HEADER) -> None:
    made.layout.matrix.write_text("\n".join([header, *rows, ""]))


BAD_ROWS = (
    "a/b,libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
    "/abs,libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
    "../x,libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
    "moon_b1_e1,moon,1,1,cpu,7,egl,checkpoints/fake,1",
    "half_b1_e1,libero_object,1.5,many,cpu,7,egl,checkpoints/fake,1",
    f"{LONG},libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
    "few_b1_e1,libero_object,1,1",
)
SAID_OF_BAD_ROWS = (
    "line 6, column run_id: 'a/b' is not ",
    "line 7, column run_id: '/abs' is not ",
    "line 8, column run_id: '../x' is not ",
    "line 9, column task_suite: 'moon' is not ",
    "line 10, column batch_size: '1.5' is not ",
    "line 10, column n_episodes: 'many' is not ",
    f"line 11, column run_id: '{LONG}' is on line 3 already. ",
    "line 12: the line has 4 cells and needs 9. ",
)


def test_all_bad_cells_and_settings_are_said_together_by_every_command(made: Made, refused: Refuse) -> None:
    write_matrix(made, *ROWS, *BAD_ROWS)
    made.layout.settings.write_text(f"colour = 1\n{SETTINGS}\n[rows.nobody]\nepisode_length = 'long'\n")
    said = refused(made)
    for what in SAID_OF_BAD_ROWS:
        assert f"ROOT/configs/eval_matrix.csv, {what}" in said
    assert "ROOT/configs/campaign.toml, line 1, key colour: campaign.toml has no key 'colour'" in said
    assert "key rows.nobody.episode_length: 'long' is not a whole number from 1 up" in said


def test_another_header_is_said_with_the_right_one_by_every_command(made: Made, refused: Refuse) -> None:
    write_matrix(made, *ROWS, header=HEADER.replace("seed", "colour"))
    said = refused(made)
    assert "ROOT/configs/eval_matrix.csv, line 1: " in said
    assert f"(missing: ['seed'], unknown: ['colour']). Write the header as {HEADER}" in said


@pytest.mark.parametrize(("bad", "said"), [*zip(BAD_ROWS[:4], SAID_OF_BAD_ROWS[:4], strict=True)])
def test_a_sweep_names_the_one_cell_that_is_wrong(made: Made, bad: str, said: str) -> None:
    write_matrix(made, *ROWS, bad)
    expected = f"error: ROOT/configs/eval_matrix.csv, line 6, column {said.split('column ')[1]}"
    (text,) = sweep_refused(made).splitlines()
    assert text.startswith(expected)
    assert ". Write " in text


# a screen


@pytest.mark.parametrize("refused", ["shell", "pytest"], indirect=True)
def test_hundreds_of_bad_rows_fill_one_screen_that_says_how_many_more_there_are(made: Made, refused: Refuse) -> None:
    write_matrix(made, *ROWS, *(f"row{number},moon,1,1,cpu,7,egl,checkpoints/fake,1" for number in range(300)))
    said = refused(made)
    assert "line 6, column task_suite: 'moon' is not " in said
    assert any(word.isdigit() and 250 < int(word) < 300 for word in said.rstrip().splitlines()[-1].split())


def test_a_cell_of_any_length_leaves_its_line_readable(made: Made) -> None:
    write_matrix(made, *ROWS, f"{'x' * 5000},libero_object,1,1,cpu,7,egl,checkpoints/fake,1")
    said = sweep_refused(made)
    assert "line 6, column run_id: 'xxx" in said
    assert "is not a run id (letters, digits" in said


def test_a_header_of_another_table_leaves_its_line_readable(made: Made) -> None:
    write_matrix(made, *ROWS, header=",".join(f"column{number}" for number in range(200)))
    assert f"Write the header as {HEADER}" in sweep_refused(made)


def test_an_unknown_row_leaves_its_line_readable_in_a_matrix_of_hundreds(ready: Made) -> None:
    more = [f"a_row_with_a_rather_long_name_{number}" for number in range(200)]
    write_matrix(ready, *ROWS, *(f"{name},libero_object,1,1,cpu,7,egl,checkpoints/fake,1" for name in more))
    said = refusal(ready, ready.call, ready.sweep_words("--rows", "nobody"))
    assert "--rows: the matrix has no row 'nobody'" in said


def test_a_setting_of_any_length_leaves_its_line_readable(made: Made) -> None:
    tasks = ", ".join("0" for _ in range(500))
    made.layout.settings.write_text(SETTINGS.replace("task_ids = [0]", f"task_ids = [{tasks}]"))
    assert "key lerobot_eval.task_ids: " in sweep_refused(made)


def test_hundreds_of_run_folders_in_the_way_fill_one_screen(ready: Made) -> None:
    more = [f"row{number}" for number in range(100)]
    write_matrix(ready, *ROWS, *(f"{name},libero_object,1,1,cpu,7,egl,checkpoints/fake,1" for name in more))
    for name in more:
        files.make_folder(ready.layout.run(name).path)
    said = sweep_refused(ready)
    assert "runs/row0: the run folder exists. Pass --resume" in said


# no campaign


def test_a_folder_that_is_not_there_is_said_by_every_command_that_needs_one(made: Made, tmp_path: Path) -> None:
    nowhere = Made(tmp_path / "nowhere", made.environ)
    for command in ("sweep", "validate", "collect", "schema"):
        said = refusal(made, made.call, COMMANDS[command](nowhere))
        assert str(nowhere.root) in said, command
    assert "this is not a campaign: there is no such folder. Name a campaign's folder" in refusal(
        made, nowhere.pytest, [], 4
    )
    assert not nowhere.root.exists()


@pytest.mark.parametrize("command", ["validate", "collect", "schema", "sweep", "pytest"])
def test_a_folder_without_configs_is_no_campaign(made: Made, command: str) -> None:
    shutil.rmtree(made.root / "configs")
    if command == "pytest":
        said = refusal(made, made.pytest, [], 4)
    else:
        said = refusal(made, made.call, COMMANDS[command](made))
    assert "ROOT" in said
    assert "Name a" in said or "tracka init NAME" in said


def test_collect_without_a_campaign_cannot_say_which_rows_failed_and_writes_no_table(ready: Made) -> None:
    ready.run_row(LONG)
    shutil.rmtree(ready.root / "configs")
    said = refusal(ready, ready.call, words_of_collect(ready, "--failures-csv", str(ready.root / "tables" / "f.csv")))
    assert "error: --failures-csv: ROOT/artifacts/runs is not in a campaign's folder" in said


# options


def test_preflight_says_all_its_bad_options_together(made: Made) -> None:
    words = made.preflight_words(task_suite="moon", mujoco_gl="wgl", gpu_ids="0,x,-1")
    assert [line.split(". ")[0] for line in refusal(made, made.call, words).splitlines()] == [
        "error: --task-suite: 'moon' is unknown",
        "error: --mujoco-gl: 'wgl' is unknown",
        "error: --gpu-ids: 'x' is not a GPU index",
        "error: --gpu-ids: '-1' is not a GPU index",
    ]


@pytest.mark.parametrize("run_id", ["/abs", "a/b", ".."])
def test_no_run_id_on_a_command_line_leaves_the_runs_folder(made: Made, run_id: str) -> None:
    said = refusal(made, made.call, run_words(made, run_id=run_id))
    assert said.startswith(f"error: command line, column run_id: {run_id!r} is not a run id")


def test_init_says_all_that_is_wrong_together_and_makes_nothing(made: Made) -> None:
    words = ["init", str(made.root / "a b"), "--suite", "moon", "--policy-path", "org/pol\nicy", "--seed", str(10**12)]
    said = refusal(made, made.call, words)
    assert "error: a b: the name is not a plain folder name. Use letters" in said
    assert "error: --suite: LIBERO has no suite 'moon'. Use one of libero_object" in said
    assert "column policy_path" in said and "column seed" in said


def test_init_leaves_a_campaign_alone_that_exists(made: Made) -> None:
    said = refusal(made, made.call, ["init", str(made.root)])
    assert said == "error: ROOT/configs: the campaign exists already. Choose another name"


@pytest.mark.parametrize(
    "option", [("--max-parallel", "0"), ("--max-parallel", "all"), ("--colour", "red")], ids="=".join
)
def test_sweep_refuses_an_option_that_it_cannot_take(ready: Made, option: tuple[str, str]) -> None:
    assert option[0] in refusal(ready, ready.call, ready.sweep_words(*option))


# no lerobot-eval


@pytest.mark.parametrize("command", ["run", "run --dry-run", "discover"])
def test_without_lerobot_eval_the_exit_code_is_3_and_it_is_said_how_to_get_it(made: Made, command: str) -> None:
    made.layout.settings.write_text(f"executable = ['bin/lerobot-eval']\n{SETTINGS.replace('executable', '# ')}")
    words = words_of_discover(made) if command == "discover" else run_words(made, *command.split()[1:])
    before = contents(made.root).keys()
    ended = made.call(*words)
    assert (ended.returncode, ended.stdout) == (3, "")
    (said,) = ended.stderr.splitlines()
    assert said.startswith("error: bin/lerobot-eval: lerobot-eval cannot be invoked (")
    assert (
        "Run `bin/lerobot-eval --env.type=libero --policy.type=act --help` by hand and correct what its error says"
        in said
    )
    assert made.started() == []
    # The reason is kept where the help would stand, and nothing else.
    folders = {"artifacts", "artifacts/state"}
    assert contents(made.root).keys() - before - folders == {"artifacts/state/lerobot_eval_help.txt"}


# markers


def cut(made: Made, run_id: str) -> bytes:
    """Leaves of a marker what a full disk would have left of it, and returns that."""
    path = made.layout.marker(run_id)
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    return half


def set_aside(made: Made, run_id: str) -> Path:
    path = made.layout.marker(run_id)
    return path.with_name(f"{path.name}.damaged")


def marker(made: Made, run_id: str) -> Json:
    return files.read_json(made.layout.marker(run_id))


def pretend_pass(made: Made, run_id: str) -> None:
    """A marker that says pass for a row whose run folder is gone."""
    made.run_row(run_id)
    shutil.rmtree(made.layout.run(run_id).path)


def test_validate_names_a_cut_marker_with_its_remedy(ready: Made) -> None:
    ready.run_row(LONG)
    cut(ready, LONG)
    before = contents(ready.root)
    ended = ready.call("validate", "--phase", "phase4", "--root", str(ready.root))
    assert ended.returncode == 1
    where = ready.layout.marker(LONG)
    command = f"pytest --pyargs tracka.acceptance --campaign {ready.root}"
    said = f"{where}: the row's marker is missing or damaged. Restore the marker: {command}"
    assert ended.stderr.splitlines().count(said) == 1
    assert contents(ready.root) == before


def test_resume_knows_a_passed_row_by_its_own_files_and_restores_its_marker(ready: Made) -> None:
    ready.run_row(LONG)
    half, kept = cut(ready, LONG), contents(ready.layout.run(LONG).path)
    assert ready.tracka(*ready.sweep_words("--rows", LONG, "--resume")).returncode == 0
    assert ready.started().count(LONG) == 1
    assert contents(ready.layout.run(LONG).path) == kept
    assert (marker(ready, LONG)["status"], marker(ready, LONG)["notes"]) == (
        "pass",
        "restored from the run's own files",
    )
    assert set_aside(ready, LONG).read_bytes() == half
    assert ready.evidence(LONG) == []


def test_resume_runs_a_failed_row_again_and_sets_its_cut_marker_aside(ready: Made) -> None:
    ready.behave(**{LONG: ["crash", "ok"]})
    ready.run_row(LONG, retry_index=1)
    half = cut(ready, LONG)
    assert ready.tracka(*ready.sweep_words("--rows", LONG, "--resume")).returncode == 0
    assert ready.started().count(LONG) == 2
    assert (marker(ready, LONG)["status"], marker(ready, LONG)["history"][-1]["attempt"]) == ("pass", 2)
    assert set_aside(ready, LONG).read_bytes() == half
    assert ready.evidence(LONG) == []


def test_a_cut_marker_without_a_run_is_no_pass_for_a_sweep(ready: Made) -> None:
    pretend_pass(ready, LONG)
    half = cut(ready, LONG)
    assert ready.tracka(*ready.sweep_words("--rows", LONG)).returncode == 0
    assert ready.started().count(LONG) == 2
    assert set_aside(ready, LONG).read_bytes() == half
    assert ready.evidence(LONG) == []


def test_a_cut_marker_without_a_run_is_no_pass_for_a_run(ready: Made) -> None:
    pretend_pass(ready, LONG)
    half = cut(ready, LONG)
    assert ready.tracka(*run_words(ready)).returncode == 0
    assert ready.started() == [LONG] * 2
    assert set_aside(ready, LONG).read_bytes() == half
    assert marker(ready, LONG)["status"] == "pass"


def test_a_passed_run_with_a_cut_marker_is_still_in_the_way_of_a_run(ready: Made) -> None:
    ready.run_row(LONG)
    cut(ready, LONG)
    said = refusal(ready, ready.call, run_words(ready))
    assert said == (
        "error: ROOT/artifacts/runs/long_b1_e6: the run folder exists. "
        "Choose another run id, or pass --allow-overwrite to run it again"
    )


def test_overwriting_sets_a_cut_marker_aside(ready: Made) -> None:
    ready.run_row(LONG)
    half = cut(ready, LONG)
    assert ready.tracka(*run_words(ready, "--allow-overwrite")).returncode == 0
    assert ready.layout.run(LONG).numbers() == [1, 2]
    assert set_aside(ready, LONG).read_bytes() == half
    assert ready.evidence(LONG) == []


def test_a_marker_that_says_pass_of_a_run_that_is_gone_is_no_pass_in_a_table(ready: Made) -> None:
    pretend_pass(ready, LONG)
    ended = ready.call(*words_of_collect(ready, "--failures-csv", str(ready.root / "tables" / "f.csv")))
    assert ended.returncode == 0, ended.stderr
    (line,) = [text for text in (ready.root / "tables" / "a.csv").read_text().splitlines() if text.startswith(LONG)]
    assert ",pass," not in line
    failures = (ready.root / "tables" / "f.csv").read_text()
    assert f"{LONG}," in failures and "below_threshold" not in failures


def test_resume_runs_a_row_again_whose_marker_says_pass_and_whose_run_is_gone(ready: Made) -> None:
    pretend_pass(ready, LONG)
    assert ready.tracka(*ready.sweep_words("--rows", LONG, "--resume")).returncode == 0
    assert ready.started().count(LONG) == 2
    assert ready.evidence(LONG) == []


def test_the_gates_stand_on_a_sweep_and_restore_the_cut_marker_of_its_row(ready: Made) -> None:
    assert ready.tracka(*ready.sweep_words()).returncode == 0
    half, started = cut(ready, LONG), ready.started()
    gates = ready.pytest("-n0")
    assert gates.returncode == 0, gates.stdout
    assert ready.started() == started
    assert set_aside(ready, LONG).read_bytes() == half
    assert ready.evidence(LONG) == []


# names that are no names


def named(made: Made, place: str) -> dict[str, list[str]]:
    """Commands that take a campaign's folder, or a place in it, with `place` as that."""
    tables = ["--summary-csv", "a.csv", "--summary-md", "a.md"]
    return {
        "summary": ["summary", place],
        "report": ["report", place],
        "plot": ["plot", place],
        "export": ["export", place, "--format", "ctrf"],
        "promote": ["baseline", "promote", place, str(made.root / "out.json")],
        "show": ["baseline", "show", place],
        "compare": ["compare", place, place],
        "noise": ["noise", place],
        "validate": ["validate", "--phase", "all", "--root", place],
        "why": ["why", "row", "--root", place],
        "replay": ["replay", "row", "--task", "0", "--episode", "0", "--root", place],
        "propose": ["propose", "--root", place],
        "schema": ["schema", "--root", place],
        "init": ["init", place],
        "collect": ["collect", "--runs-root", place, *tables],
        "sweep": made.sweep_words(matrix=place),
    }


@pytest.mark.parametrize("place", ["circle", "pipe", "not UTF-8 \udcff"], ids=["circle", "pipe", "encoding"])
def test_a_place_that_is_no_place_is_refused_by_each_command(made: Made, place: str) -> None:
    (made.root / "circle").symlink_to("circle")
    os.mkfifo(made.root / "pipe")
    for name, words in named(made, str(made.root / place)).items():
        ended = made.call(*words)
        assert ended.returncode in (1, 2) and ended.stderr.strip(), name
        assert place == "pipe" or "circle" in ended.stderr or "UTF-8" in ended.stderr or name == "show", ended.stderr


def test_a_circle_of_links_among_a_campaigns_settings_is_named(made: Made) -> None:
    (made.layout.settings.parent / "again").symlink_to("again")
    ended = made.call(*made.sweep_words())
    assert (ended.returncode, "links lead round in a circle" in ended.stderr) == (2, True), ended.stderr
    session = made.pytest("-n0")
    assert (session.returncode, "links lead round in a circle" in session.stderr) == (4, True), session.stderr
