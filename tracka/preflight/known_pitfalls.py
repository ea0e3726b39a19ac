"""Finds settings that are known to spoil an evaluation: one function for each yields the places that have it.

Guarantees: only the campaign is read, and config.json and adapter_config.json of checkpoints that are folders on this
host.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..campaign.campaign import Campaign, effective
from ..campaign.matrix import Row
from ..campaign.preset import PRESETS
from ..checkpoints import checkpoint, hub_dependencies
from ..core import files
from ..core.errors import TrackaError, joined_names
from ..core.lerobot_facts import EPISODE_STEPS, INIT_STATES

RELATIVE = "relative"  # the control mode of LIBERO itself and of its demonstrations


@dataclass(frozen=True)
class Documented:
    """The settings with which a policy type's documentation evaluates on LIBERO.

    `steps` is the step limit, None for the suite's own.
    """

    control_mode: str = RELATIVE
    steps: int | None = None


DOCUMENTED = {
    **dict.fromkeys(("act", "diffusion", "pi0", "pi05", "pi0_fast", "smolvla", "tdmpc", "vqbet"), Documented()),
    "xvla": Documented("absolute", 800),
}


@dataclass(frozen=True)
class Lint:
    """One place that breaks a rule: the row or rows, and the setting that is there."""

    where: str
    what: str


def flag(name: str, is_good: Callable[[Any], bool]) -> Callable[[Campaign], Iterator[Lint]]:
    """Returns a function that yields the rows whose value of lerobot-eval's flag `name` does not satisfy `is_good`."""

    def rows_with_flag(campaign: Campaign) -> Iterator[Lint]:
        for row in campaign.enabled:
            value = campaign.settings(row).flags.get(name)
            if value is not None and not is_good(value):
                yield Lint(f"row {row.run_id}", f"{name} = {str(value).lower()}")

    return rows_with_flag


def equals(expected: object) -> Callable[[Any], bool]:
    """Returns a function that tells whether a flag's value is `expected`, as a TOML value or as text."""
    return lambda value: str(value).lower().removesuffix(".0") == str(expected).lower()


def uneven_batches(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows whose episodes do not fill whole batches."""
    for row in campaign.enabled:
        batch = row.played_batch
        if row.n_episodes % batch:
            yield Lint(f"row {row.run_id}", f"{row.n_episodes} episodes in batches of {batch}")


def repeated_init_states(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows with more episodes than a LIBERO task has init states."""
    for row in campaign.enabled:
        if row.n_episodes > INIT_STATES:
            yield Lint(
                f"row {row.run_id}", f"{row.n_episodes} episodes per LIBERO task, which has {INIT_STATES} init states"
            )


def split_tasks(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows that have a LIBERO task in common and differ in nothing but the number of episodes.

    Rows with another seed are repeats, and the baseline is a rehearsal: these are not reported.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for row in campaign.compared_rows:
        settings = effective(campaign.settings(row))
        shared_settings = {key: value for key, value in settings.items() if key not in ("task_ids", "timeout_secs")}
        for task in campaign.task_ids(row):
            groups[f"{(row.policy_path, row.task_suite, task, row.seed, row.batch_size, shared_settings)}"].append(
                row.run_id
            )
    for run_ids in dict.fromkeys(tuple(rows) for rows in groups.values() if len(rows) > 1):
        yield Lint(f"rows {', '.join(run_ids)}", "the rows have a LIBERO task in common")


def unpinned_revisions(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows whose checkpoint, or whose adapter's base, is a hub repository that no commit pins."""
    for row in campaign.enabled:
        match = checkpoint.REPO.fullmatch(row.policy_path)
        if match and not checkpoint.local_folder(row.policy_path, campaign.layout.root).is_dir():
            revision = match["revision"] or "no revision"
            if not _is_commit(revision) and not row.policy_path.startswith("checkpoints/"):
                yield Lint(f"row {row.run_id}", f"{match['repo']} at {revision}")
        yield from _unpinned_base(campaign, row)


def _unpinned_base(campaign: Campaign, row: Row) -> Iterator[Lint]:
    """Yields the row if its checkpoint is a local adapter whose base is a hub repository whose weights may change."""
    base = (
        hub_dependencies.adapter_base(checkpoint.local_folder(row.policy_path, campaign.layout.root))
        if _is_adapter(campaign, row)
        else None
    )
    if base and not (campaign.layout.root / base.name).is_dir() and not _is_commit(base.revision or ""):
        revision = base.revision or "no revision"
        yield Lint(f"row {row.run_id}", f"{base.name} at {revision}, the base of the adapter {row.policy_path}")


def _is_adapter(campaign: Campaign, row: Row) -> bool:
    return bool(_config(campaign, row).get("use_peft"))


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def whole_chunks(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows, of policy types that have a preset, whose policy plays whole chunks of actions."""
    for row in campaign.enabled:
        config = _config(campaign, row)
        steps, chunk = campaign.settings(row).n_action_steps or config.get("n_action_steps"), config.get("chunk_size")
        if _type(campaign, row) in PRESETS and chunk is not None and steps == chunk:
            yield Lint(f"row {row.run_id}", f"n_action_steps = {steps} is the whole chunk")


def unequal_seeds(campaign: Campaign) -> Iterator[Lint]:
    """Yields the LIBERO tasks that two policies run with different seeds."""
    seeds: dict[tuple[str, int], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in campaign.compared_rows:
        for task in campaign.task_ids(row):
            seeds[row.task_suite, task][row.policy_path].add(row.seed)
    for (suite, task), policies in seeds.items():
        if len({frozenset(seed_set) for seed_set in policies.values()}) > 1:
            words = [f"{path} with {', '.join(map(str, sorted(seed_set)))}" for path, seed_set in policies.items()]
            yield Lint(f"{suite} task {task}", joined_names(words))


def mixed_batches(campaign: Campaign) -> Iterator[Lint]:
    """Yields the suites that are run with several batch sizes, by one policy or by policies that are compared."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for row in campaign.compared_rows:
        sizes[row.task_suite].add(row.played_batch)
    for suite, batch_sizes in sizes.items():
        if len(batch_sizes) > 1:
            yield Lint(suite, f"batch sizes {', '.join(map(str, sorted(batch_sizes)))}")


def undocumented(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows whose control mode or step limit is not the one in the documentation of the policy's type."""
    for row in campaign.enabled:
        settings, documented = campaign.settings(row), DOCUMENTED.get(_type(campaign, row) or "")
        mode = str(settings.flags.get("env.control_mode", RELATIVE))
        if documented and mode != documented.control_mode:
            yield Lint(f"row {row.run_id}", f"env.control_mode is {mode}, not {documented.control_mode}")
        if documented and documented.steps and settings.episode_length != documented.steps:
            yield Lint(f"row {row.run_id}", f"episodes end after {campaign.steps(row)} steps, not {documented.steps}")


def episode_lengths(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows whose episode length is neither the suite's own nor the one documented for the policy's type."""
    for row in campaign.enabled:
        steps, documented = campaign.settings(row).episode_length, DOCUMENTED.get(_type(campaign, row) or "")
        if steps not in (None, EPISODE_STEPS[row.task_suite], documented and documented.steps):
            yield Lint(
                f"row {row.run_id}",
                f"episode_length = {steps}, but {row.task_suite} has {EPISODE_STEPS[row.task_suite]}",
            )


def frame_sizes(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows whose frames differ in size from those that the checkpoint's config.json names."""
    for row in campaign.enabled:
        frame = campaign.settings(row).frame
        if other_sizes := sorted(_trained_frame_sizes(_config(campaign, row)) - {frame}):
            words = ", ".join(f"{height} x {width}" for height, width in other_sizes)
            yield Lint(f"row {row.run_id}", f"frames of {frame[0]} x {frame[1]}, but the checkpoint names {words}")


def _trained_frame_sizes(config: dict[str, Any]) -> set[tuple[int, int]]:
    """Returns the (height, width) of the frames that a config.json names, without shapes of an unexpected form."""
    features = config.get("input_features")
    entries = features.values() if isinstance(features, dict) else ()
    shapes = [item.get("shape") for item in entries if isinstance(item, dict) and item.get("type") == "VISUAL"]
    return {(shape[1], shape[2]) for shape in shapes if isinstance(shape, list) and len(shape) == 3}


def other_than_preset(campaign: Campaign) -> Iterator[Lint]:
    """Yields the rows with a setting that differs from the preset of the policy's type."""
    for row in campaign.enabled:
        preset = PRESETS.get(_type(campaign, row) or "")
        for setting in preset.settings if preset else ():
            value = getattr(campaign.settings(row), setting.key) or _config(campaign, row).get(setting.key)
            if value != setting.value:
                value_text = "is not set" if value is None else f"is {value}"
                yield Lint(
                    f"row {row.run_id}",
                    f"{setting.key} {value_text}, but {setting.value} is known to be right: {setting.source}",
                )


def _type(campaign: Campaign, row: Row) -> str | None:
    kind = campaign.settings(row).policy_type or _config(campaign, row).get("type")
    return kind if isinstance(kind, str) else None


def _config(campaign: Campaign, row: Row) -> dict[str, Any]:
    """Returns the config.json of a checkpoint that is a folder on this host, else an empty dict.

    A broken config.json counts as empty; the check `policy_resolve` reports it.
    """
    path = checkpoint.local_folder(row.policy_path, campaign.layout.root) / "config.json"
    try:
        return files.read_json(path) if path.is_file() else {}
    except TrackaError:
        return {}
