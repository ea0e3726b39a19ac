"""The resident engine as a program, beside lerobot-eval itself, on the real simulator."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from campaigns import REPOSITORY

from fixtures.parity import environ
from tracka.engines import comparison, lerobot_eval, video

pytestmark = pytest.mark.simulator

FLAGS = {
    "policy.device": "cpu",
    "env.type": "libero",
    "env.task": "libero_object",
    "env.task_ids": "[1]",
    "policy.n_action_steps": 10,
    "eval.batch_size": 2,
    "eval.n_episodes": 4,
    "seed": 7,
}
SLOW, DOSE, REPEATED = pytest.mark.slow, pytest.mark.dose, pytest.mark.repeated
# Pixels, steps, and looks at an episode.
SIZES = [pytest.param(64, 12, 2, marks=[SLOW, DOSE]), pytest.param(128, 24, 3, marks=[SLOW, REPEATED])]


def words(checkpoint: Path, folder: Path, **more: object) -> list[str]:
    named = FLAGS | {"policy.path": checkpoint, "output_dir": folder} | more
    return [f"--{name}={value}" for name, value in named.items()]


def play(module: str, checkpoint: Path, folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *words(checkpoint, folder, **more)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ(), cwd=REPOSITORY
    )


@pytest.mark.parametrize(("pixels", "steps", "looks"), SIZES)
def test_it_plays_lerobot_evals_episodes_to_the_bit_and_leaves_its_evidence(
    pixels: int, steps: int, looks: int, tiny_act: Path, tmp_path: Path
) -> None:
    sizes = {"env.observation_height": pixels, "env.observation_width": pixels, "env.episode_length": steps}
    own: dict[str, object] = {"resident.slots": 3, "resident.hash_looks": "true"}
    flags = {"reference": {}, "resident": own, "rendered": own | {"resident.renderers": 1}}
    for name, more in flags.items():
        module = f"tracka.engines.{'reference' if name == 'reference' else 'resident'}"
        ended = play(module, tiny_act, tmp_path / name, **sizes, **more)
        assert ended.returncode == 0, ended.stderr[-3000:]
    reference, *played = (comparison.read(tmp_path / name) for name in flags)
    for found in (comparison.compare(reference, one) for one in played):
        assert found.exact and found.episodes == 4
    films, rendered = (sorted((tmp_path / name / "videos").rglob("*.mp4")) for name in ("resident", "rendered"))
    assert [film.read_bytes() for film in films] == [film.read_bytes() for film in rendered] != []
    theirs, ours = (lerobot_eval.read_metrics(tmp_path / name, ()) for name in ("reference", "resident"))
    assert ours.warnings == () and ours.tasks == theirs.tasks
    assert all(video.frame_count(path) == steps // 4 + 1 for path in (tmp_path / "resident" / "videos").rglob("*.mp4"))
    told = json.loads((tmp_path / "resident" / "timings.json").read_text())
    assert told["fallbacks"] == [] and told["looks"] == 4 * looks


KILLED = {
    "renderer": (lambda renderer, builder: renderer, "renderer 0 died with exit code -9"),
    "builder": (lambda renderer, builder: builder, "builder process 0 died with exit code -9"),
    "worker": (
        lambda renderer, builder: builder.children()[0],
        "the worker process of slot 0 died with exit code -9",
    ),
}


@SLOW
@pytest.mark.parametrize("kind", KILLED)
def test_a_row_whose_process_of_any_kind_is_killed_fails_with_the_reason_and_leaves_no_process(
    kind: str, tiny_act: Path, tmp_path: Path
) -> None:
    small = {"env.observation_height": 64, "env.observation_width": 64, "eval.batch_size": 1, "eval.n_episodes": 40}
    own = {"resident.workers": 1, "resident.slots": 1, "resident.renderers": 1}
    command = [sys.executable, "-m", "tracka.engines.resident"]
    command += words(tiny_act, tmp_path / "eval", **small, **own, **{"env.episode_length": 12})
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ(), cwd=REPOSITORY
        ) as row,
    ):
        lines = tmp_path / "eval" / "episodes.jsonl"
        while not (lines.exists() and lines.read_text()):
            assert row.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
        main = psutil.Process(row.pid)
        below = main.children(recursive=True)
        renderer, builder = sorted(main.children(), key=psutil.Process.create_time)
        choose, reason = KILLED[kind]
        choose(renderer, builder).kill()
        assert row.wait(120) == 1
    assert reason in log.read_text()
    assert psutil.wait_procs(below, timeout=20)[1] == []


WRONG = {"eval.recording": "true", "env.hard_reset": "false"}


def test_flags_that_it_cannot_obey_are_all_named_before_anything_is_made(
    tiny_act: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tracka.engines.resident.evaluation import EvaluationCache, Stages, run

    monkeypatch.setattr("lerobot.utils.utils.init_logging", lambda: None)  # this process's is pytest's
    monkeypatch.setattr("sys.argv", ["tracka.engines.resident", *words(tiny_act, tmp_path / "eval", **WRONG)])
    with pytest.raises(SystemExit) as ended:
        run(EvaluationCache(), Stages())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "eval.recording" in said and "env.hard_reset" in said
    assert not (tmp_path / "eval").exists()


@SLOW
def test_flags_that_it_cannot_obey_end_it_with_2_and_all_of_them_named(tiny_act: Path, tmp_path: Path) -> None:
    ended = play("tracka.engines.resident", tiny_act, tmp_path / "eval", **WRONG)
    assert ended.returncode == 2
    assert "eval.recording" in ended.stderr and "env.hard_reset" in ended.stderr
    assert not (tmp_path / "eval").exists()
