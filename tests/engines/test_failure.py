"""Why an evaluation failed, read from what such failures really print."""

from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.engines import failure
from tracka.engines.failure import Failure
from tracka.engines.lerobot_eval import Metrics, TaskOutcome
from tracka.execution.process import Exit

DATA = REPOSITORY / "tests" / "data" / "lerobot-eval-logs"
GOOD = Metrics("eval_info.json", 2, 1, 0.5, (TaskOutcome("libero_object", 0, (True, False)),))
EXPECTED = {0: 2}
CUDA_OOM = """Traceback (most recent call last):
  File "lerobot/policies/pi0/modeling_pi0.py", line 1, in forward
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB
"""
EGL = """Traceback (most recent call last):
  File "robosuite/renderers/context/egl_context.py", line 1, in __init__
ImportError: Cannot initialize a EGL device display. This likely means that your EGL driver does not support \
the PLATFORM_DEVICE extension, which is required for creating a headless rendering context.
"""
EGL_ERROR = """OpenGL.raw.EGL._errors.EGLError: EGLError(
\terr = EGL_NOT_INITIALIZED,
\tbaseOperation = eglMakeCurrent,
)
"""
GLFW = "glfw.GLFWError: (65544) b'X11: The DISPLAY environment variable is missing'\n"
GATED = """huggingface_hub.errors.GatedRepoError: 403 Client Error.
Cannot access gated repo for url https://huggingface.co/google/paligemma-3b-pt-224/resolve/main/config.json.
"""
NOT_CACHED = "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache\n"
KEY_ERROR = """Traceback (most recent call last):
  File "lerobot/envs/utils.py", line 1, in preprocess_observation
KeyError: 'observation.images.image'
"""
BAD_ACTION = "WARNING: Nan, Inf or huge value in CTRL at ACTUATOR 0. The simulation is unstable. Time = 0.0500.\n"
# What robosuite's destructors print after any error at all, as the interpreter ends.
AT_EXIT = (DATA / "cpu-crash-with-egl-exit-noise.log").read_text().split("KeyError: 'observation.images.image'\n")[1]


def diagnose(folder: Path, text: str = "", code: int = 1, metrics: Metrics = GOOD) -> Failure | None:
    (folder / "stderr.log").write_text(text)
    logs = (folder / "stdout.log", folder / "stderr.log")
    return failure.diagnose(Exit(code, "", 3.0), metrics, "libero_object", EXPECTED, logs)


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (CUDA_OOM, "oom", "torch.OutOfMemoryError: CUDA out of memory."),
        ("OSError: [Errno 12] Cannot allocate memory\n", "oom", "OSError: [Errno 12]"),
        ("MemoryError\n", "oom", "MemoryError"),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n", "oom", "terminate called"),
        (EGL, "rendering", "ImportError: Cannot initialize a EGL device display."),
        (EGL_ERROR, "rendering", "OpenGL.raw.EGL._errors.EGLError"),
        (GLFW, "rendering", "glfw.GLFWError: (65544)"),
        (GATED, "hub", "huggingface_hub.errors.GatedRepoError: 403"),
        (NOT_CACHED, "hub", "huggingface_hub.errors.LocalEntryNotFoundError"),
        (KEY_ERROR, "crash", "exit code 1: KeyError: 'observation.images.image'"),
        ("OSError: [Errno 28] No space left on device: 'a.mp4'\n", "disk_full", "exit code 1: OSError: [Errno 28]"),
        ("OSError: [Errno 122] Disk quota exceeded\n", "disk_full", "exit code 1: OSError: [Errno 122]"),
        ("OSError: [Errno 30] Read-only file system: 'x'\n", "read_only", "exit code 1: OSError: [Errno 30]"),
        ("OSError: [Errno 24] Too many open files\n", "file_limit", "exit code 1: OSError: [Errno 24]"),
        ("RuntimeError: can't start new thread\n", "process_limit", "exit code 1: RuntimeError: can't start"),
        (f"WARNING: No space left on device\n{KEY_ERROR}", "crash", "exit code 1: KeyError"),
        ("", "crash", "exit code 1: nothing was printed"),
        ("\n \n", "crash", "exit code 1: nothing was printed"),
        (" 50%|#####     | 1/2\r100%|##########| 2/2\r", "crash", "exit code 1: 100%|##########| 2/2"),
    ],
)
def test_a_crash_is_called_by_what_it_printed(tmp_path: Path, text: str, reason: str, message: str) -> None:
    found = diagnose(tmp_path, text)
    assert found is not None
    assert found.reason == reason
    assert found.message.startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h100-missing-module", "ModuleNotFoundError: No module named 'robosuite.utils'"),
        ("h100-broken-numpy-import", "ModuleNotFoundError: No module named 'numpy._core.tests'"),
    ],
)
def test_the_real_failed_starts_are_failed_imports(tmp_path: Path, name: str, message: str) -> None:
    assert diagnose(tmp_path, (DATA / f"{name}.log").read_text()) == Failure("import", message)


@pytest.mark.parametrize("name", ["cpu-act-1-episode", "h100-pi0-8-episodes-batch-8"])
def test_nothing_in_a_log_of_success_looks_like_a_known_failure(tmp_path: Path, name: str) -> None:
    found = diagnose(tmp_path, (DATA / f"{name}.log").read_text() + KEY_ERROR)
    assert found == Failure("crash", "exit code 1: KeyError: 'observation.images.image'")


def test_what_a_renderer_prints_at_exit_does_not_hide_the_error_before_it(tmp_path: Path) -> None:
    found = diagnose(tmp_path, (DATA / "cpu-crash-with-egl-exit-noise.log").read_text())
    assert found == Failure("crash", "exit code 1: KeyError: 'observation.images.image'")


def test_out_of_memory_stands_over_what_the_renderer_prints_at_exit(tmp_path: Path) -> None:
    found = diagnose(tmp_path, CUDA_OOM + AT_EXIT)
    assert found is not None
    assert found.reason == "oom"


def test_the_message_is_found_in_either_log(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text(CUDA_OOM)
    found = diagnose(tmp_path, "INFO nothing here\n")
    assert found is not None
    assert found.reason == "oom"


def test_a_message_is_one_line_of_at_most_500_characters(tmp_path: Path) -> None:
    for text in ("CUDA out of memory " + "x" * 5000, "y" * 5000):
        found = diagnose(tmp_path, text)
        assert found is not None
        assert len(found.message) <= 520
        assert "\n" not in found.message


def test_a_message_leaves_out_the_progress_bar_before_it(tmp_path: Path) -> None:
    found = diagnose(tmp_path, " 50%|#####     | 1/2\r 51%|#####     | 1/2\rRuntimeError: CUDA out of memory.\n")
    assert found == Failure("oom", "RuntimeError: CUDA out of memory.")


def test_a_signal_is_called_killed_where_nothing_says_more(tmp_path: Path) -> None:
    found = diagnose(tmp_path, "INFO working\n", code=-9)
    assert found is not None
    assert found.reason == "killed"
    assert "signal 9" in found.message
    said = diagnose(tmp_path, CUDA_OOM, code=-6)
    assert said is not None
    assert said.reason == "oom"


def test_a_timeout_is_called_so_whatever_was_printed(tmp_path: Path) -> None:
    (tmp_path / "stderr.log").write_text(CUDA_OOM)
    found = failure.diagnose(
        Exit(-15, "timeout", 61.2), Metrics(), "libero_object", EXPECTED, [tmp_path / "stderr.log"]
    )
    assert found == Failure("timeout", "the evaluation was not done after 61 s, so Track A ended it")


@pytest.mark.parametrize(("stopped", "said"), [("lost", "exit code is unknown"), ("survived", "could not be ended")])
def test_an_end_that_is_not_sure_is_no_pass(tmp_path: Path, stopped: str, said: str) -> None:
    found = failure.diagnose(Exit(0, stopped, 3.2), GOOD, "libero_object", EXPECTED, [tmp_path / "stderr.log"])
    assert found is not None and found.reason == "killed" and said in found.message


def test_a_flood_is_called_so_whatever_was_printed_and_however_it_ended(tmp_path: Path) -> None:
    (tmp_path / "stderr.log").write_text(CUDA_OOM)
    for code in (0, 1, -15):
        found = failure.diagnose(Exit(code, "flood", 3.2), GOOD, "libero_object", EXPECTED, [tmp_path / "stderr.log"])
        what = "the evaluation printed more than a log may hold within 3 s, so Track A ended it"
        assert found == Failure("flood", what)


@pytest.mark.parametrize("log", ["stdout.log", "stderr.log"])
def test_an_action_that_is_no_number_fails_a_run_that_looks_good(tmp_path: Path, log: str) -> None:
    (tmp_path / log).write_text("a line\n" * 100_000 + BAD_ACTION + "a line\n" * 100_000)
    found = failure.diagnose(
        Exit(0, "", 3.0), GOOD, "libero_object", EXPECTED, (tmp_path / "stdout.log", tmp_path / "stderr.log")
    )
    assert found is not None
    assert found.reason == "bad_action"


def test_a_crash_after_a_bad_action_is_called_by_the_crash(tmp_path: Path) -> None:
    assert diagnose(tmp_path, BAD_ACTION + KEY_ERROR) == Failure(
        "crash", "exit code 1: KeyError: 'observation.images.image'"
    )


def test_a_run_with_the_expected_episodes_has_not_failed(tmp_path: Path) -> None:
    assert diagnose(tmp_path, code=0) is None


def test_warnings_of_libraries_do_not_fail_a_good_run(tmp_path: Path) -> None:
    assert diagnose(tmp_path, AT_EXIT, code=0) is None


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (Metrics(warnings=("eval_info.json: the file does not exist", "logs: no metrics found")), "no_result"),
        (Metrics("log", 2, 1, 0.5, warnings=("per-task outcomes are missing",)), "no_result"),
        (Metrics("eval_info.json", 0, 0, None, (), ("eval_info.json holds no episodes",)), "invalid_result"),
        (Metrics("eval_info.json", 1, 1, 1.0, (TaskOutcome("libero_object", 0, (True,)),)), "invalid_result"),
        (Metrics("eval_info.json", 3, 3, 1.0, (TaskOutcome("libero_object", 0, (True,) * 3),)), "invalid_result"),
        (Metrics("eval_info.json", 2, 2, 1.0, (TaskOutcome("libero_object", 1, (True,) * 2),)), "invalid_result"),
        (Metrics("eval_info.json", 4, 4, 1.0, (TaskOutcome("libero_object", 0, (True,) * 2),) * 2), "invalid_result"),
        (Metrics("eval_info.json", 2, 1, 0.5, GOOD.tasks, ("overall.n_episodes is 3",)), "invalid_result"),
        (Metrics("eval_info.json", 2, 1, 0.5, (TaskOutcome("libero_goal", 0, (True, False)),)), "invalid_result"),
    ],
    ids=["nothing", "log alone", "none", "one few", "one more", "other task", "twice", "disagreeing", "other suite"],
)
def test_exit_0_without_exactly_the_expected_episodes_is_a_failure(
    tmp_path: Path, metrics: Metrics, reason: str
) -> None:
    found = diagnose(tmp_path, code=0, metrics=metrics)
    assert found is not None
    assert found.reason == reason


@pytest.mark.parametrize(
    ("reason", "batch_size", "following"),
    [
        ("oom", 8, 4),
        ("oom", 3, 1),
        ("oom", 2, 1),
        ("oom", 1, None),
        ("timeout", 10, 5),
        ("timeout", 1, 1),
        ("disk_full", 4, None),
        ("read_only", 4, None),
        ("process_limit", 4, 4),
        *(
            (reason, 4, 4)
            for reason in ("flood", "bad_action", "crash", "rendering", "hub", "import", "killed", "no_result")
        ),
        *((reason, 1, 1) for reason in ("crash", "invalid_result", "interrupted", "not_started")),
    ],
)
def test_the_batch_of_the_one_retry(reason: str, batch_size: int, following: int | None) -> None:
    assert failure.next_batch(reason, batch_size) == following
