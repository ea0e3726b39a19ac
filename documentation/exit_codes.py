"""docs/exit-codes.md: what each exit code means, and what to do then."""

from documentation.commands import code_words
from documentation.markdown import MADE, code, contracts, table

WHAT_TO_DO = {
    "0": "Nothing.",
    "1": "Read the last lines on stderr, or the verdict: they name what failed. [Reasons](reasons.md) says what helps.",
    "2": "Correct what each line on stderr names, then run the same command again. Nothing has started.",
    "3": "Install the tool that is named: `make setup` installs everything that a campaign needs.",
    "4": "Read the log that the message names, mend what it says, then run the same command again.",
    "5": "Wait for the process that is named, or end it.",
}
GATES = """
## pytest acceptance

pytest has exit codes of its own, and Track A keeps to them.

| exit code | means |
| --- | --- |
| 0 | all selected tests passed; of a session with phase 5: the campaign is accepted, or complete without a threshold |
| 1 | a test failed, or the strict validation at the end found something |
| 2 | Ctrl-C, TERM or HUP ended the session; its rows are closed as `interrupted` |
| 4 | the command line or the campaign is wrong, or another session holds the campaign; nothing has started |
| 5 | no test was selected |

`tracka run` and `tracka sweep` exit with 130 after Ctrl-C, TERM or HUP.
"""


def page() -> str:
    """Returns the page."""
    codes = [(line["exit code"], line["means"], WHAT_TO_DO[line["exit code"]]) for line in contracts("Commands", 1)]
    commands = [(code(f"tracka {code_words(line['command'])}"), line["exit codes"]) for line in contracts("Commands")]
    made = MADE.format(source="[contracts.md](contracts.md#commands)")
    return (
        f"# Exit codes\n\n{made}\n{table(('exit code', 'means', 'what to do'), codes)}{GATES}\n"
        f"## Which command has which\n\n{table(('command', 'exit codes'), commands)}"
    )
