"""A campaign's folder: settings and matrix together, and the two campaigns that ship with the project."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import REPOSITORY, ROWS, SETTINGS, Made

from tracka.campaign import campaign
from tracka.campaign.matrix import COLUMNS
from tracka.core import schema
from tracka.core.errors import UsageError

SMOKE = REPOSITORY / "tasks" / "smoke-libero-object"
PI0 = REPOSITORY / "tasks" / "20260210-track-a-lerobot-pi0-libero"
TOP = "schema_version = 1\nbaseline = 'baseline_b1_e2'\nexpected_gpus = 0\n"
ONE_TASK = TOP + "[lerobot_eval]\ntask_ids = [0]\n"


def refusal(root: Path) -> list[str]:
    """What is wrong with the campaign, one text a finding."""
    with pytest.raises(UsageError) as caught:
        campaign.load(root)
    assert all(finding.remedy for finding in caught.value.findings)
    return [str(finding).replace(f"{root}/configs/", "") for finding in caught.value.findings]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ONE_TASK + "colour = 1", "line 6, key lerobot_eval.colour: the table [lerobot_eval] has no key 'colour'"),
        (
            ONE_TASK + "n_action_steps = 'ten'",
            "line 6, key lerobot_eval.n_action_steps: 'ten' is not a whole number from 1 up. Write 10, for example",
        ),
        (ONE_TASK + "n_action_steps = true", "key lerobot_eval.n_action_steps: true is not a whole number"),
        (ONE_TASK + "episode_length = 40.0", "key lerobot_eval.episode_length: 40.0 is not a whole number"),
        (ONE_TASK + "policy_type = 7", "key lerobot_eval.policy_type: 7 is not a text in quotes. Write 'pi0'"),
        (ONE_TASK + "[lerobot_eval.flags]\n'--seed' = 1", "'--seed' cannot be a name in [lerobot_eval.flags]"),
        (ONE_TASK + "[lerobot_eval.flags]\nseed = 1", "line 7, key lerobot_eval.flags.seed: 'seed' is decided by the"),
        (ONE_TASK + "[thresholds]\nmin_success_rate = 90", "rate: 90 is not a number from 0 up to 1. Write"),
        (ONE_TASK + "[thresholds]\nmin_success_rate = nan", "key thresholds.min_success_rate: nan is not a number"),
        (ONE_TASK + "[timeouts]\nrow_secs = 0", "key timeouts.row_secs: 0 is not a whole number from 1 up"),
        (ONE_TASK + "timeouts = 5", "key lerobot_eval.timeouts: the table [lerobot_eval] has no key 'timeouts'"),
        (TOP + "timeouts = 5\n[lerobot_eval]\ntask_ids = [0]", "line 4, key timeouts: 5 is not a table"),
        (ONE_TASK + "[progress]\ntodo = ''", "key progress.todo: the text is empty"),
        (ONE_TASK + f"[progress]\ntodo = '{'x' * 300}'", "key progress.todo: 'xxx"),
        (ONE_TASK + '[progress]\ntodo = "a\\u0000"', "a text holds a NUL character, key progress.todo"),
        (ONE_TASK + '[progress]\ntodo = "a\\n"', "key progress.todo: 'a"),
        (ONE_TASK + "[progress]\nfolder = 'todo'", "[progress] has no key 'folder'. The keys there are todo. "),
        (ONE_TASK + "[build]\n'checkpoints/x' = '../evil'", "'../evil' has a form that cannot stand here"),
        (TOP.replace("expected_gpus = 0", ""), "key expected_gpus: the key is missing. Write expected_gpus = 8"),
        (TOP.replace("= 1", "= 2"), "line 1, key schema_version: 2 is not 1. Write 1"),
        (TOP + "engine = 'other'", "key engine: 'other' is not one of lerobot-eval, resident"),
        (TOP + "[lerobot_eval]\ntask_ids = []", "key lerobot_eval.task_ids: the list is empty. Leave the key out"),
        (TOP + "[lerobot_eval]\ntask_ids = [0, 0]", "line 5, key lerobot_eval.task_ids: [0, 0] has an element twice"),
        (TOP + "[lerobot_eval]\ntask_ids = [-1]", "line 5, key lerobot_eval.task_ids[0]: -1 is not a whole number"),
        (ONE_TASK + "[known_answers.wide_b4_e4]\nx = [1]", "'x' cannot be a name in [known_answers.wide_b4_e4]"),
        (
            ONE_TASK + "[slurm]\nextra = ['node']",
            "line 7, key slurm.extra[0]: 'node' has a form that cannot stand here. Write '--exclude=node7'",
        ),
        (ONE_TASK + "[metrics]\nto = 'wandb'", "line 6, key metrics.project: the key is missing"),
        (ONE_TASK + "[rows.nobody]", "campaign.toml, row nobody: the matrix has no such row"),
        (ONE_TASK + "[thresholds.rows]\nnobody = 0.5", "campaign.toml, row nobody: the matrix has no such row"),
        (ONE_TASK.replace("baseline_b1_e2", "nobody"), "key baseline: the baseline 'nobody' is not an enabled row"),
        (
            ONE_TASK.replace("baseline_b1_e2", "off_b1_e1"),
            "key baseline: the baseline 'off_b1_e1' is not an enabled row",
        ),
        (TOP, "row baseline_b1_e2: the baseline runs several LIBERO tasks"),
        (ONE_TASK + "[rows.wide_b4_e4]\ntask_ids = [9, 10]", "row wide_b4_e4, key task_ids: libero_object has no task"),
        ("baseline = ", "campaign.toml: this is not TOML"),
        ("a = 1\na = 2", "campaign.toml: this is not TOML"),
    ],
)
def test_a_bad_setting_is_named_with_its_key(make_campaign: Callable[..., Made], settings: str, said: str) -> None:
    (text,) = refusal(make_campaign(settings=settings).root)
    assert said in text


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (ONE_TASK + "n_action_step = 3", "Did you mean n_action_steps?"),
        (ONE_TASK + "N_Action_Steps = 3", "Did you mean n_action_steps?"),
        (TOP + "titel = 'x'\n" + ONE_TASK.removeprefix(TOP), "Did you mean title?"),
        (TOP + "engine = 'residant'\n" + ONE_TASK.removeprefix(TOP), "Did you mean resident?"),
        (TOP + "row_secs = 5\n" + ONE_TASK.removeprefix(TOP), "It is a key of [timeouts]: move it there."),
        (ONE_TASK + "engine = 'resident'", "Move engine to the top of the file, above the first table."),
        (ONE_TASK + "[rows.wide_b4_e3]", "Did you mean wide_b4_e4? Name a run id of the matrix"),
        (ONE_TASK + "[tiers.x]\nrows = ['wide_b4_e3']", "Did you mean wide_b4_e4? Name a run id of the matrix"),
        (ONE_TASK.replace("baseline_b1_e2", "baselin_b1_e2"), "Did you mean baseline_b1_e2? Name an enabled row"),
    ],
)
def test_a_mistyped_or_misplaced_name_is_answered_with_the_right_one(
    make_campaign: Callable[..., Made], settings: str, remedy: str
) -> None:
    (text,) = refusal(make_campaign(settings=settings).root)
    assert f". {remedy}" in text


def test_a_mistyped_key_that_must_be_there_is_said_with_the_page_of_all_keys(
    make_campaign: Callable[..., Made],
) -> None:
    mistyped = ONE_TASK.replace("expected_gpus = 0", "expectd_gpus = 'zero'")
    found = sorted(refusal(make_campaign(settings=mistyped).root))
    assert [text.partition(". ")[0] for text in found] == [
        "campaign.toml, key expected_gpus: the key is missing",
        "campaign.toml, line 3, key expectd_gpus: campaign.toml has no key 'expectd_gpus'",
    ]
    assert "Did you mean expected_gpus? docs/campaign-toml.md has every key" in found[1]
    assert not any(word in " ".join(found) for word in ("$", "schema", "properties"))


@pytest.mark.parametrize(
    "folder", ["/tmp/x", "../x", "checkpoints/../../x", "away/x", "artifacts/runs", "configs", "."]
)
def test_a_checkpoint_is_built_inside_of_the_campaign_alone(make_campaign: Callable[..., Made], folder: str) -> None:
    made = make_campaign(settings=ONE_TASK + f"[build]\n{folder!r} = 'replay all'")
    (made.root / "away").symlink_to(made.root.parent)
    with pytest.raises(UsageError, match=r"Name a folder of the campaign, such as checkpoints/NAME") as refused:
        campaign.load(made.root)
    assert f"build.{folder}" in str(refused.value)


def test_settings_that_are_not_utf8_are_refused(made: Made) -> None:
    made.layout.settings.write_bytes(b"title = '\xe9'")
    (text,) = refusal(made.root)
    assert "campaign.toml: this is not TOML" in text


def test_matrix_and_settings_are_refused_together(make_campaign: Callable[..., Made]) -> None:
    rows = [*ROWS, "long_b1_e6,moon,0,2,cpu,7,egl,p,1"]
    found = refusal(make_campaign(rows, ONE_TASK + "colour = 1\nepisode_length = 'long'").root)
    for where in ("column run_id", "column task_suite", "column batch_size", "'colour'", "episode_length"):
        assert any(where in text for text in found), where


def test_a_broken_settings_file_hides_no_fault_of_the_matrix(make_campaign: Callable[..., Made]) -> None:
    found = refusal(make_campaign(["x,moon,1,1,cpu,7,egl,p,1"], "not TOML").root)
    assert [text.split(": ")[0] for text in found] == ["eval_matrix.csv, line 2, column task_suite", "campaign.toml"]


def test_what_only_both_files_show_is_said_at_once(make_campaign: Callable[..., Made]) -> None:
    tables = "[rows.nobody]\n[rows.wide_b4_e4]\ntask_ids = [10]\n[thresholds.rows]\nnoone = 1\n"
    found = refusal(make_campaign(settings=TOP.replace("baseline_b1_e2", "off_b1_e1") + tables).root)
    for where in ("row nobody", "row noone", "key baseline", "row wide_b4_e4, key task_ids"):
        assert any(where in text for text in found), where


def test_a_misspelt_key_does_not_hide_an_unknown_row(make_campaign: Callable[..., Made]) -> None:
    found = refusal(make_campaign(settings=ONE_TASK + "colour = 1\n[rows.nobody]").root)
    assert any("colour" in text for text in found)
    assert any("row nobody" in text for text in found)


@pytest.mark.parametrize("name", ["eval_matrix.csv", "campaign.toml"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(made: Made, name: str) -> None:
    (made.root / "configs" / name).unlink()
    (text,) = refusal(made.root)
    assert text.startswith(f"{name}: ")
    assert "tracka init NAME" in text


def test_a_folder_without_configs_is_no_campaign(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this is not a campaign: .*tracka init first --smoke"):
        campaign.load(tmp_path)


def test_a_rows_settings_override_the_defaults(make_campaign: Callable[..., Made]) -> None:
    tables = (
        "probe_secs = 9\n[rows.long_b1_e6]\ntask_ids = [3, 1]\ntimeout_secs = 5\npolicy_type = 'pi0'\n[thresholds]\n"
    )
    made = make_campaign(settings=SETTINGS + tables + "min_success_rate = 0.25\nrows = { wide_b4_e4 = 0.5 }\n")
    spec = made.spec
    long, wide = spec.row("long_b1_e6"), spec.row("wide_b4_e4")
    assert (spec.settings(long).policy_type, spec.settings(wide).policy_type) == ("pi0", "act")
    assert (spec.task_ids(long), spec.task_ids(wide)) == ((1, 3), (0,))
    assert (spec.timeout(long), spec.timeout(wide)) == (5, 60)
    assert (spec.threshold(long), spec.threshold(wide)) == (0.25, 0.5)
    assert spec.probe_secs == 9


def test_a_row_without_task_ids_runs_the_whole_suite(make_campaign: Callable[..., Made]) -> None:
    rows = [*ROWS, "all,libero_90,10,50,auto,7,egl,p,1"]
    spec = make_campaign(rows, TOP + "[rows.baseline_b1_e2]\ntask_ids = [4]").spec
    assert spec.task_ids(spec.row("all")) == tuple(range(90))
    assert spec.cost(spec.row("all")) == 5 * 90 * 400


def test_disabled_rows_are_known_and_not_enabled(made: Made) -> None:
    assert len(made.spec.rows) == 4
    assert [row.run_id for row in made.spec.enabled] == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]


def test_asking_for_an_unknown_row_names_the_known_ones(made: Made) -> None:
    with pytest.raises(UsageError, match=r"the matrix has no row 'nobody'.*wide_b4_e4"):
        made.spec.row("nobody")


@pytest.mark.parametrize("root", [SMOKE, PI0], ids=["smoke", "pi0"])
def test_a_shipped_campaign_loads_and_has_the_plans_columns(root: Path) -> None:
    spec = campaign.load(root)
    assert spec.row(spec.baseline).enabled
    assert spec.layout.matrix.read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("root", [SMOKE, PI0], ids=["smoke", "pi0"])
def test_a_shipped_run_schema_is_todays(root: Path) -> None:
    assert json.loads((root / "configs" / "run_schema.json").read_text()) == schema.run_schema()


def test_a_campaign_may_keep_the_run_schema_that_an_earlier_version_made() -> None:
    earlier = json.loads((REPOSITORY / "tests" / "data" / "run_schema-0.1.0.json").read_text())
    assert schema.is_run_schema(earlier) and schema.is_run_schema(schema.run_schema())
    assert not schema.is_run_schema(earlier | {"result": {}})


def test_the_smoke_campaign_varies_batch_size_and_seed_and_has_a_disabled_row() -> None:
    spec = campaign.load(SMOKE)
    others = [row for row in spec.enabled if row.run_id != spec.baseline]
    assert len(others) >= 4
    assert len({row.batch_size for row in others}) >= 2
    assert len({row.seed for row in others}) >= 3
    assert len([row for row in spec.rows if not row.enabled]) >= 1
    assert len({spec.settings(row).policy_type for row in spec.rows}) == 1


def test_the_pi0_campaign_covers_each_task_of_its_suite_once() -> None:
    spec = campaign.load(PI0)
    others = [row for row in spec.enabled if row.run_id != spec.baseline]
    assert sorted(task for row in others for task in spec.task_ids(row)) == list(range(10))
    assert spec.expected_gpus == 8


def test_loading_a_campaign_imports_nothing_heavy() -> None:
    heavy = {"torch", "lerobot", "mujoco", "pandas", "robosuite", "libero", "numpy", "pytest"}
    code = f"""
import sys
from pathlib import Path
from tracka.campaign import campaign
campaign.load(Path({str(SMOKE)!r}))
print(sorted({heavy!r} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr


@pytest.mark.parametrize("name", ["policy.path", "seed", "eval.batch_size", "output_dir", "env.task_ids"])
def test_a_flag_that_the_matrix_decides_cannot_be_set_beside_it(make_campaign: Callable[..., Made], name: str) -> None:
    found = refusal(make_campaign(settings=ONE_TASK + f'[lerobot_eval.flags]\n"{name}" = "x"').root)
    assert any("flags" in text and name in text for text in found)
