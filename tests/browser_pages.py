"""The campaigns whose pages the tests in browser/ open, and a page in the browser with what it complained of."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import campaigns
import pytest
from axe_playwright_python.sync_playwright import Axe
from campaigns import SETTINGS, Made
from playwright.sync_api import ConsoleMessage, Page, Request

from tracka.execution import gpu, lease

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "two_tasks_b1_e6,libero_object,1,6,cpu,7,egl,checkpoints/fake,1",
    "one_task_b2_e4,libero_object,2,4,cpu,11,egl,checkpoints/fake,1",
    "broken_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
)
TABLES = "[rows.two_tasks_b1_e6]\ntask_ids = [1, 2]\n\n[rows.one_task_b2_e4]\ntask_ids = [3]\n"
HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>"
OLD = "filmed:1=0,1,2,3,4 2=0,1,2,3,4,5"
NEW = "filmed:1=0,1,2 2=0,1,2,3,4,5"  # loses episodes 3 and 4 of task 1
SUITES = ("libero_object", "libero_spatial", "libero_goal", "libero_10")
EPISODES = 50  # of each of forty tasks


@dataclass
class Opened:
    """A page in the browser, with what the browser complained of and asked for while the page was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def go(self, path: Path, fragment: str = "") -> Page:
        """Opens a file and returns its page."""
        self.page.goto(path.as_uri() + fragment)
        return self.page


def serious(page: Page) -> list[str]:
    """Returns the findings of axe-core that are serious or worse."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in violations
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]


def until(page: Page, condition: str, most: float = 30) -> None:
    """Waits until a JavaScript expression is true. Playwright's own waiting would need eval, which the pages forbid."""
    deadline = time.monotonic() + most
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def films(temporary: Path, name: str, word: str) -> Made:
    """Returns a campaign after its gates. Its episodes are filmed and recorded; a row that crashes has none.

    `word` tells the stand-in what the row of two tasks does.
    """
    return campaigns.finished(
        temporary,
        name,
        ROWS,
        f"{SETTINGS}\n[thresholds.rows]\none_task_b2_e4 = 0.75\n\n{TABLES}",
        baseline_b1_e2=["filmed:0=0"],
        two_tasks_b1_e6=[word],
        one_task_b2_e4=["filmed:3=0"],
        broken_b1_e1=[f"crash:{HOSTILE}"],
    )


def four_gpus(temporary: Path) -> Made:
    """Returns a campaign of ten tasks with five episodes each after its gates, on a host with four pretended GPUs.

    Task 5 stays below the threshold, and a row crashes. Two rows ask for GPU 2, so that one waits for the other.
    """
    wins = {task: "0,1,2,3,4" if task % 3 else "0,1,2,4" for task in range(10)} | {5: "0"}
    rows = [
        f"object_t{task}_b1_e5,libero_object,1,5,{2 if task in (5, 7) else 'auto'},7,egl,checkpoints/fake,1"
        for task in wins
    ]
    tables = "\n".join(f"[rows.object_t{task}_b1_e5]\ntask_ids = [{task}]\n" for task in wins)
    settings = SETTINGS.replace("expected_gpus = 0", "expected_gpus = 4")
    return campaigns.finished(
        temporary,
        "four_gpus",
        [ROWS[0].replace(",cpu,", ",0,"), *rows, "broken_b1_e4,libero_goal,1,4,3,7,egl,checkpoints/fake,1"],
        f"{settings}\n[thresholds]\nmin_success_rate = 0.5\n\n{tables}",
        ("-n4",),
        environ={gpu.PRETEND: "4", lease.LOCKS: str(temporary / "locks")},
        baseline_b1_e2=["filmed:0=0,1"],
        broken_b1_e4=["crash:CUDA error: an illegal memory access was encountered"],
        **{f"object_t{task}_b1_e5": [f"filmed:{task}={won}"] for task, won in wins.items()},
    )


def two_thousand(temporary: Path, prepared: Path) -> Made:
    """Returns a campaign of forty tasks with fifty episodes each, every second a success, beside its baseline."""
    rows, tables, words = _forty_rows()
    with campaigns.shared(temporary, "two_thousand") as folder:
        root = folder / "campaign"
        if root.exists():
            return Made(root, campaigns.environment(root))
        shutil.copytree(prepared, root)
        made = campaigns.make(root, [ROWS[0], *rows], f"{SETTINGS}\n{tables}")
        made.behave(**words)
        with pytest.MonkeyPatch.context() as environ:
            for variable, value in made.environ.items():
                environ.setenv(variable, value)
            for row in made.spec.enabled:
                made.run_row(row.run_id)
        return made


def _forty_rows() -> tuple[list[str], str, dict[str, Sequence[str]]]:
    """Returns the rows of forty tasks, the tables that give each its task, and the words for the stand-in."""
    tasks = {f"{suite}_{task}": (suite, task) for suite in SUITES for task in range(10)}
    wins = ",".join(map(str, range(0, EPISODES, 2)))
    return (
        [f"{name},{suite},1,{EPISODES},cpu,7,egl,checkpoints/fake,1" for name, (suite, _) in tasks.items()],
        "\n".join(f"[rows.{name}]\ntask_ids = [{task}]\n" for name, (_, task) in tasks.items()),
        {"baseline_b1_e2": ["filmed:0=0"]} | {name: [f"filmed:{task}={wins}"] for name, (_, task) in tasks.items()},
    )
