"""A forger: edits a finished campaign and makes every hash, table, page and handoff anew with Track A's own code.

What a forgery changes is in `tests/bundles/forgeries.py`; here is what makes the rest agree with it.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracka.campaign import campaign
from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import PHASES, Layout, RunFolder
from tracka.core import files
from tracka.core.files import Json
from tracka.engines import lerobot_eval
from tracka.gates import handoff_contents
from tracka.reporting import collect, report, verdict_file
from tracka.runs import identity, judgement, preregistration


class Forger:
    """Edits the campaign in `root`; `seal` makes all that follows from the edited files."""

    def __init__(self, root: Path) -> None:
        self.root, self.layout = root, Layout(root.resolve())
        self.unhashed: set[str] = set()  # rows whose row hash stays as it is

    @property
    def campaign(self) -> Campaign:
        """The campaign as its files have it now."""
        return campaign.load(self.root)

    def top(self, run_id: str) -> RunFolder:
        """Returns the run folder of a row."""
        return self.layout.run(run_id)

    def attempt(self, run_id: str) -> RunFolder:
        """Returns the folder of a row's last attempt."""
        return self.top(run_id).attempt(max(self.top(run_id).numbers()))

    def json(self, path: Path, change: Callable[[Json], object]) -> None:
        """Lets `change` edit the object in a JSON file."""
        value = json.loads(path.read_text())
        change(value)
        path.write_bytes(files.pretty(value))

    def lines(self, path: Path, change: Callable[[Json], object]) -> None:
        """Lets `change` edit the object in each line of a file."""
        values = [json.loads(line) for line in path.read_text().splitlines()]
        for value in values:
            change(value)
        path.write_text("".join(json.dumps(value) + "\n" for value in values))

    def text(self, path: Path, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
        """Replaces what matches `pattern` in a text file, which must match."""
        before = path.read_text()
        after = re.sub(pattern, replacement, before, flags=re.MULTILINE)
        assert after != before, f"nothing in {path} matches {pattern}"
        path.write_text(after)

    def manifest(self, run_id: str, **values: Any) -> None:
        """Sets keys of a row's manifest."""
        self.json(self.attempt(run_id).manifest, lambda value: value.update(values))

    def result(self, run_id: str, **values: Any) -> None:
        """Sets keys of a row's result that `seal` does not make."""
        self.json(self.attempt(run_id).result, lambda value: value.update(values))

    def marker(self, run_id: str, change: Callable[[Json], object]) -> None:
        """Lets `change` edit a row's marker."""
        self.json(self.layout.marker(run_id), change)

    def seal(self) -> None:
        """Makes every hash, copy, table, page and handoff anew, so that all agree with what was edited."""
        for row in self.campaign.enabled:
            self._seal_row(row.run_id)
        spec = self.campaign
        if spec.verdict is not None:
            verdict_file.write(spec)
        collect.write_tables(spec, collect.baseline_tables(spec) | collect.tables(spec))
        self._write_pages(spec)
        for phase in PHASES:
            self._seal_handoff(spec, phase)

    def _write_pages(self, spec: Campaign) -> None:
        """Writes both pages anew, with the time and the folder that they had."""
        pages = {path: path.read_text() for path in (self.layout.runbook, self.layout.results)}
        (folder,) = re.findall(r" at \S+ from `(.*)/artifacts`", pages[self.layout.results])
        report.write(spec)
        for path, before in pages.items():
            moments = [re.search(r"Made by Track A at (\S+)", text) for text in (path.read_text(), before)]
            now, then = (moment[1] if moment else "" for moment in moments)
            path.write_text(path.read_text().replace(now, then).replace(self.layout.display_name, folder))

    def _seal_row(self, run_id: str) -> None:
        top, folder = self.top(run_id), self.attempt(run_id)
        manifest = json.loads(folder.manifest.read_text())
        parts = identity.read(folder)
        if parts is not None and run_id not in self.unhashed:
            manifest["row_hash"] = identity.row_hash(parts)
        metrics = lerobot_eval.read_metrics(folder.output, (folder.stdout, folder.stderr))
        records = lerobot_eval.episode_records(
            metrics, manifest["batch_size"], manifest["n_episodes"], manifest["seed"]
        )
        folder.episodes.write_text("".join(json.dumps(record) + "\n" for record in records))
        result = json.loads(folder.result.read_text())
        if result["status"] == "pass":
            result |= lerobot_eval.reported_results(metrics)
        videos = [self.layout.relative(video) for video in folder.videos()]
        result |= {"row_hash": manifest["row_hash"], "run_id": manifest["run_id"], "attempt": manifest["attempt"]}
        result |= {"video_paths": videos, "files": judgement.file_hashes(folder)}
        manifest["outcome"] = {"status": result["status"], "reason": result["reason"]}
        files.write_json(folder.manifest, manifest)
        files.write_json(folder.result, result)
        for source, target in (
            (folder.manifest, top.manifest),
            (folder.stdout, top.stdout),
            (folder.stderr, top.stderr),
            (folder.episodes, top.episodes),
            (folder.result, top.result),
        ):
            target.unlink(missing_ok=True)
            os.link(source, target)
        sha256 = files.sha256_file(top.result)
        self.marker(run_id, lambda marker: marker.update(result_sha256=sha256))

    def _seal_handoff(self, spec: Campaign, phase: str) -> None:
        def seal(value: Json) -> None:
            value["inputs"] = handoff_contents.inputs(spec, phase)
            value["outputs"] = handoff_contents.outputs(spec, phase)
            value["details"] = handoff_contents.details(spec, phase)

        self.json(self.layout.handoff(phase), seal)

    def register(self, at_utc: str) -> None:
        """Registers today's thresholds as if that had been done at `at_utc`."""
        path = self.layout.preregistration
        path.unlink(missing_ok=True)
        preregistration.ensure(self.campaign)

        def earlier(value: Json) -> None:
            value.update(registered_at_utc=at_utc, late=False)
            value["sha256"] = files.own_sha256(value)

        self.json(path, earlier)
