"""`tracka init`: a campaign that loads as it is made, or nothing at all."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import hub
import pytest
from campaigns import REPOSITORY, Made, fake_checkpoint

from tracka import campaign_defaults, new_campaign
from tracka.campaign import campaign, path_safety
from tracka.campaign.layout import PHASES
from tracka.campaign.matrix import AUTO, COLUMNS, CPU
from tracka.core import files, schema
from tracka.core.errors import RunExists, UsageError
from tracka.core.lerobot_facts import SUITE_TASKS
from tracka.new_campaign import CampaignOptions
from tracka.preflight import batch_fit
from tracka.reporting import caveats


def tracka(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `tracka` as a user who stands in `folder`, with these variables in the environment."""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run(
        [sys.executable, "-m", "tracka", *words], cwd=folder, env=environ, capture_output=True, text=True
    )


def test_a_new_campaign_has_a_baseline_and_a_row_a_task(tmp_path: Path) -> None:
    spec = new_campaign.create(
        tmp_path / "new", CampaignOptions("org/policy", gpus=4, batch_size=5, n_episodes=20, seed=3)
    )
    baseline, *others = spec.enabled
    assert (baseline.run_id, baseline.batch_size, baseline.n_episodes) == ("baseline_b1_e2", 1, 2)
    assert [row.run_id for row in others] == [f"object_t{task}_b5_e20" for task in range(10)]
    assert [spec.task_ids(row) for row in others] == [(task,) for task in range(10)]
    assert {(row.gpu_id, row.seed, row.policy_path, row.mujoco_gl) for row in others} == {
        (AUTO, 3, "org/policy", "egl")
    }
    assert spec.expected_gpus == 4


def test_without_gpus_the_rows_run_on_the_cpu(tmp_path: Path) -> None:
    spec = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy", gpus=0))
    assert {row.gpu_id for row in spec.rows} == {CPU}
    assert spec.expected_gpus == 0


@pytest.mark.parametrize("suite", SUITE_TASKS)
def test_each_suite_gives_a_campaign_that_loads(tmp_path: Path, suite: str) -> None:
    spec = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy", suite))
    assert len(spec.enabled) == 1 + SUITE_TASKS[suite]
    assert campaign.load(tmp_path / "new") == spec


def test_the_definition_is_readable_by_the_team_and_has_todays_schema(tmp_path: Path) -> None:
    layout = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy")).layout
    assert layout.matrix.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert schema.load("run_manifest")["title"] in layout.run_schema.read_text()
    for path in (layout.matrix, layout.settings, layout.run_schema):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_folder_of_the_definition_is_open_to_the_team_too(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        layout = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy")).layout
    finally:
        os.umask(before)
    assert stat.S_IMODE(layout.matrix.parent.stat().st_mode) == 0o755


def test_the_policy_type_is_asked_of_a_checkpoint_that_is_here(tmp_path: Path) -> None:
    fake_checkpoint(tmp_path / "policy")
    spec = new_campaign.create(tmp_path / "new", CampaignOptions(str(tmp_path / "policy")))
    assert spec.settings(spec.rows[0]).policy_type == "act"


def test_a_policy_type_that_is_given_stands(tmp_path: Path) -> None:
    fake_checkpoint(tmp_path / "policy")
    spec = new_campaign.create(tmp_path / "new", CampaignOptions(str(tmp_path / "policy"), policy_type="pi0"))
    assert spec.settings(spec.rows[0]).policy_type == "pi0"


@pytest.mark.parametrize("path", ["checkpoints/my, own policy", 'checkpoints/"quoted"', "org/policy@v1.0/beta"])
def test_a_policy_path_survives_the_matrix(tmp_path: Path, path: str) -> None:
    assert {row.policy_path for row in new_campaign.create(tmp_path / "new", CampaignOptions(path)).rows} == {path}


@pytest.mark.parametrize("kind", ['pi"0', "pi\\0"])
def test_a_policy_type_survives_the_settings(tmp_path: Path, kind: str) -> None:
    spec = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy", policy_type=kind))
    assert spec.settings(spec.rows[0]).policy_type == kind


def test_the_plan_of_a_new_campaign_has_criteria_for_each_phase_and_the_update_rule(tmp_path: Path) -> None:
    text = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy")).layout.plan.read_text()
    criteria = text[text.index("\n## Acceptance Criteria\n") : text.index("\n## Progress Tracking\n")]
    for phase in PHASES:
        assert re.search(rf"^### Phase {phase[-1]}\n\n- ", criteria, re.MULTILINE), phase
    assert "| phase=<phaseN> | owner=" in text and "No earlier line is changed or removed." in text
    assert re.search(r"plan\.md", text) and "Next action" in text and text.endswith("\n## Progress\n")


def test_the_shared_list_that_the_settings_suggest_may_be_switched_on(tmp_path: Path) -> None:
    layout = new_campaign.create(tmp_path / "tasks" / "new", CampaignOptions("org/policy")).layout
    assert layout.todo == layout.root / "todo" / "new.md"
    lines = layout.settings.read_text()
    layout.settings.write_text(lines.replace("# [progress]\n# todo", "[progress]\ntodo"))
    moved = campaign.load(layout.root).layout
    assert (moved.todo, moved.todo_list) == (tmp_path / "todo" / "new.md", tmp_path / "todo" / "TODO.md")
    path_safety.require(moved)


def test_a_campaign_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    layout = new_campaign.create(tmp_path / "new", CampaignOptions("org/policy")).layout
    before = layout.matrix.read_bytes()
    with pytest.raises(RunExists, match=r"the campaign exists already\. Choose another name"):
        new_campaign.create(tmp_path / "new", CampaignOptions("org/other"))
    assert layout.matrix.read_bytes() == before


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "a\n", "é", "a" * 101])
def test_a_bad_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="the name is not a plain folder name"):
        new_campaign.create(tmp_path / "in" / name, CampaignOptions("org/policy"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wanted",
    [
        CampaignOptions("org/policy", "moon"),
        CampaignOptions(""),
        CampaignOptions("org/pol\nicy"),
        CampaignOptions("org/policy", n_episodes=10**9),
        CampaignOptions("org/policy", seed=-1),
    ],
    ids=["suite", "no policy", "line end", "episodes", "seed"],
)
def test_what_no_campaign_can_have_is_refused_before_anything_is_written(
    tmp_path: Path, wanted: CampaignOptions
) -> None:
    with pytest.raises(UsageError):
        new_campaign.create(tmp_path / "new", wanted)
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_a_campaign_below_tasks_and_says_what_comes_next(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    ended = tracka(
        tmp_path, "init", "my-policy", "--policy-path", "org/policy", "--suite", "libero_goal", "--gpus", "2"
    )
    assert ended.returncode == 0, ended.stderr
    assert "tasks/my-policy: 11 rows" in ended.stdout
    assert "pytest --pyargs tracka.acceptance --campaign tasks/my-policy" in ended.stdout
    assert campaign.load(tmp_path / "tasks" / "my-policy").expected_gpus == 2


def test_the_command_refuses_what_exists_and_bad_names_with_2(tmp_path: Path) -> None:
    assert tracka(tmp_path, "init", "new", "--policy-path", "org/policy").returncode == 0
    again = tracka(tmp_path, "init", "new", "--policy-path", "org/policy")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: ")
    assert "/new/configs: the campaign exists already. Choose another name" in again.stderr
    bad = tracka(tmp_path, "init", "a b", "--policy-path", "org/policy")
    assert bad.returncode == 2
    assert "error: a b: the name is not a plain folder name. Use letters" in bad.stderr


def test_a_folder_on_the_command_line_is_meant_from_where_the_user_stands(tmp_path: Path) -> None:
    fake_checkpoint(tmp_path / "policy")
    assert tracka(tmp_path, "init", "new", "--policy-path", "policy").returncode == 0
    spec = campaign.load(tmp_path / "new")
    assert {row.policy_path for row in spec.rows} == {str(tmp_path / "policy")}
    assert spec.settings(spec.rows[0]).policy_type == "act"


@pytest.mark.parametrize("words", [("",), ("nameless", "--policy-path", "")], ids=["name", "policy"])
def test_empty_words_make_no_campaign(made: Made, words: tuple[str, ...]) -> None:
    ended = made.tracka("init", *words)
    assert ended.returncode == 2 and "error: " in ended.stderr
    assert not (REPOSITORY / "tasks" / "nameless").exists() and not (REPOSITORY / "tasks" / "configs").exists()


# what the rows have to reach, which tasks, how long


def test_threshold_tasks_and_length_are_those_asked_for_and_the_baseline_has_no_threshold(tmp_path: Path) -> None:
    wanted = CampaignOptions("org/policy", gpus=0, min_success_rate=0.9, task_ids=(4, 1, 4), episode_length=100)
    spec = new_campaign.create(tmp_path / "new", wanted)
    assert [(row.run_id, spec.task_ids(row), spec.threshold(row)) for row in spec.enabled] == [
        ("baseline_b1_e2", (1,), 0.0),
        ("object_t1_b10_e50", (1,), 0.9),
        ("object_t4_b10_e50", (4,), 0.9),
    ]
    assert {spec.settings(row).episode_length for row in spec.enabled} == {100}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task-ids", "0,10,12"), "error: --task-ids: libero_object has no task 10, 12. Use numbers from 0 to 9"),
        (("--task-ids", "zero"), "error: --task-ids: 'zero' is not a LIBERO task index"),
        (
            ("--min-success-rate", "90"),
            "error: --min-success-rate: 90.0 is not a success rate. Use 0 to 1, such as 0.9",
        ),
    ],
)
def test_what_no_rows_can_have_is_refused_with_2(made: Made, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ended = made.call("init", str(tmp_path / "in" / "new"), "--policy-path", "checkpoints/mine", *words)
    assert (ended.returncode, ended.stdout) == (2, "") and said in ended.stderr
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--gpus", "1"),
            "for pi0 on 1 GPU like an H100, with no early success, about 64 minutes with engine = lerobot-eval",
        ),
        (("--gpus", "8"), "for pi0 on 8 GPUs like an H100, with no early success, about 17 minutes with engine"),
        (("--gpus", "0"), "the baseline of phase 3 shows how long that takes on a CPU"),
    ],
)
def test_the_command_says_how_much_it_is_and_how_long_it_takes(
    made: Made, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    ended = made.call("init", str(tmp_path / "new"), "--policy-path", "checkpoints/mine", *words)
    assert "11 rows, 502 episodes of at most 280 steps; " in ended.stdout and told in ended.stdout
    assert "No threshold is set" in ended.stdout


def test_no_time_is_told_for_a_policy_type_that_was_not_measured(made: Made, tmp_path: Path) -> None:
    words = ("--policy-path", "checkpoints/mine", "--policy-type", "act", "--gpus", "8")
    said = made.call("init", str(tmp_path / "new"), *words).stdout
    assert "; the baseline of phase 3 shows how long that takes with act\n" in said and "pi0" not in said


def test_gpus_that_this_host_lacks_are_warned_of(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--policy-path", "checkpoints/mine", "--gpus", "2")
    lacking = made.call("init", str(tmp_path / "lacking"), *words)
    assert lacking.returncode == 0
    assert "warning: the campaign expects GPUs: 2, and this host has 0. " in lacking.stdout
    monkeypatch.setitem(made.environ, "TRACKA_PRETEND_GPUS", "2")
    assert "warning: the campaign expects" not in made.call("init", str(tmp_path / "there"), *words).stdout


def test_with_a_threshold_nothing_is_said_of_one(made: Made, tmp_path: Path) -> None:
    words = ("--policy-path", "checkpoints/mine", "--min-success-rate", "0.5")
    assert "No threshold" not in made.call("init", str(tmp_path / "new"), *words).stdout


def test_a_threshold_that_so_few_episodes_cannot_show_is_said_with_the_fewest(made: Made, tmp_path: Path) -> None:
    words = ("--threshold", "0.9", "--task-ids", "0", "--n-episodes", "20", "--gpus", "0")
    few = made.call("init", str(tmp_path / "few"), *words)
    assert few.returncode == 0, few.stderr
    assert "20 of 20 episodes would not show a success rate of 0.9. Play at least 29 episodes" in few.stdout
    assert "warning" not in made.call("init", str(tmp_path / "enough"), *words[:-4], "--n-episodes", "29").stdout


# several checkpoints, and how many episodes show a difference


def test_two_checkpoints_play_the_same_episodes_in_rows_of_their_own(made: Made, tmp_path: Path) -> None:
    fake_checkpoint(tmp_path / "b")
    words = ("--policy-path", "checkpoints/mine", "--policy-path", str(tmp_path / "b"), "--task-ids", "3,4")
    ended = made.call("init", str(tmp_path / "new"), *words, "--n-episodes", "5", "--batch-size", "10")
    assert ended.returncode == 0, ended.stderr
    spec = campaign.load(tmp_path / "new")
    mine, other = ("checkpoints/mine", str(tmp_path / "b"))
    assert [(row.run_id, row.policy_path, spec.task_ids(row)) for row in spec.compared_rows] == [
        ("object_t3_b10_e5", mine, (3,)),
        ("object_t4_b10_e5", mine, (4,)),
        ("object_t3_b10_e5_p2", other, (3,)),
        ("object_t4_b10_e5_p2", other, (4,)),
    ]
    assert {(row.seed, row.batch_size, row.n_episodes) for row in spec.compared_rows} == {(7, 10, 5)}
    assert [spec.settings(row).policy_type for row in spec.compared_rows] == [None, None, "act", "act"]
    assert spec.row(spec.baseline).policy_path == mine


def test_a_checkpoint_that_is_named_twice_or_has_another_type_than_the_preset_is_refused(
    made: Made, tmp_path: Path
) -> None:
    fake_checkpoint(tmp_path / "b")
    twice = ("--policy-path", str(tmp_path / "b")) * 2
    ended = made.call("init", str(tmp_path / "new"), *twice, "--preset", "pi0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "b is given twice" in ended.stderr and "the preset is for pi0, but the policy is act" in ended.stderr


@pytest.mark.parametrize(
    ("words", "per_task", "said"),
    [  # the totals are those of docs/comparing.md, which `make test-stats` holds
        (("--resolve", "0.05"), 19, "5.0 points is shown by 189 pairs with a chance of 80% (exact McNemar, one-sided"),
        (("--resolve", "0.05", "--discordance", "0.07"), 19, "7% of the pairs have two outcomes"),
        (("--resolve", "0.05", "--rate", "0.9"), 54, "from 90% is shown by 537 episodes of each policy with a chance"),
        (("--resolve", "0.05", "--threshold", "0.9"), 18, "A policy of 95% needs 179 episodes to pass with a chance"),
    ],
)
def test_the_episodes_are_chosen_so_that_they_show_a_difference(
    made: Made, tmp_path: Path, words: tuple[str, ...], per_task: int, said: str
) -> None:
    ended = made.call("init", str(tmp_path / "new"), "--policy-path", "checkpoints/mine", *words)
    assert ended.returncode == 0, ended.stderr
    spec = campaign.load(tmp_path / "new")
    assert {row.n_episodes for row in spec.compared_rows} == {per_task}
    assert f"{per_task} episodes of each of 10 tasks, {10 * per_task} in all, resolve 5.0 points:" in ended.stdout
    assert said in ended.stdout
    assert ("repeat one; a repeat says less than a new one" in ended.stdout) == (per_task > 50)
    assert (spec.verdict.threshold if spec.verdict else None) == (0.9 if "--threshold" in words else None)


def test_a_suite_of_few_tasks_is_played_more_often_and_repeats_are_said(made: Made, tmp_path: Path) -> None:
    words = ("--policy-path", "checkpoints/mine", "--task-ids", "0,5", "--resolve", "0.05")
    ended = made.call("init", str(tmp_path / "new"), *words)
    assert "95 episodes of each of 2 tasks, 190 in all" in ended.stdout
    assert "A task has 50 init states, so 45 of its 95 episodes repeat one" in ended.stdout
    (settings,) = [found for found in caveats.of_settings(campaign.load(tmp_path / "new")) if "repeat" in found.what]
    assert (
        settings.what == "45 episodes of each LIBERO task repeat an init state, and intervals count them like new ones"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resolve", "5"), "--resolve: 5 is not between 0 and 1"),
        (("--resolve", "0.05", "--n-episodes", "50"), "--n-episodes: --resolve chooses the number of episodes"),
        (("--resolve", "0.2", "--threshold", "0.9"), "no policy is 20.0 points better than a threshold of 0.9"),
        (("--resolve", "0.1", "--rate", "0.05"), "--rate: a drop of 0.1 cannot come from 0.05"),
        (("--resolve", "0.1", "--rate", "0.9", "--discordance", "0.2"), "more than one is given"),
        (("--rate", "0.9"), "--rate, --discordance: they say how to resolve a drop, and no --resolve is given"),
        (("--resolve", "0.0001"), "need more than 20000 episodes"),
        (("--threshold", "1.5"), "--threshold: 1.5 is not between 0 and 1"),
    ],
)
def test_a_difference_that_cannot_be_resolved_is_refused(
    made: Made, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ended = made.call("init", str(tmp_path / "new"), "--policy-path", "checkpoints/mine", *words)
    assert (ended.returncode, ended.stdout) == (2, "") and said in ended.stderr
    assert not (tmp_path / "new").exists()


def test_the_type_of_a_repository_is_asked_of_its_config_alone(tmp_path: Path) -> None:
    with hub.serve({"config.json": b'{"type": "act"}', "model.safetensors": b"w"}) as served:
        environ = {"HF_ENDPOINT": served.address, "HF_HOME": str(tmp_path / "hf"), "no_proxy": "127.0.0.1"}
        ended = tracka(tmp_path, "init", "new", "--policy-path", "org/policy", **environ)
    assert ended.returncode == 0, ended.stderr
    assert campaign.load(tmp_path / "new").defaults.policy_type == "act"
    assert served.downloads == ["config.json"]


def test_a_repository_that_cannot_be_asked_leaves_its_type_open(tmp_path: Path) -> None:
    environ = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "no_proxy": "127.0.0.1"}
    assert tracka(tmp_path, "init", "new", "--policy-path", "org/policy", **environ).returncode == 0
    assert campaign.load(tmp_path / "new").defaults.policy_type is None


@pytest.mark.parametrize("named", ["run", "run/checkpoints", "run/checkpoints/000100"])
def test_a_training_runs_folder_is_refused_with_the_policys_own(made: Made, tmp_path: Path, named: str) -> None:
    policy = tmp_path / "run" / "checkpoints" / "000100" / "pretrained_model"
    fake_checkpoint(policy)
    (tmp_path / "run" / "checkpoints" / "last").symlink_to("000100")
    ended = made.call("init", str(tmp_path / "new"), "--policy-path", str(tmp_path / named))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        "this is the folder of a training run; the policy is in" in ended.stderr and "pretrained_model" in ended.stderr
    )
    assert not (tmp_path / "new").exists()


# what the command finds out by itself


PRETRAINED = Path("outputs/train/my run/checkpoints/020000/pretrained_model")


def trained(folder: Path, kind: str = "act", **config: object) -> Path:
    """Returns the folder of a policy of this type, with a train_config.json as lerobot writes one."""
    fake_checkpoint(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"type": kind}))
    (folder / "train_config.json").write_text(json.dumps(config))
    return folder


def chosen(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The options that the command chose, flag -> value and source."""
    assert ended.returncode == 0, ended.stderr
    lines = [line.split(maxsplit=1) for line in ended.stdout.splitlines() if line.startswith("  --")]
    return {words[0]: " ".join(words[1].split()) for words in lines}


def test_without_any_option_but_the_policy_everything_is_chosen_with_its_source(made: Made, tmp_path: Path) -> None:
    env = {"type": "libero", "task": "libero_goal", "task_ids": [4, 7]}
    policy = trained(tmp_path / PRETRAINED, "pi0", env=env, dataset={"repo_id": "lerobot/libero"})
    ended = made.call("init", "--policy-path", str(policy), cwd=tmp_path)
    spec = campaign.load(tmp_path / "my-run")
    fits = batch_fit.measure(tmp_path).cores
    assert chosen(ended) == {
        "--suite": "libero_goal train_config.json: env.task",
        "--task-ids": "4,7 train_config.json: env.task_ids",
        "--n-episodes": "50 a LIBERO task has 50 init states",
        "--gpus": "0 this host has no visible GPU, so rows run on the CPU",
        "--batch-size": chosen(ended)["--batch-size"],
        "--preset": "pi0 the policy's type by its config.json is pi0",
    }
    assert {(row.task_suite, row.gpu_id, spec.task_ids(row)) for row in spec.compared_rows} == {
        ("libero_goal", CPU, (4,)),
        ("libero_goal", CPU, (7,)),
    }
    assert all(row.batch_size <= fits and 50 % row.batch_size == 0 for row in spec.rows)
    assert (spec.defaults.policy_type, spec.defaults.n_action_steps) == ("pi0", 10)
    assert "pytest --pyargs tracka.acceptance --campaign my-run" in ended.stdout


def test_without_a_policy_it_is_said_whose_policy_is_taken_and_how_to_give_ones_own(tmp_path: Path) -> None:
    ended = tracka(tmp_path, "init", HF_HUB_OFFLINE="1")
    assert ended.returncode == 0, ended.stderr
    size, whose, *_ = ended.stdout.splitlines()
    assert size.startswith("pi0_libero_finetuned: 11 rows, 502 episodes")
    assert whose.startswith("No --policy-path is given, so the policy is lerobot/pi0_libero_finetuned, from the hub")
    assert whose.endswith("For yours: tracka init NAME --policy-path outputs/my_policy")
    of_mine = tracka(tmp_path, "init", "mine", "--policy-path", "org/policy", HF_HUB_OFFLINE="1")
    assert "No --policy-path" not in of_mine.stdout


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("outputs/my_polici", "outputs/my_policy"),
        ("./outputs/my_polici", "outputs/my_policy"),
        ("output/my_policy/last", "outputs/my_policy/last"),
        ("outputs/my_polici/last", "outputs/my_policy/last"),
        ("my_policy", ""),
        ("/tmp/no/such/policy", ""),
        ("../nosuch", ""),
        ("~/no/such/policy", ""),
        ("~nobody_of_this_name/policy", ""),
    ],
)
@pytest.mark.parametrize("command", ["init", "check"])
def test_a_path_that_can_only_be_a_folder_which_is_not_there_is_refused_with_the_close_match(
    tmp_path: Path, command: str, path: str, match: str
) -> None:
    (tmp_path / "outputs" / "my_policy" / "last").mkdir(parents=True)
    words = ("init", "new", "--policy-path", path) if command == "init" else ("check", path)
    ended = tracka(tmp_path, *words, HF_HUB_OFFLINE="1")
    assert (ended.returncode, ended.stdout, (tmp_path / "new").exists()) == (2, "", False)
    assert f"error: {path}: there is no such folder" in ended.stderr
    assert f"Did you mean {match}?" in ended.stderr if match else "Did you mean" not in ended.stderr


@pytest.mark.parametrize(
    ("path", "what", "remedy"),
    [
        ("outputs", "the folder has no config.json, so it is not a checkpoint", "outputs/my_policy? Name"),
        ("run", "this is the folder of a training run; the policy is in", "pretrained_model as policy_path"),
        ("outputs/my_policy@main", "outputs/my_policy is a folder here, which has no revisions", "Leave @main out"),
    ],
)
@pytest.mark.parametrize("command", ["init", "check"])
def test_a_folder_around_the_policys_own_and_a_revision_of_a_folder_are_refused(
    tmp_path: Path, command: str, path: str, what: str, remedy: str
) -> None:
    files.write_text(tmp_path / "outputs" / "my_policy" / "config.json", "{}")
    files.write_text(tmp_path / "run" / "checkpoints" / "last" / "pretrained_model" / "config.json", "{}")
    words = ("init", "new", "--policy-path", path) if command == "init" else ("check", path)
    ended = tracka(tmp_path, *words, HF_HUB_OFFLINE="1")
    assert (ended.returncode, ended.stdout, (tmp_path / "new").exists()) == (2, "", False)
    assert f"{path}: {what}" in ended.stderr and remedy in ended.stderr


def test_a_path_that_may_be_a_repository_is_said_to_be_taken_as_one(tmp_path: Path) -> None:
    said = "org/policy: this is not a folder here, so it is taken as a repository of the hub"
    made = tracka(tmp_path, "init", "new", "--policy-path", "org/policy", HF_HUB_OFFLINE="1")
    assert made.returncode == 0 and said in made.stdout
    checked = tracka(tmp_path, "check", "org/policy", HF_HUB_OFFLINE="1")
    assert checked.returncode == 1 and said in checked.stderr


def test_a_repository_whose_owner_is_called_like_a_folder_here_is_taken_with_its_revision(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    refused = tracka(tmp_path, "init", "new", "--policy-path", "outputs/policy", HF_HUB_OFFLINE="1")
    assert refused.returncode == 2 and "with its revision: outputs/policy@main" in refused.stderr
    taken = tracka(tmp_path, "init", "new", "--policy-path", "outputs/policy@main", HF_HUB_OFFLINE="1")
    assert taken.returncode == 0, taken.stderr


def made_for(folder: Path, kind: str, *sides: int, **config: object) -> Path:
    """Returns the folder of a policy of this type with a camera for frames of each of these sides, in pixels."""
    trained(folder, kind)
    settings = json.loads((folder / "config.json").read_text())
    inputs = {
        f"observation.images.image{number}": {"type": "VISUAL", "shape": [3, side, side + 1]}
        for number, side in enumerate(sides)
    }
    (folder / "config.json").write_text(json.dumps(settings | {"input_features": inputs} | config))
    return folder


def test_frames_have_the_size_that_a_policy_without_resizing_needs(made: Made, tmp_path: Path) -> None:
    ended = made.call("init", str(tmp_path / "new"), "--policy-path", str(made_for(tmp_path / "act", "act", 128, 128)))
    assert ended.returncode == 0, ended.stderr
    assert campaign.load(tmp_path / "new").defaults.frame == (128, 129)
    said = "observation_height, _width 128,129 input_features of config.json: policies of type act do not resize frames"
    assert said in " ".join(ended.stdout.split())


@pytest.mark.parametrize(
    ("kind", "sides", "config"),
    [
        ("act", (128, 64), {}),
        ("act", (), {}),
        ("act", (128,), {"resize_shape": [84, 84]}),
        ("act", (0,), {}),
        ("act", (128,), {"input_features": ["no table"]}),
        ("pi0", (128, 128), {}),
        ("another", (128,), {}),
    ],
    ids=["cameras differ", "no camera", "resizes", "no pixels", "no features", "type resizes", "unknown type"],
)
def test_frames_are_left_to_lerobot_where_no_one_size_is_needed(
    tmp_path: Path, kind: str, sides: tuple[int, ...], config: dict[str, object]
) -> None:
    policy = made_for(tmp_path / "policy", kind, *sides, **config)
    assert campaign_defaults.frame_size([str(policy)], tmp_path).value is None
    assert campaign_defaults.settings(str(policy), tmp_path).observation_height is None


def test_policies_for_frames_of_different_sizes_decide_no_size(tmp_path: Path) -> None:
    small, large = (str(made_for(tmp_path / str(side), "act", side)) for side in (128, 256))
    assert campaign_defaults.frame_size([small, small], tmp_path).value == (128, 129)
    assert campaign_defaults.settings(small, tmp_path).frame == (128, 129)  # with which `tracka check` looks at it
    assert campaign_defaults.frame_size([small, large], tmp_path).value is None


def test_an_option_that_is_given_stands_and_is_not_said_to_be_chosen(made: Made, tmp_path: Path) -> None:
    policy = trained(tmp_path / "policy", "pi0", env={"type": "libero", "task": "libero_goal", "task_ids": [4]})
    words = ("--suite", "libero_10", "--gpus", "3", "--batch-size", "5", "--n-episodes", "10", "--preset", "pi0")
    ended = made.call("init", str(tmp_path / "new"), "--policy-path", str(policy), *words)
    assert chosen(ended) == {}
    spec = campaign.load(tmp_path / "new")
    assert (len(spec.compared_rows), spec.expected_gpus, spec.rows[1].task_suite) == (10, 3, "libero_10")


def test_the_gpus_of_this_host_are_counted(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(made.environ, "TRACKA_PRETEND_GPUS", "4")
    found = chosen(made.call("init", str(tmp_path / "new"), "--policy-path", "checkpoints/mine"))
    assert found["--gpus"] == "4 this host has pretended GPU"
    assert found["--batch-size"].startswith("10 by default")
    assert campaign.load(tmp_path / "new").expected_gpus == 4


@pytest.mark.parametrize(
    ("config", "suite"),
    [
        ({"env": None, "dataset": {"repo_id": "lerobot/libero_spatial_image"}}, "libero_spatial"),
        ({"dataset": {"repo_id": "team/libero_10_no_noops"}}, "libero_10"),
        ({"dataset": {"repo_id": "lerobot/libero"}}, None),  # four suites
        ({"dataset": {"repo_id": "team/libero_goal_and_libero_10"}}, None),
        ({"dataset": {"repo_id": "team/libero_100"}}, None),
        ({"env": {"type": "libero", "task": "libero_goal,libero_10"}, "dataset": {"repo_id": "x/y"}}, None),
        ({"env": {"type": "pusht", "task": "libero_goal"}}, None),
        ({"env": "libero_goal", "dataset": []}, None),
    ],
)
def test_a_suite_is_taken_from_the_training_only_where_one_is_stated(
    tmp_path: Path, config: dict[str, object], suite: str | None
) -> None:
    found = campaign_defaults.suite((str(trained(tmp_path / "policy", **config)),), tmp_path)
    assert found.value == (suite or "libero_object")
    assert found.source.startswith("train_config.json: " if suite else "by default")


def test_policies_of_other_trainings_or_types_decide_nothing(tmp_path: Path) -> None:
    env = {"type": "libero", "task": "libero_goal", "task_ids": [1]}
    first, second = (str(trained(tmp_path / name, kind, env=env)) for name, kind in (("a", "pi0"), ("b", "act")))
    (tmp_path / "b" / "train_config.json").write_text("{broken")
    assert campaign_defaults.suite((first, second), tmp_path).value == "libero_object"
    assert campaign_defaults.task_ids((first, second), tmp_path, "libero_goal").value == ()
    assert campaign_defaults.preset((first, second), tmp_path).value is None
    assert campaign_defaults.preset((first,), tmp_path).value == "pi0"


@pytest.mark.parametrize(
    ("policy_path", "name"),
    [
        ("outputs/my_policy", "my_policy"),
        (f"/data/{PRETRAINED}", "my-run"),
        ("outputs/run/checkpoints/last/pretrained_model/", "run"),
        ("org/policy.v2@main", "policy.v2"),
        ("/é", "campaign"),
    ],
)
def test_a_campaign_without_a_name_is_called_after_its_policy(policy_path: str, name: str) -> None:
    assert campaign_defaults.name(policy_path) == name


# the embedded campaign, which checks an installation


def test_the_smoke_campaign_is_made_anywhere_with_its_own_policy(tmp_path: Path) -> None:
    ended = tracka(tmp_path, "init", "first", "--smoke")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("first: 5 rows, 10 episodes of at most 120 steps; about five minutes on two cores")
    assert ended.stdout.endswith("then run: pytest --pyargs tracka.acceptance --campaign first\n")
    embedded = campaign.load(REPOSITORY / "tasks" / "smoke-libero-object")
    made = campaign.load(tmp_path / "first")
    assert (made.rows, made.known_answers) == (embedded.rows, embedded.known_answers)
    assert (tmp_path / "first" / "plan.md").is_file()


def test_the_smoke_campaign_takes_no_option_of_another_campaign(tmp_path: Path) -> None:
    ended = tracka(tmp_path, "init", "first", "--smoke", "--gpus", "1", "--policy-path", "org/policy")
    assert ended.returncode == 2 and "error: --policy-path, --gpus: --smoke decides this itself" in ended.stderr
    assert list(tmp_path.iterdir()) == []
    assert tracka(tmp_path, "init", "a b", "--smoke").returncode == 2
