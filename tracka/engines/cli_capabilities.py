"""Discovers which flags the installed lerobot-eval has: writes `cli_capabilities.json` and the raw help beside it.

Measured on lerobot 0.6.1: a bare `--help` hides every flag of an environment or a policy type, the path flags are never
listed, and `--version` is refused. Therefore the help is requested for one environment and one policy type at a time
and merged, `PATH_FLAGS` are added, and the version comes from the package's metadata where the program itself gives
none. One help takes about 18 s, so answers are cached by lerobot's version, its plug-ins and the program itself; the
version is asked for beside the help, so that it costs no time of its own where a second core is free.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlparse

from ..campaign.campaign import Campaign
from ..checkpoints import checkpoint, code_safety
from ..core import (
    damaged,
    fact_cache,
    files,
    hashing,
    held_folder,
    installation,
    reading,
    schema,
    system_errors,
    user_cache,
)
from ..core.errors import Finding, ToolMissing, UsageError
from ..core.reports import Capabilities
from ..execution import environment, process
from ..execution.lanes import Lanes
from ..execution.process import Bounds, Exit
from . import program_version

PROGRAM = "lerobot-eval"
PATH_FLAGS = ("--policy.path",)
PLUGIN_PREFIXES = ("lerobot_robot_", "lerobot_camera_", "lerobot_teleoperator_", "lerobot_policy_", "lerobot_env_")
HELP_SECS = 300
OWN = Path(sys.executable).absolute()
HEADER = re.compile(r"^(Name|Version):[ \t]*(.*?)[ \t]*$", re.MULTILINE)  # lines of a distribution's METADATA


Distribution = tuple[str, str, str]  # name, version, direct_url.json
InstalledPackage = tuple[str, str, metadata.Distribution]  # name, version, its files


@dataclass(frozen=True)
class Software:
    """Describes the lerobot of one Python.

    `plugins` are the distributions that lerobot imports by their prefix, each with its version.
    """

    version_text: str
    plugins: tuple[str, ...]


def discover(
    state: Path,
    executable: Sequence[str] = (),
    policy_types: Sequence[str] = (),
    python: Path = OWN,
    trusted: Sequence[str] = (),
    keep: bool = False,
) -> Capabilities:
    """Writes `cli_capabilities.json` and `lerobot_eval_help.txt` into the folder `state` and returns the capabilities.

    `executable` is a lerobot-eval of the campaign's own; without it, the lerobot-eval of `python` is asked. The version
    is that of the program; plug-ins are always those of `python`. With `keep`, files that say the same already stay as
    they are.
    Raises UsageError where a plug-in is installed that is not `trusted`, because lerobot-eval would import it.
    Raises ToolMissing where lerobot-eval is not found or cannot be invoked.
    After either error the raw help holds the reason, and the capabilities of an earlier discovery are deleted.
    """
    help_file = state / "lerobot_eval_help.txt"
    try:
        command = find(executable, python)
        software = installed_software(python)
        code_safety.require_plugins(software.plugins, trusted)
        with Lanes(1) as beside:
            version = beside.submit(version_text, command, python)
            texts = [help_text(command, kind, software) for kind in policy_types or ("",)]
    except (ToolMissing, UsageError) as error:
        files.write_text(help_file, f"{error}\n")
        damaged.remove(state / "cli_capabilities.json")
        raise
    capabilities: Capabilities = {
        "schema_version": schema.VERSION,
        "lerobot_eval_help_text_path": help_file.name,
        "supported_flags": flags("\n".join(texts)),
        "version_text": version.result(),
        "generated_at_utc": files.utc_now(),
        "executable": list(command),
        "plugins": list(software.plugins),
        "policy_types": list(policy_types),
    }
    if keep and (known := _known(state, "\n".join(texts), capabilities)):
        return known
    files.write_text(help_file, "\n".join(texts))
    files.write_json(state / "cli_capabilities.json", capabilities)
    return capabilities


def _known(state: Path, text: str, today: Capabilities) -> Capabilities | None:
    """Returns the capabilities in `state` if they and the raw help beside them are those of `today`, else None."""
    raw = state / today["lerobot_eval_help_text_path"]
    if reading.text_or_none(raw) != files.redacted(text):
        return None
    known = schema.read_or_empty("cli_capabilities", state / "cli_capabilities.json")
    same = known and {**known, "generated_at_utc": today["generated_at_utc"]} == files.redacted(today)
    return cast(Capabilities, known) if same else None


def find(executable: Sequence[str] = (), python: Path = OWN) -> tuple[str, ...]:
    """Returns the argv that starts lerobot-eval: `executable`, else the program beside `python`.

    For our own Python, a program in PATH is accepted too. Raises ToolMissing where there is no program.
    """
    if executable:
        return tuple(executable)
    folder = python.absolute().parent
    program = shutil.which(PROGRAM, path=str(folder)) or (shutil.which(PROGRAM) if _is_own(python) else None)
    if program is None:
        remedy = f"Run `{installation.SETUP}`, or name the Python that has lerobot with --python-bin"
        raise ToolMissing(Finding(str(folder / PROGRAM), "lerobot-eval is not installed", remedy))
    return (program,)


def help_text(command: Sequence[str], policy_type: str = "", software: Software | None = None) -> str:
    """Returns what `command --help` prints for LIBERO and the policy type, from the cache where nothing has changed."""
    scope = ["--env.type=libero", *([f"--policy.type={policy_type}"] if policy_type else [])]
    entry = user_cache.entry("help", _key(command, scope, software or installed_software()))
    return _kept_text(entry) or _keep_text(entry, _run_help([*command, *scope, "--help"]))


def version_text(command: Sequence[str], python: Path = OWN) -> str:
    """Returns what `command --version` prints, from the cache where nothing has changed.

    If this is no version, returns lerobot's version by the metadata of the Python that the program runs in, or of
    `python` if the program's Python is unknown.
    """
    software = installed_software(python)
    entry = user_cache.entry("version", _key(command, ["--version"], software))
    kept = _kept_text(entry)
    answer = kept if kept is not None else program_version.ask(command)
    if answer is not None and kept is None:
        _keep_text(entry, answer)
    return answer or _program_software(command[0], software).version_text


def _program_software(program: str, default: Software) -> Software:
    """Returns the software of the Python that a program runs in, and `default` if that Python is unknown."""
    python = program_version.python_of(program)
    with contextlib.suppress(ToolMissing):
        return installed_software(python) if python else default
    return default


def _kept_text(entry: Path) -> str | None:
    text = user_cache.read(entry).get("text")
    return text if isinstance(text, str) else None


def _keep_text(entry: Path, text: str) -> str:
    """Keeps a text in the user's cache and returns the text."""
    user_cache.keep(entry, {"text": text})
    return text


def _key(command: Sequence[str], scope: Sequence[str], software: Software) -> str:
    program = shutil.which(command[0]) or command[0]
    content = [files.sha256_file(Path(word)) for word in (program, *command[1:]) if Path(word).is_file()]
    return files.sha256(files.canonical([*astuple(software), list(command), content, list(scope)]))


def _run_help(command: Sequence[str]) -> str:
    """Returns what the program prints when it is asked for its help. Raises ToolMissing where it prints no help."""
    remedy = f"Run `{' '.join(command)}` by hand and correct what its error says"
    with held_folder.make() as folder:
        out, err = folder / "out", folder / "err"
        try:
            ended = _run(command, out, err)
        except OSError as error:
            _raise_limit(error)
            raise ToolMissing(Finding(command[0], f"lerobot-eval cannot be invoked ({error})", remedy)) from None
        text, cause = reading.text_or_empty(out), process.cause_of_end(ended, err)
    if ended.timed_out:
        remedy = f"Run it again while less else runs on this host: it had {HELP_SECS} s"
    if ended.stopped:
        raise ToolMissing(Finding(command[0], f"lerobot-eval cannot be invoked ({cause})", remedy))
    if ended.code != 0 or not flags(text):
        raise ToolMissing(Finding(command[0], f"lerobot-eval --help printed no help, {cause}", remedy))
    return text


def _run(command: Sequence[str], out: Path, err: Path) -> Exit:
    where = Path.cwd()  # where a command of a relative path is found
    return process.run(
        command, cwd=where, env=environment.base(), stdout=out, stderr=err, bounds=Bounds(HELP_SECS, grace=2)
    )


def _raise_limit(error: Exception) -> None:
    """Raises an error that says nothing of the program, since the system started no process."""
    if system_errors.limit(error):
        raise error


def flags(text: str) -> list[str]:
    """Returns the long flags that a help text names, and the flags that lerobot accepts without naming them.

    Returns none where the text names none.
    """
    flag_names = set(re.findall(r"(?<![\w`-])--[A-Za-z][\w.]*", text))
    return sorted(flag_names | set(PATH_FLAGS)) if flag_names else []


@fact_cache.remembered
def installed_software(python: Path = OWN) -> Software:
    """Returns lerobot's version and plug-ins where `python` runs. Raises ToolMissing where `python` does not run."""
    packages = _distributions() if _is_own(python) else _ask_for_distributions(python)
    version = next((version for name, version, _ in packages if name == "lerobot"), "(not installed here)")
    plugins = sorted(_plugin(*each) for each in packages if each[0].startswith(PLUGIN_PREFIXES))
    return Software(f"lerobot {version}", tuple(plugins))


def _plugin(name: str, version: str, origin: str) -> str:
    """Returns a plug-in's name and version.

    For an editable install a digest of the code is added, because no version tells changes of that code.
    """
    folder = editable_folder(origin)
    if folder is None:
        return f"{name} {version}"
    return f"{name} {version}+{hashing.of_kind(folder, hashing.SOURCES)[:12]}"


def editable_folder(origin: str) -> Path | None:
    """Returns the folder of a distribution's code by its direct_url.json, if the distribution is installed editable."""
    try:
        direct_url = json.loads(origin or "{}")
        return Path(unquote(urlparse(direct_url["url"]).path)) if direct_url["dir_info"]["editable"] is True else None
    except (KeyError, TypeError, ValueError):
        return None


def _is_own(python: Path) -> bool:
    return python.absolute().parent == OWN.parent


def _distributions() -> list[Distribution]:
    lerobot_packages = (each for each in distributions() if each[0].startswith("lerobot"))
    return [(name, version, json.dumps(origin_of(item))) for name, version, item in lerobot_packages]


def distributions(first: Sequence[str] = ()) -> tuple[InstalledPackage, ...]:
    """Returns name, version and files of every installed distribution, in the order of the import path.

    `first` are folders that come before the import path. The distributions are read again only when one of them has
    come, gone or changed.
    """
    return _distributions_below(path_state(first))


Stamps = tuple[str, tuple[int, ...]]  # a distribution's folder by name, the state of its DESCRIPTIONS
PathState = tuple[tuple[str, tuple[Stamps, ...]], ...]
DESCRIPTIONS = ("METADATA", "RECORD", "direct_url.json")


def path_state(first: Sequence[str] = ()) -> PathState:
    """Returns the folders of the import path that hold distributions, with the state of the distributions' metadata.

    Each folder counts once, at its last place in `sys.path`: pytest puts the folder from which it collects tests before
    all others, and an installed Track A is collected from the folder of all packages.
    """
    folders = reversed(dict.fromkeys(reversed(sys.path)))
    states = ((folder, tuple(sorted(_metadata_states(folder)))) for folder in dict.fromkeys([*first, *folders]))
    return tuple((folder, state) for folder, state in states if state)


def python_path(root: Path) -> list[str]:
    """Returns the folders of PYTHONPATH as a process in `root` has them; an empty entry stands for `root` itself."""
    value = os.environ.get("PYTHONPATH", "")
    return [os.path.normpath(root / entry) for entry in value.split(os.pathsep)] if value else []


def _metadata_states(folder: str) -> Iterator[Stamps]:
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.name.endswith((".dist-info", ".egg-info")) and not entry.name.startswith("~"):  # pip's leftovers
                yield entry.name, tuple(number for name in DESCRIPTIONS for number in _stamp(f"{entry.path}/{name}"))


def _stamp(path: str) -> tuple[int, ...]:
    """Returns a file's size, times of last modification and change, and inode; empty where the file does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 - making a Path for each of 600 files takes longer than the call
    except OSError:
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=2)
def _distributions_below(state: PathState) -> tuple[InstalledPackage, ...]:
    """Returns the distributions in these folders, which are the folders of `sys.path` that hold any.

    The two header lines are read as text, because the standard library's parser takes a quarter of a second for 200
    packages.
    """
    packages = []
    for item in metadata.distributions(path=[folder for folder, _ in state]):
        header = dict(HEADER.findall(header_of(item)))
        if "Name" in header:
            packages.append((header["Name"], header.get("Version", ""), item))
    return tuple(packages)


def header_of(item: metadata.Distribution) -> str:
    """Returns the header of a distribution's description; empty where the description cannot be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (item.read_text("METADATA") or item.read_text("PKG-INFO") or "").partition("\n\n")[0]
    return ""


def origin_of(item: metadata.Distribution) -> dict[str, Any]:
    """Returns what pip noted of a distribution's origin in direct_url.json; empty for a distribution of an index."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(item.read_text("direct_url.json") or "{}")
        return value if isinstance(value, dict) else {}
    return {}


def _ask_for_distributions(python: Path) -> list[Distribution]:
    fields = "[d.metadata['Name'] or '', d.version or '', d.read_text('direct_url.json') or '']"
    code = f"import json; from importlib.metadata import *; print(json.dumps([{fields} for d in distributions()]))"
    try:
        completed = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        _raise_limit(error)
        raise ToolMissing(
            Finding(str(python), f"this Python does not run ({error})", "Name a Python that runs")
        ) from None
    return [(name, version, origin) for name, version, origin in json.loads(completed.stdout)]


def discover_for(campaign: Campaign) -> Capabilities:
    """Discovers lerobot-eval's flags for a campaign and returns the capabilities.

    The campaign's own executable is asked if there is one, for the policy types that the campaign's rows name. Where
    lerobot-eval is unchanged since the last discovery, nothing is asked or written.
    """
    own, types = executable(campaign), policy_types(campaign)
    return discover(campaign.layout.state, own, types, trusted=campaign.trusted, keep=True)


def policy_types(campaign: Campaign) -> list[str]:
    """Returns the policy types of the campaign's rows, each once: from the settings, else from the checkpoint."""
    policies = dict.fromkeys((campaign.settings(row).policy_type, row.policy_path) for row in campaign.enabled)
    kinds = (
        configured_type or checkpoint.find_policy_type(path, campaign.layout.root) for configured_type, path in policies
    )
    return [kind for kind in dict.fromkeys(kinds) if kind]


def executable(campaign: Campaign) -> tuple[str, ...]:
    """Returns the command of the campaign's own lerobot-eval, its first word as a path; empty where it has none."""
    if not campaign.executable:
        return ()
    first = campaign.layout.root / campaign.executable[0]
    return (str(first) if first.is_file() else campaign.executable[0], *campaign.executable[1:])
