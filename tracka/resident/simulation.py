"""The environments of an evaluation: lerobot's own LiberoEnv with lerobot-eval's arguments, made fast."""

from typing import Any

from lerobot.envs.libero import LiberoEnv, _get_suite, _select_task_ids
from lerobot.envs.utils import parse_camera_names

from .episode import Episode
from .settings import ResidentConfig
from .simulator import Simulator, Speedups
from .slot import Filming


class Simulation:
    """What every environment of the row has in common."""

    def __init__(self, cfg: ResidentConfig) -> None:
        self.env: Any = cfg.env
        self.suite = _get_suite(self.env.task)
        self.task_ids: list[int] = _select_task_ids(len(self.suite.tasks), self.env.task_ids)
        chosen = cfg.resident
        self.stride = max(1, chosen.video_stride)
        self.speedups = Speedups(chosen.lazy_rendering, chosen.fast_step, chosen.fast_reset)

    def make(self, episode: Episode) -> Simulator:
        """A simulator of the episode's task."""
        return Simulator(self.plain(episode.task_id), self.speedups)

    def plain(self, task_id: int) -> LiberoEnv:
        """lerobot's environment of one task, as lerobot-eval makes it; not built yet."""
        env = self.env
        kwargs = {key: value for key, value in env.gym_kwargs.items() if key != "task_ids"}
        return LiberoEnv(
            task_suite=self.suite,
            task_id=task_id,
            task_suite_name=env.task,
            camera_name=parse_camera_names(env.camera_name),
            init_states=env.init_states,
            episode_length=env.episode_length,
            control_mode=env.control_mode,
            camera_name_mapping=env.camera_name_mapping,
            is_libero_plus=env.is_libero_plus,
            **kwargs,
        )

    @property
    def cameras(self) -> dict[str, tuple[int, int, int]]:
        """Camera, by lerobot's name of it, and the shape of its pictures."""
        spaces = self.plain(self.task_ids[0]).observation_space["pixels"]
        return {camera: tuple(space.shape) for camera, space in spaces.items()}

    @property
    def filming(self) -> Filming:
        """lerobot-eval's videos have a frame a step; ours may have fewer, and play as fast."""
        return Filming(self.stride, max(1, int(LiberoEnv.metadata["render_fps"]) // self.stride))
