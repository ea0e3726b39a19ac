"""The line of a child's log that names why the child failed, by logs as such failures really leave them."""

import time
from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.core import log_cause
from tracka.execution.bounded_log import Log

DATA = REPOSITORY / "tests" / "data" / "lerobot-eval-logs"
WARNINGS = """HOME/venv/robosuite/__init__.py:30: SyntaxWarning: invalid escape sequence '\\ '
  __logo__ = \"\"\"
[robosuite WARNING] No private macro file found! (__init__.py:7)
WARNING:robosuite_logs:No private macro file found!
"""
IMPORT = """Traceback (most recent call last):
  File "HOME/venv/robosuite/renderers/context/egl_context.py", line 92, in create_initialized_egl_device_display
    raise ImportError(
ImportError: Cannot initialize a EGL device display.
"""
DESTRUCTOR = """Exception ignored in: <function EGLGLContext.__del__ at 0x7f393a38ed40>
Traceback (most recent call last):
  File "HOME/venv/robosuite/renderers/context/egl_context.py", line 155, in __del__
    self.free()
    ^^^^^^^^^^^
AttributeError: 'EGLGLContext' object has no attribute '_context'
"""
CHAINED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
KeyError: 'config'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
RuntimeError: no configuration was read
"""
DECLARED = CHAINED.replace(
    "During handling of the above exception, another exception occurred",
    "The above exception was the direct cause of the following exception",
)
BOTH = "KeyError: 'config'; then RuntimeError: no configuration was read"
WORKER = """Process Worker<AsyncVectorEnv>-0:
Traceback (most recent call last):
  File "worker.py", line 2, in step
[robosuite INFO] a line of another process in between
ValueError: the action has 8 numbers
INFO 2026-11-23 13:57:15 bot_eval.py:750 closing
Traceback (most recent call last):
  File "main.py", line 9, in <module>
EOFError
"""
EGL_ERROR = """Traceback (most recent call last):
  File "error.py", line 230, in glCheckError
OpenGL.raw.EGL._errors.EGLError: EGLError(
\terr = EGL_NOT_INITIALIZED,
\tbaseOperation = eglMakeCurrent,
)
"""
STATE_DICT = """Traceback (most recent call last):
  File "module.py", line 2, in load_state_dict
RuntimeError: Error(s) in loading state_dict for ACTPolicy:
\tMissing key(s) in state_dict: "model.a".
"""
CUDA = """terminate called after throwing an instance of 'c10::Error'
  what():  CUDA error: an illegal memory access was encountered
Exception raised from c10_cuda_check_implementation at ../c10/cuda/CUDAException.cpp:44
"""
PYTHON_FAULT = """Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "binding_utils.py", line 112 in _set_mujoco_context_and_buffers
"""
XVFB = "xvfb-run: error: xauth command not found\n"
APT = "Reading package lists...\nE: Unable to locate package libosmesa6\nE: No packages found\n"
USAGE = "usage: lerobot-eval [-h] [--seed str]\nlerobot-eval: error: unrecognized arguments: --version\n"
SYNTAX = "  File \"x.py\", line 1\n    x = (\n        ^\nSyntaxError: '(' was never closed\n"
UNCLOSED_IGNORED = "Exception ignored in: <function A.__del__ at 0x7f>\nTraceback (most recent call last):\n  File"

LOGS = {
    "a destructor's noise after an import": (
        WARNINGS + IMPORT + DESTRUCTOR * 2,
        "ImportError: Cannot initialize a EGL",
    ),
    "a destructor's noise before an import": (
        DESTRUCTOR + IMPORT,
        "ImportError: Cannot initialize a EGL device display.",
    ),
    "noise on the line of a progress bar": (f"{IMPORT} 50%|###  | 1/2 {DESTRUCTOR}", "ImportError: Cannot initialize"),
    "noise of two exceptions": (IMPORT + "Exception ignored in: <a>\n" + CHAINED, "ImportError: Cannot initialize"),
    "noise of a callback at exit": (
        IMPORT + DESTRUCTOR.replace("ignored in:", "ignored in atexit callback:"),
        "ImportE",
    ),
    "noise that breaks off": (IMPORT + UNCLOSED_IGNORED, "ImportError: Cannot initialize a EGL device display."),
    "an exception while another is handled": (CHAINED, BOTH),
    "an exception from another": (DECLARED, BOTH),
    "the same exception in two processes": (IMPORT * 2, "ImportError: Cannot initialize a EGL device display."),
    "a worker's exception and the one that it leads to": (
        WORKER,
        "ValueError: the action has 8 numbers; then EOFError",
    ),
    "a message that goes on below": (
        EGL_ERROR,
        "OpenGL.raw.EGL._errors.EGLError: EGLError( err = EGL_NOT_INITIALIZED,",
    ),
    "a message after a colon": (
        STATE_DICT,
        "RuntimeError: Error(s) in loading state_dict for ACTPolicy: Missing key(s)",
    ),
    "an exception without words": ("Traceback (most recent call last):\n  File\nAssertionError\n", "AssertionError"),
    "colours": ("Traceback (most recent call last):\n  File\n\x1b[31mValueError\x1b[0m: x\n", "ValueError: x"),
    "carriage returns": (
        " 50%|##\r100%|####\rTraceback (most recent call last):\r\n  File\r\nOSError: x\r\n",
        "OSError: x",
    ),
    "CUDA without Python": (
        WARNINGS + CUDA,
        "terminate called after throwing an instance of 'c10::Error' what(): CUDA err",
    ),
    "a segmentation fault": (WARNINGS + PYTHON_FAULT, "Fatal Python error: Segmentation fault"),
    "a shell's word for it": ("working\nSegmentation fault (core dumped)\nbye\n", "Segmentation fault (core dumped)"),
    "a program that is missing": (XVFB + "cleaning up\n", "xvfb-run: error: xauth command not found"),
    "the first of two errors": (APT, "E: Unable to locate package libosmesa6"),
    "arguments that are refused": (USAGE, "lerobot-eval: error: unrecognized arguments: --version"),
    "no traceback's header": (SYNTAX, "SyntaxError: '(' was never closed"),
    "a level of logging": ("INFO one\nERROR 2026-11-23 13:57 two\nINFO three\n", "ERROR 2026-11-23 13:57 two"),
    "Python without the module": (
        "/usr/bin/python3: No module named tracka\n",
        "/usr/bin/python3: No module named tracka",
    ),
    "no error at all": ("INFO one\nINFO two\n\n  \n", "INFO two"),
    "noise alone": (DESTRUCTOR, "nothing was printed"),
    "nothing": ("", "nothing was printed"),
    "blanks": ("\n \r\n\t\n", "nothing was printed"),
}


@pytest.mark.parametrize(("text", "cause"), LOGS.values(), ids=LOGS)
def test_the_cause_is_the_error_that_came_first(text: str, cause: str) -> None:
    said = log_cause.cause(text)
    assert said.startswith(cause)
    assert "__del__" not in said and "EGLGLContext" not in said


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("cpu-crash-with-egl-exit-noise.log", "KeyError: 'observation.images.image'"),
        ("lerobot-0.4.4-libero-crash-in-rollout.stderr.log", "RuntimeError: The size of tensor a (8) must match"),
        ("lerobot-0.4.4-libero-crash-policy-path.stderr.log", "huggingface_hub.errors.HFValidationError: Repo id must"),
        ("h100-missing-module.log", "ModuleNotFoundError: No module named 'robosuite.utils'"),
        ("h100-broken-numpy-import.log", "ModuleNotFoundError: No module named 'numpy._core.tests'; then Module"),
        (
            "cpu-glx-without-display.log",
            "GLFWError: (65550) b'X11: The DISPLAY environment variable is missing'; "
            "then mujoco.FatalError: gladLoadGL error",
        ),
        ("lerobot-0.6.1-libero.stderr.log", "INFO 2026-11-23 16:34:04 bot_eval.py:822 End of eval"),
    ],
)
def test_real_logs_are_read_so_too(name: str, cause: str) -> None:
    said = log_cause.cause((DATA / name).read_text())
    assert said.startswith(cause)
    assert "exception str() failed" not in said


def test_a_child_that_was_killed_is_said_to_be_and_not_to_have_failed_by_its_last_line() -> None:
    said = log_cause.how_it_ended(-9, WARNINGS)
    assert said.startswith("ended by signal 9, which the kernel's out-of-memory killer sends: no error was printed")
    assert log_cause.how_it_ended(-9, "").endswith("no error was printed, and last: nothing was printed")
    assert log_cause.how_it_ended(-11, IMPORT) == f"ended by signal 11: {log_cause.cause(IMPORT)}"
    assert log_cause.how_it_ended(-6, CUDA).startswith("ended by signal 6: terminate called")
    assert log_cause.how_it_ended(3, "") == "exit code 3: nothing was printed"


def bounded(path: Path, *parts: str) -> str:
    """What a supervisor keeps of a child's output in a log of 2000 bytes."""
    log = Log(path, 2000)
    for part in parts:
        log.feed(part.encode())
    log.close()
    return log_cause.read(path)


@pytest.mark.parametrize("before", ["", "x" * 900], ids=["whole", "cut inside the traceback"])
def test_the_note_of_a_cut_log_is_no_line_of_the_child(tmp_path: Path, before: str) -> None:
    text = bounded(tmp_path / "log", f"{before}\n{IMPORT}", "a line of noise\n" * 1000)
    assert "bytes are left out here" in text
    assert log_cause.cause(text).startswith("a line of noise" if before else "ImportError: Cannot initialize")


def test_an_error_on_both_sides_of_the_cut_is_the_first_and_the_last(tmp_path: Path) -> None:
    text = bounded(tmp_path / "log", IMPORT, "a line of noise\n" * 1000, CHAINED, DESTRUCTOR)
    assert log_cause.cause(text).startswith("ImportError: Cannot initialize")
    assert log_cause.cause(text).endswith("; then RuntimeError: no configuration was read")


def test_an_error_before_any_amount_of_noise_is_seen_in_time(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(IMPORT + (DESTRUCTOR + "a line\n" * 20) * 15_000)
    start = time.process_time()
    assert log_cause.cause(log_cause.read(tmp_path / "log")).startswith("ImportError")
    assert time.process_time() - start < 5


def test_a_cause_is_one_short_plain_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret-token")
    noise = "\x1b]0;title\x07" + "y" * 5000
    raised = f"OSError: https://me:pass@host/hf_very-secret-token {noise}"
    said = log_cause.cause(f"Traceback (most recent call last):\n  File\n{raised}\n")
    assert said.startswith("OSError: https://host/[redacted] yyy")
    assert len(said) <= 300 and said.isprintable()
    assert "secret" not in log_cause.cause("x" * 290 + " hf_very-secret-token")


def test_several_logs_are_read_one_after_the_other_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("fine")
    (tmp_path / "err").write_text(IMPORT)
    assert log_cause.cause(log_cause.read(tmp_path / "none", tmp_path / "out", tmp_path / "err")).startswith("ImportE")
    assert log_cause.cause(log_cause.read(tmp_path / "none")) == "nothing was printed"
