"""Results as tables: Table 2 and Table 3 and the averages of a set, as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from petlesion.errors import UsageError
from petlesion.evaluation.compare import SCORINGS, Difference, ScoredRun
from petlesion.evaluation.ensembles import Selection
from petlesion.evaluation.summary import Average, Summary
from petlesion.experiments import PUBLISHED, Experiment, PublishedRow, PublishedScores

Cell = str | int | float | Average | None

METRIC_TITLES: Mapping[str, str] = {
    "dice": "Dice",
    "false_positive_volume_ml": "FP mL",
    "false_negative_volume_ml": "FN mL",
    "predicted_components": "components",
}
_AVERAGES = ("dice", "false_positive_volume_ml", "false_negative_volume_ml")
_SHARED_BY_TABLE_2 = ("input", "loss")
_TABLE_2_AVERAGES = ("dice", "false_negative_volume_ml", "false_positive_volume_ml")
SCORING_TITLES = {"cross_validation": "CV", "test": "test"}
_DIFFERENCES_NOTE = (
    "Mean difference over the studies that both have, with its 95 % interval (paired bootstrap); "
    "p is two-sided and not corrected for the number of comparisons"
)
_AVERAGED_OVER = "Dice and FN are averaged over studies with a lesion, FP over all"
_LATEX_SPECIAL = {
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class Table:
    """Titles of the columns, and rows of cells: text, a number, an average, or None for nothing.

    `notes` stand below the table, except in CSV, which holds data alone.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def as_text(self) -> list[list[str]]:
        """The rows as text: three decimals, an average with its 95 % interval in brackets."""
        return [[_text(cell) for cell in row] for row in self.rows]


def summary_table(summaries: Mapping[str, Summary], title: str = "set") -> Table:
    """One row per summary, under the name that it has in the mapping."""
    columns = (title, "studies", "with lesions", "undefined Dice", *(METRIC_TITLES[m] for m in _AVERAGES))
    rows = (
        (name, s.studies, s.studies_with_lesions, s.undefined_dice, *(getattr(s, m) for m in _AVERAGES))
        for name, s in summaries.items()
    )
    return Table(columns, tuple(rows))


def sweep_table(summaries: Mapping[int, Summary]) -> Table:
    """Table 3: one row per smallest size in voxels."""
    columns = ("min size", *(METRIC_TITLES[metric] for metric in _AVERAGES))
    rows = ((size, *(getattr(summary, m) for m in _AVERAGES)) for size, summary in summaries.items())
    # Removing predicted components leaves the reference, and with it these counts, as they are.
    first = next(iter(summaries.values()))
    return Table(columns, tuple(rows), (f"{_counted(first)}: {_AVERAGED_OVER}",))


def experiments_table(runs: Sequence[ScoredRun], patients: Mapping[str, str] | None = None) -> Table:
    """Table 2: each run's settings and scores, and below the first of a name the paper's row.

    Input and loss, which all of the paper's rows share, have a column where the runs differ in them. The
    notes say how many studies each average is over, and what is to be known of the paper's rows.
    """
    columns = ["model", "epochs", "patch", "most features", "learning rate", "oversampling", "mirroring"]
    differing = [of for of in _SHARED_BY_TABLE_2 if len({getattr(run.experiment, of) for run in runs}) > 1]
    columns += differing
    for scoring in SCORINGS:
        columns += [f"{SCORING_TITLES[scoring]} {METRIC_TITLES[metric]}" for metric in _TABLE_2_AVERAGES]
    rows: list[tuple[Cell, ...]] = []
    notes: dict[str, str] = {}
    for run in runs:
        summaries = run.summaries(patients)
        rows.append((run.name, *_settings(run.experiment, differing), *_averages(summaries)))
        notes[run.name] = "; ".join(f"{SCORING_TITLES[of]} {_counted(s)}" for of, s in summaries.items())
        published = published_row(run.experiment)
        if published is not None and (title := f"{published.name} (paper)") not in notes:
            scores = {scoring: getattr(published, scoring) for scoring in SCORINGS}
            rows.append((title, *_settings(published, differing), *_averages(scores)))
            notes[title] = published.note
    told = (f"{title}: {note}" for title, note in notes.items() if note)
    return Table(tuple(columns), tuple(rows), (*told, _AVERAGED_OVER))


def ensembles_table(selection: Selection) -> Table:
    """One row per member, combination, best weights and what is picked, scored where nothing was chosen."""
    columns = ("average of", "min mL", *(METRIC_TITLES[metric] for metric in _TABLE_2_AVERAGES))
    rows = []
    for line in selection.lines:
        name = line.name if line.name == line.chosen.name else f"{line.name}: {line.chosen.name}"
        summary = selection.summary(line)
        rows.append((name, f"{line.min_volume_ml:g}", *(getattr(summary, m) for m in _TABLE_2_AVERAGES)))
    notes = (
        "Weights and sizes are those chosen on all held-out studies; each patient is scored with what "
        "was chosen without them.",
    )
    return Table(columns, tuple(rows), notes)


def differences_table(differences: Sequence[Difference]) -> Table:
    """One row per comparison and metric: the paired difference and Wilcoxon's p."""
    columns = ("comparison", "metric", "studies", "difference", "p (Wilcoxon)")
    rows = (
        (
            f"{d.second} − {d.first}",
            f"{SCORING_TITLES[d.scoring]} {METRIC_TITLES[d.metric]}",
            d.studies,
            Average(d.mean, d.ci95, d.studies),
            f"{d.p_value:.3g}",
        )
        for d in differences
    )
    return Table(columns, tuple(rows), (_DIFFERENCES_NOTE,))


def with_differences(table: Table, names: Sequence[str], differences: Sequence[Difference]) -> Table:
    """A table with each row's differences in further columns, for CSV, which holds a single table.

    `names` are the rows' names in the differences; a row that is not compared has nothing there.
    """
    found = {(d.second, d.scoring, d.metric): d for d in differences}
    kinds = tuple(dict.fromkeys((d.scoring, d.metric) for d in differences))
    titles = (f"{SCORING_TITLES[scoring]} {METRIC_TITLES[metric]}" for scoring, metric in kinds)
    columns = tuple(f"{title} {part}" for title in titles for part in ("difference", "compared studies", "p"))

    def cells(name: str) -> Iterator[Cell]:
        for kind in kinds:
            d = found.get((name, *kind))
            yield from (
                (None,) * 3 if d is None else (Average(d.mean, d.ci95, d.studies), d.studies, d.p_value)
            )

    rows = ((*row, *cells(name)) for name, row in zip(names, table.rows, strict=True))
    return Table((*table.columns, *columns), tuple(rows), table.notes)


def published_row(experiment: Experiment) -> PublishedRow | None:
    """The paper's row of Table 2 of which an experiment is a repetition, by its name."""
    return PUBLISHED.get(experiment.name.removesuffix("-table2"))


def render(table: Table, style: str) -> str:
    """Write a table as `csv`, `markdown` or `latex`; raises UsageError for another style."""
    if style not in _RENDERERS:
        raise UsageError(f"there is no table format {style!r}; choose one of {', '.join(_RENDERERS)}")
    return _RENDERERS[style](table)


def _counted(summary: Summary) -> str:
    return f"{summary.studies} studies, {summary.studies_with_lesions} with a lesion"


def _settings(of: Experiment | PublishedRow, differing: Sequence[str]) -> tuple[Cell, ...]:
    patch = of.patch_size
    return (
        of.epochs,
        "planned" if patch is None else _patch(patch),
        of.max_features,
        f"{of.learning_rate:g}",
        f"{of.oversampling:.0%}".replace("%", " %"),
        "yes" if of.mirroring else "no",
        *(str(getattr(of, setting, getattr(Experiment, setting))) for setting in differing),
    )


def _patch(patch: int | tuple[int, int, int]) -> str:
    sizes = (patch,) if isinstance(patch, int) else patch
    return str(sizes[0]) if len(set(sizes)) == 1 else "×".join(map(str, sizes))


def _averages(scores: Mapping[str, Summary | PublishedScores | None]) -> list[Cell]:
    return [
        getattr(scores.get(scoring), metric, None) for scoring in SCORINGS for metric in _TABLE_2_AVERAGES
    ]


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, Average):
        if cell.value is None or cell.ci95 is None:
            return "–"
        return f"{cell.value:.3f} [{cell.ci95[0]:.3f}, {cell.ci95[1]:.3f}]"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _as_csv(table: Table) -> str:
    """Plain numbers: an average takes three columns, itself and the ends of its interval."""
    averaged = {index for row in table.rows for index, cell in enumerate(row) if isinstance(cell, Average)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (name.lower().replace(" ", "_") for name in table.columns)
    writer.writerow(
        part
        for index, name in enumerate(names)
        for part in ((name, f"{name}_ci95_low", f"{name}_ci95_high") if index in averaged else (name,))
    )
    for row in table.rows:
        cells = (_csv_cells(cell) if index in averaged else [cell] for index, cell in enumerate(row))
        writer.writerow("" if part is None else part for parts in cells for part in parts)
    return text.getvalue()


def _csv_cells(cell: Cell) -> list[Cell]:
    if isinstance(cell, Average):
        low, high = cell.ci95 or (None, None)
        return [cell.value, low, high]
    return [cell, None, None]


def _as_markdown(table: Table) -> str:
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.as_text()]
    rows = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return "".join([*rows, *(f"\n{note}\n" for note in table.notes)])


def _as_latex(table: Table) -> str:
    head = _latex_row(table.columns)
    body = "".join(_latex_row(row) for row in table.as_text())
    begin = f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}\n"
    # Below the table, since a long note inside it would stretch the last column.
    notes = "".join(f"\\par{{\\footnotesize {_latex_text(note)}}}\n" for note in table.notes)
    return f"{begin}\\hline\n{head}\\hline\n{body}\\hline\n\\end{{tabular}}\n{notes}"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_text, cells)) + r" \\" + "\n"


def _latex_text(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(letter, letter) for letter in text)


_RENDERERS: Mapping[str, Callable[[Table], str]] = {
    "csv": _as_csv,
    "markdown": _as_markdown,
    "latex": _as_latex,
}
