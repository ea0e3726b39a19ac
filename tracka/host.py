"""What this host is: its GPUs, the installed software, LIBERO's files."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from . import environment, gpu, plan
from .check import Check, answer

MUJOCO = "3.3.7"
LEROBOT = "0.6.1"


def checks(gpu_ids: Sequence[int], gpus: Sequence[gpu.Gpu], expected: int) -> list[Check]:
    """The checks of a host that shall have the GPUs `gpu_ids`, and `expected` of them."""
    return [_gpus(gpu_ids, gpus, expected), *_versions(), *_libero()]


def _gpus(gpu_ids: Sequence[int], gpus: Sequence[gpu.Gpu], expected: int) -> Check:
    """Those asked for by index, and as many as the campaign around needs."""
    wanted = sorted({*gpu_ids, *range(expected)})
    missing = [str(number) for number in wanted if number >= len(gpus)]
    evidence = f"{len(gpus)} visible, {len(wanted)} expected{'; missing: ' * bool(missing)}{', '.join(missing)}"
    if problem := gpu.problem():
        return answer("gpus", False, f"{evidence}; {problem.where}: {problem.what}", problem.remedy or "")
    evidence += "".join(f"; in use: {line}" for each in gpus for line in _users(each))
    remedy = "Run on a host with them, free them in CUDA_VISIBLE_DEVICES, or lower expected_gpus in campaign.toml"
    return answer("gpus", not missing, evidence, remedy)


def _users(one: gpu.Gpu) -> list[str]:
    """Who else computes on a GPU: it is no reason to stop, but one to ask."""
    return [f"{gpu.device_name(one.gpu_id)} by {each}" for each in gpu.processes(one.uuid)]


def _versions() -> list[Check]:
    found, wanted = plan.versions(), {"lerobot": LEROBOT, "mujoco": MUJOCO}
    remedy = "Run `make setup`: another MuJoCo changes the benchmark, another lerobot its command line"
    return [
        answer(f"version:{name}", found[name].split("+")[0] == version, f"{found[name]}, pinned {version}", remedy)
        for name, version in wanted.items()
    ]


def _libero() -> list[Check]:
    """LIBERO's files, which set-up put in place and checked by hash: without them it asks on stdin, or downloads."""
    config = Path(environment.libero_config_path()) / "config.yaml"
    package = find_spec("libero")
    folders = (
        [Path(place) / "libero" / "assets" for place in (package.submodule_search_locations or ())] if package else []
    )
    evidence = ", ".join(map(str, folders)) or "LIBERO is not installed"
    return [
        answer("libero_config", config.is_file(), str(config), "Run `make setup`"),
        answer("libero_assets", any(folder.is_dir() for folder in folders), evidence, "Run `make setup`"),
    ]
