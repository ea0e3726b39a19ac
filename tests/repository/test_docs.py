"""The documentation: every command in it runs, as written, in a copy of the repository with stand-ins for lerobot."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, SETTINGS, STANDIN

from tracka.campaign import campaign
from tracka.reporting import collect

# Pages under docs/examples are what a campaign wrote: their commands name a campaign of another machine.
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BY_ANOTHER_TEST = ("install.md", "plan-commands.md")  # test_stranger.py and test_plan_commands.py
BY_CI = {"make accept", "make test"}  # .ci/run runs these two, and a dose of the rest
PARTS_OF_OTHERS = {"test-faults", "test-stats", "dose", "release-check"}  # targets that run tests which others run too
BY_SHELL = {"source .venv/bin/activate"}
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of code in a language; one in a list without its indentation."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def commands(page: Path) -> list[str]:
    """The lines of the page's bash blocks."""
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]


def run(line: str, repository: Path, made: campaigns.Made) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(line)
    module = {"pytest": "pytest", "tracka": "tracka"}[program]
    environ = {**os.environ, **made.environ, "PYTHONPATH": f"{STANDIN}{os.pathsep}{repository}"}
    environ |= {"TRACKA_PRETEND_GPUS": "8", "TRACKA_GPU_LOCKS": str(repository.parent / "locks")}
    if words == ["doctor"]:  # looks the machine over as it is, and stand-ins draw nothing
        environ = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.run(
        [sys.executable, "-m", module, *words], cwd=repository, env=environ, capture_output=True, text=True
    )


def use_standin(settings: Path, page: Path) -> None:
    """Gives a campaign that a page made the stand-in for lerobot-eval, and the tiers that the page adds."""
    (line,) = [line for line in SETTINGS.splitlines() if line.startswith("executable")]
    text = settings.read_text()
    if "executable" not in text:
        tiers = [block for block in blocks(page, "toml") if block.startswith("[tiers.")]
        settings.write_text("\n".join([text.replace("[lerobot_eval]", f"{line}\n\n[lerobot_eval]", 1), *tiers]))


PAGES_WITH_COMMANDS = [page for page in PAGES if page.name not in BY_ANOTHER_TEST and commands(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_every_command_of_a_page_succeeds(page: Path, repository: Path) -> None:
    made = campaigns.Made(
        repository / "tasks" / "smoke-libero-object",
        campaigns.environment(repository / "tasks" / "smoke-libero-object"),
    )
    rows = {f"object_t{task}_b10_e50": ["ok:50"] for task in range(10)}  # the reader's rows reach their threshold
    made.behave(**rows, **{f"object_t{task}_b1_e4": ["ok:4"] for task in (0, 1)})
    assert made.pytest("-n2").returncode == 0  # what `make accept` leaves
    for line in commands(page):
        if line in BY_CI | BY_SHELL:
            continue
        ended = run(line, repository, made)
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        for name in ("my-policy", "a-or-b"):
            for settings in (repository / "tasks" / name / "configs").glob("campaign.toml"):
                use_standin(settings, page)


# What the code of docs/tables.md has found, as JSON in the last line of its output.
FINDINGS = """
import json
print(json.dumps({
    "runs": runs.run_id.tolist(),
    "good": good.run_id.tolist(),
    "pooled": pooled.reset_index().to_dict("records"),
    "tasks": tasks.reset_index().to_dict("records"),
    "never": len(never),
    "changed": [int(changes.at[old, new]) for old, new in ((True, True), (False, False))],
    "all": int(changes.to_numpy().sum()),
}))
"""


def test_the_code_of_the_page_of_tables_gives_the_numbers_of_the_campaign(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    made = campaigns.below_threshold(tmp_path_factory.getbasetemp())
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "smoke-libero-object").symlink_to(made.root)
    code = "".join(blocks(REPOSITORY / "docs" / "tables.md", "python")) + FINDINGS
    ended = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    results = collect.collect_results(made.layout.runs)
    assert told["runs"] == told["good"] == [each.run_id for each in results]
    successes, episodes = sum(each.successes or 0 for each in results), sum(each.episodes or 0 for each in results)
    ((pooled,), (task,)) = told["pooled"], told["tasks"]
    assert (pooled["successes"], pooled["episodes"]) == (successes, episodes) == (2, 12)
    assert (pooled["low"], pooled["high"]) == pytest.approx(collect.wilson(successes, episodes))
    assert (task["task"], task["sum"], task["count"]) == (0, successes, episodes)
    assert 0 < told["never"] < 6  # the init states of six episodes, of which two were won once
    assert (told["changed"], told["all"]) == ([successes, episodes - successes], episodes)


def test_what_the_tests_of_the_pages_leave_to_ci_is_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert [line for line in script.splitlines() if line.startswith("make ")] == [
        "make test",
        "make accept",
        "make dose",
    ]


def test_ci_full_runs_every_check_and_benchmark_that_does_not_take_hours() -> None:
    targets = re.findall(r"^([a-z-]+):(.*?) ## (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    ((run, _),) = [(needed.split(), words) for name, needed, words in targets if name == "ci-full"]
    short = {name for name, _, words in targets if not words.startswith("(hours)")}
    assert set(run) == short - PARTS_OF_OTHERS - {"setup", "lock", "sim-table", "clean-artifacts", "help", "ci-full"}


def test_ci_full_leaves_out_what_it_runs_in_full_size_and_a_call_of_test_slow_leaves_out_nothing() -> None:
    told = {
        target: subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True).stdout
        for target in ("test-slow", "ci-full")
    }
    marks = {target: re.findall(r'-m "(slow[^"]*)"', text) for target, text in told.items()}
    assert marks == {
        "test-slow": ["slow and not slurm"],
        "ci-full": ["slow and not slurm and not repeated"],
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_shows_the_smoke_campaigns_rows_with_their_known_answers() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    spec = campaign.load(REPOSITORY / "tasks" / "smoke-libero-object")
    block = readme[readme.index("\nrun   ") : readme.index("\nEach phase leaves")]
    shown = [tuple(line.split()[:4]) for line in block.splitlines()[2:]]
    episodes = {row.run_id: row.n_episodes * len(spec.task_ids(row)) for row in spec.enabled}
    wins = {row.run_id: sum(map(len, spec.known_answers[row.run_id].values())) for row in spec.enabled}
    assert shown == [(run_id, "pass", str(count), str(wins[run_id])) for run_id, count in episodes.items()]
    known, every = sum(wins.values()), sum(episodes.values())
    assert f"it knows {WORDS[known]} of the {WORDS[every]} episodes by heart" in readme
