"""What an evaluation leaves on the disk stops nothing: pipes, giants, circles, a hundred thousand files."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files

VIDEO = "videos/libero_object_0/eval_episode_0.mp4"
# Word of the stand-in -> the reason of its attempt, and a part of the message.
QUICK = {
    "pipe eval_info.json": ("no_result", "a named pipe"),
    f"pipe {VIDEO}": ("invalid_result", "eval_episode_0.mp4: it is a named pipe"),
    f"nested {VIDEO}": ("invalid_result", "eval_episode_0.mp4 does not play"),
}
MORE = {
    "pipe episodes.jsonl": ("no_result", "episodes.jsonl: the file cannot be read as UTF-8 (it is a named pipe"),
    "giant eval_info.json": ("no_result", "it claims to have 1099511627776 bytes"),
    "pipe ../stdout.log": ("invalid_result", "stdout.log: it is a named pipe"),
    "pipe ../stderr.log": ("invalid_result", "stderr.log: it is a named pipe"),
    "socket plain": ("invalid_result", "plain: it is a socket"),
    f"giant {VIDEO}": ("invalid_result", "it claims to have 1099511627776 bytes"),
    "device eval_info.json": ("no_result", "a device"),
    f"device {VIDEO}": ("invalid_result", "a link to /dev/zero"),
    "outside plain": ("invalid_result", "outside of the folder"),
    "circle plain": ("invalid_result", "in a circle"),
    "folder again": ("invalid_result", "a link to the folder"),
    "many heap": ("invalid_result", "more files and folders than Track A looks at"),
    "deep well": ("invalid_result", "more than 32 levels deep"),
    "nested eval_info.json": ("no_result", "nested deeper than 64 levels"),
    "locked plain": ("invalid_result", "you may not read it"),
}
# What an evaluation may do to the folder of its own attempt, so that no result can be written there.
OWN_ATTEMPT = ("gone ..", "pipe ..", "pipe ../run_manifest.json", "folder ../run_manifest.json", "outside ..")
SECS = 60  # a sweep that waits for a pipe would wait for ever


@dataclass(frozen=True)
class Swept:
    """A sweep whose rows each left one thing at their first attempt and nothing at the second."""

    made: Made
    code: int
    seconds: float
    words: list[str]

    def attempt(self, word: str, number: int) -> files.Json:
        run_id = f"row{self.words.index(word)}"
        return files.read_json(self.made.layout.run(run_id).attempt(number).result)


def swept(folder: Path, words: list[str]) -> Swept:
    rows = [f"row{number},libero_object,1,1,cpu,7,egl,checkpoints/fake,1" for number in range(len(words))]
    settings = campaigns.SETTINGS.replace("baseline_b1_e2", "row0")
    made = campaigns.make(folder / "campaign", rows, settings)
    made.behave(**{f"row{number}": [f"leaves:{word}", "ok"] for number, word in enumerate(words)})
    with pytest.MonkeyPatch.context() as environ:
        for name, value in made.environ.items():
            environ.setenv(name, value)
        campaigns.pass_preflight(made)
    start = time.monotonic()
    ended = made.tracka(*made.sweep_words("--max-parallel", "2"))
    return Swept(made, ended.returncode, time.monotonic() - start, words)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return swept(tmp_path_factory.mktemp("quick"), list(QUICK))


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return swept(tmp_path_factory.mktemp("more"), list(MORE))


def test_a_sweep_goes_on_to_its_end_whatever_its_rows_leave(quick: Swept) -> None:
    assert quick.code == 0 and quick.seconds < SECS


@pytest.mark.parametrize("word", QUICK)
def test_an_attempt_that_leaves_what_must_not_be_read_fails_with_its_reason_and_the_next_one_passes(
    quick: Swept, word: str
) -> None:
    first, second = quick.attempt(word, 1), quick.attempt(word, 2)
    assert first["reason"] == QUICK[word][0] and QUICK[word][1] in first["error_message"], first["error_message"]
    assert second["status"] == "pass"


@pytest.mark.slow
def test_a_sweep_goes_on_to_its_end_through_every_kind_of_leftover(more: Swept) -> None:
    assert more.code == 0 and more.seconds < SECS * len(MORE) / 2


@pytest.mark.slow
@pytest.mark.parametrize("word", MORE)
def test_every_kind_of_leftover_fails_its_attempt_alone(more: Swept, word: str) -> None:
    if word.startswith("locked") and os.geteuid() == 0:
        pytest.skip("root may read every file")
    first, second = more.attempt(word, 1), more.attempt(word, 2)
    assert first["reason"] == MORE[word][0] and MORE[word][1] in first["error_message"], first["error_message"]
    assert second["status"] == "pass"


@pytest.mark.slow
def test_an_evaluation_that_damages_its_own_attempt_fails_its_row_alone_and_the_next_sweep_runs_it(
    tmp_path: Path,
) -> None:
    damaged = swept(tmp_path, [*OWN_ATTEMPT, "pipe eval_info.json"])
    assert damaged.code == 1 and damaged.attempt("pipe eval_info.json", 2)["status"] == "pass"
    damaged.made.behave()
    resumed = damaged.made.tracka(*damaged.made.sweep_words("--resume"))
    assert resumed.returncode == 0, resumed.stderr
