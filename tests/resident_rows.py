"""A campaign of the resident engine with a row of two tasks, whose engine is a stand-in that records and resumes."""

import json
import sys

from campaigns import STANDIN

ROW = "tasks_b2_e5"
ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    f"{ROW},libero_object,2,5,cpu,7,egl,checkpoints/fake,1",
)
SETTINGS = f"""
schema_version = 1
baseline = "baseline_b1_e2"
expected_gpus = 0
engine = "resident"
executable = [{json.dumps(sys.executable)}, {json.dumps(str(STANDIN / "lerobot_eval.py"))}]

[lerobot_eval]
policy_type = "act"
task_ids = [0]

[rows.{ROW}]
task_ids = [0, 3]
episode_length = 6
"""
