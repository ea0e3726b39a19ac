"""Runs a command and writes down how long it lived: clock.py LOG COMMAND... Takes the place of lerobot-eval.

Its own start counts as the harness's, which is a hundredth of a second to the harness's disadvantage.
"""

import subprocess
import sys
import time

log, *command = sys.argv[1:]
start = time.monotonic()
code = subprocess.call(command)
with open(log, "a") as file:  # noqa: PTH123  pathlib would take longer to import than all the rest
    file.write(f"{time.monotonic() - start}\n")
sys.exit(code)
