"""petlesion experiment ensemble: which runs to average, with which weights, chosen in cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import try_all
from petlesion.cli.console import print_json, say
from petlesion.cli.predict import check_unseen, held_out_tasks
from petlesion.cli.tables import FORMAT_OPTION, JSON_OPTION, show_compared, show_table
from petlesion.errors import CohortError
from petlesion.io.jsonfile import load_json
from petlesion.model.held_out import RECORD, how_to_predict, predictions_folder, probability_path

if TYPE_CHECKING:
    from petlesion.cohort.layout import Cohort
    from petlesion.evaluation.compare import Difference
    from petlesion.evaluation.ensembles import Combination, HeldOutStudy, Scored, Selection
    from petlesion.model.bundle import Bundle

_ALL = "all sources"


def ensemble(
    runs: list[Path] = typer.Argument(
        ..., metavar="RUN...", help="Two to six runs of other input or architecture, of the same folds."
    ),
    cohort: Path = typer.Argument(..., help="Folder of the cohort that they were trained on."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder of the bundle of what is picked."),
    name: str | None = typer.Option(None, "--name", help="The model's name.  [default: what is picked]"),
    licence: str = typer.Option("not stated", "--licence", help="Under which licence it may be used."),
    style: str = FORMAT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Pick the best average of several runs on held-out studies, and write it as one bundle.

    Each run is to have RUN/cross_validation/predictions of petlesion predict --held-out --probabilities. What
    is reported of a choice comes from studies that had no part in it, in all and by source; the test set is
    not looked at.
    """
    from petlesion.cohort.layout import Cohort
    from petlesion.model.bundle import BUNDLE_FILE
    from petlesion.records import check_replaceable

    check_replaceable(output, BUNDLE_FILE, [*runs, cohort])
    opened = Cohort.open(cohort)
    members, selection = choose_among(runs, opened)
    parts = by_source(selection, opened)
    if as_json:
        print_json([_as_json(parts, index) for index in range(len(selection.lines))])
    else:
        show_parts(parts, style)
    bundle = _export(members, selection, output, name, licence)
    say(f"{output}: {selection.picked.chosen.name}, {bundle.size_bytes / 1e6:.1f} MB")


def choose_among(runs: Sequence[Path], cohort: Cohort) -> tuple[list[Member], Selection]:
    """The runs with their held-out predictions, and which of them to average, chosen on these.

    Raises CohortError where predictions are missing or not the runs' own, and UsageError for a number of runs
    of which no ensemble is made.
    """
    from petlesion.evaluation.ensembles import all_combinations, select

    candidates = all_combinations(_names_of(runs))
    members = _same_folds([_open_member(run, cohort) for run in runs])
    return members, select(candidates, _read_studies(cohort, members, candidates))


def by_source(selection: Selection, cohort: Cohort) -> dict[str, Selection]:
    """What was chosen, reported on all studies and, where the cohort has several sources, on each alone."""
    source_of = {case.case_id: case.source for case in cohort.cases}
    sources = sorted({source_of[row.case_id] for row in selection.picked.rows})
    parts = {_ALL: selection}
    if len(sources) > 1:
        for source in sources:
            parts[source] = selection.reported_on({case for case, of in source_of.items() if of == source})
    return parts


def show_parts(parts: Mapping[str, Selection], style: str) -> None:
    """Print what is reported on all studies and on each source; CSV is one table, the source in front."""
    from petlesion.evaluation.tables import Table, ensembles_table, with_differences

    if style != "csv":
        for title, part in parts.items():
            show_ensembles(part, style, title if len(parts) > 1 else None)
        return
    tables = {
        title: with_differences(ensembles_table(part), *_differences_of(part))
        for title, part in parts.items()
    }
    columns = ("studies", *tables[_ALL].columns)
    rows = tuple((title, *row) for title, table in tables.items() for row in table.rows)
    show_table(Table(columns, rows), style)


def show_ensembles(selection: Selection, style: str, title: str | None = None) -> None:
    """Print what each combination scores, and how it differs from the best single member."""
    from petlesion.evaluation.tables import ensembles_table

    if title is not None:
        print(f"{title}\n")
    show_compared(ensembles_table(selection), *_differences_of(selection), style)
    if title is not None:
        print()


def _differences_of(selection: Selection) -> tuple[list[str], list[Difference]]:
    """The names of a selection's lines, and how each differs from the best single member."""
    names = [line.name for line in selection.lines]
    return names, [one for line in selection.lines for one in selection.differences(line)]


@dataclass(frozen=True)
class Member:
    """A run with the probabilities of the studies that some of its folds' networks have not seen."""

    run: Path
    folds: tuple[str, ...]
    case_ids: tuple[str, ...]

    def probability_path(self, case_id: str) -> Path:
        """The probability that it gave a case."""
        return probability_path(self.run, case_id)


def _names_of(runs: Sequence[Path]) -> list[str]:
    """By what the runs differ: their inputs, else their experiments, else both, else their folders."""
    from petlesion.evaluation.compare import read_experiment

    experiments = [read_experiment(run) for run in runs]
    for names in (
        [experiment.input for experiment in experiments],
        [experiment.name for experiment in experiments],
        [f"{experiment.name} {experiment.input}" for experiment in experiments],
    ):
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


def _open_member(run: Path, cohort: Cohort) -> Member:
    """Check that a run's predictions are its own, and that it was trained on none of their studies."""
    from petlesion.inference.predict import load_model

    predictions = predictions_folder(run)
    again = how_to_predict(run, cohort.folder)
    try:
        record = load_json(predictions / RECORD)
        weights, held_out, (folds,) = record["weights_sha256"], record["held_out"], record["folds"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CohortError(f"{predictions} holds no predictions of the run; {again}") from None
    model = load_model(run, folds, device="cpu")
    if weights != model.fingerprint or not held_out:
        raise CohortError(
            f"{predictions} is not what the run, as it is now, makes of held-out studies; "
            f"remove it and {again}"
        )
    tasks = list(held_out_tasks(cohort, model))
    check_unseen(cohort, model, tasks)
    member = Member(run, tuple(folds), tuple(task.case_id for task in tasks))
    missing = [case_id for case_id in member.case_ids if not member.probability_path(case_id).is_file()]
    if missing:
        raise CohortError(f"{member.probability_path(missing[0])} is missing; {again}")
    return member


def _same_folds(members: list[Member]) -> list[Member]:
    first = members[0]
    for other in members[1:]:
        if other.folds != first.folds:
            raise CohortError(
                f"{first.run} has predicted the folds {', '.join(first.folds)} and {other.run} the folds "
                f"{', '.join(other.folds)}; predict the same ones"
            )
    return members


def _read_studies(
    cohort: Cohort, members: Sequence[Member], candidates: Sequence[Combination]
) -> list[HeldOutStudy]:
    """Read each study's probabilities and keep what the candidates' masks share with its reference."""
    from petlesion.evaluation.ensembles import HeldOutStudy, overlaps_with
    from petlesion.io.nifti import read_mask, read_volume

    patients = {case.case_id: case.patient_id for case in cohort.cases}
    studies: list[HeldOutStudy] = []

    def work(case_id: str) -> None:
        probabilities = [read_volume(member.probability_path(case_id)) for member in members]
        overlaps = overlaps_with(probabilities, read_mask(cohort.label_path(case_id)), candidates)
        studies.append(HeldOutStudy(case_id, patients[case_id], overlaps))

    try_all("combining", [(case_id, case_id) for case_id in members[0].case_ids], work).end()
    return studies


def _as_json(parts: Mapping[str, Selection], index: int) -> dict[str, Any]:
    line = parts[_ALL].lines[index]
    scores = {title: _scores_as_json(part, part.lines[index]) for title, part in parts.items()}
    return {
        "name": line.name,
        "chosen": line.chosen.name,
        "weights": list(line.chosen.weights),
        "min_volume_ml": line.min_volume_ml,
        **scores.pop(_ALL),
        "sources": scores,
    }


def _scores_as_json(selection: Selection, line: Scored) -> dict[str, Any]:
    differences = [difference.as_json() for difference in selection.differences(line)]
    return {**selection.summary(line).as_json(), "differences": differences}


def _export(
    members: Sequence[Member], selection: Selection, output: Path, name: str | None, licence: str
) -> Bundle:
    """Write the runs that are picked, with their weights and smallest size, as the members of a bundle."""
    from petlesion.training.export import ExportRequest, export_model

    picked = selection.picked
    chosen = [members[index] for index in picked.chosen.members]
    return export_model(
        ExportRequest(
            folders=[member.run for member in chosen],
            folds=chosen[0].folds,
            weights=[picked.chosen.weights[index] for index in picked.chosen.members],
            min_volume_ml=picked.min_volume_ml,
            name=name or picked.chosen.name,
            licence=licence,
            scores=selection.summary(picked).as_json(),
        ),
        output,
    )
