"""The command `tracka doctor`, which says what is missing on this machine before there is a campaign."""

from pathlib import Path
from typing import Annotated

import typer

from .core import escaping, files
from .core.errors import ToolMissing
from .core.reports import DoctorReport


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("doctor")(doctor_command)


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON (schema doctor).")] = False,
) -> None:
    """Say what is missing on this machine, in seconds and without a campaign. Exits with 3 if something is."""
    from .preflight import doctor

    report = files.redacted(doctor.report(Path.cwd()))
    typer.echo(files.pretty(report).decode() if as_json else "\n".join(lines(report)), nl=not as_json)
    raise typer.Exit(ToolMissing.exit_code if report["status"] == "missing" else 0)


def lines(report: DoctorReport) -> list[str]:
    """Returns a line for each check, below it the remedy where it is not ok, and at the end what comes next."""
    width = max(len(check["name"]) for check in report["checks"])
    found = []
    for check in report["checks"]:
        found.append(escaping.plain(f"{check['status']:7}  {check['name']:{width}}  {check['evidence']}"))
        if check["remedy"]:
            found.append(escaping.plain(f"{'':7}  {'':{width}}  {check['remedy']}"))
    counts = {word: sum(check["status"] == word for check in report["checks"]) for word in ("missing", "warning")}
    warnings = f"{counts['warning']} warning{'s' * (counts['warning'] != 1)}"
    told = f"{counts['missing']} missing, {warnings}, in {report['seconds']:.0f} s"
    if counts["missing"]:
        return [*found, f"{told}. Mend what is missing, then run `tracka doctor` again"]
    return [*found, f"{told}. Next: tracka init NAME --policy-path FOLDER"]
