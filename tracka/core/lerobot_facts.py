"""Facts about lerobot 0.6.1 and LIBERO (hf-libero 0.1.4) that Track A relies on, each with the file that states it.

An upgrade of lerobot or LIBERO is checked against this module first. The tests hold most of it against the installed
packages: tests/core/test_lerobot_facts.py and tests/preflight/test_policy_features.py.
"""

LEROBOT_VERSION = "0.6.1"
# LIBERO suite -> its tasks (libero/libero/benchmark/__init__.py).
SUITE_TASKS = {"libero_object": 10, "libero_spatial": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
# LIBERO suite -> control steps after which lerobot ends an episode (lerobot/envs/libero.py, TASK_SUITE_MAX_STEPS).
EPISODE_STEPS = {"libero_spatial": 280, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
INIT_STATES = 50  # fixed init states of each LIBERO task (libero/libero/init_files)
FPS = 20  # control steps of a second (lerobot/envs/configs.py, LiberoEnv.fps)
FRAME_SIDE = 360  # pixels of a frame's height and width (lerobot/envs/configs.py, LiberoEnv.observation_height)
FILMED_EPISODES = 10  # of each LIBERO task (lerobot/scripts/lerobot_eval.py, max_episodes_rendered)
# Camera of LIBERO -> the last part of its key in an observation (lerobot/envs/configs.py, LiberoEnv.features_map).
CAMERAS = {"agentview_image": "image", "robot0_eye_in_hand_image": "image2"}
WRIST_CAMERA = "robot0_eye_in_hand_image"
STATE, ACTION = "observation.state", "action"  # keys of a policy's features (lerobot/utils/constants.py)
DIMS = {STATE: 8, ACTION: 7}  # numbers of LIBERO's state and action (lerobot/envs/configs.py, LiberoEnv.features)
