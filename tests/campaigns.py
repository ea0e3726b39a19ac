"""Makes campaigns for tests: real folders whose lerobot-eval, renderer and checkpoint are stand-ins."""

import atexit
import contextlib
import functools
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from tracka import cli, new_campaign
from tracka.campaign import campaign
from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.campaign.matrix import COLUMNS
from tracka.core import files, lock
from tracka.core.files import Json
from tracka.engines import cli_capabilities, codebase, software
from tracka.gates import handoff, validate
from tracka.preflight import preflight
from tracka.runs import preregistration, run
from tracka.runs.run import RerunPolicy

REPOSITORY = Path(__file__).resolve().parent.parent
STANDIN = REPOSITORY / "fixtures" / "standin"
WEIGHTS = (2).to_bytes(8, "little") + b"{}"  # a safetensors file with nothing in it
OTHER_WEIGHTS = (8).to_bytes(8, "little") + b"{}      "  # another such file with other bytes
ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "long_b1_e6,libero_object,1,6,cpu,7,egl,checkpoints/fake,1",
    "wide_b4_e4,libero_object,4,4,cpu,7,egl,checkpoints/fake,1",
    "off_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/fake,0",
)
SETTINGS = f"""
schema_version = 1
baseline = "baseline_b1_e2"
expected_gpus = 0
executable = [{json.dumps(sys.executable)}, {json.dumps(str(STANDIN / "lerobot_eval.py"))}]

[lerobot_eval]
policy_type = "act"
task_ids = [0]

[timeouts]
row_secs = 60
grace_secs = 1
"""

RESUME = RerunPolicy(resume=True)
RUN_ROW = """
import signal, sys
from pathlib import Path
from tracka.campaign import campaign
from tracka.runs import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell would ignore it
spec = campaign.load(Path(sys.argv[1]))
print(run.run_row(spec, spec.row(sys.argv[2]), run.load_host(spec.layout))["status"])
"""


@dataclass(frozen=True)
class Made:
    """A campaign's folder, and the environment in which its stand-ins are found."""

    root: Path
    environ: Mapping[str, str]

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def spec(self) -> Campaign:
        return campaign.load(self.root)

    def behave(self, **words: Sequence[str]) -> None:
        """Tells the stand-in what to do: run id = one word an attempt."""
        Path(self.environ["TRACKA_STANDIN"]).write_text(json.dumps(words))

    def journal(self) -> list[str]:
        """Returns the evaluations started and ended so far, as `run_id attempt start|end`."""
        log = Path(self.environ["TRACKA_STANDIN"]).with_suffix(".log")
        lines = log.read_text().splitlines() if log.exists() else []
        return [" ".join(line.split()[1:4]) for line in lines]

    def started(self) -> list[str]:
        """Returns the run ids of the evaluations started so far."""
        return [line.split()[0] for line in self.journal() if line.endswith("start")]

    def pids(self) -> list[int]:
        """Returns the process ids of the evaluations started so far."""
        log = Path(self.environ["TRACKA_STANDIN"]).with_suffix(".log")
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [int(words[4]) for words in lines if words[3] == "start"]

    def configure(self, text: str) -> None:
        """Adds lines to the settings."""
        with self.layout.settings.open("a") as settings:
            settings.write(f"\n{text}\n")

    def change_weights(self) -> None:
        """Gives the checkpoint other weights."""
        (self.root / "checkpoints" / "fake" / "model.safetensors").write_bytes(OTHER_WEIGHTS)

    def pass_preflight(self) -> None:
        """Takes the campaign through phases 1 and 2, with the stand-ins."""
        pass_preflight(self)

    def run_row(self, run_id: str, policy: RerunPolicy = RESUME, retry_index: int = 0) -> Json:
        """Runs a row in this process and returns its result."""
        spec = self.spec
        return run.run_row(spec, spec.row(run_id), run.load_host(spec.layout), policy, retry_index)

    def results(self, run_id: str) -> list[tuple[str, str | None]]:
        """Returns the status and the reason of each attempt of a row."""
        folder = self.layout.run(run_id)
        found = [files.read_json(folder.attempt(number).result) for number in folder.numbers()]
        return [(result["status"], result["reason"]) for result in found]

    def statuses(self) -> dict[str, tuple[str, str | None]]:
        """Returns run id -> the status and the reason of each row that has a marker."""
        found = [files.read_json(path) for path in sorted(self.layout.rows.glob("*.json"))]
        return {marker["run_id"]: (marker["status"], marker["reason"]) for marker in found}

    def evidence(self, *run_ids: str) -> list[str]:
        """Returns what is wrong with the files of these rows; a row that failed can have right files."""
        spec = self.spec
        found = [validate.row_contract_findings(spec, spec.row(run_id), "evidence") for run_id in run_ids]
        return [str(finding) for findings in found for finding in findings]

    def start_row(self, run_id: str) -> subprocess.Popen[str]:
        """Starts a row in a process of its own, which a test may interrupt or kill."""
        return subprocess.Popen(
            [sys.executable, "-c", RUN_ROW, str(self.root), run_id],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pytest(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the gates on this campaign as a user would."""
        return self.command("-m", "pytest", "acceptance", "--campaign", str(self.root), *words)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts the gates in the background; `pytest` waits for their end."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "acceptance", "--campaign", str(self.root), *words],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def sweep_words(self, *more: str, **changed: object) -> list[str]:
        """Returns the words of `tracka sweep` on this campaign; `changed` are other places."""
        layout = self.layout
        places = {"matrix": layout.matrix, "artifacts_root": layout.runs, "status_dir": layout.rows, **changed}
        options = (word for name, value in places.items() for word in (f"--{name.replace('_', '-')}", str(value)))
        return ["sweep", *options, *more]

    def preflight_words(self, *more: str, **changed: str) -> list[str]:
        """Returns the words of `tracka preflight` for this campaign's checkpoint; `changed` are other options."""
        options = {
            "task_suite": "libero_object",
            "policy_path": "checkpoints/fake",
            "mujoco_gl": "egl",
            "artifacts_dir": str(self.layout.preflight),
        } | changed
        named = (word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value))
        return ["preflight", *named, *more]

    def tracka(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `tracka` in a process of its own."""
        return self.command("-m", "tracka", *words)

    def call(self, *words: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        """Runs `tracka` in this process, which is quicker: for refusals, dry runs, help, and `run` of one row."""
        return self._called(cli.main, "tracka", *words, cwd=cwd)

    def call_file(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a file of the repository in this process, as `call` does."""
        return self._called(partial(runpy.run_path, str(REPOSITORY / name), run_name="__main__"), name, *words)

    def _called(
        self, program: Callable[[], object], *words: str, cwd: Path = REPOSITORY
    ) -> subprocess.CompletedProcess[str]:
        out, errors = io.StringIO(), io.StringIO()
        with (
            _as_it_was(self.environ),
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            code = _exit_code(program, words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs Python on `words` in the repository; its cache and temporary files stay in the campaign's folder."""
        cache = ("-o", f"cache_dir={self.root / '.cache'}") if "pytest" in words else ()
        return subprocess.run(
            [sys.executable, *words, *cache],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


def make(root: Path, rows: Sequence[str] = ROWS, settings: str = SETTINGS) -> Made:
    """Makes a campaign in `root`, whose checkpoint is one in name only, and returns the campaign."""
    layout = Layout(root)
    files.write_text(layout.matrix, "\n".join([",".join(COLUMNS), *rows, ""]))
    files.write_text(layout.settings, settings)
    new_campaign.write_schema(layout)
    fake_checkpoint(root / "checkpoints" / "fake")
    made = Made(root, environment(root))
    made.behave()
    _share_hashes(root / "cache")
    return made


def _share_hashes(cache: Path) -> None:
    """Copies what this process knows of the installed software into a campaign's cache.

    Without that, each process of the campaign would need half a second to find the same facts out again.
    """
    for path in files.walk_files(_hashes_of_software()):
        target = cache / path.relative_to(_hashes_of_software())
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(path, target)


@functools.cache
def _hashes_of_software() -> Path:
    """Returns a cache with the installed packages and the hashes of their code, made once in this process."""
    cache = Path(tempfile.mkdtemp(prefix="tracka-tests-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    with _as_it_was({"XDG_CACHE_HOME": str(cache)}):
        software._packages.cache_clear()
        software.packages(REPOSITORY)
        codebase.hashes(REPOSITORY)
        cli_capabilities.version_text([sys.executable, str(STANDIN / "lerobot_eval.py")])
    return cache


@contextlib.contextmanager
def shared(temporary: Path, name: str) -> Iterator[Path]:
    """Yields a folder of all xdist workers, which one worker at a time may fill; the folder need not exist."""
    place = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    with lock.hold(place / f"{name}.lock", name, wait=True):
        yield place / name


def finished(
    temporary: Path,
    name: str,
    rows: Sequence[str] = ROWS,
    settings: str = SETTINGS,
    gates: Sequence[str] = ("-n0",),
    before: Path | None = None,
    environ: Mapping[str, str] = MappingProxyType({}),
    **words: Sequence[str],
) -> Made:
    """Returns a campaign after its gates, which the first xdist worker that asks makes and all share.

    `gates` are the words for `pytest`: all five phases unless they say otherwise. `before` is a campaign to start from,
    `environ` is added to the environment, `words` tell the stand-in what to do. Beside the campaign lie the gates'
    output in gates.txt, their report in junit.xml and their exit status in exit.txt: see `judged`.
    """
    with shared(temporary, name) as folder:
        root = folder / "campaign"
        if root.exists():
            return Made(root, environment(root))
        if before is not None:
            shutil.copytree(before, root)
        made = make(root, rows, settings)
        made.behave(**words)
        report = f"--junitxml={root.parent / 'junit.xml'}"
        ended = Made(root, environment(root) | {**environ}).pytest(*gates, report)
        (root.parent / "gates.txt").write_text(ended.stdout)
        (root.parent / "exit.txt").write_text(str(ended.returncode))
        return made


def below_threshold(temporary: Path) -> Made:
    """Returns a campaign after all five gates, run by an owner called `me`; one row stayed below its threshold."""
    settings = f"{SETTINGS}\n[thresholds.rows]\nwide_b4_e4 = 0.75\n"
    gates = ("-n0", "--owner", "me")
    return finished(temporary, "below_threshold", settings=settings, gates=gates, wide_b4_e4=["ok:2"])


def judged(made: Made) -> subprocess.CompletedProcess[str]:
    """Returns how the gates of a `finished` campaign ended: exit status, and output as on a terminal."""
    beside = made.root.parent
    return subprocess.CompletedProcess((), int((beside / "exit.txt").read_text()), (beside / "gates.txt").read_text())


def copied(made: Made, folder: Path) -> Made:
    """Returns a copy in `folder` of a campaign with its stand-in and caches, for a test that goes on with the copy."""
    root = Path(shutil.copytree(made.root, folder / "campaign"))
    return Made(root, environment(root))


@contextlib.contextmanager
def _as_it_was(environ: Mapping[str, str]) -> Iterator[None]:
    """Adds `environ` to this process's environment; at the end takes back what a command changes of this process."""
    variables, arguments, mask = dict(os.environ), sys.argv, os.umask(0o022)
    os.umask(mask)
    numbers = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    os.environ |= environ
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= variables
        sys.argv = arguments
        os.umask(mask)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


def _exit_code(program: Callable[[], object], words: Sequence[str]) -> int:
    """Calls a program's entry point with its name and `words`, and returns its exit code."""
    sys.argv = list(words)
    try:
        program()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def run_words(made: Made, *more: str, **changed: str) -> list[str]:
    """Returns the words of `tracka run` on the row long_b1_e6; `changed` are other options."""
    options = {
        "run-id": "long_b1_e6",
        "policy-path": "checkpoints/fake",
        "task-suite": "libero_object",
        "batch-size": "1",
        "n-episodes": "6",
        "gpu-id": "cpu",
        "mujoco-gl": "egl",
        "artifacts-root": str(made.layout.runs),
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    return ["run", *(word for name, value in options.items() for word in (f"--{name}", value)), *more]


def environment(root: Path) -> dict[str, str]:
    """Returns the variables with which the harness finds the stand-ins and keeps its cache in the campaign's folder."""
    return {
        "TRACKA_STANDIN": str(root / "standin.json"),
        "PYTHONPATH": f"{STANDIN}{os.pathsep}{REPOSITORY}",
        "XDG_CACHE_HOME": str(root / "cache"),
        "GITHUB_STEP_SUMMARY": str(root / "cache" / "summary.md"),  # not that of the job that runs these tests
    }


def contents(folder: Path, *left_out: str) -> dict[str, bytes | None]:
    """Returns path -> content of everything below `folder`, empty folders included.

    Caches are left out, and what is called like one of `left_out`. The content of a folder is None.
    """
    hidden = {"cache", ".cache", *left_out}
    found = [path for path in sorted(folder.rglob("*")) if hidden.isdisjoint(path.relative_to(folder).parts)]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def copy_repository(target: Path) -> None:
    """Copies the repository's files that git tracks or does not ignore."""
    words = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)


def fake_checkpoint(folder: Path) -> None:
    """Writes a checkpoint that is one in name only: JSON files of an ACT, and a weights file without tensors."""
    files.write_json(folder / "config.json", {"type": "act"})
    files.write_json(folder / "policy_preprocessor.json", {"steps": []})
    files.write_json(folder / "policy_postprocessor.json", {"steps": []})
    files.write_atomic(folder / "model.safetensors", WEIGHTS)


def pass_preflight(made: Made) -> None:
    """Takes the campaign through phases 1 and 2, with the stand-ins."""
    spec = made.spec
    preregistration.ensure(spec)
    cli_capabilities.discover_for(spec)
    handoff.hand_over(spec, "phase1")
    preflight.write_preflight_report(preflight.run_preflight(preflight.config_of(spec)), spec.layout.preflight_report)
    handoff.hand_over(spec, "phase2")


def pass_preflight_of_real_rows(made: Made) -> None:
    """Takes a campaign whose rows run the real lerobot-eval through phases 1 and 2 in seconds.

    The campaign's checkpoints are built in this process, and preflight meets the stand-ins of renderer and simulator.
    """
    spec = made.spec
    for policy_path, line in spec.build.items():
        builder, *words = line.split()
        built = made.call_file(f"fixtures/{builder}.py", str(made.root / policy_path), *words)
        assert built.returncode == 0, built.stderr
    cli_capabilities.discover_for(spec)  # the help of the real lerobot-eval, mostly from the user's cache
    with _as_it_was({"PYTHONPATH": f"{STANDIN}{os.pathsep}{REPOSITORY}"}):
        pass_preflight(made)
