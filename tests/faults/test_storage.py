"""A disk that is full or read-only: the error is loud and names the file, and what was there stays whole.

The tests run in a mount namespace of their own, since permissions stop no root.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY, RUN_ROW, Made
from processes import of_campaign

from tracka.core import reading
from tracka.runs import row_state

ROW = "long_b1_e6"
NAMESPACE = ("unshare", "--mount", "--map-root-user")


def has_namespaces() -> bool:
    """Whether this user may mount anything; many containers allow nobody to."""
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_namespaces(), reason="no mount namespaces for this user")


def mounted(made: Made, mount: str, run_id: str = ROW) -> subprocess.CompletedProcess[str]:
    """Runs a row after the shell commands `mount`, which see the campaign as $ROOT."""
    script = f'set -e; {mount}; shift 2; exec "$@"'
    words = [sys.executable, "-c", RUN_ROW, str(made.root), run_id]
    return subprocess.run(
        [*NAMESPACE, "bash", "-c", f"ROOT=$1; {script}", "bash", str(made.root), "-", *words],
        cwd=REPOSITORY,
        env={**os.environ, **made.environ},
        capture_output=True,
        text=True,
    )


FULL = (
    'mkdir /tmp/full.$$; mount -t tmpfs -o size={size} none /tmp/full.$$; cp -a "$ROOT/artifacts/." /tmp/full.$$; '
    "head -c 100000000 /dev/zero > /tmp/full.$$/ballast 2> /dev/null || true; "
    'mount --bind /tmp/full.$$ "$ROOT/artifacts"'
)
READ_ONLY = 'mount --bind "$ROOT/artifacts" "$ROOT/artifacts"; mount -o remount,bind,ro "$ROOT/artifacts"'


def test_a_full_disk_is_a_loud_error_and_nothing_starts(ready: Made) -> None:
    ended = mounted(ready, FULL.format(size="2M"))
    assert ended.returncode != 0 and "No space left on device" in ended.stderr
    assert ready.started() == []


def test_a_sweep_on_a_full_disk_names_the_file_and_the_remedy(ready: Made) -> None:
    script = f'set -e; {FULL.format(size="2M")}; shift 2; exec "$@"'
    words = [sys.executable, "-m", "tracka", *ready.sweep_words("--rows", ROW, "--resume")]
    ended = subprocess.run(
        [*NAMESPACE, "bash", "-c", f"ROOT=$1; {script}", "bash", str(ready.root), "-", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert f"{ready.root}/artifacts/" in ended.stderr and "No space left on device. Free space" in ended.stderr
    assert "Traceback" not in ended.stderr and "None" not in ended.stderr


def test_a_read_only_disk_is_a_loud_error_and_nothing_starts(ready: Made) -> None:
    row_state.ensure_pending(ready.layout, ready.spec.rows)
    before = ready.layout.marker(ROW).read_bytes()
    ended = mounted(ready, READ_ONLY)
    assert ended.returncode != 0 and "Read-only file system" in ended.stderr
    assert ready.started() == []
    assert ready.layout.marker(ROW).read_bytes() == before


def test_a_disk_that_fills_while_the_row_runs_ends_it_and_leaves_every_file_whole(ready: Made, tmp_path: Path) -> None:
    """The log fills the disk; state files are whole JSON afterwards, and no result says pass."""
    ready.behave(**{ROW: ["flood", "ok"]})
    kept = tmp_path / "kept"
    mount = (
        'mkdir /tmp/small.$$; mount -t tmpfs -o size=2M none /tmp/small.$$; cp -a "$ROOT/artifacts/." /tmp/small.$$; '
        'mount --bind /tmp/small.$$ "$ROOT/artifacts"'
    )
    run_then_keep = f'{mount}; cd {REPOSITORY}; "{sys.executable}" -c \'{RUN_ROW}\' "$ROOT" {ROW} || true'
    ended = mounted(ready, f'{run_then_keep}; cp -a "$ROOT/artifacts" {kept}; exit 0')
    assert "No space left on device" in ended.stderr + "".join(map(reading.tail, kept.rglob("result.json")))
    for path in kept.rglob("*.json"):
        json.loads(path.read_text())  # whole
    results = [json.loads(path.read_text()) for path in kept.rglob("result.json")]
    assert not any(result["status"] == "pass" for result in results)
    assert {result["reason"] for result in results} <= {"disk_full", "flood"}
    assert of_campaign(ready.root) == []


def test_after_the_disk_has_room_again_the_row_runs(ready: Made) -> None:
    mounted(ready, FULL.format(size="2M"))
    assert ready.run_row(ROW)["status"] == "pass"
