"""Finds what the options of a new campaign would say: by its checkpoints, this host and LIBERO.

Guarantees: only what is stated is used, such as the one suite that a train_config.json names; each value comes with
where it was found, and an option that is given stands.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .campaign.campaign import EvalSettings
from .campaign.preset import PRESETS, lines
from .checkpoints import checkpoint, policy_metadata
from .core import files, parsing
from .core.errors import TrackaError
from .core.lerobot_facts import INIT_STATES, SUITE_TASKS
from .new_campaign import CampaignOptions
from .preflight import batch_fit, inventory

TRAIN_CONFIG = "train_config.json"
# Folders of a training run whose names say nothing of it: outputs/my_run/checkpoints/020000/pretrained_model.
PLACES = re.compile(r"pretrained_model|checkpoints?|last|\d+|")
SUITE = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(sorted(SUITE_TASKS, key=len, reverse=True))})(?![0-9])")
MOST_BATCH = CampaignOptions.batch_size


@dataclass(frozen=True)
class FoundOption[T]:
    """The value of an option that nobody gave, and where it comes from."""

    flag: str
    value: T
    source: str

    def __str__(self) -> str:
        value = self.value if not isinstance(self.value, tuple) else ",".join(map(str, self.value))
        return f"{f'{self.flag} {value}'.strip():28} {self.source}"


Finder = Callable[[Mapping[str, Any], Path], FoundOption[Any]]  # takes the values so far and the campaign's folder


@dataclass(frozen=True)
class Completed:
    """The options of a new campaign, and those among them that nobody gave."""

    options: CampaignOptions
    found: tuple[FoundOption[Any], ...]

    def lines(self) -> list[str]:
        """Returns a line for each option that was found, with its source; none for what is left to the suite."""
        told = [option for option in self.found if option.value not in (None, ())]
        options = [f"  {option}" for option in told if option.flag.startswith("--")]
        settings = [f"  {option}" for option in told if not option.flag.startswith("--")]
        return [
            *(["Chosen by Track A, and an option of that name overrides it:", *options] if options else []),
            *(["Chosen by Track A, to be changed in campaign.toml:", *settings] if settings else []),
        ]


def complete(root: Path, given: Mapping[str, Any], finders: Mapping[str, Finder]) -> Completed:
    """Returns the options of a new campaign in the folder `root`, with a value for each that is None in `given`.

    `given` has the fields of CampaignOptions. `finders` are FINDERS, or others in their places, asked in their order.
    """
    values, found = dict(given), []
    for field, find in finders.items():
        if values[field] is None:
            found.append(find(values, root))
            values[field] = found[-1].value
    return Completed(CampaignOptions(**values), tuple(found))


def name(policy_path: str) -> str:
    """Returns a campaign's name by its policy: that of the folder, the training run or the hub's repository."""
    parts = policy_path.partition("@")[0].rstrip("/").split("/")
    telling = [part for part in parts if PLACES.fullmatch(part) is None] or ["campaign"]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", telling[-1]).strip("-._")[:100] or "campaign"


def gpus() -> FoundOption[int]:
    """Returns how many GPUs this process sees."""
    names = inventory.gpu_names()
    seen = f"this host has {names[0]}" if names else "this host has no visible GPU, so rows run on the CPU"
    return FoundOption("--gpus", len(names), seen)


def preset(policy_paths: Sequence[str], root: Path) -> FoundOption[str | None]:
    """Returns the preset of the policies' type, where all of them have the same type and it has a preset."""
    kinds = {checkpoint.find_policy_type(path, root) for path in policy_paths}
    if policy_paths == (CampaignOptions.policy_path,):
        kinds = {"pi0"}
    kind = kinds.pop() if len(kinds) == 1 else None
    found = kind if kind in PRESETS else None
    return FoundOption("--preset", found, f"the policy's type by its config.json is {kind}")


def suite(policy_paths: Sequence[str], root: Path) -> FoundOption[str]:
    """Returns the suite that all policies were trained for by their train_config.json, else the usual one."""
    stated = [_stated_suite(_train_config(path, root)) for path in policy_paths]
    if stated[0] and all(other and other.value == stated[0].value for other in stated):
        return stated[0]
    return FoundOption("--suite", CampaignOptions.suite, f"by default: no {TRAIN_CONFIG} names one suite")


def _stated_suite(config: dict[str, Any]) -> FoundOption[str] | None:
    """Returns the one suite of the training's own evaluation, else that in the name of its data set."""
    env, dataset = _table(config, "env"), _table(config, "dataset")
    if env.get("type") == "libero" and env.get("task") in SUITE_TASKS:
        return FoundOption("--suite", str(env["task"]), f"{TRAIN_CONFIG}: env.task")
    repo_id = str(dataset.get("repo_id"))
    suites = set(SUITE.findall(repo_id))
    if len(suites) == 1:
        return FoundOption("--suite", suites.pop(), f"{TRAIN_CONFIG}: dataset.repo_id is {repo_id}")
    return None


def task_ids(policy_paths: Sequence[str], root: Path, suite: str) -> FoundOption[tuple[int, ...]]:
    """Returns the tasks of `suite` with which all policies were evaluated in training; empty is all."""
    stated = [_stated_tasks(_train_config(path, root), suite) for path in policy_paths]
    if stated[0] and all(other == stated[0] for other in stated):
        return FoundOption("--task-ids", stated[0], f"{TRAIN_CONFIG}: env.task_ids")
    return FoundOption("--task-ids", (), f"by default: all {SUITE_TASKS.get(suite, 0)} tasks of the suite")


def _stated_tasks(config: dict[str, Any], suite: str) -> tuple[int, ...]:
    env = _table(config, "env")
    if env.get("type") != "libero" or env.get("task") != suite:
        return ()
    ids = env.get("task_ids")
    good = isinstance(ids, list) and all(type(task) is int and 0 <= task < SUITE_TASKS[suite] for task in ids)
    return tuple(ids) if good and ids else ()


def n_episodes() -> FoundOption[int]:
    """Returns how many episodes of a task are played: each of its init states once."""
    return FoundOption("--n-episodes", INIT_STATES, f"a LIBERO task has {INIT_STATES} init states")


def resolving(resolved: Callable[[int], tuple[int, list[str]]], words: list[str]) -> Finder:
    """Returns a finder of the episodes by `resolved`, which takes the number of tasks; its sentences go to `words`."""

    def find(values: Mapping[str, Any], _: Path) -> FoundOption[int]:
        number, sentences = resolved(len(set(values["task_ids"])) or SUITE_TASKS.get(values["suite"], 1))
        words.extend(sentences)
        return FoundOption("--n-episodes", number, "--resolve")

    return find


def batch_size(gpus: int, n_episodes: int) -> FoundOption[int]:
    """Returns how many episodes of a row run at the same time: on the CPU what fits this host, else the usual number.

    A host with GPUs may be another one than this; its preflight says where memory or cores are short.
    """
    if gpus:
        return FoundOption("--batch-size", MOST_BATCH, "by default; preflight says if the host is short of memory")
    room = batch_fit.measure(Path.cwd())
    fits = min(MOST_BATCH, room.cores, max(1, (room.memory - batch_fit.BASE_MB) // batch_fit.SLOT_MB))
    size = max(size for size in range(1, fits + 1) if n_episodes % size == 0)
    needed = f"an environment takes a core and {batch_fit.SLOT_MB / 1000:.1f} GB"
    return FoundOption("--batch-size", size, f"{room.cores} cores, {room.memory / 1000:.1f} GB free; {needed}")


def frame_size(policy_paths: Sequence[str], root: Path) -> FoundOption[tuple[int, int] | None]:
    """Returns the (height, width) of the frames that all policies need, where they do not resize frames."""
    configs = [checkpoint.find_config(path, root) for path in policy_paths]
    sizes = {policy_metadata.frame_size(config) for config in configs}
    source = f"input_features of config.json: policies of type {configs[0].get('type')} do not resize frames"
    return FoundOption("observation_height, _width", sizes.pop() if len(sizes) == 1 else None, source)


def settings(policy_path: str, root: Path) -> EvalSettings:
    """Returns the settings of lerobot-eval that a new campaign gets for a policy: its preset's and its frames' size."""
    kind = preset((policy_path,), root).value
    table = parsing.toml_table("\n".join(lines(PRESETS[kind])).encode()) if kind else {}
    if size := frame_size((policy_path,), root).value:
        table |= {"observation_height": size[0], "observation_width": size[1]}
    return EvalSettings().updated(table)


def _policies(values: Mapping[str, Any]) -> tuple[str, ...]:
    return (values["policy_path"], *values["further_policies"])


# In the order in which one needs another: the tasks are the suite's, and the batch fits the episodes.
FINDERS: dict[str, Finder] = {
    "suite": lambda values, root: suite(_policies(values), root),
    "task_ids": lambda values, root: task_ids(_policies(values), root, values["suite"]),
    "n_episodes": lambda values, root: n_episodes(),
    "gpus": lambda values, root: gpus(),
    "batch_size": lambda values, root: batch_size(values["gpus"], values["n_episodes"]),
    "preset": lambda values, root: preset(_policies(values), root),
    "frame_size": lambda values, root: frame_size(_policies(values), root),
}


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _train_config(policy_path: str, root: Path) -> dict[str, Any]:
    """Returns the train_config.json beside a local policy's config.json; empty without one that can be read."""
    file = checkpoint.local_folder(policy_path, root) / TRAIN_CONFIG
    try:
        return files.read_json(file) if os.path.lexists(file) else {}
    except TrackaError:
        return {}
