"""Tables as text, CSV, Markdown and LaTeX."""

import csv
import io

import pytest

from petlesion.errors import UsageError
from petlesion.evaluation.compare import Difference, ScoredRun
from petlesion.evaluation.summary import Average, summarize
from petlesion.evaluation.tables import (
    Table,
    differences_table,
    experiments_table,
    render,
    summary_table,
    sweep_table,
)
from petlesion.experiments import find_experiment
from tests.evaluation.paper import ON_PAPER

ROWS = list(ON_PAPER.values())
TABLE = Table(("name", "FP mL", "n"), (("50 %_a|b", Average(0.5, (0.25, 0.75), 4), 3), ("d − b", 1.0, None)))


def test_a_table_as_text() -> None:
    assert TABLE.as_text() == [["50 %_a|b", "0.500 [0.250, 0.750]", "3"], ["d − b", "1.000", "–"]]


def test_csv_holds_plain_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(render(TABLE, "csv"))))
    assert rows[0] == {
        "name": "50 %_a|b",
        "fp_ml": "0.5",
        "fp_ml_ci95_low": "0.25",
        "fp_ml_ci95_high": "0.75",
        "n": "3",
    }
    assert rows[1]["fp_ml_ci95_low"] == rows[1]["n"] == ""


def test_markdown_escapes_its_bars() -> None:
    assert render(TABLE, "markdown").splitlines() == [
        "| name | FP mL | n |",
        "| --- | ---: | ---: |",
        "| 50 %_a\\|b | 0.500 [0.250, 0.750] | 3 |",
        "| d − b | 1.000 | – |",
    ]


def test_latex_escapes_what_has_a_meaning_there() -> None:
    lines = render(TABLE, "latex").splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert r"50 \%\_a|b & 0.500 [0.250, 0.750] & 3 \\" in lines
    assert r"d $-$ b & 1.000 & -- \\" in lines
    assert lines[-1] == r"\end{tabular}"


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match="pdf"):
        render(TABLE, "pdf")


def test_summaries_and_sweeps_have_a_row_each() -> None:
    summary = summarize(ROWS)
    table = summary_table({"A": summary, "all": summary}, "source")
    assert table.columns[0] == "source"
    assert [row[:4] for row in table.rows] == [("A", 4, 2, 1), ("all", 4, 2, 1)]
    assert sweep_table({0: summary, 10: summary}).as_text()[1][:2] == [
        "10",
        table.as_text()[0][4],
    ]


def test_table_2_has_the_papers_row_below_ours() -> None:
    runs = [
        ScoredRun("b", find_experiment("b"), {"cross_validation": ROWS}),
        ScoredRun("quick", find_experiment("quick"), {"test": ROWS}),
    ]
    ours, paper, quick = experiments_table(runs).as_text()
    assert ours[:7] == ["b", "1500", "128", "320", "0.0001", "50 %", "no"]
    assert ours[7].startswith("0.273 [")
    assert ours[10:] == ["–", "–", "–"]
    assert paper == [
        *("b (paper)", "1500", "128", "256", "0.001", "50 %", "no"),
        *("0.732", "8.265", "8.577", "0.685", "6.270", "5.778"),
    ]
    assert quick[0] == "quick"
    assert quick[7] == "–"


def test_differences_name_both_runs_and_the_scoring() -> None:
    difference = Difference("b", "d", "test", "dice", 50, -0.012, (-0.03, 0.006), 0.0123456)
    assert differences_table([difference]).as_text() == [
        ["d − b", "test Dice", "50", "-0.012 [-0.030, 0.006]", "0.0123"]
    ]
