"""Makes the environments of an evaluation: lerobot's own LiberoEnv with lerobot-eval's arguments, made fast."""

from typing import Any

from lerobot.envs.libero import LiberoEnv, _get_suite, _select_task_ids
from lerobot.envs.utils import parse_camera_names

from .episode import Episode
from .settings import ResidentConfig
from .simulator import Simulator, Speedups
from .slot import VideoConfig


class Simulation:
    """Holds what all environments of an evaluation have in common, and makes them.

    One Simulation also serves later evaluations that differ from its own in suite and tasks alone.
    """

    def __init__(self, cfg: ResidentConfig) -> None:
        self.env: Any = cfg.env
        self.suites: dict[str, Any] = {}
        self.task_ids: list[int] = _select_task_ids(len(self._suite(self.env.task).tasks), self.env.task_ids)
        resident = cfg.resident
        self.stride = max(1, resident.video_stride)
        self.speedups = Speedups(resident.lazy_rendering, resident.fast_step, resident.fast_reset)

    def make(self, episode: Episode) -> Simulator:
        """Returns a new simulator of the episode's task, built without graphics and rehearsed."""
        simulator = Simulator(self.plain(*episode.task), self.speedups, opens_graphics=False)
        simulator.rehearse()
        return simulator

    def one_episode_a_task(self) -> list[Episode]:
        """Returns an episode of each task of the suite: the next rows are likely to have its other tasks."""
        tasks = range(len(self._suite(self.env.task).tasks))
        return [Episode(self.env.task, task_id, 0, 0, 1) for task_id in tasks]

    def _suite(self, name: str) -> Any:
        if name not in self.suites:
            self.suites[name] = _get_suite(name)
        return self.suites[name]

    def plain(self, suite: str, task_id: int) -> LiberoEnv:
        """Returns lerobot's environment of one task, with the arguments of lerobot-eval; it is not built yet."""
        env = self.env
        kwargs = {key: value for key, value in env.gym_kwargs.items() if key != "task_ids"}
        return LiberoEnv(
            task_suite=self._suite(suite),
            task_id=task_id,
            task_suite_name=suite,
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
        """Returns the shape (height, width, 3) of each camera's pictures, by lerobot's name of the camera."""
        spaces = self.plain(self.env.task, self.task_ids[0]).observation_space["pixels"]
        return {camera: tuple(space.shape) for camera, space in spaces.items()}

    @property
    def video_config(self) -> VideoConfig:
        """Returns how videos are recorded: a frame every `stride` steps, played as fast as lerobot-eval's.

        lerobot-eval's own videos have a frame for each control step.
        """
        return VideoConfig(self.stride, max(1, int(LiberoEnv.metadata["render_fps"]) // self.stride))
