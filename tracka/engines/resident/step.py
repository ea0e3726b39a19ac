"""The control step of robosuite's Panda under LIBERO, without the parts that an evaluation has no use for.

A step is 25 substeps of physics, each with a torque from the operational space controller. robosuite computes the
forward dynamics three times a substep and updates some forty observables that nobody reads. One computation is enough
as long as `mj_forward` changes nothing that the next call would see. Here each substep is `mj_step1`, the controller,
`mj_step2`. The state is robosuite's to the last bit, which `refusal` verifies before a fast step is used.
"""

from typing import Any

import mujoco
import numpy as np
import robosuite.utils.transform_utils as transform
from numpy.typing import NDArray
from robosuite.models.grippers import PandaGripper
from robosuite.robots.single_arm import SingleArm

from . import kernel
from .camera import Cameras
from .kernel import Arm, Vector

LiberoObservation = dict[str, Any]
TRIALS = 3  # control steps that are taken both ways before the fast one is used
NO_SENSORS = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)  # MuJoCo's sensors of force at the hand: no observation has them
WHOLE = int(mujoco.mjtState.mjSTATE_INTEGRATION)  # all quantities that decide how a simulation goes on
# What the controller reads from a simulation, by the memory layout that robosuite gives it.
BY_ROW = ("ee_pos", "ee_ori_mat", "ee_pos_vel", "ee_ori_vel", "joint_pos", "joint_vel")
BY_COLUMN = ("J_pos", "J_ori", "J_full", "mass_matrix")


class FastStep:
    """Takes the control steps of one simulator.

    `bind` must be called again when robosuite has made a new simulation or controller.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._inner = env._env.env
        self._cameras = Cameras(env)
        self._substeps = int(self._inner.control_timestep / self._inner.model_timestep)
        self.bind()

    def bind(self) -> None:
        """Looks up what stays the same until the next reset, and switches MuJoCo's sensors off."""
        inner = self._inner
        self._robot, self._controller = inner.robots[0], inner.robots[0].controller
        self._data = inner.sim.data._data
        inner.sim.model._model.opt.disableflags |= NO_SENSORS
        self._hand = inner.sim.model.body_name2id(self._robot.robot_model.eef_name)
        self._sampled = sampled_substep(inner)
        self._fresh = bool(self._controller.new_update)
        self._arm = arm_of(inner)
        for name in BY_ROW + BY_COLUMN:
            setattr(self._controller, name, getattr(self._arm, name.lower()))
        self._robot.gripper.current_action = self._arm.grip
        self._finger_joints = (
            np.array(self._robot._ref_gripper_joint_pos_indexes),
            np.array(self._robot._ref_gripper_joint_vel_indexes),
        )

    def unbind(self) -> None:
        """Switches MuJoCo's sensors on again, so that robosuite may use the simulation after its next reset."""
        self._inner.sim.model._model.opt.disableflags &= ~NO_SENSORS

    def __call__(self, action: Any, observe: bool) -> LiberoObservation | None:
        """Takes one control step and returns the observation as LiberoEnv forms it, or None where `observe` is false.

        Raises ValueError after robosuite's horizon.
        """
        inner = self._inner
        if inner.done:
            raise ValueError("executing action in terminated episode")
        inner.timestep += 1
        goal_arguments = self._begin(action)
        if observe:
            kernel.run(*goal_arguments, 0, self._sampled + 1)
            self._cameras.ask()
            state = self._robot_state()
            kernel.run(*goal_arguments, self._sampled + 1, self._substeps)
        else:
            kernel.run(*goal_arguments, 0, self._substeps)
        inner.cur_time += inner.control_timestep
        inner.done = inner.timestep >= inner.horizon and not inner.ignore_done
        if not observe:
            return None
        pictures = self._cameras.take()
        if self._env.obs_type == "pixels":
            return {"pixels": pictures}
        state["eef"]["mat"] = self._arm.ee_ori_mat.copy()
        return {"pixels": pictures, "robot_state": state}

    def _begin(self, action: Any) -> tuple[Arm, Vector, Vector, Vector]:
        """Reads the state that the goal is relative to, sets the goal, and returns the arguments of `kernel.run`."""
        kernel.begin(self._arm, self._fresh)
        self._fresh, controller = True, self._controller
        controller.new_update = False  # otherwise set_goal would read the state once more
        controller.set_goal(action[:6])
        goal_pos = np.ascontiguousarray(controller.goal_pos, np.float64)
        goal_ori = np.ascontiguousarray(controller.goal_ori, np.float64)
        closing = np.array([-1.0, 1.0]) * self._robot.gripper.speed * np.sign(action[6:])
        return self._arm, goal_pos, goal_ori, closing

    def _robot_state(self) -> dict[str, Any]:
        arm = self._arm
        quaternion = transform.convert_quat(self._data.xquat[self._hand], to="xyzw")
        finger_qpos, finger_qvel = self._finger_joints
        eef = {"pos": arm.position.copy(), "quat": quaternion}
        gripper = {"qpos": arm.qpos[finger_qpos], "qvel": arm.qvel[finger_qvel]}
        joints = {"pos": arm.qpos[arm.joints], "vel": arm.qvel[arm.speeds]}
        return {"eef": eef, "gripper": gripper, "joints": joints}


def arm_of(inner: Any) -> Arm:
    """Returns the memory that the kernel works on.

    What the controller has read so far is copied; the simulation's own arrays are views.
    """
    robot, sim = inner.robots[0], inner.sim
    model, data, controller = sim.model._model, sim.data._data, robot.controller
    site = sim.model.site_name2id(controller.eef_name)
    speeds = np.array(controller.qvel_index)
    low, high = robot.torque_limits
    controller_values: dict[str, Any] = {
        name: np.array(getattr(controller, name), np.float64, order="C") for name in BY_ROW
    }
    controller_values |= {name: np.array(getattr(controller, name), np.float64, order="F") for name in BY_COLUMN}
    return Arm(
        model=model._address,
        data=data._address,
        site=site,
        qpos=data.qpos,
        qvel=data.qvel,
        inertia=data.qM,
        bias=data.qfrc_bias,
        ctrl=data.ctrl,
        position=data.site_xpos[site],
        rotation=data.site_xmat[site],
        joints=np.array(controller.qpos_index),
        speeds=speeds,
        inertia_at=_inertia_at(model)[np.ix_(speeds, speeds)].copy(),
        motors=np.array(robot._ref_joint_actuator_indexes),
        linear=np.zeros((3, model.nv)),
        angular=np.zeros((3, model.nv)),
        initial_joint=np.array(controller.initial_joint),
        kp=np.array(controller.kp, np.float64),
        kd=np.array(controller.kd, np.float64),
        low=low,
        high=high,
        **_gripper(sim, robot.gripper),
        **{name.lower(): values for name, values in controller_values.items()},
    )


def _gripper(sim: Any, gripper: Any) -> dict[str, Any]:
    fingers = np.array([sim.model.actuator_name2id(name) for name in gripper.actuators])
    low, high = sim.model.actuator_ctrlrange[fingers].T
    grip = np.zeros(len(fingers)) + gripper.current_action
    return {"fingers": fingers, "middle": 0.5 * (high + low), "reach": 0.5 * (high - low), "grip": grip}


def _inertia_at(model: Any) -> NDArray[np.int64]:
    """Returns the index in MuJoCo's sparse inertia of each number of the full matrix, with shape (nv, nv).

    The index is -1 for the numbers that are always zero.
    """
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, full, np.arange(1.0, model.nM + 1))
    return full.astype(np.int64) - 1


def sampled_substep(inner: Any) -> int:
    """Returns the substep of a control step at which robosuite's observables sample, counted from 0.

    Observables sample by their clocks, which start at the forced updates of a reset. All steps that follow sample at
    the same substep, because a clock's rounding errors do not add up to a substep within an episode. Raises ValueError
    where the observables never sample.
    """
    first = next(iter(inner._observables.values()))
    clock, is_sampled = first._time_since_last_sample, first._sampled
    substeps = int(inner.control_timestep / inner.model_timestep)
    for substep in range(2 * substeps):
        clock += inner.model_timestep
        if not is_sampled and first._sampling_timestep >= clock:
            return substep % substeps
        if clock >= first._sampling_timestep:
            clock %= first._sampling_timestep
            is_sampled = False
    raise ValueError("robosuite's observables never sample")


def refusal(env: Any) -> str | None:
    """Returns why this environment's steps cannot be taken fast, or None if they can.

    The checks change the state of the simulation, which the environment's next reset undoes.
    """
    inner = env._env.env
    reason = _robot_mismatch(inner) or controller_mismatch(inner.robots[0].controller)
    if reason:
        return reason
    if env.init_states:
        inner.sim.set_state_from_flattened(env._init_states[0])  # a state in which things touch
    return _physics_mismatch(inner) or _bits_mismatch(env)


def _robot_mismatch(inner: Any) -> str | None:
    if len(inner.robots) != 1 or type(inner.robots[0]) is not SingleArm:
        return "the environment does not have exactly one single arm"
    if type(inner.robots[0].gripper) is not PandaGripper:
        return f"the gripper is a {type(inner.robots[0].gripper).__name__}, not a PandaGripper"
    if inner.action_dim != 7:
        return f"an action has {inner.action_dim} numbers, not 7"
    return None


def controller_mismatch(controller: Any) -> str | None:
    """Returns how a controller of robosuite differs from the one in the kernel, or None if it is that one."""
    if controller.name != "OSC_POSE":
        return f"the controller is {controller.name}, not OSC_POSE"
    if controller.impedance_mode != "fixed":
        return f"the controller's impedance is {controller.impedance_mode}, not fixed"
    if controller.interpolator_pos is not None or controller.interpolator_ori is not None:
        return "the controller interpolates between goals"
    if not controller.uncoupling:
        return "the controller couples position and orientation"
    return None


def _physics_mismatch(inner: Any) -> str | None:
    """Returns that `mj_forward` changes the state that it begins from, or None if it does not.

    The answer is measured, on copies of the state, because it differs between MuJoCo's versions.
    """
    sim = inner.sim
    sim.forward()
    state = _state(sim.data._data)
    sim.forward()
    if not _same(state, _state(sim.data._data)):
        return f"mj_forward of MuJoCo {mujoco.__version__} changes the state that it begins from"
    return None


def _bits_mismatch(env: Any) -> str | None:
    """Takes the same steps both ways, and returns that their bits differ, or None if they do not.

    The bits of a matrix product depend on the processor and on the library that computes it.
    """
    inner = env._env.env
    model, data, robot = inner.sim.model._model, inner.sim.data._data, inner.robots[0]
    before = np.empty(mujoco.mj_stateSize(model, WHOLE))
    mujoco.mj_getState(model, data, before, WHOLE)
    controller, grip = dict(vars(robot.controller)), robot.gripper.current_action
    actions = np.random.RandomState(0).uniform(-1, 1, (TRIALS, 7)).astype(np.float32)
    for action in actions:
        _stock_step(inner, action)
    stock_state = _state(data)
    mujoco.mj_setState(model, data, before, WHOLE)
    vars(robot.controller).update(controller)
    robot.gripper.current_action = grip
    step = FastStep(env)
    for action in actions:
        step(action, observe=False)
    if _same(stock_state, _state(data)):
        return None
    step.unbind()
    return "on this machine its states differ in some bits from those of robosuite's own step"


def _stock_step(inner: Any, action: NDArray[np.float32]) -> None:
    """Takes robosuite's own control step without updating its observables."""
    for substep in range(int(inner.control_timestep / inner.model_timestep)):
        inner.sim.forward()
        inner._pre_action(action, policy_step=substep == 0)
        inner.sim.step()


def _state(data: Any) -> tuple[Vector, ...]:
    return data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy(), data.ctrl.copy()


def _same(some: tuple[Vector, ...], others: tuple[Vector, ...]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))
