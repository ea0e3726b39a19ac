"""`tracka power`: published numbers of episodes, what a number of episodes shows, and refused questions."""

import subprocess
import sys
from math import comb
from pathlib import Path

import pytest
from campaigns import REPOSITORY, Made


@pytest.fixture
def ask(tmp_path: Path) -> "Ask":
    return Ask(Made(tmp_path, {}))


class Ask:
    """Calls `tracka power` with words and returns what it printed, or with `refused` what it refused."""

    def __init__(self, made: Made) -> None:
        self.made = made

    def call(self, words: str) -> subprocess.CompletedProcess[str]:
        return self.made.call("power", *words.split())

    def __call__(self, words: str) -> str:
        ended = self.call(words)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def refused(self, words: str) -> list[str]:
        ended = self.call(words)
        assert (ended.returncode, ended.stdout) == (2, "")
        return ended.stderr.splitlines()


def test_the_other_commands_import_no_statistics() -> None:
    code = "import sys, tracka.cli; print(sorted({'numpy', 'scipy'} & {*sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.stdout == "[]\n", ended.stderr


@pytest.mark.parametrize(("threshold", "rate", "episodes"), [(0.9, 0.95, 179), (0.9, 0.98, 61), (0.95, 0.97, 601)])
def test_a_threshold_needs_the_published_number_of_episodes(
    ask: Ask, threshold: float, rate: float, episodes: int
) -> None:
    lines = ask(f"--threshold {threshold} --rate {rate}").splitlines()
    assert lines[1] == f"A policy of {100 * rate:g}% needs {episodes} episodes to pass with a chance of 80%."


def test_a_threshold_says_the_fewest_episodes_that_can_pass_it(ask: Ask) -> None:
    assert "is passed by 29 of 29 episodes at the earliest" in ask("--threshold 0.9 --rate 0.95")


def test_fifty_episodes_pass_nine_tenths_with_49_successes(ask: Ask) -> None:
    told = ask("--threshold 0.9 --episodes 50 --rate 0.95")
    assert "50 episodes pass it with 49 successes or more: 49/50 shows at least 90.86%." in told
    assert "They pass a policy of 95% with a chance of 27.94%." in told  # .95^50 + 50 * .05 * .95^49


def test_28_episodes_cannot_pass_nine_tenths(ask: Ask) -> None:
    assert "28 episodes cannot pass it, even if all succeed." in ask("--threshold 0.9 --episodes 28")


def test_a_policy_below_the_threshold_is_to_fail_it(ask: Ask) -> None:
    assert "A policy of 70% needs 25 episodes to fail with a chance of 80%." in ask("--threshold 0.9 --rate 0.7")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--drop 0.05 --rate 0.95 --two-sided", "by 424 episodes of each policy"),  # 434 by the normal approximation
        ("--drop 0.05 --paired --discordance 0.07 --two-sided", "by 228 pairs"),  # 217 by the normal approximation
    ],
)
def test_a_drop_needs_about_as_many_as_the_normal_approximation_says(ask: Ask, words: str, expected: str) -> None:
    assert expected in ask(words)


def test_pairs_that_can_only_be_lost_need_five_losses(ask: Ask) -> None:
    """Five losses and no gain have 1/32; so many pairs are needed that five losses come with a chance of 80%."""

    def chance(pairs: int) -> float:
        return 1 - sum(comb(pairs, losses) * 0.05**losses * 0.95 ** (pairs - losses) for losses in range(5))

    needed = next(pairs for pairs in range(5, 1000) if chance(pairs) >= 0.8)
    assert f"by {needed} pairs" in ask("--drop 0.05 --paired --discordance 0.05")


def test_five_hundred_pairs_have_the_published_power(ask: Ask) -> None:
    told = ask("--drop 0.03 --paired --discordance 0.05 --two-sided --episodes 500")
    assert "They show a drop of 3.0 points with a chance of 83" in told


def test_episodes_alone_ask_for_the_smallest_drop(ask: Ask) -> None:
    assert "200 episodes of each policy show a drop of 8.8 points from 90%" in ask("--rate 0.9 --episodes 200")


def test_more_episodes_than_init_states_are_said_to_repeat_them(ask: Ask) -> None:
    few, many = ask("--threshold 0.9 --rate 0.95"), ask("--threshold 0.95 --rate 0.97")
    assert "LIBERO has 50 init states a task, 500 in a suite of 10 tasks: that is 18 episodes a task." in few
    assert "500 in a suite of 10 tasks: more episodes repeat them" in many


def test_everything_wrong_with_a_question_is_refused_at_once(ask: Ask) -> None:
    lines = ask.refused("--threshold 2 --drop 3 --rate -1 --chance 1 --confidence 95 --paired")
    flags = [line.split(": ")[1] for line in lines]
    assert flags == [
        "--threshold, --drop",
        "--threshold",
        "--drop",
        "--rate",
        "--chance",
        "--confidence",
        "--paired, --discordance, --two-sided",
    ]


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("", "--threshold, --drop"),
        ("--threshold 0.9", "--rate"),
        ("--drop 0.05", "--rate"),
        ("--drop 0.05 --paired", "--discordance"),
        ("--drop 0.05 --rate 0.9 --discordance 0.1", "--discordance"),
        ("--drop 0.2 --rate 0.1", "--drop"),
        ("--drop 0.2 --paired --discordance 0.1", "--drop"),
    ],
)
def test_what_a_question_lacks_is_named(ask: Ask, words: str, flag: str) -> None:
    (line,) = ask.refused(words)
    assert line.startswith(f"error: {flag}: ")
