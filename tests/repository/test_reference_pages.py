"""The pages of reference are those that today's code gives, and what they show of campaign.toml is true."""

import json
import re
import tomllib
from dataclasses import MISSING, fields

import pytest
from campaigns import REPOSITORY

from documentation import reference, settings
from tracka import session_summary
from tracka.campaign.campaign import Campaign
from tracka.campaign.metrics_settings import MetricsSettings
from tracka.campaign.slurm_settings import SlurmSettings
from tracka.campaign.verdict_settings import VerdictSettings
from tracka.core import schema
from tracka.engines.resident.settings import ResidentSettings

TABLES = {part.title: part for part in settings.tables(schema.load("campaign"))}
ATTRIBUTES = {("[report]", "videos"): "film"}  # keys whose attribute has another name
OWNERS = {  # the class that has the defaults of a table
    "": Campaign,
    "[resident]": ResidentSettings,
    "[slurm]": SlurmSettings,
    "[timeouts]": Campaign,
    "[thresholds]": Campaign,
    "[verdict]": VerdictSettings,
    "[limits]": Campaign,
    "[preflight]": Campaign,
    "[report]": Campaign,
    "[metrics]": MetricsSettings,
}


def test_every_option_of_every_command_has_a_sentence() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text()
    rows = re.findall(r"^\| (`.+?`) \| (.*?) \|", page, re.MULTILINE)
    assert len(rows) > 150
    assert [name for name, text in rows if not text] == []


def test_the_page_of_commands_leaves_values_as_they_are_typed_and_marks_what_may_be_left_out() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text()
    assert "tracka why RUN [OTHER] [OPTIONS]" in page and "tracka init [NAME] [OPTIONS]" in page
    assert re.findall(r"\b(?:Phase1|Egl|Svg|Repo|Hub:|Rerun:|Text,)", page) == []
    assert "| `--artifacts-dir` | Folder for the log and the snapshots. | must be given in a checkout;" in page


TERMINAL_WORDS = ("handoff", "contract", "strict validation", "lint", "caveat", "row hash", "probe", "closure",
                  "init state", "known answer")  # fmt: skip


@pytest.mark.parametrize("word", TERMINAL_WORDS)
def test_a_word_that_a_session_shows_is_in_the_glossary_that_its_end_names(word: str) -> None:
    assert f"\n| {word} | " in (REPOSITORY / "docs" / "glossary.md").read_text()
    assert session_summary.WORDS.endswith("All words: docs/glossary.md")


def test_the_readme_counts_the_parts_of_the_index() -> None:
    parts = re.findall("^## (.*)", (REPOSITORY / "docs" / "index.md").read_text(), re.MULTILINE)
    listed = ", ".join(part.lower() for part in parts)
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert len(parts) == 6 and f"in six parts: {listed}." in readme


def test_the_page_of_failed_preflights_has_every_check_of_a_real_report() -> None:
    docs = REPOSITORY / "docs"
    report = json.loads((docs / "preflight-h100.json").read_text())
    names = {check["name"] for check in report["checks"]}
    rows = re.findall(r"^\| (`.*?) \|", (docs / "failed-preflight.md").read_text(), re.MULTILINE)
    kinds = {re.sub(r":[A-Z]+$", "", name) for row in rows for name in re.findall(r"`(.+?)`", row)}
    lost = {name for name in names if not any(name == kind or name.startswith(f"{kind}:") for kind in kinds)}
    assert lost == set()
    assert {"weights", "model", "statistics", "imports", "device", "base_model"} <= kinds


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_of_reference_is_todays(name: str) -> None:
    page = (REPOSITORY / "docs" / name).read_text()
    assert page == reference.PAGES[name](), "run `make docs` and commit the page"


def test_every_key_of_campaign_toml_has_a_sentence_and_an_example() -> None:
    keys = {(title, key): each for title, part in TABLES.items() for key, each in part.keys.items()}
    assert len(keys) > 60
    assert {name for name, each in keys.items() if not each.get("description") or not each.get("examples")} == set()


def test_the_examples_are_a_file_that_follows_the_schema() -> None:
    text = "\n".join(part.example for part in TABLES.values())
    table = tomllib.loads(text)
    assert schema.findings("campaign", table, "the page") == []
    assert set(table) == set(schema.load("campaign")["properties"])


def test_the_defaults_on_the_page_are_those_of_the_code() -> None:
    shown, held = {}, {}
    for title, part in TABLES.items():
        for key, each in part.keys.items():
            if "default" in each:
                owner = OWNERS[title]
                (field,) = [item for item in fields(owner) if item.name == ATTRIBUTES.get((title, key), key)]
                assert field.default is not MISSING
                shown[title, key], held[title, key] = each["default"], field.default
    assert len(shown) > 20
    assert shown == held
