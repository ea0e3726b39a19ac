"""Evaluations that do not end, or end and leave something behind that does not."""

import time

from campaigns import Made
from processes import of_campaign

from tracka.core import files, reading

ROW = "long_b1_e6"


def limited(ready: Made, word: str, seconds: int = 2, retry_index: int = 0) -> dict[str, object]:
    """The result of a row that has that long for each of its two attempts, or for the second if it is the retry."""
    ready.behave(**{ROW: [word]})
    ready.configure(f"[rows.{ROW}]\ntimeout_secs = {seconds}")
    return ready.run_row(ROW, retry_index=retry_index)


def test_a_hang_that_ignores_term_is_killed_after_the_grace(ready: Made) -> None:
    start = time.monotonic()
    result = limited(ready, "stubborn")
    assert (result["status"], result["reason"]) == ("fail", "timeout")
    assert 2 * (2 + 1) <= time.monotonic() - start < 20
    assert of_campaign(ready.root) == []


def test_a_hang_after_the_metrics_is_no_pass_whatever_the_log_says(ready: Made) -> None:
    result = limited(ready, "hang_after_metrics", 5, retry_index=1)
    assert "pc_success" in reading.tail(ready.layout.run(ROW).stderr)
    assert (result["status"], result["reason"]) == ("fail", "timeout")


def test_a_pipe_that_a_grandchild_holds_open_delays_nothing(ready: Made) -> None:
    ready.behave(**{ROW: ["holds_the_pipe"]})
    start = time.monotonic()
    assert ready.run_row(ROW)["status"] == "pass"
    assert time.monotonic() - start < 30  # it would hold it for 60
    assert of_campaign(ready.root) == []


def test_a_row_that_ran_out_of_time_is_tried_once_more_with_half_the_batch_and_said_not_to_be_comparable(
    ready: Made,
) -> None:
    ready.behave(wide_b4_e4=["hang", "ok"])
    ready.configure("[rows.wide_b4_e4]\ntimeout_secs = 5")
    assert ready.run_row("wide_b4_e4")["status"] == "pass"
    manifest = files.read_json(ready.layout.run("wide_b4_e4").manifest)
    assert (manifest["batch_size"], manifest["batch_size_requested"], manifest["comparable"]) == (2, 4, False)
