"""Checks whether a checkpoint brings the statistics that its normalisers need, by its JSON and its files of statistics.

lerobot 0.6.1 passes a feature on unchanged where a normaliser has no statistics of the feature (normalize_processor.py,
_apply_transform): the policy then sees metres where it learned deviations, and no message says so.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign, EvalSettings
from ..core.check import Check, run_check
from ..core.errors import Finding, TrackaError, joined_names
from ..core.lerobot_facts import ACTION
from . import checkpoint, checkpoint_format, contained_files, tensors
from .policy_metadata import (
    POSTPROCESSOR,
    PREPROCESSOR,
    STEPS,
    Features,
    PolicyMetadata,
    distinct_settings,
    features,
    read,
    steps,
)

# Mode -> the statistics that the mode uses, the lower one or the mean first.
NEEDED = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
IDENTITY = "IDENTITY"
WHITE = 1.01  # the largest value of a frame, plus what rounding may add
EPS = 1e-4  # the largest eps that is accepted; lerobot's own is 1e-8
CLASSES = {PREPROCESSOR: ".NormalizerProcessorStep", POSTPROCESSOR: ".UnnormalizerProcessorStep"}
SAVE = "Save the processors again, with the statistics of the dataset that the policy was trained on"
SPREAD = "{name} has no spread in dimension {dims}: {effect}"
EFFECTS = {
    PREPROCESSOR: "the policy sees a tiny deviation there as a huge number",
    POSTPROCESSOR: "the policy's number there has no effect",
}
TRUST = 'If it never changes in the dataset, trust it by name: trusted = ["{name}"] below [security] in campaign.toml'


@dataclass(frozen=True)
class Normalizer:
    """Describes one normalising step: its file, the features it knows, the mode of each kind, its statistics."""

    where: Path
    features: Features
    modes: Mapping[str, str]  # kind of feature -> mode
    only: frozenset[str] | None  # the observations to which the step is limited; None for all
    eps: float  # the number that is added to a deviation
    statistics: tensors.TensorFile | None

    def needed(self, key: str, kind: str) -> tuple[str, ...]:
        """Returns the names, in the step's file, of the statistics that the step uses for a feature."""
        return tuple(f"{key}.{word}" for word in NEEDED.get(self.modes.get(kind, IDENTITY), ()))

    def leaves_out(self, key: str) -> bool:
        """Returns whether the step passes an observation on unchanged, whatever the mode."""
        return key not in self.features or (self.only is not None and key not in self.only)


def check(campaign: Campaign, policy_path: str) -> Check:
    """Returns the check `statistics:POLICY_PATH`: the statistics that the policy needs are there, fit and are sound."""

    def judge() -> str:
        folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
        settings = distinct_settings(campaign.settings_of(policy_path))
        if faults := list(
            dict.fromkeys(finding for setting in settings for finding in findings(folder, setting, campaign.trusted))
        ):
            raise TrackaError(faults)
        return _evidence(folder)

    return run_check(f"statistics:{policy_path}", judge)


def require(folder: Path, settings: EvalSettings, trusted: tuple[str, ...] = ()) -> None:
    """Raises TrackaError naming everything that is wrong with the statistics of the checkpoint in `folder`."""
    if faults := list(dict.fromkeys(findings(folder, settings, trusted))):
        raise TrackaError(faults)


def findings(folder: Path, settings: EvalSettings, trusted: Collection[str] = ()) -> Iterator[Finding]:
    """Yields everything that is wrong with the statistics of the checkpoint in `folder`."""
    policy = read(folder, settings)
    if missing := list(_missing_state_files(folder)):
        yield from missing
        return
    old_statistics = checkpoint_format.old_statistics(folder)
    remedy = old_statistics.remedy if old_statistics else SAVE
    sides = {PREPROCESSOR: policy.inputs, POSTPROCESSOR: policy.outputs}
    normalizers = {file: list(_normalizers(folder / file)) for file in sides}
    for file, declared in sides.items():
        kinds = {key: kind for key, (kind, _) in declared.items()}
        yield from _missing_steps(policy, folder / file, kinds, remedy)
        for step in normalizers[file]:
            yield from _mode_mismatches(policy, step, set(kinds.values()))
            yield from _feature_mismatches(step, declared)
            yield from _feature_findings(step, kinds, remedy, trusted)
    yield from _disagreement(itertools.chain(*normalizers.values()))


def _normalizers(path: Path) -> Iterator[Normalizer]:
    """Yields the normalising steps of one processor. Raises TrackaError for a state file that is missing or unsound."""
    for step, config in steps(path):
        if step.get("registry_name") == STEPS[path.name] or str(step.get("class", "")).endswith(CLASSES[path.name]):
            yield _normalizer(path, config, step.get("state_file"))


def _normalizer(path: Path, config: Mapping[str, Any], state: object) -> Normalizer:
    modes, observations = config.get("norm_map"), config.get("normalize_observation_keys")
    statistics = _statistics(path, state) if state else None
    try:
        mode_by_kind = {str(kind): str(mode) for kind, mode in (modes or {}).items()}
        observation_keys = frozenset(map(str, observations)) if isinstance(observations, list) else None
        return Normalizer(
            path,
            features(config.get("features")),
            mode_by_kind,
            observation_keys,
            float(config.get("eps", EPS)),
            statistics,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        what = "the normalising step's features or norm_map do not have the form that lerobot 0.6 writes"
        raise TrackaError(Finding(str(path), what, SAVE)) from None


def _statistics(path: Path, state: object) -> tensors.TensorFile:
    """Returns the state file of a step of the processor `path`. Raises TrackaError for one that is not beside it."""
    if not contained_files.is_plain(state):
        raise TrackaError(Finding(str(path), f"a step reads {state!a}, which is no file beside it", SAVE))
    return tensors.read(path.parent / str(state))


def _missing_state_files(folder: Path) -> Iterator[Finding]:
    """Yields a finding for each file that a processor's step names and the checkpoint lacks."""
    for file in STEPS:
        for step, _ in steps(folder / file):
            state = step.get("state_file")
            if state is not None and not (folder / str(state)).is_file():
                what = (
                    f"the step {step.get('registry_name', step.get('class'))} names {state}, which the checkpoint lacks"
                )
                yield Finding(str(folder / file), what, "Copy that file too, or save the processors again")


def _missing_steps(policy: PolicyMetadata, path: Path, kinds: Mapping[str, str], remedy: str) -> Iterator[Finding]:
    """Yields a finding for a processor without normalising step where config.json says that features are normalised."""
    step_names = (f"{step.get('registry_name', '')} {step.get('class', '')}".lower() for step, _ in steps(path))
    modes = _modes(policy)
    normalised = [f"{key} ({modes[kind]})" for key, kind in kinds.items() if modes.get(kind, IDENTITY) != IDENTITY]
    if normalised and not any("normaliz" in word for word in step_names):
        trained = f"config.json says that training normalised {joined_names(normalised)}"
        yield Finding(str(path), f"the file has no {STEPS[path.name]}, but {trained}", remedy)


def _modes(policy: PolicyMetadata) -> dict[str, str]:
    """Returns the mode of each kind of feature by config.json."""
    mapping = policy.config.get("normalization_mapping")
    return {str(kind): str(mode) for kind, mode in mapping.items()} if isinstance(mapping, dict) else {}


def _mode_mismatches(policy: PolicyMetadata, step: Normalizer, kinds: Collection[str]) -> Iterator[Finding]:
    """Yields findings for modes that lerobot does not have and for modes that differ from config.json's."""
    trained_modes = _modes(policy)
    for kind in sorted(kinds):
        mode = step.modes.get(kind, IDENTITY)
        if mode not in (*NEEDED, IDENTITY):
            yield Finding(str(step.where), f"{kind} is normalised by {mode}, which lerobot does not have", SAVE)
        elif trained_modes and mode != trained_modes.get(kind, IDENTITY):
            what = f"{kind} is normalised by {mode} here, but by {trained_modes.get(kind, IDENTITY)} in config.json"
            yield Finding(str(step.where), what, SAVE)


def _feature_mismatches(step: Normalizer, trained: Features) -> Iterator[Finding]:
    """Yields findings for features whose type or shape in the step differs from config.json's, and for an unsound eps.

    The step normalises by the type and shape that the step itself names.
    """
    for key, feature in trained.items():
        if key in step.features and step.features[key] != feature:
            kinds = [f"{kind} of {tensors.as_text(shape)}" for kind, shape in (step.features[key], feature)]
            yield Finding(str(step.where), f"{key} is {kinds[0]} here, but {kinds[1]} in config.json", SAVE)
    if not 0 < step.eps <= EPS:
        what = f"eps is {step.eps}, which changes the normalised numbers; lerobot's own eps is 1e-08"
        yield Finding(str(step.where), what, SAVE)


def _feature_findings(
    step: Normalizer, kinds: Mapping[str, str], remedy: str, trusted: Collection[str]
) -> Iterator[Finding]:
    """Yields what is wrong with the statistics of each feature that the step must normalise."""
    for key, kind in kinds.items():
        needed = step.needed(key, kind)
        if not needed:
            continue
        if key != ACTION and step.leaves_out(key):
            yield Finding(str(step.where), f"the normalising step leaves {key} out", SAVE)
        available = step.statistics.tensors if step.statistics else {}
        if missing := [name for name in needed if name not in available]:
            file_note = (
                f"; {step.statistics.path.name} has {joined_names(sorted(available), 4)}" if step.statistics else ""
            )
            yield Finding(str(step.where), f"the statistics {joined_names(missing)} are missing{file_note}", remedy)
        elif step.statistics:
            yield from _value_findings(step, step.statistics, key, kind, needed, trusted)


def _value_findings(
    step: Normalizer,
    statistics: tensors.TensorFile,
    key: str,
    kind: str,
    names: tuple[str, ...],
    trusted: Collection[str],
) -> Iterator[Finding]:
    """Yields findings for the values of one feature's statistics.

    The faults are shapes that do not fit, numbers that are not finite, frames from 0 to 255, and spreads that are
    negative or zero.
    """
    path, shape = str(statistics.path), step.features[key][1] if key in step.features else None
    shapes = {name: statistics.tensors[name].shape for name in names}
    values = {name: statistics.values(name) for name in names}
    misshapen = [name for name in names if shape is not None and shapes[name] not in _shapes(kind, shape)]
    for name in misshapen:
        what = (
            f"{name} has the shape {tensors.as_text(shapes[name])}, but the feature has {tensors.as_text(shape or ())}"
        )
        yield Finding(path, what, SAVE)
    not_finite = {
        name: dims for name in names if (dims := _indices_where(values[name], lambda x: not math.isfinite(x)))
    }
    for name, dims in not_finite.items():
        yield Finding(path, f"{name} is not finite in dimension {dims}", SAVE)
    if kind == "VISUAL" and (too_large := [name for name in names if max(values[name], default=0) > WHITE]):
        what = (
            f"{joined_names(too_large)} describes frames from 0 to 255, but lerobot gives a policy frames from 0 to 1"
        )
        yield Finding(path, what, SAVE)
    if not misshapen and not not_finite and len(set(shapes.values())) == 1:
        yield from _spread_findings(step, path, values, trusted)


def _spread_findings(
    step: Normalizer, path: str, values: Mapping[str, tuple[float, ...]], trusted: Collection[str]
) -> Iterator[Finding]:
    (first, low), (last, high) = values.items()
    is_deviation = last.endswith(".std")
    spread = high if is_deviation else tuple(above - below for below, above in zip(low, high, strict=True))
    if dims := _indices_where(spread, lambda x: x < 0):
        what = f"{last} is negative" if is_deviation else f"{last} is below {first}"
        yield Finding(path, f"{what} in dimension {dims}", SAVE)
    name = f"{step.where.name}:{last}"
    if (dims := _indices_where(spread, lambda x: x == 0)) and name not in trusted:
        what = SPREAD.format(name=last, dims=dims, effect=EFFECTS[step.where.name])
        yield Finding(path, what, f"{SAVE}. {TRUST.format(name=name)}")


def _shapes(kind: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes that a feature's statistics may have: an image's statistics may be by channel."""
    return (shape, shape[:1], (*shape[:1], *(1 for _ in shape[1:]))) if kind == "VISUAL" else (shape,)


def _indices_where(values: tuple[float, ...], fits: Callable[[float], bool]) -> str:
    """Returns the indices of the numbers that fit, as text; empty where no number fits."""
    return joined_names([str(place) for place, value in enumerate(values) if fits(value)])


def _disagreement(normalizers: Iterable[Normalizer]) -> Iterator[Finding]:
    """Yields findings for the action's statistics that differ between the two processors.

    Both processors were trained with one dataset, so their statistics must be equal.
    """
    statistics = [step.statistics for step in normalizers if step.statistics is not None]
    for first, second in itertools.pairwise(statistics):
        for name in sorted(first.tensors.keys() & second.tensors.keys()):
            if name.startswith(f"{ACTION}.") and _bits(first, name) != _bits(second, name):
                yield Finding(str(second.path), f"{name} has other numbers here than in {first.path.name}", SAVE)


def _bits(statistics: tensors.TensorFile, name: str) -> list[str]:
    """Returns the numbers of one statistic as texts, so that NaN is equal to itself."""
    return list(map(str, statistics.values(name)))


def _evidence(folder: Path) -> str:
    """Returns as text what is normalised, and by which statistics."""
    lines: dict[str, None] = {}
    for file in STEPS:
        for step in _normalizers(folder / file):
            available = step.statistics.tensors if step.statistics else {}
            for key, (kind, _) in step.features.items():
                needed = step.needed(key, kind)
                if needed and set(needed) <= available.keys():
                    lines[f"{key} by {' and '.join(NEEDED[step.modes[kind]])}"] = None
    return joined_names(list(lines)) or "nothing is normalised"
