"""The linter: each rule finds the campaign that breaks it and leaves the one that does not alone."""

import re
from collections.abc import Callable, Sequence

import pytest
from campaigns import REPOSITORY, SETTINGS, Made

from tracka.campaign import campaign, preset
from tracka.core import files
from tracka.core.check import Check
from tracka.preflight import linter, preflight

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMOKE = REPOSITORY / "tasks" / "smoke-libero-object"
PAGE = (REPOSITORY / "docs" / "preflight.md").read_text()
Maker = Callable[..., Made]


def row(run_id: str, batch: int = 2, episodes: int = 4, seed: int = 7, policy: str = "checkpoints/fake") -> str:
    return f"{run_id},libero_object,{batch},{episodes},cpu,{seed},egl,{policy},1"


BASE = row("baseline_b1_e2", 1, 2)
GOOD = (BASE, row("good"))


def found(made: Made, rule: str, strict: bool = False) -> Check:
    [check] = [check for check in linter.checks(made.spec, strict) if check.name == f"lint:{rule}"]
    return check


def configured(made: Made, **config: object) -> Made:
    files.write_json(made.root / "checkpoints" / "fake" / "config.json", {"type": "pi0", **config})
    return made


def of_pi0(text: str = "") -> str:
    return SETTINGS.replace('policy_type = "act"', f'policy_type = "pi0"\n{text}')


def test_a_campaign_without_fault_passes_every_rule(make_campaign: Maker) -> None:
    checks = linter.checks(make_campaign(GOOD).spec)
    assert [check.name for check in checks] == [f"lint:{rule.name}" for rule in linter.RULES]
    assert {check.status for check in checks} == {"pass"}


FLAGS = {
    "parallel_tasks": ('"env.max_parallel_tasks" = 2', '"env.max_parallel_tasks" = 1'),
    "fps": ('"env.fps" = 10', '"env.fps" = 20'),
    "init_states": ('"env.init_states" = false', '"env.init_states" = "true"'),
    "hard_reset": ('"env.hard_reset" = "False"', '"env.hard_reset" = true'),
}


@pytest.mark.parametrize("rule", FLAGS)
def test_a_flag_that_spoils_the_evaluation_is_found(make_campaign: Maker, rule: str) -> None:
    made = make_campaign(GOOD)
    made.configure(f"[rows.good.flags]\n{FLAGS[rule][0]}")
    check = found(made, rule)
    assert check.status == "warn" and "row good: env." in check.evidence and check.remedy


@pytest.mark.parametrize("rule", FLAGS)
def test_a_flag_with_its_right_value_is_left_alone(make_campaign: Maker, rule: str) -> None:
    made = make_campaign(GOOD)
    made.configure(f"[rows.good.flags]\n{FLAGS[rule][1]}")
    assert found(made, rule).status == "pass"


BAD_ROWS = {
    "repeated_init_states": [BASE, row("twice", episodes=60)],
    "uneven_batches": [BASE, row("uneven", 3, 4)],
    "split_task": [BASE, row("first"), row("second", episodes=8)],
    "unpinned_revision": [BASE, row("main", policy="lerobot/pi0_libero_finetuned")],
    "seeds": [BASE, row("mine", policy="checkpoints/one"), row("theirs", seed=8, policy="checkpoints/two")],
    "mixed_batches": [BASE, row("small"), row("wide", 4)],
}
GOOD_ROWS = {
    "repeated_init_states": [BASE, row("once", episodes=50), row("again", seed=8, episodes=50)],
    "uneven_batches": [BASE, row("even", 2, 4), row("capped", 9, 4)],
    "split_task": [BASE, row("first"), row("repeat", seed=8), row("like_baseline", 1, 2)],
    "unpinned_revision": [BASE, row("pinned", policy=f"lerobot/pi0_libero_finetuned@{COMMIT}")],
    "seeds": [BASE, row("mine", policy="checkpoints/one"), row("theirs", policy="checkpoints/two")],
    "mixed_batches": [BASE, row("small"), row("other", seed=8)],
}


@pytest.mark.parametrize("rule", BAD_ROWS)
def test_rows_that_break_a_rule_are_found_and_named(make_campaign: Maker, rule: str) -> None:
    check = found(make_campaign(BAD_ROWS[rule]), rule)
    assert (check.status, check.required) == ("warn", False)
    named = {"mixed_batches": "batch sizes 2, 4", "seeds": "checkpoints/two with 8", "split_task": "rows first, second"}
    assert named.get(rule, f"row {BAD_ROWS[rule][1].split(',')[0]}: ") in check.evidence


@pytest.mark.parametrize("rule", GOOD_ROWS)
def test_rows_that_keep_a_rule_are_left_alone(make_campaign: Maker, rule: str) -> None:
    assert found(make_campaign(GOOD_ROWS[rule]), rule).status == "pass"


def test_a_branch_is_no_pinned_revision(make_campaign: Maker) -> None:
    made = make_campaign([BASE, row("main", policy="lerobot/pi0_libero_finetuned@main")])
    assert "at main" in found(made, "unpinned_revision").evidence


@pytest.mark.parametrize(
    ("base", "revision", "status"),
    [("org/base", None, "warn"), ("org/base", "main", "warn"), ("org/base", COMMIT, "pass"), ("configs", None, "pass")],
)
def test_the_base_of_an_adapter_is_pinned_like_a_checkpoint(
    make_campaign: Maker, base: str, revision: str | None, status: str
) -> None:
    made = configured(make_campaign(GOOD), use_peft=True)
    folder = made.root / "checkpoints" / "fake"
    files.write_json(folder / "adapter_config.json", {"base_model_name_or_path": base, "revision": revision})
    check = found(made, "unpinned_revision")
    assert check.status == status and ("org/base at " in check.evidence) == (status == "warn")


@pytest.mark.parametrize(("steps", "status"), [(50, "warn"), (10, "pass")])
def test_a_chunk_that_is_played_whole_is_found_in_the_checkpoint(make_campaign: Maker, steps: int, status: str) -> None:
    made = configured(make_campaign(GOOD, of_pi0()), chunk_size=50, n_action_steps=steps)
    assert found(made, "whole_chunk").status == status


def test_a_setting_wins_over_the_checkpoints_chunk(make_campaign: Maker) -> None:
    made = configured(make_campaign(GOOD, of_pi0("n_action_steps = 10")), chunk_size=50, n_action_steps=50)
    assert (found(made, "whole_chunk").status, found(made, "preset").status) == ("pass", "pass")


@pytest.mark.parametrize(("steps", "status"), [(120, "warn"), (280, "pass")])
def test_an_episode_of_another_length_than_the_suites_is_found(make_campaign: Maker, steps: int, status: str) -> None:
    made = make_campaign(GOOD)
    made.configure(f"[rows.good]\nepisode_length = {steps}")
    assert found(made, "episode_length").status == status


CONTROL = {
    "xvla as documented": ("xvla", 800, "absolute", []),
    "xvla with lerobot's own mode": ("xvla", 800, "relative", ["env.control_mode is relative, not absolute"]),
    "xvla with the suite's steps": ("xvla", None, "absolute", ["episodes end after 280 steps, not 800"]),
    "pi0 as documented": ("pi0", None, None, []),
    "pi0 with absolute targets": ("pi0", None, "absolute", ["env.control_mode is absolute, not relative"]),
    "a type that nobody has documented": ("other", 9, "absolute", []),
}


@pytest.mark.parametrize("name", CONTROL)
def test_control_mode_and_step_limit_are_those_of_the_types_documentation(make_campaign: Maker, name: str) -> None:
    kind, steps, mode, said = CONTROL[name]
    made = make_campaign(GOOD, SETTINGS.replace('"act"', f'"{kind}"'))
    flags = f'flags = {{ "env.control_mode" = "{mode}" }}' if mode else ""
    made.configure(f"[rows.good]\n{f'episode_length = {steps}' if steps else ''}\n{flags}")
    evidence = found(made, "documented").evidence
    assert [words for words in said if f"good: {words}" not in evidence] == []
    assert ("good: " in evidence) == bool(said)
    if kind == "xvla" and steps:
        assert "good: " not in found(made, "episode_length").evidence


@pytest.mark.parametrize(("pixels", "status"), [(256, "warn"), (360, "pass")])
def test_pictures_of_another_size_than_the_checkpoints_are_found(
    make_campaign: Maker, pixels: int, status: str
) -> None:
    features = {"observation.images.image": {"type": "VISUAL", "shape": [3, pixels, pixels]}}
    assert found(configured(make_campaign(GOOD), input_features=features), "observation_size").status == status


@pytest.mark.parametrize("config", [{"input_features": 3}, {"input_features": {"a": 1, "b": {"type": "VISUAL"}}}])
def test_a_config_of_an_odd_form_is_no_error(make_campaign: Maker, config: dict[str, object]) -> None:
    assert found(configured(make_campaign(GOOD), **config), "observation_size").status == "pass"


def test_a_config_that_is_no_json_is_no_error(make_campaign: Maker) -> None:
    made = make_campaign(GOOD)
    (made.root / "checkpoints" / "fake" / "config.json").write_text("{")
    assert len(linter.checks(made.spec)) == len(linter.RULES)


@pytest.mark.parametrize("kind", preset.PRESETS)
def test_other_settings_than_the_presets_are_found_with_the_difference(make_campaign: Maker, kind: str) -> None:
    made = make_campaign(GOOD, of_pi0("n_action_steps = 25").replace('"pi0"', f'"{kind}"'))
    check = found(made, "preset")
    assert check.status == "warn" and "n_action_steps is 25, but 10 is known to be right" in check.evidence


def test_a_setting_that_is_missing_is_told_from_a_wrong_one(make_campaign: Maker) -> None:
    assert "n_action_steps is not set" in found(make_campaign(GOOD, of_pi0()), "preset").evidence


def test_rows_that_are_disabled_are_not_looked_at(make_campaign: Maker) -> None:
    made = make_campaign([*GOOD, row("off", 3, 4).removesuffix("1") + "0"])
    assert found(made, "uneven_batches").status == "pass"


# strict


def test_the_setting_makes_errors_of_what_is_found(make_campaign: Maker) -> None:
    made = make_campaign(BAD_ROWS["uneven_batches"])
    made.configure("[preflight]\nstrict = true")
    report = preflight.run_preflight(preflight.config_of(made.spec))
    assert report["status"] == "blocked" and "lint:uneven_batches" in report["blocker"]


def test_without_it_the_campaign_is_not_blocked(make_campaign: Maker) -> None:
    report = preflight.run_preflight(preflight.config_of(make_campaign(BAD_ROWS["uneven_batches"]).spec))
    assert report["status"] == "pass"
    assert {"lint:uneven_batches": "warn"}.items() <= {c["name"]: c["status"] for c in report["checks"]}.items()


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--strict",), 1)])
def test_the_command_exits_with_1_only_if_it_is_strict(make_campaign: Maker, words: Sequence[str], code: int) -> None:
    made = make_campaign(BAD_ROWS["uneven_batches"])
    ended = made.call(*made.preflight_words(*words))
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "lint:uneven_batches" in ended.stdout


@pytest.mark.parametrize("words", [(), ("--strict-preflight",)])
def test_the_gate_fails_only_if_pytest_is_strict(make_campaign: Maker, words: Sequence[str]) -> None:
    made = make_campaign(BAD_ROWS["uneven_batches"])
    ended = made.pytest("-n0", "-k", "phase1 or phase2", *words)
    assert ended.returncode == (1 if words else 0), ended.stdout
    assert "lint:uneven_batches" in ended.stdout
    assert (files.read_json(made.layout.handoff("phase2"))["status"] == "blocked") == bool(words)


# the page and the campaign that ships


def test_the_pages_rules_are_those_of_the_code() -> None:
    lines = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", PAGE.split("## Presets")[0], re.MULTILINE)
    assert lines == [(rule.name, rule.reason, rule.source) for rule in linter.RULES]


def test_the_smoke_campaign_gets_warnings_alone() -> None:
    checks = linter.checks(campaign.load(SMOKE))
    assert {check.status for check in checks} == {"pass", "warn"}
    assert not any(check.required for check in checks)


def test_a_finding_names_all_rows_that_have_the_same_setting_at_once(make_campaign: Maker) -> None:
    made = make_campaign([*GOOD, row("more", seed=8), row("other", seed=9)])
    made.configure("".join(f"[rows.{name}]\nepisode_length = 120\n" for name in ("good", "more")))
    made.configure("[rows.other]\nepisode_length = 90")
    evidence = found(made, "episode_length").evidence
    assert "rows good, more: episode_length = 120, but libero_object has 280; row other: episode_length = " in evidence
    assert evidence.count("episode_length = 120") == 1


def test_the_smoke_campaigns_warnings_are_short_and_say_that_they_are_meant() -> None:
    warned = [check for check in linter.checks(campaign.load(SMOKE)) if check.status == "warn"]
    assert {check.name for check in warned} == {"lint:uneven_batches", "lint:mixed_batches", "lint:episode_length"}
    assert [check for check in warned if "This is meant here" not in check.remedy] == []
    assert [check for check in warned if check.evidence.count("libero_object has") > 1] == []


def test_a_strict_campaign_hears_what_to_change_although_its_outcomes_are_known() -> None:
    checks = linter.checks(campaign.load(SMOKE), strict=True)
    assert not any("This is meant here" in (check.remedy or "") for check in checks)
