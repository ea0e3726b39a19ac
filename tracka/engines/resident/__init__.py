"""The resident engine's own modules: the policy, the worker processes, and LIBERO's simulator made quick, bit for bit.

These modules run in the engine's processes, which import lerobot, torch and MuJoCo and keep policy and simulators alive
from one episode to the next. The code that starts those processes is in `execution/` and `runs/`; the certificates that
this engine plays lerobot-eval's episodes are in `parity_certificate.py`.
"""
