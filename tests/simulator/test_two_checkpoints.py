"""Two checkpoints of a known outcome, from the README's commands to the answer, on the real lerobot-eval and LIBERO."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY

from tracka.core.files import Json

pytestmark = [pytest.mark.simulator, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

KNOWN = {"a": "libero_object/0:0-5", "b": "libero_object/0:5"}  # by heart, of the six episodes that are played
DIFFERING = [0, 1, 2, 3, 4]
SIDES = ("tasks/a-or-b::outputs/a", "tasks/a-or-b::outputs/b")
Called = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Played:
    """The repository's copy in which the README's commands have run, and how each ended."""

    root: Path
    ended: list[Called]


def call(root: Path, *words: str) -> Called:
    """Runs Python as a reader who stands in `root`; bytecode and packages are those of this environment."""
    environ = os.environ | {"PYTHONPATH": str(root), "TRACKA_CAMPAIGN": ""}
    return subprocess.run(
        [sys.executable, *words], cwd=root, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def command(root: Path, line: str) -> Called:
    """Runs a line of the README."""
    program, *words = line.split()
    return call(root, "-m", program, *words)


def commands() -> Sequence[str]:
    """Returns the commands that the README gives to a user with two checkpoints."""
    section = (REPOSITORY / "README.md").read_text().partition("\n## Is B worse than A?\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return block.splitlines()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The commands, run once for all workers."""
    with campaigns.shared(tmp_path_factory.getbasetemp(), "reader") as folder:
        root, ended = folder / "repository", folder / "ended.pickle"
        if not ended.exists():
            make_copy(root)
            ended.write_bytes(pickle.dumps([command(root, line) for line in commands()]))
        return Played(root, pickle.loads(ended.read_bytes()))


def make_copy(root: Path) -> None:
    """Makes a reader's copy of the repository with both checkpoints."""
    campaigns.copy_repository(root)
    (root / "outputs").mkdir()
    for name, choice in KNOWN.items():
        built = call(root, "fixtures/replay.py", f"outputs/{name}", choice)
        assert built.returncode == 0, built.stderr


def comparison(root: Path) -> Json:
    ended = command(root, f"tracka compare {SIDES[0]} {SIDES[1]} --format json")
    assert ended.returncode == 1, ended.stderr
    value: Json = json.loads(ended.stdout)
    return value


def test_the_commands_of_the_readme_find_exactly_the_episodes_in_which_two_checkpoints_differ(played: Played) -> None:
    assert len(played.ended) <= 4
    *made, compared = played.ended
    assert [ended.returncode for ended in made] == [0] * len(made), "\n".join(
        each.stdout + each.stderr for each in made
    )
    assert compared.returncode == 1, compared.stderr
    value = comparison(played.root)
    flips = [(flip["suite"], flip["task"], flip["episode"], flip["change"]) for flip in value["flips"]]
    assert flips == [("libero_object", 0, number, "loss") for number in DIFFERING]
    assert (value["pairing"]["pairs"], value["overall"]["gains"]) == (6, 0)
    assert value["overall"]["worse"]["value"] == 1 / 32  # five coins
    assert value["overall"]["two_sided"]["value"] == 1 / 16


def test_the_readme_shows_the_sentence_that_these_commands_print(played: Played) -> None:
    sentence = played.ended[-1].stdout.splitlines()[-1]
    assert sentence in " ".join((REPOSITORY / "README.md").read_text().split())


def test_the_flips_have_both_videos(played: Played) -> None:
    for flip in comparison(played.root)["flips"]:
        for name in ("baseline_video", "candidate_video"):
            assert (played.root / flip[name]).stat().st_size > 0


def test_a_deterministic_policy_has_no_noise_so_the_flips_are_above_it(played: Played) -> None:
    ended = command(played.root, f"tracka noise {SIDES[0]}")
    assert ended.returncode == 0, ended.stderr
    # 1 - 0.025^(1/6) = 0.4593
    assert ended.stdout.splitlines()[-1] == (
        "0 of 6 episodes flipped when played again: 0% (95% interval 0% to 45.93%, Clopper-Pearson)."
    )
    noise = comparison(played.root)["noise"]
    assert (noise["side"], noise["noise_flips"], noise["flips"], noise["p"]) == ("A", 0, 5, 1 / 32)
    assert noise["is_above"]
