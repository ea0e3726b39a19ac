"""docs/plan-commands.md: the plan's test commands run from top to bottom, as a reader would paste them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, STANDIN
from test_docs import use_standin

PAGE = REPOSITORY / "docs" / "plan-commands.md"
PLANNED = {1: 7, 2: 5, 3: 5, 4: 5, 5: 4}  # the plan's number of test commands a phase
PLAN, COPY = "tasks/20260210-track-a-lerobot-pi0-libero", "tasks/plan-copy"


@dataclass(frozen=True)
class Block:
    """One block of commands. `info` is what stands behind its opening fence."""

    info: str
    text: str

    def exit_code(self, blocked: bool) -> int:
        """Returns the exit code that the page announces for the block, on a campaign that is blocked or not."""
        return int(self.info.partition("blocked=")[2] or 0) if blocked else 0

    def is_run(self, blocked: bool) -> bool:
        """Returns whether the block belongs to the run; `make test` runs some blocks anyway."""
        return "by=make-test" not in self.info and (blocked or "on=plan" not in self.info)


def blocks() -> list[Block]:
    matches = re.findall(r"^```bash *(.*?)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(info, text) for info, text in matches]


def script(folder: Path, blocked: bool) -> str:
    """Returns one script that runs every block; it ends at the first block with another exit code than announced."""
    parts = ["set -euo pipefail"]
    for number, block in enumerate(blocks()):
        if not block.is_run(blocked):
            continue
        parts.append(f"echo '#### block {number}: {shlex.quote(block.text.splitlines()[0])[1:-1]}'")
        if block.exit_code(blocked) == 0:
            parts.append(block.text)
        else:
            part = folder / f"block{number}.sh"
            part.write_text(block.text)
            parts.append(f"code=0; bash -euo pipefail {part} || code=$?; test $code -eq {block.exit_code(blocked)}")
            # What a block exports is needed by the blocks after it.
            parts += [line for line in block.text.splitlines() if line.startswith("export ")]
    return "\n".join(parts).replace(PLAN, COPY)


def run_page(folder: Path, repository: Path, blocked: bool) -> campaigns.Made:
    """Runs the page in a copy of the repository, and returns the campaign with what the stand-in lerobot-eval did."""
    root = repository / (COPY if blocked else "tasks/smoke-libero-object")
    environ = {**os.environ, **campaigns.environment(root), "PYTHONPATH": f"{STANDIN}{os.pathsep}{repository}"}
    environ |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    environ |= {"HF_HOME": str(folder / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        ["bash", "-c", script(folder, blocked)], cwd=repository, env=environ, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return campaigns.Made(root, environ)


@pytest.mark.slow
@pytest.mark.dose
def test_every_command_of_the_plan_runs_in_its_form_here(repository: Path, tmp_path: Path) -> None:
    first, *others = run_page(tmp_path, repository, blocked=False).started()
    assert (first, sorted(others)) == ("baseline_b1_e2", ["long_b1_e6", "wide_b4_e4"])  # none twice


@pytest.mark.slow
@pytest.mark.dose
def test_on_the_plans_own_campaign_every_command_ends_as_announced_where_it_is_blocked(
    repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / PLAN / "configs", repository / COPY / "configs")
    settings = repository / COPY / "configs" / "campaign.toml"
    settings.write_text(re.sub(r"^todo = .*\n", "", settings.read_text(), flags=re.MULTILINE))  # a todo of its own
    use_standin(settings, PAGE)
    assert run_page(tmp_path, repository, blocked=True).started() == []


def test_every_command_of_the_plan_has_its_place_on_the_page_in_the_plans_order() -> None:
    sections = re.split(r"^## Phase (\d)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    numbers = {
        int(phase): [*map(int, re.findall(r"^(\d)\. ", text, re.MULTILINE))]
        for phase, text in zip(sections[::2], sections[1::2], strict=True)
    }
    assert numbers == {phase: list(range(1, count + 1)) for phase, count in PLANNED.items()}


def test_what_is_left_to_make_test_is_there() -> None:
    words = [word for block in blocks() if "by=make-test" in block.info for word in shlex.split(block.text)]
    assert [word for word in words if word.startswith("tests/") and not (REPOSITORY / word).is_file()] == []
    assert shutil.which("make")
