"""The matrix: read whole, or refused with everything that is wrong with it."""

import random
import string
import time
from pathlib import Path

import pytest

from tracka.campaign import matrix
from tracka.campaign.matrix import AUTO, CPU, Row
from tracka.core.errors import UsageError

HEADER = "run_id,task_suite,batch_size,n_episodes,gpu_id,seed,mujoco_gl,policy_path,enabled"
LINE = "a,libero_object,1,2,cpu,7,egl,org/policy,1"
CELLS = dict(zip(HEADER.split(","), LINE.split(","), strict=True))


def line(**cells: str) -> str:
    return ",".join((CELLS | cells).values())


def load(folder: Path, *lines: str, header: str = HEADER) -> tuple[Row, ...]:
    path = folder / "eval_matrix.csv"
    path.write_bytes("".join(f"{text}\n" for text in (header, *lines)).encode("utf-8", "surrogateescape"))
    return matrix.load(path)


def refusal(folder: Path, *lines: str, header: str = HEADER) -> list[str]:
    """What is wrong with a matrix, one text a finding, without the folder."""
    with pytest.raises(UsageError) as caught:
        load(folder, *lines, header=header)
    assert all(finding.remedy for finding in caught.value.findings)
    return [str(finding).removeprefix(f"{folder}/") for finding in caught.value.findings]


def test_the_columns_are_the_plans_nine() -> None:
    assert ",".join(matrix.COLUMNS) == HEADER


def test_every_cell_arrives_in_its_row(tmp_path: Path) -> None:
    (row,) = load(tmp_path, "b_1.x,libero_90,4,50,3,11,osmesa,org/policy@v1,0")
    assert row == Row("b_1.x", "libero_90", 4, 50, 3, 11, "osmesa", "org/policy@v1", False, line=2)


def test_rows_keep_the_order_of_the_file(tmp_path: Path) -> None:
    assert [row.run_id for row in load(tmp_path, line(run_id="z"), line(run_id="a"), line(run_id="m"))] == list("zam")


def test_blank_lines_and_windows_line_ends_are_no_fault(tmp_path: Path) -> None:
    first, second = load(tmp_path, line(run_id="a") + "\r", "", line(run_id="b") + "\r", header=HEADER + "\r")
    assert (first.line, second.line) == (2, 4)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (HEADER.replace(",seed", ""), "missing: ['seed']"),
        (HEADER + ",colour", "unknown: ['colour']"),
        (HEADER.replace("seed", "Seed"), "unknown: ['Seed']). Did you mean seed? Write the header as"),
        (HEADER.replace("run_id,task_suite", "task_suite,run_id"), f"Write the header as {HEADER}"),
        (HEADER + ",seed", f"Write the header as {HEADER}"),
        ("", "missing: ['run_id'"),
    ],
    ids=["missing", "unknown", "other case", "reordered", "twice", "none"],
)
def test_another_header_is_refused_with_the_right_one(tmp_path: Path, header: str, said: str) -> None:
    (text,) = refusal(tmp_path, line(), header=header)
    assert text.startswith("eval_matrix.csv, line 1: ")
    assert said in text


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("run_id", cell) for cell in ("", "../x", "/etc", "..", ".a", "-a", "a b", "a/b", "é", "a" * 101)),
        *(("task_suite", cell) for cell in ("", "moon", "LIBERO_object", "libero_object ")),
        *((name, cell) for name in ("batch_size", "n_episodes") for cell in ("", "0", "-1", "1.0", "x", "1_0", "٣")),
        *(("gpu_id", cell) for cell in ("", "-2", "gpu", "0;1", "01", "CPU", "1.0")),
        *(("seed", cell) for cell in ("", "-1", "x", "007", "1" * 10)),
        *(("mujoco_gl", cell) for cell in ("", "EGL", "wgl")),
        *(("policy_path", cell) for cell in ("", " ", " org/policy")),
        *(("enabled", cell) for cell in ("", "2", "true", "yes")),
    ],
)
def test_a_bad_cell_is_named_with_its_line_and_column(tmp_path: Path, column: str, cell: str) -> None:
    (text,) = refusal(tmp_path, line(run_id="first"), line(**{column: cell}))
    assert text.startswith(f"eval_matrix.csv, line 3, column {column}: {cell!r} is not ")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"task_suite": "libero_objct"}, "Did you mean libero_object? Write one of these names"),
        ({"task_suite": "LIBERO_OBJECT"}, "Did you mean libero_object? Write one of these names"),
        ({"mujoco_gl": "elg"}, "Did you mean egl? "),
        ({"gpu_id": "CPU"}, "Did you mean cpu? "),
        ({"batch_size": "one"}, "'one' is not a whole number from 1 up. Write a number such as 10"),
    ],
)
def test_a_bad_cell_is_answered_with_the_close_match_or_an_example(
    tmp_path: Path, cells: dict[str, str], said: str
) -> None:
    (text,) = refusal(tmp_path, line(**cells))
    assert said in text and text.count("whole number") < 2


def test_a_run_id_with_a_line_end_is_refused(tmp_path: Path) -> None:
    (text,) = refusal(tmp_path, line(run_id='"a\n"'))
    assert r"column run_id: 'a\n' is not" in text


def test_a_policy_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    (text,) = refusal(tmp_path, line(policy_path="org/po\0licy"))
    assert "column policy_path" in text


def test_a_run_id_of_100_characters_is_the_longest(tmp_path: Path) -> None:
    assert load(tmp_path, line(run_id="a" * 100))[0].run_id == "a" * 100


@pytest.mark.parametrize(("cell", "meaning"), [("0", 0), ("7", 7), ("auto", AUTO), ("cpu", CPU), ("-1", CPU)])
def test_gpu_id_takes_an_index_auto_and_cpu(tmp_path: Path, cell: str, meaning: int) -> None:
    assert load(tmp_path, line(gpu_id=cell))[0].gpu_id == meaning
    assert matrix.parse_gpu(cell) == meaning


def test_a_duplicate_run_id_is_named_with_both_lines(tmp_path: Path) -> None:
    (text,) = refusal(tmp_path, line(run_id="a"), line(run_id="b"), line(run_id="a"))
    assert "line 4, column run_id: 'a' is on line 2 already" in text


def test_run_ids_that_differ_in_case_alone_are_duplicates(tmp_path: Path) -> None:
    (text,) = refusal(tmp_path, line(run_id="Row"), line(run_id="rOW"))
    assert "line 3, column run_id: 'rOW' is on line 2 already" in text


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = refusal(tmp_path, line(task_suite="moon", seed="x"), line(run_id="b", enabled="2"), line())
    assert [text.split(": ")[0] for text in found] == [
        "eval_matrix.csv, line 2, column task_suite",
        "eval_matrix.csv, line 2, column seed",
        "eval_matrix.csv, line 3, column enabled",
        "eval_matrix.csv, line 4, column run_id",
    ]


@pytest.mark.parametrize("cells", [8, 10])
def test_a_line_with_another_number_of_cells_hides_no_other_fault(tmp_path: Path, cells: int) -> None:
    bad = ",".join(["b", *["1"] * (cells - 1)])
    found = refusal(tmp_path, line(seed="x"), bad, line(run_id="c", enabled="2"))
    assert any(text.startswith(f"eval_matrix.csv, line 3: the line has {cells} cells and needs 9") for text in found)
    assert any("line 2, column seed" in text for text in found)
    assert any("line 4, column enabled" in text for text in found)


@pytest.mark.parametrize(
    "text", [line(policy_path="caf\udce9"), line(run_id='"a'), line(run_id='"a"b')], ids=["latin-1", "open", "after"]
)
def test_what_is_no_csv_in_utf8_is_refused(tmp_path: Path, text: str) -> None:
    (said,) = refusal(tmp_path, text)
    assert said.startswith("eval_matrix.csv, line 2: this is not CSV in UTF-8")


def test_a_matrix_without_rows_is_refused(tmp_path: Path) -> None:
    (text,) = refusal(tmp_path)
    assert "the matrix has no rows" in text


@pytest.mark.parametrize("folder", [False, True])
def test_a_matrix_that_is_missing_or_a_folder_is_refused_by_name(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "eval_matrix.csv"
    if folder:
        path.mkdir()
    with pytest.raises(UsageError, match=r"eval_matrix\.csv"):
        matrix.load(path)


def test_cells_from_the_command_line_meet_the_same_rules() -> None:
    assert matrix.parse(line().split(","), "command line").run_id == "a"
    with pytest.raises(UsageError) as caught:
        matrix.parse(line(run_id="../x", seed="x").split(","), "command line")
    assert [finding.where for finding in caught.value.findings] == [
        "command line, column run_id",
        "command line, column seed",
    ]


def test_no_accepted_run_id_leaves_its_folder(tmp_path: Path) -> None:
    dice = random.Random(20260210)
    letters = string.ascii_letters + string.digits + "._-/\\~ \t\0\u00e9\u2215"
    for _ in range(2000):
        run_id = "".join(dice.choices(letters, k=dice.randint(1, 8)))
        try:
            row = matrix.parse([run_id, *list(CELLS.values())[1:]], "here")
        except UsageError:
            continue
        assert (tmp_path / row.run_id).resolve().parent == tmp_path.resolve()
        assert set(row.run_id) <= set(string.ascii_letters + string.digits + "._-")


def test_ten_thousand_rows_are_read_in_a_moment(tmp_path: Path) -> None:
    start = time.process_time()
    rows = load(tmp_path, *(line(run_id=f"row{number}") for number in range(10_000)))
    assert len(rows) == 10_000
    assert time.process_time() - start < 1.5
