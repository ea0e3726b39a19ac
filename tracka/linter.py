"""Settings that are known to spoil an evaluation, found in a campaign before anything runs.

Guarantees: linting reads the campaign and the config.json of checkpoints that are folders here, and nothing else; each
rule gives one check, so that a report lists them all; a rule warns, and fails only where the campaign is strict.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import checkpoint, files
from .campaign import STEPS, Campaign, effective
from .check import Check
from .engine import INIT_STATES
from .errors import TrackaError, some
from .matrix import Row
from .preset import DOCS, PRESETS

RELATIVE = "relative"  # LIBERO's own control mode, and that of its demonstrations


@dataclass(frozen=True)
class Documented:
    """With what the documentation of a policy type evaluates on LIBERO; `steps` is None for the suite's own."""

    control_mode: str = RELATIVE
    steps: int | None = None


DOCUMENTED = {
    **dict.fromkeys(("act", "diffusion", "pi0", "pi05", "pi0_fast", "smolvla", "tdmpc", "vqbet"), Documented()),
    "xvla": Documented("absolute", 800),
}
FPS, SIZE = 20, 360  # lerobot's own (lerobot/envs/configs.py)


@dataclass(frozen=True)
class Lint:
    """One place that breaks a rule: the row, or rows, and what is there."""

    where: str
    what: str


@dataclass(frozen=True)
class Rule:
    """What is looked for, why it matters, what to do, and who says so."""

    name: str
    reason: str
    remedy: str
    source: str
    look: Callable[[Campaign], Iterable[Lint]]


def checks(spec: Campaign, strict: bool = False) -> list[Check]:
    """A check for each rule, called `lint:RULE`."""
    return [_check(rule, list(rule.look(spec)), strict) for rule in RULES]


def _check(rule: Rule, found: Sequence[Lint], strict: bool) -> Check:
    if not found:
        return Check(f"lint:{rule.name}", "pass", "nothing found", required=strict)
    places = some([f"{lint.where}: {lint.what}" for lint in found])
    evidence = f"{places}. {rule.reason} ({rule.source})"
    return Check(f"lint:{rule.name}", "fail" if strict else "warn", evidence, rule.remedy, required=strict)


def _flag(name: str, good: Callable[[Any], bool]) -> Callable[[Campaign], Iterator[Lint]]:
    """Looks for rows that give lerobot-eval the flag `name` with a value that is not good."""

    def look(spec: Campaign) -> Iterator[Lint]:
        for row in spec.enabled:
            value = spec.settings(row).flags.get(name)
            if value is not None and not good(value):
                yield Lint(f"row {row.run_id}", f"{name} = {str(value).lower()}")

    return look


def _is(wanted: object) -> Callable[[Any], bool]:
    """Whether a flag says `wanted`, as TOML has it or as words."""
    return lambda value: str(value).lower().removesuffix(".0") == str(wanted).lower()


def _uneven(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        batch = min(row.batch_size, row.n_episodes)  # lerobot-eval makes no more environments than episodes
        if row.n_episodes % batch:
            yield Lint(f"row {row.run_id}", f"{row.n_episodes} episodes in batches of {batch}")


def _repeated(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        if row.n_episodes > INIT_STATES:
            yield Lint(f"row {row.run_id}", f"{row.n_episodes} episodes of {INIT_STATES} initial states a LIBERO task")


def _split(spec: Campaign) -> Iterator[Lint]:
    """Rows that differ in nothing but the count of episodes; other seeds are repeats, the baseline a rehearsal."""
    groups: dict[str, list[str]] = defaultdict(list)
    for row in spec.compared:
        settings = effective(spec.settings(row))
        same = {key: value for key, value in settings.items() if key not in ("task_ids", "timeout_secs")}
        for task in spec.task_ids(row):
            groups[f"{(row.policy_path, row.task_suite, task, row.seed, row.batch_size, same)}"].append(row.run_id)
    for run_ids in dict.fromkeys(tuple(rows) for rows in groups.values() if len(rows) > 1):
        yield Lint(f"rows {', '.join(run_ids)}", "they have a LIBERO task in common")


def _unpinned(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        match = checkpoint.REPO.fullmatch(row.policy_path)
        if match and not checkpoint.in_campaign(row.policy_path, spec.layout.root).is_dir():
            named = match["revision"] or "no revision"
            if not _is_commit(named) and not row.policy_path.startswith("checkpoints/"):
                yield Lint(f"row {row.run_id}", f"{match['repo']} at {named}")


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _whole_chunk(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        config = _config(spec, row)
        steps, chunk = spec.settings(row).n_action_steps or config.get("n_action_steps"), config.get("chunk_size")
        if _type(spec, row) in PRESETS and chunk is not None and steps == chunk:
            yield Lint(f"row {row.run_id}", f"n_action_steps = {steps} is the whole chunk")


def _seeds(spec: Campaign) -> Iterator[Lint]:
    """LIBERO tasks that two policies run with different seeds."""
    seeds: dict[tuple[str, int], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in spec.compared:
        for task in spec.task_ids(row):
            seeds[row.task_suite, task][row.policy_path].add(row.seed)
    for (suite, task), policies in seeds.items():
        if len({frozenset(used) for used in policies.values()}) > 1:
            words = [f"{path} with {', '.join(map(str, sorted(used)))}" for path, used in policies.items()]
            yield Lint(f"{suite} task {task}", some(words))


def _mixed(spec: Campaign) -> Iterator[Lint]:
    """Suites that are run with several batch sizes, by one policy or by those that are compared."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for row in spec.compared:
        sizes[row.task_suite].add(min(row.batch_size, row.n_episodes))
    for suite, used in sizes.items():
        if len(used) > 1:
            yield Lint(suite, f"batch sizes {', '.join(map(str, sorted(used)))}")


def _documented(spec: Campaign) -> Iterator[Lint]:
    """Rows whose control mode or step limit is not what the documentation of the policy's type evaluates with."""
    for row in spec.enabled:
        settings, documented = spec.settings(row), DOCUMENTED.get(_type(spec, row) or "")
        mode = str(settings.flags.get("env.control_mode", RELATIVE))
        if documented and mode != documented.control_mode:
            yield Lint(f"row {row.run_id}", f"env.control_mode is {mode}, not {documented.control_mode}")
        if documented and documented.steps and settings.episode_length != documented.steps:
            said = settings.episode_length or STEPS[row.task_suite]
            yield Lint(f"row {row.run_id}", f"episodes end after {said} steps, not {documented.steps}")


def _length(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        steps, documented = spec.settings(row).episode_length, DOCUMENTED.get(_type(spec, row) or "")
        if steps not in (None, STEPS[row.task_suite], documented and documented.steps):
            yield Lint(f"row {row.run_id}", f"episode_length = {steps}, {row.task_suite} has {STEPS[row.task_suite]}")


def _size(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        settings = spec.settings(row)
        given = (settings.observation_height or SIZE, settings.observation_width or SIZE)
        if other := sorted(_trained(_config(spec, row)) - {given}):
            words = ", ".join(f"{height} x {width}" for height, width in other)
            yield Lint(f"row {row.run_id}", f"pictures of {given[0]} x {given[1]}, the checkpoint names {words}")


def _trained(config: dict[str, Any]) -> set[tuple[int, int]]:
    """Height and width of the pictures that a checkpoint's config.json names; those of an odd form are left out."""
    features = config.get("input_features")
    found = features.values() if isinstance(features, dict) else ()
    shapes = [item.get("shape") for item in found if isinstance(item, dict) and item.get("type") == "VISUAL"]
    return {(shape[1], shape[2]) for shape in shapes if isinstance(shape, list) and len(shape) == 3}


def _preset(spec: Campaign) -> Iterator[Lint]:
    for row in spec.enabled:
        preset = PRESETS.get(_type(spec, row) or "")
        for known in preset.settings if preset else ():
            value = getattr(spec.settings(row), known.key) or _config(spec, row).get(known.key)
            if value != known.value:
                said = "is not set" if value is None else f"is {value}"
                yield Lint(
                    f"row {row.run_id}", f"{known.key} {said}, {known.value} is known to be right: {known.source}"
                )


def _type(spec: Campaign, row: Row) -> str | None:
    kind = spec.settings(row).policy_type or _config(spec, row).get("type")
    return kind if isinstance(kind, str) else None


def _config(spec: Campaign, row: Row) -> dict[str, Any]:
    """The checkpoint's config.json where it is a folder here; a broken one is `policy_resolve`'s to tell."""
    path = checkpoint.in_campaign(row.policy_path, spec.layout.root) / "config.json"
    try:
        return files.read_json(path) if path.is_file() else {}
    except TrackaError:
        return {}


RULES = (
    Rule(
        "parallel_tasks",
        "Tasks in parallel share one policy and its queue of actions: the success rate drops to 0% without an error",
        "Leave env.max_parallel_tasks at 1; rows run in parallel",
        "huggingface/lerobot #4327",
        _flag("env.max_parallel_tasks", _is(1)),
    ),
    Rule(
        "fps",
        "LIBERO's controller runs at 20 Hz, the rate of its demonstrations",
        "Leave env.fps at 20",
        "lerobot/envs/configs.py, LiberoEnv.fps",
        _flag("env.fps", _is(FPS)),
    ),
    Rule(
        "init_states",
        "Without LIBERO's own initial states the episodes are not the benchmark's, nor two policies' the same",
        "Leave env.init_states at true",
        DOCS,
        _flag("env.init_states", _is(True)),
    ),
    Rule(
        "hard_reset",
        "A soft reset is not bit-identical: pictures and outcomes may differ from a benchmark's",
        "Leave env.hard_reset at true",
        DOCS,
        _flag("env.hard_reset", _is(True)),
    ),
    Rule(
        "uneven_batches",
        "lerobot-eval runs whole batches and throws the surplus of the last one away",
        "Make n_episodes a multiple of batch_size",
        "lerobot/scripts/lerobot_eval.py, eval_policy",
        _uneven,
    ),
    Rule(
        "split_task",
        "Every process starts at initial state 0, so these rows evaluate the same episodes again",
        "Put all episodes of a LIBERO task into one row, or give a repeat a seed of its own",
        "lerobot/envs/libero.py, init_state_id; huggingface/lerobot #4152",
        _split,
    ),
    Rule(
        "repeated_init_states",
        "Each LIBERO task has 50 initial states, so the episodes beyond them repeat earlier ones and count twice",
        "Set n_episodes to 50 at most, or give a repeat a row and a seed of its own",
        "lerobot/envs/libero.py, init_state_id",
        _repeated,
    ),
    Rule(
        "documented",
        "A policy that was trained on absolute targets fails with relative ones, and the other way round",
        'Set "env.control_mode" below [lerobot_eval.flags], and episode_length, to what is documented for the type',
        "huggingface/lerobot docs/source/libero.mdx, xvla.mdx",
        _documented,
    ),
    Rule(
        "unpinned_revision",
        "A repository may change between two runs, and lerobot-eval itself pins weights but not config.json",
        "Write repo@commit, with all 40 digits, as policy_path",
        "huggingface/lerobot #3901",
        _unpinned,
    ),
    Rule(
        "whole_chunk",
        "A policy that plays whole chunks looks too seldom: 75% instead of 90% and 32 of 50 instead of 42 are reported",
        "Set n_action_steps to 10",
        "huggingface/lerobot #2156, #4614",
        _whole_chunk,
    ),
    Rule(
        "seeds",
        "Policies are compared on the same episodes only with the same seeds",
        "Give each policy the same seeds",
        DOCS,
        _seeds,
    ),
    Rule(
        "mixed_batches",
        "Policies are compared on the same episodes only in batches of one size",
        "Give the rows of a suite one batch_size",
        DOCS,
        _mixed,
    ),
    Rule(
        "episode_length",
        "An episode of another length has another chance to succeed than the benchmark's",
        "Leave episode_length out",
        "lerobot/envs/libero.py, TASK_SUITE_MAX_STEPS",
        _length,
    ),
    Rule(
        "observation_size",
        "The policy gets pictures of another size than its config.json names",
        "Set observation_height and observation_width to the checkpoint's",
        "lerobot/envs/configs.py, LiberoEnv.observation_height; input_features of config.json",
        _size,
    ),
    Rule(
        "preset",
        "The settings differ from what is known to be right for the policy's type",
        "See `tracka init --preset` and docs/preflight.md",
        "each value's own, in tracka/preset.py",
        _preset,
    ),
)
