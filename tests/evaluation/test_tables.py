"""Tables as text, CSV, Markdown and LaTeX."""

import csv
import io
from dataclasses import replace

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
    with_differences,
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


NOTED = Table(("name", "n"), (("a", 3),), ("a: 50 % of the folds", "b: a misprint"))


def test_notes_stand_below_a_table() -> None:
    markdown = render(NOTED, "markdown").splitlines()
    assert markdown[2:] == ["| a | 3 |", "", "a: 50 % of the folds", "", "b: a misprint"]
    assert render(NOTED, "latex").splitlines()[-4:] == [
        r"\hline",
        r"\end{tabular}",
        r"\par{\footnotesize a: 50 \% of the folds}",
        r"\par{\footnotesize b: a misprint}",
    ]
    assert render(NOTED, "csv") == "name,n\na,3\n"


def test_latex_escapes_what_has_a_meaning_there() -> None:
    lines = render(TABLE, "latex").splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert r"50 \%\_a|b & 0.500 [0.250, 0.750] & 3 \\" in lines
    assert r"d $-$ b & 1.000 & -- \\" in lines
    assert lines[-1] == r"\end{tabular}"


def test_latex_takes_a_folders_name_as_it_is() -> None:
    table = Table((r"C:\runs~1\b^2",), ())
    assert r"C:\textbackslash{}runs\textasciitilde{}1\textbackslash{}b\textasciicircum{}2 \\" in render(
        table, "latex"
    )


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


def test_table_2_tells_inputs_and_losses_apart_where_they_differ() -> None:
    settings = ("b", "b-pet", "b-gdl"), ({}, {"input": "pet"}, {"loss": "generalised_dice_ce"})
    runs = [
        ScoredRun(name, replace(find_experiment("b"), name=name, **changed), {"test": ROWS})
        for name, changed in zip(*settings, strict=True)
    ]
    table = experiments_table(runs)
    assert table.columns[7:9] == ("input", "loss")
    told = {str(row[0]): row[7:9] for row in table.rows}
    assert told["b"] == told["b (paper)"] == ("ct-pet", "dice_ce")
    assert told["b-pet"] == ("pet", "dice_ce")
    assert told["b-gdl"] == ("ct-pet", "generalised_dice_ce")
    assert "loss" not in experiments_table(runs[:2]).columns


def test_tables_tell_how_many_studies_their_averages_are_over() -> None:
    both = {"cross_validation": ROWS, "test": ROWS[:3]}
    table = experiments_table([ScoredRun("quick", find_experiment("quick"), both)])
    over = "Dice and FN are averaged over studies with a lesion, FP over all"
    assert table.notes == ("quick: CV 4 studies, 2 with a lesion; test 3 studies, 2 with a lesion", over)
    swept = sweep_table({size: summarize(ROWS) for size in (0, 10)})
    assert swept.notes == (f"4 studies, 2 with a lesion: {over}",)


def test_the_papers_row_stands_once_with_what_is_to_be_known_of_it() -> None:
    names = ("c", "a", "b", "b-table2", "e", "g")
    runs = [ScoredRun(name, find_experiment(name), {"test": ROWS}) for name in names]
    table = experiments_table(runs)
    shown = [row[0] for row in table.rows]
    assert shown == [
        *("c", "c (paper)", "a", "a (paper)", "b", "b (paper)"),
        *("b-table2", "e", "e (paper)", "g", "g (paper)"),
    ]
    notes = dict(note.split(": ") for note in table.notes[:-1])
    assert list(notes) == [
        "c",
        "c (paper)",
        "a",
        "b",
        "b (paper)",
        "b-table2",
        "e",
        "e (paper)",
        "g",
        "g (paper)",
    ]
    assert notes["c (paper)"] == "three of five folds"
    assert "misprint" in notes["e (paper)"]
    assert "one of five folds" in notes["g (paper)"]


def test_differences_name_both_runs_and_the_scoring() -> None:
    difference = Difference("b", "d", "test", "dice", 50, -0.012, (-0.03, 0.006), 0.0123456)
    table = differences_table([difference])
    assert table.as_text() == [["d − b", "test Dice", "50", "-0.012 [-0.030, 0.006]", "0.0123"]]
    (note,) = table.notes
    assert "paired bootstrap" in note and "not corrected for the number of comparisons" in note


def test_in_csv_differences_stand_beside_the_rows_that_they_are_of() -> None:
    table = Table(("model", "epochs"), (("b", 3), ("b (paper)", 1500), ("d", 3)))
    difference = Difference("b", "d", "test", "dice", 50, -0.012, (-0.03, 0.006), 0.0123456)
    wide = with_differences(table, ["b", "b (paper)", "d"], [difference])
    rows = list(csv.DictReader(io.StringIO(render(wide, "csv"))))
    assert [row["model"] for row in rows] == ["b", "b (paper)", "d"]
    assert rows[2] == {
        "model": "d",
        "epochs": "3",
        "test_dice_difference": "-0.012",
        "test_dice_difference_ci95_low": "-0.03",
        "test_dice_difference_ci95_high": "0.006",
        "test_dice_compared_studies": "50",
        "test_dice_p": "0.0123456",
    }
    assert set(rows[0].values()) == {"b", "3", ""}
    assert with_differences(table, ["b", "b (paper)", "d"], []) == table
