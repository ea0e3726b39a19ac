"""Lists known settings for evaluating a policy type on LIBERO, each with its source, and what no source reports."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import Finding, UsageError, shortened


@dataclass(frozen=True)
class SourcedSetting:
    """A setting of `[lerobot_eval]` with its value and its source."""

    key: str
    value: int
    source: str


@dataclass(frozen=True)
class Preset:
    """The known settings of a policy type. `unknown` lists what no source settles, so that no value is invented."""

    policy_type: str
    policy_path: str  # the checkpoint that the sources of the settings evaluate
    settings: tuple[SourcedSetting, ...]
    unknown: tuple[str, ...]


DOCS = "huggingface/lerobot docs/source/libero.mdx"
CAMERAS = f"rename_map: none for checkpoints with the keys observation.images.image and image2 ({DOCS})"
EPISODES = "episode_length: the suite's own (lerobot/envs/libero.py, TASK_SUITE_MAX_STEPS), so it is not set"
SIZE = "observation_height, observation_width: no source names any for evaluation, so lerobot's 360 stays"

PRESETS = {
    preset.policy_type: preset
    for preset in (
        Preset(
            "pi0",
            "lerobot/pi0_libero_finetuned",
            (SourcedSetting("n_action_steps", 10, "huggingface/lerobot #2156: libero_goal 90% with 10, 75% with 50"),),
            (CAMERAS, EPISODES, SIZE),
        ),
        Preset(
            "pi05",
            "lerobot/pi05_libero_finetuned",
            (SourcedSetting("n_action_steps", 10, f"{DOCS}: as in openpi; 97.5% over four suites"),),
            (CAMERAS, EPISODES, SIZE),
        ),
        Preset(
            "smolvla",
            "lerobot/smolvla_libero",
            (SourcedSetting("n_action_steps", 10, "huggingface/lerobot #4614: about 20 points over 50 on two suites"),),
            (
                "rename_map: it depends on the checkpoint. lerobot/smolvla_libero was run with cameras called"
                " camera1 and camera2 and empty_cameras = 1 (huggingface/lerobot #4341)",
                EPISODES,
                SIZE,
            ),
        ),
    )
}


def find(name: str) -> Preset:
    """Returns the preset called `name`. Raises UsageError with the list of the existing presets."""
    if name not in PRESETS:
        raise UsageError(Finding("--preset", f"{shortened(name)!r} is unknown", f"Use one of {', '.join(PRESETS)}"))
    return PRESETS[name]


def lines(preset: Preset) -> Sequence[str]:
    """Returns the preset as lines of campaign.toml: values with their sources, unknown settings as comments."""
    return [
        *(f"{setting.key} = {setting.value}   # {setting.source}" for setting in preset.settings),
        *(f"# {gap}" for gap in preset.unknown),
    ]
