"""Checks whether a policy takes LIBERO's cameras, state and action, by its checkpoint's JSON and headers alone.

lerobot-eval compares camera names only, and only without a rename_map. Any other mismatch ends a row minutes later,
inside torch. lerobot-eval also replaces the checkpoint's own rename_map with the campaign's, or with none.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..campaign.campaign import Campaign, EvalSettings
from ..checkpoints import checkpoint
from ..checkpoints.policy_metadata import PREPROCESSOR, STRICT, TOLERANT, PolicyMetadata, keeps_frames, read
from ..core import parsing
from ..core.check import Check
from ..core.errors import Finding, TrackaError, joined_names
from ..core.lerobot_facts import ACTION, CAMERAS, DIMS, STATE, WRIST_CAMERA

# Keys of config.json for the length to which a policy pads numbers.
PADDED = {STATE: "max_state_dim", ACTION: "max_action_dim"}
EMPTY = re.compile(r"observation\.images\.empty_camera_\d+")
LIBERO_STEP = "libero_processor"  # this step rotates frames by 180 degrees (lerobot/processor/env_processor.py)
WRIST = re.compile(r"wrist|hand|gripper")


@dataclass(frozen=True)
class EnvironmentFeatures:
    """What the environment gives a policy: camera keys, frame shapes, and the sizes of state and action."""

    keys: Mapping[str, str]  # LIBERO's own name of a camera -> its key
    cameras: Mapping[str, tuple[int, ...]]  # key -> shape of a frame (channels, height, width)
    dims: Mapping[str, int]  # key of the state or the action -> how many numbers it has
    renamed: Mapping[str, str] = field(default_factory=dict)  # the campaign's rename_map

    @property
    def policy_cameras(self) -> dict[str, tuple[int, ...]]:
        """Returns the frame shape of each camera by the key that the policy sees, after rename_map."""
        return {self.renamed.get(key, key): shape for key, shape in self.cameras.items()}

    @property
    def wrist_camera(self) -> str:
        """Returns the key of the camera on the robot's hand."""
        return self.keys[WRIST_CAMERA]


def check(campaign: Campaign, policy_path: str) -> Check:
    """Returns the check `features:POLICY_PATH` over all rows of the policy.

    A mismatch that may do no harm is a warning.
    """
    name = f"features:{policy_path}"
    try:
        folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
        findings, evidence = [], ""
        for settings, rows in by_settings(campaign, policy_path):
            policy, env = read(folder, settings), environment_features(settings)
            findings += [_with_rows(rows, finding) for finding in compare(policy, env)]
            evidence = evidence or _evidence(policy, env)
    except TrackaError as error:
        findings = list(error.findings)
    if not findings:
        return Check(name, "pass", evidence)
    failed = any(not finding.warning for finding in findings)
    what = "; ".join(f"{finding.where}: {finding.what}" for finding in findings)
    remedy = "; ".join(dict.fromkeys(finding.remedy for finding in findings))
    return Check(name, "fail" if failed else "warn", what, remedy, required=failed)


def by_settings(campaign: Campaign, policy_path: str) -> Iterator[tuple[EvalSettings, list[str]]]:
    """Yields the policy's settings, each with the run ids of its rows.

    Settings that agree in rename_map, frame size and flags are yielded once. If all rows agree, no run ids are given.
    """
    groups: dict[str, tuple[EvalSettings, list[str]]] = {}
    for row in campaign.enabled:
        if row.policy_path == policy_path:
            settings = campaign.settings(row)
            key = repr((settings.rename_map, settings.observation_height, settings.observation_width, settings.flags))
            groups.setdefault(key, (settings, []))[1].append(row.run_id)
    if len(groups) < 2:
        yield next((group_settings for group_settings, _ in groups.values()), campaign.defaults), []
    else:
        yield from groups.values()


def _with_rows(rows: Sequence[str], finding: Finding) -> Finding:
    where = f"{finding.where} (rows {joined_names(rows)})" if rows else finding.where
    return Finding(where, finding.what, finding.remedy, finding.warning)


def environment_features(settings: EvalSettings) -> EnvironmentFeatures:
    """Returns what LIBERO gives under these settings.

    Raises TrackaError where env.camera_name_mapping is not a JSON object with both cameras.
    """
    names = CAMERAS
    if mapping := settings.flags.get("env.camera_name_mapping"):
        try:
            names = {camera: str(dict(parsing.json_value(str(mapping)))[camera]) for camera in CAMERAS}
        except (ValueError, TypeError, KeyError):
            what = "the value is not a JSON object with both cameras"
            remedy = f"Write it like '{json.dumps(CAMERAS)}'"
            raise TrackaError(Finding("flags, key env.camera_name_mapping", what, remedy)) from None
    keys = {camera: f"observation.images.{name}" for camera, name in names.items()}
    numbers = {ACTION: DIMS[ACTION]} if settings.flags.get("env.obs_type") == "pixels" else DIMS
    return EnvironmentFeatures(keys, dict.fromkeys(keys.values(), (3, *settings.frame)), numbers, settings.rename_map)


def compare(policy: PolicyMetadata, env: EnvironmentFeatures) -> list[Finding]:
    """Returns every mismatch between the policy and the environment, errors and warnings."""
    return [
        *_cameras(policy, env),
        *_numbers(policy, env),
        *_sizes(policy, env),
        *_renames(policy, env),
        *_views(policy, env),
        *_rotated_twice(policy),
    ]


def _cameras(policy: PolicyMetadata, env: EnvironmentFeatures) -> Iterator[Finding]:
    if not policy.inputs:
        return
    missing_keys = [key for key in policy.cameras if key not in env.policy_cameras]
    unused_keys = [key for key in env.policy_cameras if key not in policy.cameras]
    # lerobot-eval refuses such a policy, even one that can do without the missing cameras.
    refused = bool(missing_keys and unused_keys and not env.renamed)
    if not refused and not _too_many(policy, missing_keys):
        return
    real_keys = [key for key in missing_keys if not EMPTY.fullmatch(key)]
    what = f"the policy wants {joined_names(real_keys or missing_keys)}, which LIBERO does not give"
    what += f"; LIBERO gives {joined_names(unused_keys)}, which the policy does not take" if unused_keys else ""
    is_warning = policy.spare_cameras is None and not refused
    what += f"; it is not known whether a policy of type {policy.kind} runs without them" if is_warning else ""
    yield Finding(policy.where, what, _remedy(policy, env), is_warning)


def _too_many(policy: PolicyMetadata, missing_keys: Sequence[str]) -> bool:
    """Returns whether more cameras are missing than the policy can do without."""
    if policy.spare_cameras is None:
        return any(not EMPTY.fullmatch(key) for key in missing_keys)
    return len(missing_keys) > policy.spare_cameras


def _remedy(policy: PolicyMetadata, env: EnvironmentFeatures) -> str:
    names = suggested_rename_map(policy, env)
    policy_keys = {names.get(key, key) for key in env.cameras}
    if not names or _too_many(policy, [key for key in policy.cameras if key not in policy_keys]):
        return (
            f"Use a policy for LIBERO's cameras, {joined_names(list(env.cameras))}: no rename_map gives this policy "
            f"all of its cameras"
        )
    pairs = ", ".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in names.items())
    flag = f"--rename_map='{json.dumps(names)}'"
    return f"If the views are the same, write rename_map = {{ {pairs} }} below [lerobot_eval] in campaign.toml ({flag})"


def suggested_rename_map(policy: PolicyMetadata, env: EnvironmentFeatures) -> dict[str, str]:
    """Returns the rename_map that gives the policy most of its cameras: the one it was saved with, else one by names.

    The campaign's own renames of state and action are kept. The map is empty where no rename_map would help.
    """
    saved_names = {key: name for key, name in policy.names.items() if key in env.cameras and name in policy.cameras}
    other_renames = {key: name for key, name in env.renamed.items() if key in env.dims}
    spare = [key for key in env.cameras if key not in policy.cameras]
    free = [key for key in policy.cameras if key not in env.cameras and not EMPTY.fullmatch(key)]
    pairs: dict[str, str] = {}
    # First the hand camera is paired with wrist inputs and the other camera with other inputs, then what is left.
    for alike in (True, False):
        for key in spare:
            fits = [name for name in free if not alike or (key == env.wrist_camera) == bool(WRIST.search(name))]
            if key not in pairs and fits:
                pairs[key] = fits[0]
                free.remove(fits[0])
    # With a map that changes nothing lerobot-eval compares no names, which helps where only placeholders are missing.
    identity_map = {key: key for key in env.cameras if key in policy.cameras}
    names = saved_names or pairs or identity_map
    return other_renames | names if names else {}


def _numbers(policy: PolicyMetadata, env: EnvironmentFeatures) -> Iterator[Finding]:
    kinds = {key: kind for key, (kind, _) in policy.inputs.items()}
    if STATE in policy.inputs and STATE not in {env.renamed.get(key, key) for key in env.dims}:
        remedy = "Remove env.obs_type from the flags and the state from rename_map"
        yield Finding(policy.where, f"the policy wants {STATE}, which LIBERO does not give", remedy)
    for key in (key for key, kind in kinds.items() if kind == "ENV"):
        what = f"the policy wants {key}, the environment's own state, which LIBERO does not give"
        yield Finding(
            policy.where, what, "Use a policy that needs only cameras and the robot's state", policy.kind not in STRICT
        )
    for key, (_, shape) in {**policy.inputs, **policy.outputs}.items():
        padded = policy.config.get(PADDED.get(key, ""))
        if key in DIMS and shape not in ((DIMS[key],), (padded,)):
            is_warning = policy.kind not in (*STRICT, *TOLERANT) and padded is None
            yield _size_mismatch(policy, key, f"is made for {shape_text(shape)} numbers", is_warning)
        if key in DIMS and isinstance(padded, int) and padded < DIMS[key]:
            yield _size_mismatch(policy, key, f"has room for {padded} numbers ({PADDED[key]})", False)
    for key, count in dict(policy.statistics).items():
        if count not in (1, DIMS[key]):
            yield _size_mismatch(policy, key, f"is normalised by {count} numbers", False)


def _size_mismatch(policy: PolicyMetadata, key: str, what: str, is_warning: bool) -> Finding:
    comparison_text = f"the policy's {key} {what}, but LIBERO's has {DIMS[key]}"
    return Finding(policy.where, comparison_text, "Use a policy that was trained for LIBERO's robot", is_warning)


def _sizes(policy: PolicyMetadata, env: EnvironmentFeatures) -> Iterator[Finding]:
    """Yields a warning for each camera whose frames have another size than the policy was made for.

    Only policy types that do not resize frames are checked.
    """
    if not keeps_frames(policy.config):
        return
    for key, shape in policy.cameras.items():
        if key in env.policy_cameras and shape and shape != env.policy_cameras[key]:
            what = (
                f"{key} is made for {shape_text(shape)}, but LIBERO gives {shape_text(env.policy_cameras[key])}, and "
                f"policies of type {policy.kind} do not resize frames"
            )
            remedy = (
                f"Set observation_height = {shape[-2]}, observation_width = {shape[-1]}"
                if len(shape) == 3
                else "Set observation_height and observation_width"
            )
            yield Finding(policy.where, what, f"{remedy} below [lerobot_eval] in campaign.toml", True)


def _renames(policy: PolicyMetadata, env: EnvironmentFeatures) -> Iterator[Finding]:
    if unknown_keys := [key for key in env.renamed if key not in (*env.cameras, *env.dims)]:
        what = f"rename_map renames {joined_names(unknown_keys)}, which LIBERO does not give"
        yield Finding(
            policy.where, what, f"Use the keys that LIBERO gives: {joined_names([*env.cameras, *env.dims])}", True
        )


def _views(policy: PolicyMetadata, env: EnvironmentFeatures) -> Iterator[Finding]:
    """Yields an error for each camera that feeds an input other than the one it is meant for.

    The rename_map that the checkpoint was saved with says which input a camera is meant for, else the camera's name.
    """
    for camera, name in CAMERAS.items():
        default_key = f"observation.images.{name}"
        meant_key = policy.names.get(default_key, default_key)
        fed_key = env.renamed.get(env.keys[camera], env.keys[camera])
        if meant_key != fed_key and meant_key in policy.cameras and fed_key in policy.cameras:
            source = " by the rename_map that the checkpoint was saved with" if default_key in policy.names else ""
            what = f"{camera} feeds the policy's {fed_key}, but is meant for {meant_key}{source}"
            pair = f"rename_map = {{ {json.dumps(default_key)} = {json.dumps(meant_key)} }}"
            remedy = f"Write {pair}" if default_key != meant_key else "Remove this camera from rename_map"
            yield Finding(policy.where, what, f"{remedy} below [lerobot_eval] in campaign.toml, and no other mapping")


def _rotated_twice(policy: PolicyMetadata) -> Iterator[Finding]:
    """Yields an error if the checkpoint's processor has LIBERO's own step, which would rotate upright frames again."""
    if LIBERO_STEP in policy.step_names:
        what = f"{PREPROCESSOR} has the step {LIBERO_STEP}, which lerobot-eval runs too: frames are rotated twice"
        yield Finding(policy.where, what, "Remove that step if the policy was trained on upright frames")


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape as text, such as `3 x 256 x 256`."""
    return " x ".join(map(str, shape))


def _evidence(policy: PolicyMetadata, env: EnvironmentFeatures) -> str:
    if not policy.inputs:
        return f"{policy.where} names no features: lerobot takes LIBERO's"
    used_cameras = [
        f"{key} ({shape_text(shape)})" for key, shape in env.policy_cameras.items() if key in policy.cameras
    ]
    unused_keys = [key for key in env.policy_cameras if key not in policy.cameras]
    missing_keys = [key for key in policy.cameras if key not in env.policy_cameras]
    notes = [f"the policy does not take {joined_names(unused_keys)}"] if unused_keys else []
    if missing_keys:
        notes.append(f"LIBERO does not give {joined_names(missing_keys)}, which a {policy.kind} can do without")
    return "; ".join([f"{joined_names(used_cameras)}, state {DIMS[STATE]}, action {DIMS[ACTION]}", *notes])
