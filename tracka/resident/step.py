"""The control step of robosuite's Panda under LIBERO, without what an evaluation has no use for.

A step is 25 substeps of physics, each with a torque from the operational space controller. robosuite computes the
forward dynamics three times a substep, where one is enough as long as `mj_forward` changes nothing that the next
call would see, and updates some forty observables that nobody reads. Here each substep is `mj_step1`, the controller,
`mj_step2`; the state is robosuite's to the last bit, as `refusal` makes sure before a step is trusted.
"""

from typing import Any

import mujoco
import numpy as np
import robosuite.utils.transform_utils as transform
from numpy.typing import NDArray
from robosuite.controllers.osc import OperationalSpaceController
from robosuite.models.grippers import PandaGripper
from robosuite.robots.single_arm import SingleArm
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

from .camera import Cameras

Observation = dict[str, Any]
Vector = NDArray[np.float64]
TRIALS = 3  # steps that are taken both ways before the fast one is trusted


class FastStep:
    """Steps of one simulator. `bind` it again when robosuite has made a new simulation or controller."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._inner = env._env.env
        self._cameras = Cameras(env)
        self.bind()

    def bind(self) -> None:
        """Looks up what stays the same until the next reset."""
        inner = self._inner
        self._robot = inner.robots[0]
        self._controller = self._robot.controller
        self._model, self._data = inner.sim.model._model, inner.sim.data._data
        self._substeps = int(inner.control_timestep / inner.model_timestep)
        self._sampled = sampled_substep(inner)
        self._bind_arm()
        self._bind_gripper()

    def _bind_arm(self) -> None:
        controller, robot, nv = self._controller, self._robot, self._model.nv
        self._site = self._inner.sim.model.site_name2id(controller.eef_name)
        self._hand = self._inner.sim.model.body_name2id(robot.robot_model.eef_name)
        self._qpos, self._qvel = np.array(controller.qpos_index), np.array(controller.qvel_index)
        self._motors = np.array(robot._ref_joint_actuator_indexes)
        self._low, self._high = robot.torque_limits
        self._jacobian = np.zeros((3, nv)), np.zeros((3, nv))
        self._mass = np.zeros((nv, nv))
        self._gains = controller.kp[:3], controller.kd[:3], controller.kp[3:6], controller.kd[3:6]

    def _bind_gripper(self) -> None:
        robot, model = self._robot, self._inner.sim.model
        self._fingers = np.array([model.actuator_name2id(name) for name in robot.gripper.actuators])
        low, high = model.actuator_ctrlrange[self._fingers].T
        self._middle, self._reach = 0.5 * (high + low), 0.5 * (high - low)
        self._finger_qpos = np.array(robot._ref_gripper_joint_pos_indexes)
        self._finger_qvel = np.array(robot._ref_gripper_joint_vel_indexes)

    def __call__(self, action: Any, look: bool) -> Observation | None:
        """One control step. The observation is None unless looked at, else as LiberoEnv forms it."""
        inner, controller = self._inner, self._controller
        if inner.done:
            raise ValueError("executing action in terminated episode")
        inner.timestep += 1
        seen = None
        for substep in range(self._substeps):
            mujoco.mj_step1(self._model, self._data)
            if controller.new_update:
                self._update()
            if substep == 0:
                controller.set_goal(action[:6])
            self._data.ctrl[self._motors] = self._torques()
            self._data.ctrl[self._fingers] = self._grip(action[6:])
            mujoco.mj_step2(self._model, self._data)
            if look and substep == self._sampled:
                seen = self._see()
        inner.cur_time += inner.control_timestep
        inner.done = inner.timestep >= inner.horizon and not inner.ignore_done
        if seen is not None and "robot_state" in seen:
            seen["robot_state"]["eef"]["mat"] = controller.ee_ori_mat
        return seen

    def _update(self) -> None:
        """What the controller reads of the simulation, in robosuite's memory layouts, because bits depend on them."""
        data, controller = self._data, self._controller
        positions, rotations = self._jacobian
        mujoco.mj_jacSite(self._model, data, positions, rotations, self._site)
        mujoco.mj_fullM(self._model, self._mass, data.qM)
        velocities = data.qvel
        controller.ee_pos = data.site_xpos[self._site].copy()
        controller.ee_ori_mat = data.site_xmat[self._site].reshape(3, 3).copy()
        controller.ee_pos_vel = np.dot(positions, velocities)
        controller.ee_ori_vel = np.dot(rotations, velocities)
        controller.joint_pos, controller.joint_vel = data.qpos[self._qpos], velocities[self._qvel]
        controller.J_pos, controller.J_ori = positions[:, self._qvel], rotations[:, self._qvel]
        controller.J_full = np.array(np.vstack([controller.J_pos, controller.J_ori]))
        controller.mass_matrix = self._mass[self._qvel, :][:, self._qvel]
        controller.new_update = False

    def _torques(self) -> Vector:
        its = self._controller
        kp, kd, turn_kp, turn_kd = self._gains
        error = orientation_error(np.array(its.goal_ori), its.ee_ori_mat)
        force = np.multiply(its.goal_pos - its.ee_pos, kp) + np.multiply(-its.ee_pos_vel, kd)
        torque = np.multiply(error, turn_kp) + np.multiply(-its.ee_ori_vel, turn_kd)
        _, position, rotation, nullspace = opspace_matrices(its.mass_matrix, its.J_full, its.J_pos, its.J_ori)
        wrench = np.concatenate([np.dot(position, force), np.dot(rotation, torque)])
        its.torques = np.dot(its.J_full.T, wrench) + self._data.qfrc_bias[self._qvel]
        its.torques += nullspace_torques(its.mass_matrix, nullspace, its.initial_joint, its.joint_pos, its.joint_vel)
        its.new_update = True
        clipped: Vector = np.clip(its.torques, self._low, self._high)
        return clipped

    def _grip(self, action: Any) -> Vector:
        force: Vector = self._middle + self._reach * self._robot.gripper.format_action(action)
        return force

    def _see(self) -> Observation:
        data, pictures = self._data, self._cameras.draw()
        if self._env.obs_type == "pixels":
            return {"pixels": pictures}
        quaternion = transform.convert_quat(data.xquat[self._hand], to="xyzw")
        gripper = {"qpos": data.qpos[self._finger_qpos], "qvel": data.qvel[self._finger_qvel]}
        joints = {"pos": data.qpos[self._qpos], "vel": data.qvel[self._qvel]}
        eef = {"pos": data.site_xpos[self._site].copy(), "quat": quaternion}
        return {"pixels": pictures, "robot_state": {"eef": eef, "gripper": gripper, "joints": joints}}


def sampled_substep(inner: Any) -> int:
    """The substep of a control step at which robosuite's observables sample, counted from 0.

    They sample when their clocks say so, and a clock starts at the forced updates of a reset: the steps that follow
    are all alike, because a clock's rounding errors do not add up to a substep within an episode.
    """
    first = next(iter(inner._observables.values()))
    clock, done = first._time_since_last_sample, first._sampled
    substeps = int(inner.control_timestep / inner.model_timestep)
    for substep in range(2 * substeps):
        clock += inner.model_timestep
        if not done and first._sampling_timestep >= clock:
            return substep % substeps
        if clock >= first._sampling_timestep:
            clock %= first._sampling_timestep
            done = False
    raise ValueError("observables that never sample")


def refusal(env: Any) -> str | None:
    """Why this environment's steps cannot be taken fast; None if they can."""
    inner = env._env.env
    return _other_robot(inner) or _other_controller(inner.robots[0].controller) or _other_physics(inner)


def _other_robot(inner: Any) -> str | None:
    if len(inner.robots) != 1 or type(inner.robots[0]) is not SingleArm:
        return "there is not one single arm"
    if type(inner.robots[0].gripper) is not PandaGripper:
        return f"the gripper is a {type(inner.robots[0].gripper).__name__}, not a PandaGripper"
    if inner.action_dim != 7:
        return f"an action has {inner.action_dim} numbers, not 7"
    return None


def _other_controller(controller: Any) -> str | None:
    if type(controller) is not OperationalSpaceController or controller.name != "OSC_POSE":
        return f"the controller is {controller.name}, not OSC_POSE"
    if controller.impedance_mode != "fixed":
        return f"the controller's impedance is {controller.impedance_mode}, not fixed"
    if controller.interpolator_pos is not None or controller.interpolator_ori is not None:
        return "the controller interpolates between goals"
    if not controller.uncoupling:
        return "the controller couples position and orientation"
    return None


def _other_physics(inner: Any) -> str | None:
    """Measured on a copy, because it differs between MuJoCo's versions."""
    sim = inner.sim
    sim.forward()
    state = _state(sim.data._data)
    sim.forward()
    if not all(np.array_equal(one, other) for one, other in zip(state, _state(sim.data._data), strict=True)):
        return f"mj_forward of MuJoCo {mujoco.__version__} changes the state that it begins from"
    return None


def _state(data: Any) -> tuple[Vector, ...]:
    return data.qpos.copy(), data.qvel.copy(), data.qacc.copy(), data.qacc_warmstart.copy()
