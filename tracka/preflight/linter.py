"""The configuration linter: one rule for each setting that is known to spoil an evaluation, checked before any run.

Guarantees: each rule gives one check, so a report lists every rule. A rule that finds something warns, and fails only
if the campaign is strict.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.preset import DOCS
from ..core import fact_cache, installation, lerobot_facts
from ..core.check import Check
from ..core.errors import joined_names, shortened
from . import known_pitfalls
from .known_pitfalls import Lint

MOST = 8  # settings that a finding names
KNOWN = "This is meant here, and nothing has to be changed: all rows have [known_answers], which hold with this setting"


@dataclass(frozen=True)
class Rule:
    """One rule: what it looks for, why that matters, what to do about it, and the source of the fact."""

    name: str
    reason: str
    remedy: str
    source: str
    find: Callable[[Campaign], Iterable[Lint]]


def checks(campaign: Campaign, strict: bool = False) -> list[Check]:
    """Returns a check for each rule, named `lint:RULE`. With `strict`, a rule that finds something fails."""
    is_known = all(row.run_id in campaign.known_answers for row in campaign.enabled)
    with fact_cache.scope():  # many rows have one checkpoint, whose config.json each of them asks for
        return [_check(rule, list(rule.find(campaign)), strict, is_known) for rule in RULES]


def _check(rule: Rule, lints: Sequence[Lint], strict: bool, is_known: bool) -> Check:
    """Returns the check of a rule; `is_known` says that each row's outcome is known beforehand."""
    if not lints:
        return Check(f"lint:{rule.name}", "pass", "nothing found", required=strict)
    evidence = f"{_places(lints)}. {rule.reason} ({rule.source})"
    remedy = KNOWN if is_known and not strict else rule.remedy
    return Check(f"lint:{rule.name}", "fail" if strict else "warn", evidence, remedy, required=strict)


def _places(lints: Sequence[Lint]) -> str:
    """Returns what was found in one line: each setting once, with all rows that have it."""
    places: dict[str, list[str]] = defaultdict(list)
    for lint in lints:
        places[lint.what].append(lint.where)
    told = [f"{_rows(wheres)}: {shortened(what, 300)}" for what, wheres in places.items()]
    more = f" and {len(told) - MOST} more" if len(told) > MOST else ""
    return "; ".join(told[:MOST]) + more


def _rows(wheres: Sequence[str]) -> str:
    if len(wheres) > 1 and all(where.startswith("row ") for where in wheres):
        return f"rows {joined_names([where.removeprefix('row ') for where in wheres])}"
    return joined_names(wheres)


RULES = (
    Rule(
        "parallel_tasks",
        "Tasks in parallel share one policy and its queue of actions: the success rate drops to 0% without an error",
        "Leave env.max_parallel_tasks at 1; rows run in parallel",
        "huggingface/lerobot #4327",
        known_pitfalls.flag("env.max_parallel_tasks", known_pitfalls.equals(1)),
    ),
    Rule(
        "fps",
        "LIBERO's controller runs at 20 Hz, the rate of its demonstrations",
        "Leave env.fps at 20",
        "lerobot/envs/configs.py, LiberoEnv.fps",
        known_pitfalls.flag("env.fps", known_pitfalls.equals(lerobot_facts.FPS)),
    ),
    Rule(
        "init_states",
        "Without LIBERO's own init states the episodes differ from the benchmark's, and from policy to policy",
        "Leave env.init_states at true",
        DOCS,
        known_pitfalls.flag("env.init_states", known_pitfalls.equals(True)),
    ),
    Rule(
        "hard_reset",
        "A soft reset is not bit-identical: pictures and outcomes may differ from the benchmark's",
        "Leave env.hard_reset at true",
        DOCS,
        known_pitfalls.flag("env.hard_reset", known_pitfalls.equals(True)),
    ),
    Rule(
        "uneven_batches",
        "lerobot-eval runs whole batches and discards the surplus episodes of the last batch",
        "Make n_episodes a multiple of batch_size",
        "lerobot/scripts/lerobot_eval.py, eval_policy",
        known_pitfalls.uneven_batches,
    ),
    Rule(
        "split_task",
        "Every process starts at init state 0, so these rows evaluate the same episodes again",
        "Put all episodes of a LIBERO task into one row, or give the repeat another seed",
        "lerobot/envs/libero.py, init_state_id; huggingface/lerobot #4152",
        known_pitfalls.split_tasks,
    ),
    Rule(
        "repeated_init_states",
        "Each LIBERO task has 50 init states, so further episodes repeat earlier ones, which then count twice",
        "Set n_episodes to 50 at most, or repeat the episodes in a row with another seed",
        "lerobot/envs/libero.py, init_state_id",
        known_pitfalls.repeated_init_states,
    ),
    Rule(
        "documented",
        "A policy that was trained on absolute targets fails with relative ones, and the other way round",
        'Set "env.control_mode" below [lerobot_eval.flags], and episode_length, to the values documented for the type',
        "huggingface/lerobot docs/source/libero.mdx, xvla.mdx",
        known_pitfalls.undocumented,
    ),
    Rule(
        "unpinned_revision",
        "A repository may change between two runs, and lerobot-eval itself pins weights but not config.json",
        "Write policy_path as repo@commit (40 digits); in adapter_config.json set revision to the base's commit, "
        "or base_model_name_or_path to a folder (pi0, pi05 and pi0_fast take no revision)",
        "huggingface/lerobot #3901",
        known_pitfalls.unpinned_revisions,
    ),
    Rule(
        "whole_chunk",
        "A policy that plays whole chunks observes too seldom: users report 75% instead of 90%, 32 of 50 instead of 42",
        "Set n_action_steps to 10",
        "huggingface/lerobot #2156, #4614",
        known_pitfalls.whole_chunks,
    ),
    Rule(
        "seeds",
        "Policies are compared on the same episodes only with the same seeds",
        "Give each policy the same seeds",
        DOCS,
        known_pitfalls.unequal_seeds,
    ),
    Rule(
        "mixed_batches",
        "Policies are compared on the same episodes only with the same batch size",
        "Give all rows of a suite the same batch_size",
        DOCS,
        known_pitfalls.mixed_batches,
    ),
    Rule(
        "episode_length",
        "A longer or shorter episode has another chance of success than the benchmark's",
        "Leave episode_length out",
        "lerobot/envs/libero.py, TASK_SUITE_MAX_STEPS",
        known_pitfalls.episode_lengths,
    ),
    Rule(
        "observation_size",
        "The policy gets frames of another size than its config.json names",
        "Set observation_height and observation_width to the checkpoint's",
        "lerobot/envs/configs.py, LiberoEnv.observation_height; input_features of config.json",
        known_pitfalls.frame_sizes,
    ),
    Rule(
        "preset",
        "The settings differ from what is known to be right for the policy's type",
        f"Use the values of `tracka init --preset`; {installation.page('preflight.md')} explains them",
        "tracka/campaign/preset.py names each value's source",
        known_pitfalls.other_than_preset,
    ),
)
