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


@dataclass(frozen=True)
class Block:
    """One block of commands. `info` is what stands behind its opening fence."""

    info: str
    text: str

    @property
    def exit_code(self) -> int:
        return int(self.info.partition("exit=")[2] or 0)

    @property
    def elsewhere(self) -> bool:
        """Whether `make test` runs it anyway."""
        return "by=make-test" in self.info


def blocks() -> list[Block]:
    found = re.findall(r"^```bash *(.*?)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(info, text) for info, text in found]


def script(folder: Path) -> str:
    """One script that runs every block; it ends at the first one whose exit code is not the one announced."""
    parts = ["set -euo pipefail"]
    for number, block in enumerate(blocks()):
        if block.elsewhere:
            continue
        parts.append(f"echo '#### block {number}: {shlex.quote(block.text.splitlines()[0])[1:-1]}'")
        if block.exit_code == 0:
            parts.append(block.text)
        else:
            part = folder / f"block{number}.sh"
            part.write_text(block.text)
            parts.append(f"code=0; bash -euo pipefail {part} || code=$?; test $code -eq {block.exit_code}")
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.dose
def test_every_command_of_the_plan_runs_in_its_form_here(repository: Path, tmp_path: Path) -> None:
    smoke = repository / "tasks" / "smoke-libero-object"
    use_standin(repository / "tasks" / "20260210-track-a-lerobot-pi0-libero" / "configs" / "campaign.toml")
    environ = {**os.environ, **campaigns.environment(smoke), "PYTHONPATH": f"{STANDIN}{os.pathsep}{repository}"}
    environ |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    environ |= {"HF_HOME": str(tmp_path / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        ["bash", "-c", script(tmp_path)], cwd=repository, env=environ, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    first, *others = campaigns.Made(smoke, environ).started()
    assert (first, sorted(others)) == ("baseline_b1_e2", ["long_b1_e6", "wide_b4_e4"])  # none twice


def test_every_command_of_the_plan_has_its_place_on_the_page() -> None:
    sections = re.split(r"^## Phase (\d)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    numbers = {
        int(phase): sorted(map(int, re.findall(r"^(\d)\. ", text, re.MULTILINE)))
        for phase, text in zip(sections[::2], sections[1::2], strict=True)
    }
    assert numbers == {phase: list(range(1, count + 1)) for phase, count in PLANNED.items()}


def test_what_is_left_to_make_test_is_there() -> None:
    words = [word for block in blocks() if block.elsewhere for word in shlex.split(block.text)]
    assert [word for word in words if word.startswith("tests/") and not (REPOSITORY / word).is_file()] == []
    assert shutil.which("make")
