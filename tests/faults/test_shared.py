"""Several harnesses at once: on one campaign, on one row, on shards of one matrix."""

import subprocess
import sys
import time

from campaigns import REPOSITORY, Made
from processes import wait_until

from tracka.core import files
from tracka.gates import validate

ROW, WIDE, BASELINE = "long_b1_e6", "wide_b4_e4", "baseline_b1_e2"


def start(made: Made, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tracka", *made.sweep_words(*words)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_pytest_on_a_campaign_ends_at_once_and_says_who_holds_it(ready: Made) -> None:
    ready.behave(**{BASELINE: ["slow:15"]})
    first = ready.start("-n0")
    wait_until(lambda: bool(ready.started()), 60)
    begun = time.monotonic()
    second = ready.pytest("-n0")
    assert time.monotonic() - begun < 10
    assert second.returncode == 4 and f"held by process {first.pid}" in second.stderr
    first.kill()
    first.wait()


def test_a_second_full_sweep_ends_at_once_and_says_who_holds_it(ready: Made) -> None:
    ready.behave(**{BASELINE: ["slow:15"], ROW: ["slow:15"], WIDE: ["slow:15"]})
    first = start(ready)
    wait_until(lambda: bool(ready.started()), 60)
    second = start(ready)
    told = second.communicate(timeout=30)[1]
    assert second.returncode != 0 and f"held by process {first.pid}" in told
    first.kill()
    first.communicate()


def test_shards_on_one_artifacts_root_run_each_row_once_and_one_table_tells_all(ready: Made) -> None:
    ready.behave(**{run_id: ["slow:1"] for run_id in (BASELINE, ROW, WIDE)})
    shards = [start(ready, "--rows", rows) for rows in (f"{BASELINE},{ROW}", WIDE)]
    ended = [shard.communicate() for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], ended
    assert sorted(ready.started()) == [BASELINE, ROW, WIDE]
    assert not ready.layout.summary.exists()  # the tables are the business of one other process
    spec = ready.spec
    assert [finding for row in spec.enabled for finding in validate.row_contract_findings(spec, row, "evidence")] == []


def test_shards_that_overlap_never_run_a_row_at_the_same_time(ready: Made) -> None:
    ready.behave(**{run_id: ["slow:1"] for run_id in (BASELINE, ROW, WIDE)})
    shards = [start(ready, "--rows", f"{BASELINE},{ROW}", "--resume") for _ in range(2)]
    for shard in shards:
        shard.communicate()
    events = [line.split() for line in ready.journal()]
    running: set[str] = set()
    for run_id, _, event in events:
        assert (event == "end") == (run_id in running), events
        running ^= {run_id}
    for run_id in (BASELINE, ROW):
        assert files.read_json(ready.layout.run(run_id).result)["status"] == "pass"
