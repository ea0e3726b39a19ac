"""docs/reasons.md: every reason for which a row is not accepted, and what to do about it, from the code's tables."""

from documentation.commands import code_words
from documentation.markdown import MADE, contracts, sentence, table
from tracka.engines import failure
from tracka.report_page import matrix_rows
from tracka.runs import known_answers

# The row did not run, was ended on purpose, or is refused though its run passed: there is nothing to try again.
WITHOUT_RETRY = {"checkpoint", "interrupted", "not_run", "budget", "below_threshold", known_answers.REASON}
INTRODUCTION = """
A row that is not accepted has a reason, one word. `artifacts/summary/failures.csv`, `report.html` and the terminal show
it; the message beside it names the file or the line of the log. Find the word here, do what the last column says, then
run the same command with `--lf`: only what has failed runs again.

```bash
pytest acceptance --lf
```

"Tried again" says what the same session does by itself: nothing, or one more attempt, unchanged or with half the batch.
A row that could not start is not tried again, whatever its reason.
"""


def page() -> str:
    """Returns the page."""
    lines = [
        (
            line["reason"],
            sentence(line["means"]),
            _again(reason),
            sentence(matrix_rows.REMEDIES.get(reason, matrix_rows.CHANGE)),
        )
        for line in contracts("Reasons")
        for reason in [code_words(line["reason"])]
    ]
    made = MADE.format(source="the code's tables of reasons and remedies, and [contracts.md](contracts.md#reasons)")
    header = ("reason", "it means", "tried again", "what to do")
    return f"# Reasons of failure\n\n{made}{INTRODUCTION}\n{table(header, lines)}"


def _again(reason: str) -> str:
    batch = None if reason in WITHOUT_RETRY else failure.next_batch(reason, 4)
    return {None: "no", 4: "once", 2: "once, with half the batch"}[batch]
