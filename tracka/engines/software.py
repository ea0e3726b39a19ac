"""Lists the packages that an evaluation on this host may import, each with its version. None of them is imported here.

The list has what lerobot, the simulator and lerobot's plug-ins require, what those packages require, and so on, without
development tools. A package that was not taken from an index is identified by its commit or by its files.
"""

import functools
import json
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ..core import fact_cache, files, git, user_cache
from ..core.files import Json
from . import cli_capabilities

PACKAGES = ("lerobot", "mujoco", "robosuite", "hf-libero")
# Packages that no package requires by name, and that lerobot, transformers, diffusers or peft use if installed.
OPTIONAL = (
    "apex",
    "bitsandbytes",
    "deepspeed",
    "flash-attn",
    "flash-attn-3",
    "flash-attn-4",
    "flash-linear-attention",
    "ftfy",
    "icc-rt",
    "intel-cmplr-lib-rt",
    "kernels",
    "liger-kernel",
    "mamba-ssm",
    "nvidia-ml-py",
    "opentelemetry-exporter-otlp-proto-http",
    "opt-einsum",
    "optimum",
    "optree",
    "sageattention",
    "sentencepiece",
    "tbb",
    "tiktoken",
    "torchao",
    "xformers",
)
# Tools that packages of the evaluation require (bddl requires pytest), and that no evaluation imports.
TOOLS = ("cmake", "hf-xet", "jupytext", "pytest", "setuptools", "tzdata", "wandb")
TOOLS_EXTRAS = ("all", "dev", "notebook", "test", "video_benchmark")  # lerobot's extras for its developers
REQUIRES = re.compile(r"^Requires-Dist:[ \t]*(.*)$", re.MULTILINE)  # a parser of headers takes ten times as long
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?[^;]*(?:;\s*(.*))?")


@dataclass(frozen=True)
class Packages:
    """Holds versions by name, and for each package that is installed editable its checkout and then its modules."""

    versions: dict[str, str] = field(default_factory=dict)
    editable: dict[str, list[str]] = field(default_factory=dict)


@fact_cache.remembered
def versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Returns the installed versions of these packages.

    The version of a package that is installed editable has the commit of its checkout; that of an absent package is
    `missing`.
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return "missing"
    checkout = cli_capabilities.editable_folder(distribution.read_text("direct_url.json") or "")
    return distribution.version if checkout is None else f"{distribution.version}+{git.revision(checkout)}"


@fact_cache.remembered
def packages(root: Path) -> Packages:
    """Returns the installed packages that an evaluation may import whose process starts in the folder `root`.

    The answer is cached by the state of the installed packages' metadata, because finding it takes a third of a second.
    """
    first = tuple(cli_capabilities.python_path(root))
    return _packages(platform.python_version(), first, cli_capabilities.path_state(first))


@functools.lru_cache(maxsize=2)
def _packages(python: str, first: tuple[str, ...], state: cli_capabilities.PathState) -> Packages:
    key = files.sha256(files.canonical([files.sha256_file(Path(__file__)), python, state]))
    store = user_cache.entry("packages", key)
    if kept := user_cache.read(store):
        return Packages(**kept)
    closure = _closure(cli_capabilities.distributions(first))
    user_cache.keep(store, vars(closure))
    return closure


def _closure(distributions: Sequence[cli_capabilities.InstalledPackage]) -> Packages:
    """Returns the packages that lerobot, the simulator and plug-ins require, those that these require, and so on."""
    installed: dict[str, cli_capabilities.InstalledPackage] = {}
    for package in distributions:
        installed.setdefault(canonical_name(package[0]), package)  # Python imports the first of two in sys.path
    plugins = [name for name in installed if name.startswith("lerobot-")]
    waiting = [(name, "") for name in (*PACKAGES, *OPTIONAL, *plugins)]
    waiting += [("lerobot", extra) for extra in _extras(installed.get("lerobot")) if extra not in TOOLS_EXTRAS]
    required: set[tuple[str, str]] = set()
    while waiting:
        name, extra = item = waiting.pop()
        if item not in required and name in installed and name not in TOOLS:
            required.add(item)
            waiting += _requirements(installed[name][2], extra)
    return _with_versions([(name, *installed[name][1:]) for name in sorted({name for name, _ in required})])


def _with_versions(installed: Sequence[cli_capabilities.InstalledPackage]) -> Packages:
    result = Packages()
    for name, version, distribution in installed:
        origin = cli_capabilities.origin_of(distribution)
        folder = cli_capabilities.editable_folder(json.dumps(origin))
        result.versions[name] = version if folder or not origin else f"{version}+{_source_id(distribution, origin)}"
        if folder:
            modules = (distribution.read_text("top_level.txt") or name.replace("-", "_")).split()
            result.editable[name] = [str(folder), *modules]
    return result


def canonical_name(name: str) -> str:
    """Returns a distribution's name in the form in which packaging standards compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _extras(installed: cli_capabilities.InstalledPackage | None) -> list[str]:
    return installed[2].metadata.get_all("Provides-Extra") or [] if installed else []


def _requirements(distribution: metadata.Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """Yields the packages that a distribution requires, each without extra and with each extra that is asked for.

    With `extra`, only the requirements of that extra are yielded.
    """
    for line in REQUIRES.findall(cli_capabilities.header_of(distribution)):
        match = REQUIREMENT.match(line)
        name, extras, marker = match.groups() if match else ("", None, None)
        if bool(extra) == ("extra" in (marker or "")) and _applies(marker, extra):
            yield from ((canonical_name(name), each.strip()) for each in ("", *(extras or "").split(",")))


@functools.cache
def _applies(marker: str | None, extra: str) -> bool:
    """Returns whether a requirement with this marker applies here; a marker that cannot be read applies."""
    from packaging.markers import Marker

    try:
        return marker is None or Marker(marker).evaluate({"extra": extra})
    except ValueError:  # of packaging: the marker is invalid, or compares values that cannot be compared
        return True


def _source_id(distribution: metadata.Distribution, origin: Json) -> str:
    """Returns what distinguishes a package that was not taken from an index from others of its version.

    That is the package's commit, or a hash of its files.
    """
    source = origin.get("vcs_info")
    commit = source.get("commit_id") if isinstance(source, dict) else None
    return str(commit)[:12] if commit else _files_hash(distribution)


def _files_hash(distribution: metadata.Distribution) -> str:
    """Returns a hash of a distribution's files by its RECORD.

    Files that say where the distribution is installed, and files without a hash, are left out.
    """
    lines = (distribution.read_text("RECORD") or "").splitlines()
    hashed = (line for line in lines if "=" in line.rpartition(",")[0].rpartition(",")[2])
    own = sorted(line for line in hashed if not line.startswith("../") and ".dist-info/" not in line.partition(",")[0])
    return files.sha256("\n".join(own).encode())[:12]
