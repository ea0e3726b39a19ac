"""JUnit for GitLab and Jenkins: a row that fails has its properties and the files to attach, and a terminal has not."""

from pathlib import Path

import campaigns
import pytest
from campaigns import Made, judged
from junitparser.xunit2 import JUnitXml, TestCase

from tracka.exports import attachments


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after all five gates, one of whose rows stayed below its threshold."""
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def cases(closed: Made) -> dict[str, TestCase]:
    report = JUnitXml.fromfile(str(closed.root.parent / "junit.xml"))
    return {case.name: case for suite in report for case in suite}


def attached(text: str) -> list[Path]:
    lines = text.splitlines()
    return [Path(line.removeprefix("[[ATTACHMENT|").removesuffix("]]")) for line in lines if line.startswith("[[")]


def test_a_row_that_fails_names_its_logs_and_records_by_absolute_paths(
    closed: Made, cases: dict[str, TestCase]
) -> None:
    case = cases["test_row[wide_b4_e4]"]
    assert case.is_failure
    folder = closed.layout.run("wide_b4_e4")
    assert attached(case.system_out) == [folder.stderr, folder.stdout, folder.result, folder.manifest]


def test_other_tests_name_none(cases: dict[str, TestCase]) -> None:
    assert [name for name, case in cases.items() if attached(case.system_out or "")] == ["test_row[wide_b4_e4]"]


def test_a_rows_properties_are_read_by_a_reader_of_junit(cases: dict[str, TestCase]) -> None:
    found = {each.name: each.value for each in cases["test_row[wide_b4_e4]"].properties()}
    assert (found["run_id"], found["device"], found["success_rate"]) == ("wide_b4_e4", "cpu", "0.5")
    assert (found["status"], found["episodes"], found["successes"]) == ("pass", "4", "2")


def test_the_terminal_does_not_show_them(closed: Made) -> None:
    assert "ATTACHMENT" not in judged(closed).stdout


def test_in_gitlab_paths_are_relative_to_the_checkout_and_elsewhere_absolute(closed: Made, tmp_path: Path) -> None:
    inside = attachments.text(closed.spec, "wide_b4_e4", {"CI_PROJECT_DIR": str(closed.root.parent)})
    outside = attachments.text(closed.spec, "wide_b4_e4", {"CI_PROJECT_DIR": str(tmp_path)})
    names = [str(path.relative_to(closed.root.parent)) for path in attached(outside)]
    assert attached(inside) == [Path(name) for name in names]


def test_the_video_of_an_episode_that_failed_comes_first(closed: Made) -> None:
    first = attached(attachments.text(closed.spec, "long_b1_e6", {}))[0]
    assert first.name == "eval_episode_0.mp4" and first.is_file()


def test_a_row_that_has_not_run_names_nothing(closed: Made) -> None:
    assert attachments.text(closed.spec, "off_b1_e1", {}) == ""
