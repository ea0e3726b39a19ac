"""Defines where a campaign's files lie.

Every path of an artifact is made here. Every path in an artifact is relative to the campaign's folder, so that a
campaign can be moved or read on another machine. The TODO pages alone may lie outside of the campaign's folder.
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..core import reading, tree

PHASES = ("phase1", "phase2", "phase3", "phase4", "phase5")
OUTPUT_BYTES = 8 * reading.GIB  # all files of one attempt, whose hashing must end in seconds
TIERS = "tiers"  # below a campaign's artifacts: one folder of artifacts a tier


def _absolute(folder: Path) -> Path:
    """Returns `folder` as an absolute path without following links: artifacts may be a link to a larger disk."""
    return Path(os.path.abspath(folder))  # noqa: PTH100  resolve() follows links


def phase_before(phase: str) -> str | None:
    """Returns the phase whose handoff `phase` depends on, or None for the first phase."""
    return None if phase == PHASES[0] else PHASES[PHASES.index(phase) - 1]


def _is_of_tier(artifacts: Path) -> bool:
    """Returns whether `artifacts` is the folder of a tier. A campaign may be called `tiers`, too."""
    holder = artifacts.parent
    return holder.name == TIERS and _is_campaign(holder.parent.parent) and not _is_campaign(holder)


def _is_campaign(root: Path) -> bool:
    return Layout(root).settings.is_file()


@dataclass(frozen=True)
class Layout:
    """The files of the campaign in `root`.

    A command line may give the artifacts folder and the runs folder other names. `todo_name` is the folder of the TODO
    pages as campaign.toml names it: relative to `root`, or absolute. A `tier` has artifacts, runbook and results of its
    own, and no plan and TODO pages. `left_out` is there where a campaign was read out of a bundle: it has the names, as
    artifacts write them, of files that the bundle does not have, such as videos.
    """

    root: Path
    artifacts_name: str = "artifacts"
    runs_name: str = "runs"
    todo_name: str = "todo"
    tier: str | None = None
    left_out: frozenset[str] | None = None

    @classmethod
    def beside(cls, folder: Path) -> "Layout":
        """Returns the layout whose artifacts folder holds `folder`: `<root>/artifacts/preflight` leads to `<root>`."""
        return replace(cls.of_artifacts(_absolute(folder).parent), artifacts_name="artifacts")

    @classmethod
    def of_runs(cls, runs: Path) -> "Layout":
        """Returns the layout whose runs folder is `runs`, whatever its name is; state and markers lie beside `runs`."""
        runs = _absolute(runs)
        return replace(cls.of_artifacts(runs.parent), runs_name=runs.name)

    @classmethod
    def of_artifacts(cls, artifacts: Path) -> "Layout":
        """Returns the layout whose artifacts are in `artifacts`, a campaign's own folder or that of one of its tiers.

        The folder of a tier is `<root>/artifacts/tiers/NAME`.
        """
        artifacts = _absolute(artifacts)
        own = artifacts.parent.parent if _is_of_tier(artifacts) else artifacts
        return cls(own.parent.resolve(), own.name, tier=None if own == artifacts else artifacts.name)

    @property
    def display_name(self) -> str:
        """Returns the campaign's folder as pages and commands name it: `tasks/NAME` in a repository, else the path."""
        top = self.root.parent.parent
        is_repository = any((top / name).exists() for name in (".git", "pytest.ini"))
        return f"tasks/{self.root.name}" if is_repository and self.root.parent.name == "tasks" else str(self.root)

    @property
    def project(self) -> Path:
        """Returns the repository around the campaign: the nearest folder above with `.git` or `pytest.ini`.

        Without a repository, the project is the folder that holds `tasks/`, or the folder that holds the campaign.
        """
        marked = (top for top in self.root.parents if any((top / name).exists() for name in (".git", "pytest.ini")))
        return next(marked, self.root.parent.parent if self.root.parent.name == "tasks" else self.root.parent)

    @property
    def matrix(self) -> Path:
        return self.root / "configs" / "eval_matrix.csv"

    @property
    def settings(self) -> Path:
        return self.root / "configs" / "campaign.toml"

    @property
    def has_settings(self) -> bool:
        """Returns whether anything stands in the place of the settings; what is no file is refused where it is read."""
        return os.path.lexists(self.settings)

    @property
    def run_schema(self) -> Path:
        return self.root / "configs" / "run_schema.json"

    @property
    def own_artifacts(self) -> Path:
        """Returns the campaign's own artifacts folder, which holds those of its tiers."""
        return self.root / self.artifacts_name

    @property
    def tiers(self) -> Path:
        """Returns the folder that holds the artifacts of each tier."""
        return self.own_artifacts / TIERS

    @cached_property  # cached, as `rows` and `runs` are, because every row asks for it
    def artifacts(self) -> Path:
        return self.tiers / self.tier if self.tier else self.own_artifacts

    @property
    def naming_folder(self) -> Path:
        """Returns the folder that names the campaign; a tier is named by the folder of its artifacts."""
        return self.artifacts if self.tier else self.root

    @property
    def state(self) -> Path:
        return self.artifacts / "state"

    @property
    def preflight(self) -> Path:
        return self.artifacts / "preflight"

    @property
    def preflight_report(self) -> Path:
        return self.preflight / "preflight.json"

    @property
    def capabilities(self) -> Path:
        return self.state / "cli_capabilities.json"

    @property
    def preregistration(self) -> Path:
        return self.state / "preregistration.json"

    @property
    def verdict(self) -> Path:
        return self.summary / "verdict.json"

    @cached_property
    def rows(self) -> Path:
        return self.state / "rows"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    @cached_property
    def runs(self) -> Path:
        return self.artifacts / self.runs_name

    @property
    def early_stop(self) -> Path:
        return self.state / "early_stop.json"

    @property
    def parity(self) -> Path:
        return self.artifacts / "parity"

    @property
    def summary(self) -> Path:
        return self.artifacts / "summary"

    @property
    def runbook(self) -> Path:
        return self._page("runbook.md")

    @property
    def results(self) -> Path:
        return self._page("results.md")

    def _page(self, name: str) -> Path:
        """Returns a page of the campaign, such as `results.md`, or that of the tier: `results-NAME.md`."""
        page = self.root / name
        return page.with_stem(f"{page.stem}-{self.tier}") if self.tier else page

    @property
    def report_page(self) -> Path:
        return self._page("report.html")

    @property
    def report_files(self) -> Path:
        """Returns the folder of the posters and traces that report.html shows."""
        return self.artifacts / "report"

    @property
    def replays(self) -> Path:
        """Returns the folder of what was played again, which is no evidence."""
        own = self.root / "replays"
        return own / TIERS / self.tier if self.tier else own

    @property
    def replayed_episodes(self) -> Path:
        """Returns the folder of the episodes that were played again one by one; no run can have its name."""
        return self.replays / "_episodes"

    @property
    def plan(self) -> Path:
        return self.root / "plan.md"

    @property
    def todo_folder(self) -> Path:
        return _absolute(self.root / self.todo_name)

    @property
    def todo(self) -> Path:
        return self.todo_folder / f"{self.root.name}.md"

    @property
    def todo_list(self) -> Path:
        return self.todo_folder / "TODO.md"

    @property
    def progress_pages(self) -> tuple[Path, ...]:
        """Returns plan.md, the campaign's TODO page and TODO.md; none for a tier, which is no campaign's acceptance."""
        return () if self.tier else (self.plan, self.todo, self.todo_list)

    @property
    def todo_lock(self) -> Path:
        """Returns the lock file beside TODO.md, which several campaigns may share."""
        return self.todo_folder / ".TODO.md.lock"

    def handoff(self, phase: str) -> Path:
        """Returns the handoff file of `phase`."""
        return self.state / f"{phase}_handoff.json"

    def marker(self, run_id: str) -> Path:
        """Returns the marker (row state file) of a row."""
        return self.rows / f"{run_id}.json"

    def run(self, run_id: str) -> "RunFolder":
        """Returns the run folder of a row."""
        return RunFolder(self.runs / run_id)

    def relative(self, path: Path) -> str:
        """Returns `path` as artifacts write it: relative to the campaign.

        A path outside the campaign stays absolute, except that of a TODO page, such as `../../todo/TODO.md`.
        """
        if path.is_relative_to(self.root):
            return str(path.relative_to(self.root))
        return os.path.relpath(path, self.root) if path.parent == self.todo_folder else str(path)

    def is_left_out(self, path: Path) -> bool:
        """Returns whether the bundle that the campaign was read from does not have the file `path`.

        A bundle has nothing that lies outside of the project.
        """
        name = self.relative(path)
        return self.left_out is not None and (name in self.left_out or name.startswith(("/", "../")))

    def has_left_out_below(self, folder: Path) -> bool:
        """Returns whether the bundle that the campaign was read from has left out files below `folder`."""
        return any(name.startswith(f"{self.relative(folder)}/") for name in self.left_out or ())

    def with_relative_paths(self, text: str) -> str:
        """Returns a message with the campaign's paths as artifacts write them."""
        inside = text.replace(f"{self.root}/", "")
        return inside.replace(f"{self.todo_folder}/", f"{os.path.relpath(self.todo_folder, self.root)}/")


@dataclass(frozen=True)
class RunFolder:
    """The plan's files of one run. Each attempt has files of the same names in its own folder below."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "run_manifest.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def stdout(self) -> Path:
        return self.path / "stdout.log"

    @property
    def stderr(self) -> Path:
        return self.path / "stderr.log"

    @property
    def episodes(self) -> Path:
        return self.path / "episodes.jsonl"

    @property
    def resumed(self) -> Path:
        """Returns the file of an attempt that says which episodes it keeps of earlier attempts."""
        return self.path / "resumed.json"

    @property
    def output(self) -> Path:
        """Returns the folder that the engine itself writes, with eval_info.json and videos."""
        return self.path / "eval"

    def videos(self) -> list[Path]:
        """Returns all videos that the engine wrote, sorted by path; none where its output is unsound (`faults`)."""
        return [path for path in self.output_files() if path.suffix == ".mp4"]

    def faults(self) -> list[tree.Fault]:
        """Returns what keeps an attempt's files from being hashed: pipes, links, giants, too many, too deep."""
        return tree.faults(self.path, reading.OUTPUT, OUTPUT_BYTES)

    def files(self) -> list[Path]:
        """Returns all files of an attempt, sorted by path; the logs alone where `faults` finds any fault."""
        sound = tree.sound_files(self.path, reading.OUTPUT, OUTPUT_BYTES)
        return sound or [path for path in (self.stderr, self.stdout) if path.is_file() and not path.is_symlink()]

    def output_files(self) -> list[Path]:
        """Returns the files that the engine wrote, sorted by path; none where its output is unsound."""
        return tree.sound_files(self.output, reading.OUTPUT, OUTPUT_BYTES)

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    def attempt(self, number: int) -> "RunFolder":
        """Returns the folder of the attempt `number`."""
        return RunFolder(self.attempts / str(number))

    def numbers(self) -> list[int]:
        """Returns the numbers of the attempts made so far, oldest first."""
        if not self.attempts.is_dir():
            return []
        return sorted(int(path.name) for path in self.attempts.iterdir() if path.name.isdigit())
