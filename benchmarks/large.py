"""Makes a campaign of any number of rows, with the files that real runs leave, by the harness's own writers.

Of a hundred rows one has not run, nine have crashed and ninety have passed. Only the baseline is evaluated, by a
stand-in; the other rows get what the baseline left, with their own numbers.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import campaigns
from campaigns import STANDIN, Made

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import RunFolder
from tracka.campaign.matrix import Row
from tracka.core import fact_cache, files
from tracka.core.files import Json
from tracka.engines import lerobot_eval
from tracka.engines.lerobot_eval import Metrics
from tracka.execution import environment, gpu
from tracka.preflight import preflight
from tracka.runs import attempt, identity, judgement, row_state, run
from tracka.runs.plan import Host, Plan

BASELINE = "baseline_b1_e2"
EPISODES, TASKS = 50, 10  # what `tracka init` gives a row: 50 episodes of one LIBERO task
SETTINGS = f"""
schema_version = 1
baseline = "{BASELINE}"
expected_gpus = 0
executable = [{json.dumps(sys.executable)}, {json.dumps(str(STANDIN / "lerobot_eval.py"))}]

[lerobot_eval]
policy_type = "act"

[rows.{BASELINE}]
task_ids = [0]
"""


def make(root: Path, rows: int) -> Made:
    """Makes a campaign of `rows` rows in `root`, complete in matrix and settings, of which no row has run."""
    names = [f"object_t{number % TASKS}_b10_e{EPISODES}_s{number}" for number in range(1, rows)]
    lines = [
        f"{name},libero_object,10,{EPISODES},cpu,{number},egl,checkpoints/fake,1"
        for number, name in enumerate(names, 1)
    ]
    tables = [f"[rows.{name}]\ntask_ids = [{number % TASKS}]\n" for number, name in enumerate(names, 1)]
    baseline = f"{BASELINE},libero_object,1,2,cpu,7,egl,checkpoints/fake,1"
    new_campaign = campaigns.make(root, [baseline, *lines], "\n".join([SETTINGS, *tables]))
    os.environ.update(new_campaign.environ)
    return new_campaign


def make_run(root: Path, rows: int) -> Made:
    """Makes the same campaign after its sweep."""
    finished_campaign = make(root, rows)
    preflight.host.artifacts_mib = lambda spec: 0  # the videos here are tiny, so they need no room
    finished_campaign.pass_preflight()
    finished_campaign.run_row(BASELINE)
    spec = finished_campaign.spec
    host = run.load_host(spec.layout)
    os.fsync = lambda handle: None  # these files need not survive a crash of the machine
    with fact_cache.scope():
        for number, row in enumerate(spec.enabled):
            if row.run_id != BASELINE and number % 100:
                leave(spec, row, host, passed=number % 100 < 91)
    return finished_campaign


def leave(spec: Campaign, row: Row, host: Host, passed: bool) -> None:
    """Writes the files of one run that passed or crashed, as an attempt leaves them."""
    layout, plan = spec.layout, run.plan_row(spec, row, host)
    pattern, folder = layout.run(BASELINE).attempt(1), layout.run(row.run_id).attempt(1)
    environ = environment.for_row(spec, gpu.CPU_DEVICE, host.backend)
    files.write_json(folder.manifest, plan.manifest(folder, gpu.CPU_DEVICE, environ, 1))
    identity.write(folder, plan.identity_parts)
    row_state.ensure_pending_held(layout, row.run_id)
    row_state.advance(layout, row.run_id, "running", 1, retry_index=0, gpu_id=gpu.CPU_DEVICE.gpu_id)
    folder.stdout.write_text("")
    if passed:
        _evaluate(plan, pattern, folder)
    else:
        folder.stderr.write_text("RuntimeError: the policy has crashed\n")
    attempt.close(layout, folder, _result(plan, files.read_json(pattern.result), folder, passed))


def _evaluate(plan: Plan, pattern: RunFolder, folder: RunFolder) -> None:
    """Writes what lerobot-eval leaves: logs, eval_info.json, a video."""
    (task,), random = plan.task_ids, Random(plan.row.seed)
    successes = [random.random() < 0.7 for _ in range(plan.row.n_episodes)]
    video = folder.output / "videos" / f"{plan.row.task_suite}_{task}" / "eval_episode_0.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(own_video(next(iter(pattern.videos())).read_bytes(), plan.row.run_id))
    overall = {"pc_success": 100 * sum(successes) / len(successes), "n_episodes": len(successes), "eval_s": 1.0}
    rewards = [float(success) for success in successes]
    metrics = {"successes": successes, "sum_rewards": rewards, "max_rewards": rewards, "video_paths": [str(video)]}
    info = {"per_task": [{"task_group": plan.row.task_suite, "task_id": task, "metrics": metrics}], "overall": overall}
    (folder.output / "eval_info.json").write_text(json.dumps(info))
    folder.stderr.write_text(f"INFO 2026-01-01 00:00:00 bot_eval.py:809 {overall}\nINFO End of eval\n")


def own_video(content: bytes, name: str) -> bytes:
    """Returns a video as a file of its own, since no two episodes may share one: players skip the box with its name."""
    return content + (8 + len(name)).to_bytes(4, "big") + b"free" + name.encode()


def _result(plan: Plan, pattern: Json, folder: RunFolder, passed: bool) -> Json:
    """Returns the baseline's result (`pattern`) with the figures of this run, and writes the run's episodes."""
    layout, top = plan.campaign.layout, plan.campaign.layout.run(plan.row.run_id)
    metrics = lerobot_eval.read_metrics(folder.output, (folder.stdout, folder.stderr)) if passed else Metrics()
    files.write_text(folder.episodes, "".join(_episodes(plan, metrics)))
    videos = [layout.relative(video) for video in folder.videos()]
    crash = {"status": "fail", "reason": "crash", "error_message": "RuntimeError: the policy has crashed"}
    return {
        **pattern,
        **({} if passed else crash | {"exit_code": 1}),
        "run_id": plan.row.run_id,
        "row_hash": plan.row_hash,
        "end_time_utc": files.utc_now(),
        "files": judgement.file_hashes(folder),
        **lerobot_eval.reported_results(metrics),
        "video_path": layout.relative(folder.output / "videos") if videos else None,
        "video_paths": videos,
        "stdout_log": layout.relative(top.stdout),
        "stderr_log": layout.relative(top.stderr),
    }


def _episodes(plan: Plan, metrics: Metrics) -> Iterator[str]:
    records = lerobot_eval.episode_records(metrics, plan.batch_size, plan.row.n_episodes, plan.row.seed)
    return (json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    make_run(Path(sys.argv[1]), int(sys.argv[2]))
