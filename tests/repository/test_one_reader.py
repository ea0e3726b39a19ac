"""What a user, a checkpoint or an evaluation wrote is opened by core/reading.py and parsed by core/parsing.py alone."""

import ast

import pytest
from campaigns import REPOSITORY

PACKAGE = REPOSITORY / "tracka"
METHODS = {"open", "read_text", "read_bytes", "load", "loads", "cmp", "copyfile"}
OWNERS = {
    "load": {"json", "tomllib", "np", "numpy"},
    "loads": {"json", "tomllib"},
    "cmp": {"filecmp"},
    "copyfile": {"shutil"},
}
# Module -> the calls that are left there, and why what they read cannot be another's.
LEFT = {
    "core/reading.py": {"os.open"},
    "core/parsing.py": {"tomllib.loads"},
    "core/files.py": {"os.open"},  # a folder, to be synced
    "core/lock.py": {"os.open", "read_text"},  # locks, and /proc/locks
    "core/schema.py": {"read_text", "json.loads"},  # the package's own schemas
    "core/credentials.py": {"json.loads"},  # one string of a text that is searched for secrets
    "core/held_folder.py": {"os.open"},  # a folder of our own, to be locked
    "execution/bounded_log.py": {"open"},  # written, not read
    "execution/ending_signals.py": {"os.open"},  # /dev/null
    "execution/orphans.py": {"read_bytes", "os.open"},  # /proc
    "execution/process.py": {"json.loads"},  # messages of our own supervisor
    "execution/process_setup.py": {"os.open"},  # /dev/null
    "execution/slurm_step.py": {"json.loads"},  # its own request
    "execution/supervisor.py": {"json.loads", "os.open"},  # its own request, and the journal that it appends to
    "engines/cli_capabilities.py": {"json.loads", "read_text"},  # metadata of installed packages
    "engines/listener.py": {"open"},  # written in an engine's own process
    "engines/replay.py": {"open"},  # the same
    "engines/resident/record.py": {"open"},  # the same
    "engines/resident/service.py": {"json.loads"},  # messages between our own processes
    "engines/software.py": {"read_text"},  # metadata of installed packages
    "exports/metrics_client.py": {"json.loads", "os.open"},  # messages of our own process, and /dev/null
    "exports/step_summary.py": {"open"},  # written, not read
    "core/extras.py": {"read_text"},  # metadata of the installed package
    "install/assets.py": {"read_text"},  # the package's own list
    "install/own_package.py": {"read_bytes", "read_text"},  # the installed package's own files
    "new_campaign.py": {"read_text"},  # the package's own campaign
    "install/provision.py": {"read_text", "open"},  # the lock of the repository; a log is written
    "install/setup.py": {"read_text"},  # the lock of the repository
    "bundles/archive.py": {"os.open", "open"},  # written, and tarfile on what reading.py has opened
    "bundles/redaction_check.py": {"open"},  # compressed content that reading.py has read
    "checkpoints/python_dependencies.py": {"read_text"},  # the same
    "preflight/batch_fit.py": {"read_text"},  # /proc
    "preflight/host.py": {"read_text"},  # installed lerobot, and the lock of the repository
    "preflight/inventory.py": {"read_text"},  # /proc
    "preflight/probes/model.py": {"json.loads"},  # its own request
    "preflight/probes/offline.py": {"json.loads"},  # the same
    "report_page/rendering.py": {"read_text"},  # the package's own files
    "reporting/report.py": {"read_bytes"},  # the same
    "reporting/templating.py": {"read_text"},  # the same
    "engines/video.py": {"av.open"},  # after reading.require_regular, as MP4 alone
    "runs/episode_progress.py": {"os.open"},  # growing files, with the rules of reading.py
    "runs/worker.py": {"os.open"},  # /dev/null
}
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def calls(module: str) -> set[str]:
    """The calls of a module that open or parse a file by themselves."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if owner != "files" and owner in OWNERS.get(node.func.attr, {owner}):  # files.read_text is core's
                found.add(f"{owner}.{node.func.attr}" if owner in ("os", "av", "json", "tomllib") else node.func.attr)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_what_others_wrote_is_opened_in_one_place(module: str) -> None:
    assert calls(module) <= LEFT.get(module, set()), "use core/reading.py and core/parsing.py"


def test_no_exception_is_kept_for_nothing() -> None:
    assert {module: left - calls(module) for module, left in LEFT.items() if left - calls(module)} == {}
