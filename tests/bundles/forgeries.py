"""The table of forgeries: what a forger edits in a finished campaign, and by which words the edit is found.

The forger then runs Track A's own code (`forger.Forger.seal`), so that all hashes, tables, pages and handoffs agree.
A forgery whose words are LIMIT is not found: docs/evidence.md names it, and how it can be found elsewhere.
"""

import hashlib
import inspect
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from forger import Forger

from tracka.core.files import Json
from tracka.engines import lerobot_eval, recorded_arrays
from tracka.engines.lerobot_eval import video
from tracka.runs import judgement

LIMIT = None
BASE, PLAIN, PAIR, TWO_TASKS, THREE = (
    "baseline_b1_e2",
    "object_t1_b1_s11",
    "object_t2_b2_s7",
    "object_t34_b1_s23",
    "object_t5_b2_e3_s42",
)
SUITE = "libero_object"


@dataclass(frozen=True)
class Forgery:
    """One edit, and words of the finding that shows it; None where nothing can."""

    edit: Callable[[Forger], object]
    found: str | None

    @property
    def name(self) -> str:
        """The name of the edit."""
        return self.edit.__name__

    @property
    def rows(self) -> set[str]:
        """The names of the rows in the edit's own lines; two edits of one row may undo each other."""
        return set(re.findall(r"\b(?:BASE|PLAIN|PAIR|TWO_TASKS|THREE)\b", inspect.getsource(self.edit)))


TABLE: list[Forgery] = []


def found_by(words: str | None) -> Callable[[Callable[[Forger], object]], Callable[[Forger], object]]:
    """Puts a forgery into the table."""

    def register(edit: Callable[[Forger], object]) -> Callable[[Forger], object]:
        TABLE.append(Forgery(edit, words))
        return edit

    return register


# ---- what several forgeries do


def known_answers(forger: Forger, run_id: str, task: int, episodes: list[int]) -> None:
    """Makes the campaign expect just these successes."""
    settings = forger.layout.settings
    forger.text(settings, rf"(^\[known_answers\.{run_id}\]\n(?:\d+ = .*\n)*?{task} = ).*$", rf"\g<1>{episodes}")


def eval_info(forger: Forger, run_id: str, task: int, change: Callable[[Json], object]) -> None:
    """Edits the metrics of one task in eval_info.json, and makes the aggregates of the file anew."""

    def edit(info: Json) -> None:
        for each in info["per_task"]:
            if each["task_id"] == task:
                change(each["metrics"])
        metrics = [each["metrics"] for each in info["per_task"]]
        wins = [success for each in metrics for success in each["successes"]]
        for group in (info["overall"], *info["per_group"].values()):
            group["pc_success"] = 100 * sum(wins) / len(wins)
            for name, key in (("avg_sum_reward", "sum_rewards"), ("avg_max_reward", "max_rewards")):
                group[name] = sum(value for each in metrics for value in each[key]) / len(wins)

    forger.json(forger.attempt(run_id).output / "eval_info.json", edit)


def outcome(forger: Forger, run_id: str, task: int, episode: int, success: bool, rewards: bool = True) -> None:
    """Gives an episode another outcome in eval_info.json, in its line and in the metrics of the log."""
    attempt = forger.attempt(run_id)

    def metrics(value: Json) -> None:
        value["successes"][episode] = success
        for key in ("sum_rewards", "max_rewards") if rewards else ():
            value[key][episode] = float(success)

    eval_info(forger, run_id, task, metrics)

    def line(value: Json) -> None:
        if (value["task"], value["episode"]) == (task, episode):
            value["success"] = success
            if rewards:
                value["sum_reward"] = float(success)

    if (attempt.output / "episodes.jsonl").exists():
        forger.lines(attempt.output / "episodes.jsonl", line)
    info = lerobot_eval.read_eval_info(attempt.output / "eval_info.json")
    forger.text(attempt.stderr, r"('pc_success': )[\d.]+", rf"\g<1>{100 * (info.success_rate or 0)}")
    wins = [number for each in info.tasks if each.task_id == task for number, won in enumerate(each.successes) if won]
    known_answers(forger, run_id, task, wins)


def bars(forger: Forger, run_id: str, edit: Callable[[str], str]) -> None:
    """Edits the progress bars in a log."""
    path = forger.attempt(run_id).stderr
    path.write_text(edit(path.read_text()))


def all_bars_won(text: str) -> str:
    """Makes each rollout of a log end with a success."""
    lines = re.split(r"(?<=[\r\n])", text)
    ends = [index for index, line in enumerate(lines) if "Stepping through eval batches" in line and "success" in line]
    last = {max(i for i in range(end) if "Running rollout" in lines[i] and "rate=" in lines[i]) for end in ends}
    won = {*last, *ends}
    return "".join(
        re.sub(r"running_success_rate=[\d.]+%", "running_success_rate=100.0%", line) if index in won else line
        for index, line in enumerate(lines)
    )


def film(forger: Forger, run_id: str, task: int, episode: int) -> Path:
    """Returns the video of an episode."""
    return video(forger.attempt(run_id).output, SUITE, task, episode)


def first_attempt_failed(forger: Forger) -> None:
    """Makes an honest campaign whose row PAIR failed once: its pass is then the second attempt."""
    top = forger.top(PAIR)
    first, second = top.attempt(1), top.attempt(2)
    shutil.copytree(first.path, second.path)
    shutil.rmtree(first.output)
    for path in (first.episodes, first.path / "identity.json"):
        path.unlink()
    parts = (second.path / "identity.json").read_bytes()
    (first.path / "identity.json").write_bytes(parts)
    first.stderr.write_text("RuntimeError: the simulator crashed\n")
    first.episodes.write_text("")

    def failed(value: Json) -> None:
        value.update(status="fail", reason="crash", exit_code=1, error_message="RuntimeError", episodes=None)
        value.update(successes=None, success_rate=None, per_task=[], metrics_source=None, video_path=None)
        value.update(video_paths=[], files=judgement.file_hashes(first))

    forger.json(first.result, failed)
    forger.json(first.manifest, lambda value: value.update(outcome={"status": "fail", "reason": "crash"}))
    renumber(forger, PAIR, 1, 2)

    def history(value: Json) -> None:
        (running,) = [step for step in value["history"] if step["status"] == "running"]
        (ended,) = [step for step in value["history"] if step["status"] == "pass"]
        earlier = [{**running, "attempt": 1}, {**running, "status": "fail", "attempt": 1, "at_utc": ended["at_utc"]}]
        later = [{**running, "attempt": 2, "at_utc": ended["at_utc"]}, {**ended, "attempt": 2}]
        value["history"] = [value["history"][0], *earlier, *later]
        value["retry_index"] = 1

    forger.marker(PAIR, history)
    forger.manifest(PAIR, retry_index=1, comparable=True, start_time_utc=forger_start(forger))
    forger.seal()


def forger_start(forger: Forger) -> str:
    """Returns when the row PAIR began."""
    return str(json.loads(forger.attempt(PAIR).manifest.read_text())["start_time_utc"])


def renumber(forger: Forger, run_id: str, before: int, after: int) -> None:
    """Makes the files in attempts/AFTER tell of that number, in all places."""
    attempt = forger.top(run_id).attempt(after)
    for path in (attempt.manifest, attempt.result, attempt.stderr, attempt.output / "eval_info.json"):
        path.write_text(path.read_text().replace(f"attempts/{before}/", f"attempts/{after}/"))
    forger.json(attempt.manifest, lambda value: value.update(attempt=after))
    forger.json(attempt.result, lambda value: value.update(attempt=after))


# ---- outcomes


@found_by("the log reports")
def success_in_eval_info_alone(forger: Forger) -> None:
    eval_info(forger, PLAIN, 1, lambda value: value.update(successes=[False], max_rewards=[0.0], sum_rewards=[0.0]))
    known_answers(forger, PLAIN, 1, [])


@found_by("but its highest reward is 0")
def success_in_all_places_but_rewards(forger: Forger) -> None:
    outcome(forger, BASE, 0, 0, True, rewards=False)


@found_by("had 0.0% successes, but other files say 100.0%")
def success_with_rewards_but_not_the_bars(forger: Forger) -> None:
    outcome(forger, BASE, 0, 0, True)


@found_by("its rewards are 1 in all")
def failure_in_a_line_but_not_its_rewards(forger: Forger) -> None:
    outcome(forger, BASE, 0, 1, False)
    forger.lines(forger.attempt(BASE).output / "episodes.jsonl", lambda line: line.update(sum_reward=1.0))


@found_by(LIMIT)
def success_in_the_last_step_with_rewards_and_bars(forger: Forger) -> None:
    """An episode of all its steps may have succeeded in the last one."""
    outcome(forger, BASE, 0, 0, True)
    bars(forger, BASE, all_bars_won)


@found_by("it failed after 101 steps, but an episode that fails lasts to its limit, 120")
def success_made_a_failure(forger: Forger) -> None:
    outcome(forger, BASE, 0, 1, False)


@found_by("it has 101 actions, but the episode lasted 120 steps")
def success_made_a_failure_of_all_steps(forger: Forger) -> None:
    success_made_a_failure(forger)
    forger.lines(forger.attempt(BASE).output / "episodes.jsonl", lambda line: line.update(steps=120))


@found_by("the video has 101 frames, but the episode has 120")
def failure_with_padded_arrays(forger: Forger) -> None:
    success_made_a_failure_of_all_steps(forger)
    output = forger.attempt(BASE).output

    def pad(line: Json) -> None:
        for kind in recorded_arrays.KINDS:
            path = recorded_arrays.path(output, kind, SUITE, line["task"], line["episode"])
            array = np.load(path)
            padded = np.concatenate([array, np.repeat(array[-1:], 120 - len(array), axis=0)])
            np.save(path, padded)
            line[f"{kind}_sha"] = hashlib.sha256(padded.tobytes()).hexdigest()

    forger.lines(output / "episodes.jsonl", pad)


@found_by("the video has 88 frames, but the episode has 120")
def failure_of_a_row_without_record(forger: Forger) -> None:
    outcome(forger, PLAIN, 1, 0, False)


@found_by("took 101 steps, but by other files 90")
def another_number_of_steps(forger: Forger) -> None:
    def fewer(line: Json) -> None:
        line["steps"] = 90 if line["episode"] == 1 else line["steps"]

    forger.lines(forger.attempt(BASE).output / "episodes.jsonl", fewer)


@found_by("per_group.libero_object has other figures than overall")
def group_of_other_figures(forger: Forger) -> None:
    path = forger.attempt(BASE).output / "eval_info.json"
    forger.json(path, lambda info: info["per_group"][SUITE].update(pc_success=100.0))


@found_by("overall.avg_sum_reward is 0.9")
def average_of_other_rewards(forger: Forger) -> None:
    path = forger.attempt(BASE).output / "eval_info.json"
    forger.json(path, lambda info: info["overall"].update(avg_sum_reward=0.9))


# ---- media and recordings


@found_by("frames, but the episode has")
def videos_of_two_episodes_exchanged(forger: Forger) -> None:
    first, second = film(forger, BASE, 0, 0), film(forger, BASE, 0, 1)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


@found_by("which is of another episode")
def video_of_another_row(forger: Forger) -> None:
    film(forger, PAIR, 2, 1).write_bytes(film(forger, BASE, 0, 0).read_bytes())


@found_by("which is of another episode")
def one_video_twice(forger: Forger) -> None:
    film(forger, TWO_TASKS, 3, 0).write_bytes(film(forger, PAIR, 2, 1).read_bytes())


@found_by(LIMIT)
def video_of_another_row_with_a_byte_more(forger: Forger) -> None:
    """What a video shows is not compared with the states: its length and its bytes are."""
    content = film(forger, BASE, 0, 0).read_bytes()
    film(forger, PAIR, 2, 1).write_bytes(content + b"\0\0\0\x09free\0")


@found_by("the video does not play")
def video_removed(forger: Forger) -> None:
    film(forger, BASE, 0, 0).unlink()


@found_by("the video does not play")
def video_that_is_none(forger: Forger) -> None:
    film(forger, BASE, 0, 0).write_bytes(b"a picture")


@found_by("the video has")
def video_cut(forger: Forger) -> None:
    path = film(forger, BASE, 0, 0)
    with av.open(str(path)) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("h264", rate=20)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for picture in frames[:60]:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        target.mux(stream.encode())


@found_by("these are not the actions of episodes.jsonl")
def actions_exchanged(forger: Forger) -> None:
    paths = [recorded_arrays.path(forger.attempt(BASE).output, "actions", SUITE, 0, each) for each in (0, 1)]
    kept = paths[0].read_bytes()
    paths[0].write_bytes(paths[1].read_bytes())
    paths[1].write_bytes(kept)


@found_by("it has 101 actions, but the episode lasted 120 steps")
def actions_exchanged_with_their_hashes(forger: Forger) -> None:
    actions_exchanged(forger)
    path = forger.attempt(BASE).output / "episodes.jsonl"
    first, second = (json.loads(line)["actions_sha"] for line in path.read_text().splitlines())
    forger.lines(path, lambda line: line.update(actions_sha=second if line["episode"] == 0 else first))


@found_by("which is of another episode")
def states_of_another_episode(forger: Forger) -> None:
    source = recorded_arrays.path(forger.attempt(BASE).output, "states", SUITE, 0, 0)
    output = forger.attempt(PAIR).output
    recorded_arrays.path(output, "states", SUITE, 2, 1).write_bytes(source.read_bytes())
    sha256 = hashlib.sha256(np.load(source).tobytes()).hexdigest()
    forger.lines(
        output / "episodes.jsonl",
        lambda line: line.update(states_sha=sha256 if line["episode"] == 1 else line["states_sha"]),
    )


@found_by("first_state_sha, final_state_sha are missing")
def hashes_of_states_nulled(forger: Forger) -> None:
    path = forger.attempt(BASE).output / "episodes.jsonl"
    forger.lines(path, lambda line: line.update(first_state_sha=None, final_state_sha=None))


@found_by("actions_sha is missing")
def hash_of_actions_nulled(forger: Forger) -> None:
    forger.lines(forger.attempt(BASE).output / "episodes.jsonl", lambda line: line.update(actions_sha=None))


@found_by("episodes have no")
def line_removed(forger: Forger) -> None:
    path = forger.attempt(BASE).output / "episodes.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])


@found_by("the campaign records its episodes, but the row has no record of them")
def record_removed(forger: Forger) -> None:
    output = forger.attempt(BASE).output
    for name in recorded_arrays.KINDS:
        shutil.rmtree(output / name)
    (output / "episodes.jsonl").unlink()
    forger.json(forger.attempt(BASE).manifest, lambda value: value.pop("listener"))


@found_by(LIMIT)
def final_state_of_another_simulation(forger: Forger) -> None:
    """A hash of a state says nothing to who has no simulator: `--replay` finds it."""
    forger.lines(forger.attempt(BASE).output / "episodes.jsonl", lambda line: line.update(final_state_sha="0" * 64))


# ---- logs


@found_by("the log does not tell the overall metrics")
def log_emptied(forger: Forger) -> None:
    forger.attempt(BASE).stderr.write_text("")


@found_by("it tells of output_dir")
def log_of_another_row(forger: Forger) -> None:
    forger.attempt(BASE).stderr.write_bytes(forger.attempt(PAIR).stderr.read_bytes())


@found_by("it tells of 50.0% successes in task 0, but other files of 100.0%")
def outcome_with_the_inner_bars(forger: Forger) -> None:
    outcome(forger, BASE, 0, 0, True)
    bars(forger, BASE, lambda text: re.sub(r"(rollout[^\r\n]*)success_rate=0.0%", r"\g<1>success_rate=100.0%", text))


@found_by("it tells of eval_s")
def seconds_of_the_log(forger: Forger) -> None:
    forger.text(forger.attempt(BASE).stderr, r"'eval_s': [\d.]+", "'eval_s': 12.5")


@found_by(LIMIT)
def bars_removed(forger: Forger) -> None:
    """lerobot prints no bars in a job of Slurm, so a log may lack them."""
    bars(forger, BASE, lambda text: re.sub(r"[^\r\n]*(?:Running rollout|Stepping through)[^\r\n]*", "", text))


# ---- times


@found_by("which is in the future")
def end_in_the_future(forger: Forger) -> None:
    forger.result(BASE, end_time_utc="2099-01-01T00:00:00Z")


@found_by("before it began")
def end_before_the_beginning(forger: Forger) -> None:
    forger.result(BASE, end_time_utc="2020-01-01T00:00:00Z")


@found_by("but its start and end are")
def duration_longer_than_the_run(forger: Forger) -> None:
    forger.result(BASE, duration_sec=86400.0)


@found_by("the episodes took")
def duration_shorter_than_its_episodes(forger: Forger) -> None:
    forger.result(BASE, duration_sec=1.0)


def _earlier(text: str) -> str:
    return re.sub(r"2026-11-30T", "2026-11-29T", text)


def whole_row_earlier(forger: Forger) -> None:
    """Moves a row to the day before: its manifest, its result and its marker."""
    for path in (forger.attempt(BASE).manifest, forger.attempt(BASE).result, forger.layout.marker(BASE)):
        path.write_text(_earlier(path.read_text()))


@found_by("it was written from 2026-11-30")
def row_of_the_day_before(forger: Forger) -> None:
    whole_row_earlier(forger)


@found_by(LIMIT)
def row_of_the_day_before_with_its_log(forger: Forger) -> None:
    """A row of the CPU has no lease: whoever moves all its times finds no clock that contradicts."""
    whole_row_earlier(forger)
    path = forger.attempt(BASE).stderr
    path.write_text(path.read_text().replace("2026-11-30 ", "2026-11-29 "))


@found_by("after the handoff that counts it")
def handoff_before_the_result(forger: Forger) -> None:
    forger.json(forger.layout.handoff("phase4"), lambda value: value.update(generated_at_utc="2026-11-29T00:00:00Z"))


@found_by("but the marker says")
def marker_of_another_day(forger: Forger) -> None:
    path = forger.layout.marker(BASE)
    path.write_text(_earlier(path.read_text()))


@found_by("when the thresholds were registered")
def thresholds_registered_after_the_rows(forger: Forger) -> None:
    demand(forger)
    forger.register("2026-12-01T00:00:00Z")


def demand(forger: Forger) -> None:
    """Adds a threshold that the campaign reaches."""
    settings = forger.layout.settings
    settings.write_text(settings.read_text() + "\n[verdict]\nthreshold = 0.2\nconfidence = 0.8\n")


@found_by(LIMIT)
def thresholds_registered_with_an_earlier_time(forger: Forger) -> None:
    """The time of a registration is its writer's word: publish its hash before the first row, or have it signed."""
    demand(forger)
    forger.register("2026-11-30T00:00:00Z")


# ---- identity and definition


@found_by("None is not of type 'string'")
def hash_of_the_checkpoint_nulled(forger: Forger) -> None:
    forger.json(forger.attempt(BASE).manifest, lambda value: value["checkpoint"].update(tree_sha256=None))
    forger.json(forger.attempt(BASE).path / "identity.json", lambda value: value.update(checkpoint=None))


@found_by("checkpoint is")
def another_checkpoint_in_the_manifest(forger: Forger) -> None:
    forger.json(forger.attempt(BASE).manifest, lambda value: value["checkpoint"].update(tree_sha256="0" * 64))


@found_by("mujoco is 3.3.7, but 3.8.1 in the manifest")
def another_version_in_the_manifest(forger: Forger) -> None:
    forger.json(forger.attempt(BASE).manifest, lambda value: value["versions"].update(mujoco="3.8.1"))


@found_by("the record of what the row ran")
def identity_removed(forger: Forger) -> None:
    (forger.attempt(BASE).path / "identity.json").unlink()


@found_by("the identity does not give the row hash")
def row_hash_of_another_identity(forger: Forger) -> None:
    forger.unhashed.add(BASE)
    forger.json(forger.attempt(BASE).path / "identity.json", lambda value: value["row"].update(seed=8))


@found_by("key command")
def flag_of_the_command(forger: Forger) -> None:
    forger.text(forger.attempt(BASE).manifest, "--env.episode_length=120", "--env.episode_length=280")


@found_by("seed is")
def another_seed_in_manifest_and_matrix(forger: Forger) -> None:
    forger.text(forger.layout.matrix, rf"^({BASE},.*,cpu,)7,", r"\g<1>8,")
    forger.manifest(BASE, seed=8)


@found_by("it tells of seed 7, but other files of 8")
def another_seed_everywhere_but_the_log(forger: Forger) -> None:
    another_seed_in_manifest_and_matrix(forger)
    forger.text(forger.attempt(BASE).manifest, "--seed=7", "--seed=8")
    forger.json(forger.attempt(BASE).path / "identity.json", lambda value: value["row"].update(seed=8))
    forger.lines(forger.attempt(BASE).output / "episodes.jsonl", lambda line: line.update(seed=line["seed"] + 1))


@found_by(LIMIT)
def another_seed_everywhere(forger: Forger) -> None:
    """The first state of an episode follows from its seed, which `--replay` finds."""
    another_seed_everywhere_but_the_log(forger)
    forger.text(forger.attempt(BASE).stderr, r"^ 'seed': 7", " 'seed': 8")


@found_by("but the marker says that it was running at")
def folder_of_another_row(forger: Forger) -> None:
    shutil.rmtree(forger.top(PAIR).path)
    shutil.copytree(forger.top(BASE).path, forger.top(PAIR).path)


@found_by("the other files say")
def folder_of_another_row_renamed(forger: Forger) -> None:
    folder_of_another_row(forger)
    attempt = forger.attempt(PAIR)
    for path in (attempt.manifest, attempt.result, attempt.stderr, attempt.output / "eval_info.json"):
        path.write_text(path.read_text().replace(BASE, PAIR))


@found_by("preflight is blocked")
def failed_check_of_the_host(forger: Forger) -> None:
    path = forger.layout.preflight_report
    forger.json(path, lambda report: report.update(status="blocked", blocker="no GPU"))


@found_by(LIMIT)
def another_processor_in_the_snapshot(forger: Forger) -> None:
    """What a host says of itself is its own word."""
    path = forger.layout.preflight / "env_snapshot.json"
    forger.json(path, lambda snapshot: snapshot.update(cpu="another"))


# ---- attempts


@found_by("attempt 1 has no folder, but a later one has")
def failed_attempt_removed(forger: Forger) -> None:
    first_attempt_failed(forger)
    shutil.rmtree(forger.top(PAIR).attempt(1).path)


@found_by("but the row's marker does not tell of its end")
def failed_attempt_left_out_of_the_history(forger: Forger) -> None:
    first_attempt_failed(forger)
    renumbered = forger.top(PAIR).attempt(3)
    shutil.copytree(forger.top(PAIR).attempt(2).path, renumbered.path)
    renumber(forger, PAIR, 2, 3)


@found_by("but its result")
def failure_rewritten_as_a_pass(forger: Forger) -> None:
    first_attempt_failed(forger)
    forger.json(forger.top(PAIR).attempt(1).result, lambda value: value.update(status="pass", reason=None))


@found_by("the file was changed after the attempt ended")
def log_of_a_failed_attempt_rewritten(forger: Forger) -> None:
    first_attempt_failed(forger)
    forger.top(PAIR).attempt(1).stderr.write_text("interrupted by the operator\n")


@found_by(LIMIT)
def failed_attempt_removed_and_the_rest_renumbered(forger: Forger) -> None:
    """An attempt that no file tells of never was, for all files: only a copy made before tells."""
    first_attempt_failed(forger)
    top = forger.top(PAIR)
    shutil.rmtree(top.attempt(1).path)
    top.attempt(2).path.rename(top.attempt(1).path)
    renumber(forger, PAIR, 2, 1)

    def history(value: Json) -> None:
        value["history"] = [value["history"][0], *({**step, "attempt": 1} for step in value["history"][-2:])]
        value["retry_index"] = 0

    forger.marker(PAIR, history)
    forger.manifest(PAIR, retry_index=0)
