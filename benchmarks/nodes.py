"""Makes a campaign whose rows have run on many nodes: python -m benchmarks.nodes FOLDER ROWS.

A node has played one checkpoint in one LIBERO task with 100 seeds, 10 episodes a row. The first row of a node gets its
files from the harness's own writers (`benchmarks.large`). The other rows get theirs as text of the first row's, with
their own names, seeds and hashes, and a video of their own. They share what is the same: logs and eval_info.json are
hard links to those of the node's first row, since a file system may allow a file only 65,000 names. So 100,000 rows
take minutes to make, and every one of them passes the contracts.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import campaigns
from campaigns import Made

from benchmarks import large
from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import RunFolder
from tracka.campaign.matrix import Row
from tracka.core import fact_cache, files
from tracka.core.files import Json
from tracka.engines import video
from tracka.engines.video import Video
from tracka.gates import handoff, validate
from tracka.preflight import preflight
from tracka.runs import identity, run
from tracka.runs.plan import Host

ROWS_OF_NODE, EPISODES, SEEDS = 100, 10, 50  # SEEDS lie between two rows, so that no two rows play the same episode
THRESHOLD = 0.05  # each policy and each task reaches it surely: every claim is tested, and the campaign is accepted
CLAIMS = f"\n[verdict]\nthreshold = {THRESHOLD}\ntask_threshold = {THRESHOLD}\n"


def make_run(root: Path, rows: int) -> Made:
    """Makes the campaign in `root` after its sweep, with phases 1 to 3 handed over: `rows` rows and a baseline."""
    nodes = [_Node(number) for number in range(-(-rows // ROWS_OF_NODE))]
    made = _make(root, nodes, rows)
    os.environ.update(made.environ)
    preflight.host.artifacts_mib = lambda spec: 0  # the videos here are tiny, so they need no room
    made.pass_preflight()
    made.run_row(large.BASELINE)
    spec = made.spec
    handoff.hand_over(spec, "phase3")
    host = run.load_host(spec.layout)
    os.fsync = lambda handle: None  # these files need not survive a crash of the machine
    with fact_cache.scope():
        for node in nodes:
            _play(spec, [spec.row(name) for name in node.planned(rows)], host)
    _close(spec)
    (root / "environment.json").write_text(json.dumps(dict(made.environ)))
    return made


def _close(spec: Campaign) -> None:
    """Hands phases 4 and 5 over without opening what the rows left: `benchmarks.scale` measures the complete way."""
    validate.phase_findings = partial(validate.phase_findings, quick=True)
    video.decode = lambda path: Video(frames=1)
    for phase in ("phase4", "phase5"):
        handoff.hand_over(spec, phase)


@dataclass(frozen=True)
class _Node:
    number: int

    @property
    def policy(self) -> str:
        return f"checkpoints/policy_{self.number // 10:03}"

    @property
    def task(self) -> int:
        return self.number % 10

    @property
    def names(self) -> list[str]:
        return [f"p{self.number // 10:03}_t{self.task}_s{SEEDS * place:05}" for place in range(ROWS_OF_NODE)]

    def planned(self, rows: int) -> list[str]:
        """Returns the names of its rows in a campaign of so many: the last node may have fewer than the others."""
        return self.names[: rows - ROWS_OF_NODE * self.number]


def _make(root: Path, nodes: list[_Node], rows: int) -> Made:
    lines, tables = [f"{large.BASELINE},libero_object,1,2,cpu,7,egl,checkpoints/fake,1"], []
    for node in nodes:
        for place, name in enumerate(node.planned(rows)):
            lines.append(f"{name},libero_object,10,{EPISODES},cpu,{SEEDS * place},egl,{node.policy},1")
            tables.append(f"[rows.{name}]\ntask_ids = [{node.task}]\n")
    made = campaigns.make(root, lines, "\n".join([large.SETTINGS, *tables, CLAIMS]))
    for number, policy in enumerate(dict.fromkeys(node.policy for node in nodes), 1):
        campaigns.fake_checkpoint(root / policy)
        weights = (2 + number).to_bytes(8, "little") + b"{}" + b" " * number  # an own hash, and no tensor
        (root / policy / "model.safetensors").write_bytes(weights)
    return made


def _play(spec: Campaign, rows: list[Row], host: Host) -> None:
    """Writes the files of a node's rows."""
    first, *others = rows
    large.leave(spec, first, host, passed=True)
    pattern = _Pattern.of(spec, first)
    for row in others:
        pattern.write(spec, row)


@dataclass(frozen=True)
class _Pattern:
    """The first row of a node, as text, and the hashes of the parts of its identity."""

    row: Row
    folder: RunFolder  # of its attempt
    manifest: str
    result: str
    identity: str
    marker: str
    episodes: list[Json]
    hashes: dict[str, str]  # of the identity's parts
    parts: Json
    row_hash: str
    files: dict[str, str]
    video: bytes

    @classmethod
    def of(cls, spec: Campaign, row: Row) -> "_Pattern":
        folder = spec.layout.run(row.run_id).attempt(1)
        parts = identity.read(folder)
        assert parts is not None
        result = files.read_json(folder.result)
        return cls(
            row,
            folder,
            folder.manifest.read_text(),
            folder.result.read_text(),
            (folder.path / identity.NAME).read_text(),
            spec.layout.marker(row.run_id).read_text(),
            files.read_lines(folder.episodes),
            {name: files.sha256(files.canonical(part)) for name, part in parts.items()},
            {**parts},
            result["row_hash"],
            result["files"],
            next(iter(folder.videos())).read_bytes(),
        )

    def write(self, spec: Campaign, row: Row) -> None:
        """Writes the run folder and the marker of another row of the node, which differs by name and seed alone."""
        top = spec.layout.run(row.run_id)
        attempt = top.attempt(1)
        video = next(iter(self.folder.videos())).relative_to(self.folder.path)
        (attempt.path / video).parent.mkdir(parents=True)
        for name in ("stdout.log", "stderr.log", "eval/eval_info.json"):
            os.link(self.folder.path / name, attempt.path / name)
        film = large.own_video(self.video, row.run_id)
        (attempt.path / video).write_bytes(film)
        episodes = "".join(self._episodes(row))
        own_identity = self.identity.replace(f'"seed": {self.row.seed}', f'"seed": {row.seed}')
        part = files.sha256(files.canonical(self.parts["row"] | {"seed": row.seed}))
        row_hash = files.sha256(files.canonical(self.hashes | {"row": part}))
        changed = {
            self.row.run_id: row.run_id,
            self.row_hash: row_hash,
            f'"seed": {self.row.seed},': f'"seed": {row.seed},',
            f'"--seed={self.row.seed}"': f'"--seed={row.seed}"',
            self.files[str(video)]: files.sha256(film),
            self.files["episodes.jsonl"]: files.sha256(episodes.encode()),
            self.files[identity.NAME]: files.sha256(own_identity.encode()),
        }
        result = _replaced(self.result, changed)
        attempt.episodes.write_text(episodes)
        (attempt.path / identity.NAME).write_text(own_identity)
        attempt.manifest.write_text(_replaced(self.manifest, changed))
        attempt.result.write_text(result)
        for name in ("stdout.log", "stderr.log", "episodes.jsonl", "run_manifest.json", "result.json"):
            os.link(attempt.path / name, top.path / name)
        sha256 = {files.sha256(self.result.encode()): files.sha256(result.encode())}
        spec.layout.marker(row.run_id).write_text(_replaced(self.marker, changed | sha256))

    def _episodes(self, row: Row) -> Iterator[str]:
        more = row.seed - self.row.seed
        return (json.dumps(line | {"seed": line["seed"] + more}) + "\n" for line in self.episodes)


def _replaced(text: str, changed: dict[str, str]) -> str:
    for before, after in changed.items():
        text = text.replace(before, after)
    return text


if __name__ == "__main__":
    make_run(Path(sys.argv[1]), int(sys.argv[2]))
