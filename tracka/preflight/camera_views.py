"""Finds which camera of LIBERO feeds which input of a policy, with a picture of what that camera sees."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..checkpoints import checkpoint, policy_metadata
from ..core.reports import ViewRecord
from . import policy_features


@dataclass(frozen=True)
class View:
    """One camera as one policy gets it.

    `rows` is empty where all rows of the policy agree. `input` is None where the policy does not take the camera.
    `picture` is a file beside preflight.json.
    """

    policy_path: str
    rows: tuple[str, ...]
    camera: str
    key: str
    input: str | None
    size: str
    picture: str | None

    def record(self) -> ViewRecord:
        """Returns the view as preflight's report has it."""
        return {
            "policy_path": self.policy_path,
            "rows": list(self.rows),
            "camera": self.camera,
            "key": self.key,
            "input": self.input,
            "size": self.size,
            "picture": self.picture,
        }


def views(campaign: Campaign, policy_path: str, pictures: Mapping[str, str]) -> Iterator[View]:
    """Yields a View of each camera for each set of rows of a policy that is on this host.

    `pictures` maps a camera to its picture's file. Raises TrackaError where the checkpoint cannot be read.
    """
    folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
    for settings, rows in policy_features.by_settings(campaign, policy_path):
        inputs, env = policy_metadata.read(folder, settings).cameras, policy_features.environment_features(settings)
        for camera, key in env.keys.items():
            policy_key = env.renamed.get(key, key)
            input_key = policy_key if policy_key in inputs or not inputs else None
            size = policy_features.shape_text(env.cameras[key][1:])
            yield View(policy_path, tuple(rows), camera, key, input_key, size, pictures.get(camera))
