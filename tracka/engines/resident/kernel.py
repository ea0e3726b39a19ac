"""The substeps of a control step as one compiled function: MuJoCo's physics and robosuite's controller, no Python.

MuJoCo's functions are called by their names in its own library, and robosuite's compiled functions as they are. What
robosuite does in numpy is written out in the same order. Its matrix products keep their memory layouts, because the
bits of a product depend on them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import mujoco
import numba
import numpy as np
from numba import types
from numpy.typing import NDArray
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

for _library in Path(mujoco.__file__).parent.glob("libmujoco*"):
    llvmlite.binding.load_library_permanently(str(_library))
_step1 = types.ExternalFunction("mj_step1", types.void(types.intp, types.intp))
_step2 = types.ExternalFunction("mj_step2", types.void(types.intp, types.intp))
_jacobian = types.ExternalFunction(
    "mj_jacSite", types.void(types.intp, types.intp, types.intp, types.intp, types.int32)
)


class Arm(NamedTuple):
    """Holds one simulation's memory, and what the controller keeps between substeps.

    Matrices are stored by row, except those whose comment says that they are stored by column.
    """

    model: int  # addresses of MuJoCo's model and data
    data: int
    site: int  # the number of the site that is controlled
    qpos: Vector  # views of the simulation's arrays, up to `rotation`
    qvel: Vector
    inertia: Vector
    bias: Vector
    ctrl: Vector
    position: Vector
    rotation: Vector
    joints: Indices  # of the arm's joints, into qpos
    speeds: Indices  # of the arm's joints, into qvel
    inertia_at: Indices  # (7, 7), into inertia
    motors: Indices  # of the arm's motors, into ctrl
    fingers: Indices  # of the gripper's fingers, into ctrl
    linear: Vector  # Jacobians of the site, both (3, nv)
    angular: Vector
    ee_pos: Vector  # the controller's attributes of the same names, up to `kd`
    ee_ori_mat: Vector
    ee_pos_vel: Vector
    ee_ori_vel: Vector
    joint_pos: Vector
    joint_vel: Vector
    j_pos: Vector  # (3, 7), stored by column, as are the next three matrices
    j_ori: Vector
    j_full: Vector
    mass_matrix: Vector
    initial_joint: Vector
    kp: Vector
    kd: Vector
    low: Vector
    high: Vector
    middle: Vector  # the gripper's control is middle + reach * grip
    reach: Vector
    grip: Vector


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def begin(arm: Any, fresh: bool) -> None:
    """Does the first half of a control step's first substep: `mj_step1`, then the controller reads the state.

    Unless `fresh`, the controller keeps what it has read before.
    """
    _step1(arm.model, arm.data)
    if fresh:
        _read(arm)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def run(arm: Any, goal_pos: Vector, goal_ori: Vector, closing: Vector, first: int, end: int) -> None:
    """Takes the substeps `first` to `end` - 1 towards a goal; each of them adds `closing` to the fingers' grip.

    Substep 0 must have been begun by `begin`.
    """
    for substep in range(first, end):
        if substep > 0:
            _step1(arm.model, arm.data)
            _read(arm)
        _drive(arm, goal_pos, goal_ori)
        _close(arm, closing)
        _step2(arm.model, arm.data)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _read(arm: Any) -> None:
    _jacobian(arm.model, arm.data, arm.linear.ctypes.data, arm.angular.ctypes.data, arm.site)
    arm.ee_pos[:] = arm.position
    for row in range(3):
        for column in range(3):
            arm.ee_ori_mat[row, column] = arm.rotation[3 * row + column]
    arm.ee_pos_vel[:] = np.dot(arm.linear, arm.qvel)
    arm.ee_ori_vel[:] = np.dot(arm.angular, arm.qvel)
    for joint in range(len(arm.joints)):
        speed = arm.speeds[joint]
        arm.joint_pos[joint] = arm.qpos[arm.joints[joint]]
        arm.joint_vel[joint] = arm.qvel[speed]
        for row in range(3):
            arm.j_pos[row, joint] = arm.linear[row, speed]
            arm.j_full[row, joint] = arm.linear[row, speed]
            arm.j_ori[row, joint] = arm.angular[row, speed]
            arm.j_full[row + 3, joint] = arm.angular[row, speed]
        for other in range(len(arm.joints)):
            at = arm.inertia_at[joint, other]
            arm.mass_matrix[joint, other] = arm.inertia[at] if at >= 0 else 0.0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _drive(arm: Any, goal_pos: Vector, goal_ori: Vector) -> None:
    error = orientation_error(goal_ori, arm.ee_ori_mat)
    force = (goal_pos - arm.ee_pos) * arm.kp[:3] + -arm.ee_pos_vel * arm.kd[:3]
    torque = error * arm.kp[3:6] + -arm.ee_ori_vel * arm.kd[3:6]
    _, position, rotation, nullspace = opspace_matrices(arm.mass_matrix, arm.j_full, arm.j_pos, arm.j_ori)
    wrench = np.concatenate((np.dot(position, force), np.dot(rotation, torque)))
    torques = np.dot(arm.j_full.T, wrench)
    rest = nullspace_torques(arm.mass_matrix, nullspace, arm.initial_joint, arm.joint_pos, arm.joint_vel)
    for joint in range(len(arm.motors)):
        control = torques[joint] + arm.bias[arm.speeds[joint]] + rest[joint]
        arm.ctrl[arm.motors[joint]] = _clipped(control, arm.low[joint], arm.high[joint])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _close(arm: Any, closing: Vector) -> None:
    for finger in range(len(arm.fingers)):
        arm.grip[finger] = _clipped(arm.grip[finger] + closing[finger], -1.0, 1.0)
        arm.ctrl[arm.fingers[finger]] = arm.middle[finger] + arm.reach[finger] * arm.grip[finger]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _clipped(value: float, low: float, high: float) -> float:
    """Returns `value` between `low` and `high`, and NaN for NaN, as np.clip does."""
    if value < low:
        return low
    return high if value > high else value
