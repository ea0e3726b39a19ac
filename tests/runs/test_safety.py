"""Security on whole campaigns: no secret, nothing for others to read, nothing that runs where it is shown."""

import ast
import csv
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import campaigns
import pytest
from campaigns import REPOSITORY, ROWS, SETTINGS, Made
from contracts_page import module_of_tests

from tracka.core import files

CANARIES = {
    "HF_TOKEN": "hf_canaryAbc0123456789",
    "https_proxy": "http://somebody:canary%2Fpassword@proxy.invalid:3128",
    "WANDB_API_KEY": "wandbcanary0123456789",
}
SECRETS = [b"canaryAbc", b"canary%2Fpassword", b"canary/password", b"wandbcanary"]
FLAGS = f"[lerobot_eval.flags]\njob_name = '{CANARIES['WANDB_API_KEY']}'"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, subprocess.CompletedProcess[str]]:
    """A campaign through all gates with secrets in the environment, in a flag and in the last words of a row."""
    root = tmp_path_factory.mktemp("blabber") / "campaign"
    plain = campaigns.make(root, ROWS, SETTINGS)
    plain.configure(FLAGS)
    plain.behave(baseline_b1_e2=["blabber"], long_b1_e6=["blabber:crash"])
    made = Made(root, {**plain.environ, **CANARIES})
    before = os.umask(0o022)
    try:
        return made, made.pytest("-n0", f"--junitxml={root.parent / 'junit.xml'}")
    finally:
        os.umask(before)


def tellers(folder: Path, left_out: set[str]) -> list[str]:
    """The files below `folder` that hold a secret."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in left_out]
    return [str(path) for path in found if any(secret in path.read_bytes() for secret in SECRETS)]


def test_no_artifact_page_or_report_holds_a_secret(ended: tuple[Made, subprocess.CompletedProcess[str]]) -> None:
    made, gates = ended
    assert tellers(made.root.parent, {"campaign.toml"}) == []  # which is the user's own
    assert not any(secret.decode() in gates.stdout + gates.stderr for secret in SECRETS)
    assert "[redacted]" in gates.stdout  # the crash is told
    result = files.read_json(made.layout.run("long_b1_e6").result)
    assert "RuntimeError: [redacted] http://[redacted]proxy.invalid:3128" in result["error_message"]


def test_no_log_holds_a_secret(ended: tuple[Made, subprocess.CompletedProcess[str]]) -> None:
    made, _ = ended
    assert tellers(made.layout.runs, set()) == []
    assert b"[redacted]" in made.layout.run("long_b1_e6").stderr.read_bytes()  # it was printed


def test_a_campaign_whose_settings_hold_a_secret_is_judged_by_its_redacted_record(
    ended: tuple[Made, subprocess.CompletedProcess[str]],
) -> None:
    made, _ = ended
    command = files.read_json(made.layout.run("baseline_b1_e2").manifest)["command"]
    assert "--job_name=[redacted]" in command
    assert files.read_json(made.layout.handoff("phase3"))["status"] == "pass"


# permissions


def test_nobody_else_can_read_what_the_harness_and_its_children_leave(
    ended: tuple[Made, subprocess.CompletedProcess[str]],
) -> None:
    made, _ = ended
    left = [made.layout.artifacts, *made.layout.artifacts.rglob("*"), made.layout.runbook, made.layout.results]
    assert any(path.suffix == ".mp4" for path in left)  # which a child wrote
    assert [str(path) for path in left if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


# hostile output

FORMULA = "=cmd|' /C calc'!A0"
COLOUR = "\x1b[31m<script>alert(1)</script>\x1b]0;owned\x07 `rm` | \x00\x9b2J\u202e"
FORBIDDEN = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x202E)]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Made, str]]:
    """A campaign whose rows crash with last words meant for a spreadsheet, a terminal and a browser, and its output."""
    root = tmp_path_factory.mktemp("hostile") / "campaign"
    made = campaigns.make(root, ROWS, SETTINGS)
    made.behave(long_b1_e6=[f"crash:{FORMULA} {COLOUR}"], wide_b4_e4=[f"crash:{COLOUR}{'x' * 1_000_000}"])
    gates = made.pytest("-n0", f"--junitxml={root.parent / 'junit.xml'}")
    yield made, gates.stdout


def shown(made: Made) -> dict[str, str]:
    """Tables and pages, by name."""
    paths = [*made.layout.summary.iterdir(), *made.root.glob("*.md"), *(made.root / "todo").iterdir()]
    return {path.name: path.read_text() for path in paths}


def test_no_line_of_a_log_steers_a_terminal_or_a_browser(hostile: tuple[Made, str]) -> None:
    made, gates = hostile
    texts = shown(made) | {"gates": gates, "junit.xml": (made.root.parent / "junit.xml").read_text()}
    texts |= {path.name: str(files.read_json(path)) for path in made.layout.state.glob("*_handoff.json")}
    assert {name for name, text in texts.items() if any(sign in text for sign in FORBIDDEN)} == set()
    assert "RuntimeError: =cmd" in gates  # it is told
    assert {name for name in shown(made) if "<script" in texts[name]} == set()


def test_the_junit_report_can_be_read_whatever_a_policy_printed(hostile: tuple[Made, str]) -> None:
    made, _ = hostile
    told = ElementTree.parse(made.root.parent / "junit.xml").getroot().itertext()
    assert any(FORMULA in text for text in told)


def test_no_cell_of_a_table_is_a_formula(hostile: tuple[Made, str]) -> None:
    made, _ = hostile
    for path in made.layout.summary.glob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t")) and not _is_number(cell)] == []


def _is_number(cell: str) -> bool:
    return cell.removeprefix("-").isdigit()


def test_a_line_of_a_megabyte_makes_no_message_of_a_megabyte(hostile: tuple[Made, str]) -> None:
    made, gates = hostile
    assert len(files.read_json(made.layout.run("wide_b4_e4").result)["error_message"]) <= 500
    assert max(map(len, [*shown(made).values(), gates, made.layout.marker("wide_b4_e4").read_text()])) < 50_000


# shells


def shells(tree: ast.AST) -> Iterator[int]:
    """The lines on which a shell would get a string."""
    functions = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if any(word.arg == "shell" for word in node.keywords):
                yield node.lineno
            if getattr(node.func, "attr", getattr(node.func, "id", "")) in functions:
                yield node.lineno
        elif isinstance(node, ast.List | ast.Tuple):
            words = [word.value for word in node.elts if isinstance(word, ast.Constant)]
            if "-c" in words and {"sh", "bash", "/bin/sh", "/bin/bash"} & set(words):
                yield node.lineno


MANIFESTS = "kubernetes_jobs.py"  # writes down what a pod's shell will run, and runs nothing itself


def test_no_shell_gets_a_string() -> None:
    folders = ("tracka", "fixtures", "acceptance")
    paths = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    paths = [path for path in paths if path.name != MANIFESTS]
    assert len(paths) > 50
    found = [f"{path}:{number}" for path in paths for number in shells(ast.parse(path.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "line", ["subprocess.run('ls', shell=True)", "os.system('ls')", "os.popen('ls')", "run(['bash', '-c', words])"]
)
def test_a_shell_would_be_seen(line: str) -> None:
    assert list(shells(ast.parse(line))) == [1]


# the page

NAMED = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", (REPOSITORY / "docs" / "security.md").read_text())


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_every_test_that_the_page_names_exists(file: str, function: str) -> None:
    tree = ast.parse(module_of_tests(file).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert function in names if function else any(name.startswith("test_") for name in names)
