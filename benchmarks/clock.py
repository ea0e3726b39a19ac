"""Runs a command in the place of lerobot-eval and logs how long the command lived: clock.py LOG COMMAND...

The start of this program counts as the harness's, which is a hundredth of a second to the harness's disadvantage.
"""

import subprocess
import sys
import time

log, *command = sys.argv[1:]
start = time.monotonic()
code = subprocess.call(command)
with open(log, "a") as file:  # noqa: PTH123  importing pathlib would take longer than all the rest
    file.write(f"{time.monotonic() - start}\n")
sys.exit(code)
