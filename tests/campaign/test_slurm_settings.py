"""The settings of a cluster: what is refused before anything is asked of Slurm."""

from collections.abc import Callable

import pytest
from campaigns import ROWS, SETTINGS, Made

from tracka.campaign import campaign
from tracka.core.errors import UsageError

HEAD = 'launcher = "slurm"\n'


def refused(make_campaign: Callable[..., Made], table: str) -> str:
    made = make_campaign(ROWS, f"{HEAD}{SETTINGS}\n[slurm]\n{table}\n")
    with pytest.raises(UsageError) as raised:
        campaign.load(made.root)
    return str(raised.value)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('partitions = "gpu"', "partitions"),
        ('partition = "gpu; rm -rf /"', "partition"),
        ('gres = "gpu:1 --export=ALL"', "gres"),
        ("cpus = 0", "cpus"),
        ('memory_mib = "4G"', "memory_mib"),
        ('extra = ["nodelist"]', "extra"),
        ("lost_secs = 1", "lost_secs"),
    ],
)
def test_a_table_that_breaks_its_schema_is_refused_by_its_key(
    make_campaign: Callable[..., Made], table: str, said: str
) -> None:
    assert said in refused(make_campaign, table)


@pytest.mark.parametrize("word", ["--export=ALL", "--job-name=x", "--partition=x", "-p", "-n4", "--mem=1G", "--pty"])
def test_an_argument_that_track_a_sets_itself_is_refused(make_campaign: Callable[..., Made], word: str) -> None:
    assert f"{word} is set by Track A" in refused(make_campaign, f'extra = ["{word}"]')


def test_a_job_that_would_end_before_its_rows_own_deadline_is_refused_for_each_row(
    make_campaign: Callable[..., Made],
) -> None:
    said = refused(make_campaign, "time_minutes = 2")
    assert said.count("before the row's own deadline (61 s)") == 3 and "Set it to 4 or more" in said


def test_without_a_limit_a_job_ends_after_its_rows_own_deadline(make_campaign: Callable[..., Made]) -> None:
    spec = make_campaign(ROWS, f'{HEAD}{SETTINGS}\n[slurm]\nextra = ["--nodelist=n1", "--reservation=r"]\n').spec
    assert spec.is_on_slurm and spec.slurm.minutes(60, 1) == 4
    assert (spec.slurm.cores(4), spec.slurm.gres) == (5, "gpu:1")


def test_a_command_line_goes_before_the_file(make_campaign: Callable[..., Made]) -> None:
    spec = make_campaign(ROWS, f"{HEAD}{SETTINGS}").spec
    assert not spec.launched_by("local").is_on_slurm and spec.launched_by(None).is_on_slurm
