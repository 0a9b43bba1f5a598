"""petlesion cohort: build, simulate, split and check cohorts."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import run_batch
from petlesion.cli.console import print_json, print_table, progress, say
from petlesion.errors import UsageError

if TYPE_CHECKING:
    from petlesion.cohort.layout import Cohort
    from petlesion.cohort.sources import Entry
    from petlesion.simulation import SimulationSettings

app = typer.Typer(
    name="cohort",
    help="Make, split and check cohorts: folders of studies in nnU-Net's raw format.",
    no_args_is_help=True,
)

_COHORT = typer.Argument(..., help="Folder of the cohort.", show_default=False)
_OUTPUT = typer.Option(..., "-o", "--output", help="Folder of the cohort; made, or added to if it is one.")
_NAME = typer.Option(None, "--name", help="nnU-Net's name, DatasetNNN_Name. Default: made from the folder's.")


def _workers(memory: str) -> Any:
    return typer.Option(os.cpu_count() or 1, "--workers", min=1, help=f"Studies at a time, {memory}.")


@app.command()
def build(
    sources: list[str] = typer.Argument(
        ..., help="Folders of studies; FORMAT=FOLDER or FORMAT:NAME=FOLDER where they differ in format."
    ),
    output: Path = _OUTPUT,
    name: str | None = _NAME,
    studies: str = typer.Option(
        "folder", "--format", help="Format of the folders: folder, autopet, hecktor, nnunet or tcia."
    ),
    workers: int = _workers("up to 3 GB of memory each"),
) -> None:
    """Make a cohort from studies on disk. Started again, it adds what is missing."""
    from petlesion.cohort.build import find_entries, parse_source
    from petlesion.cohort.layout import create_cohort

    parsed = [parse_source(text, studies) for text in sources]
    cohort = create_cohort(output, name)
    _add_entries("building", cohort, find_entries(parsed, cohort), workers)


@app.command()
def split(
    folder: Path = _COHORT,
    test_share: float = typer.Option(0.1, "--test-share", help="Share of the studies held out; may be 0."),
    folds: int = typer.Option(5, "--folds", help="Folds of the cross-validation."),
    seed: int = typer.Option(0, "--seed", help="The same seed gives the same split."),
    hold_out_source: str | None = typer.Option(
        None, "--hold-out-source", help="Make all studies of this source the test set instead."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the parts as JSON."),
) -> None:
    """Hold out a test set and make folds: patients stay whole, lesions and sources are balanced."""
    from petlesion.cohort.layout import Cohort
    from petlesion.cohort.split import SplitSettings, describe_split, split_cohort

    settings = SplitSettings(test_share, folds, seed, hold_out_source)
    parts = describe_split(split_cohort(Cohort.open(folder), settings))
    if as_json:
        print_json([part.__dict__ for part in parts])
        return
    rows = [[p.name, str(p.patients), str(p.studies), str(p.studies_with_lesions)] for p in parts]
    print_table(["part", "patients", "studies", "with lesions"], rows)


@app.command()
def check(
    folder: Path = _COHORT,
    as_json: bool = typer.Option(False, "--json", help="Print the problems as JSON."),
) -> None:
    """List everything that is wrong with a cohort; exit status 1 if anything is."""
    from petlesion.cohort.check import case_problems, cohort_problems
    from petlesion.cohort.layout import Cohort

    cohort = Cohort.open(folder)
    problems = cohort_problems(cohort)
    with progress("checking", len(cohort.cases)) as advance:
        for case in cohort.cases:
            problems += case_problems(cohort, case)
            advance()
    if as_json:
        listed = [{"case_id": problem.case_id, "problem": problem.sentence} for problem in problems]
        print_json({"cohort": cohort.name, "cases": len(cohort.cases), "problems": listed})
    else:
        for problem in problems:
            print(problem.sentence)
        say(f"{folder}: {len(cohort.cases)} cases, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


@app.command()
def simulate(
    output: Path = _OUTPUT,
    count: int = typer.Option(40, "-n", "--count", min=1, max=1_000_000, help="How many studies."),
    seed: int = typer.Option(0, "--seed", min=0, help="The same seed gives the same studies."),
    spacing: float | None = typer.Option(
        None,
        "--spacing",
        help="Voxel size in mm, the same on all axes. Default: autoPET's, 2.04 × 2.04 × 3 mm.",
    ),
    organs: Path | None = typer.Option(
        None, "--organs", help="Folder of real organ masks (NIfTI, as TotalSegmentator labels them) to place."
    ),
    dicom: bool = typer.Option(
        False,
        "--dicom",
        help="Write a folder of DICOM series for each study instead of a cohort.",
    ),
    name: str | None = _NAME,
    workers: int = _workers("up to 3.2 GB of memory each; 5 to 8 GB with a --spacing of 2 mm or less"),
) -> None:
    """Make a cohort of simulated whole-body studies. Started again, it adds what is missing."""
    from petlesion.cohort.layout import create_cohort
    from petlesion.cohort.sources import Entry
    from petlesion.io.atomic import check_place
    from petlesion.simulation import SimulationSettings
    from petlesion.simulation import simulate as simulate_study
    from petlesion.simulation.study import AUTOPET_SPACING_MM, study_name, study_seed

    if dicom and name is not None:
        raise UsageError("--name names a cohort, and --dicom writes none; leave one of them out")
    settings = SimulationSettings(AUTOPET_SPACING_MM if spacing is None else (spacing,) * 3, organs=organs)
    seeds = {study_name(own): own for own in (study_seed(seed, number) for number in range(count))}
    check_place(output)
    if dicom:
        whole = _whole_studies(output)
        _keep_record(output, seed, settings, whole)
        missing = {study: own for study, own in seeds.items() if study not in whole}
        _write_dicom(output, missing, settings, workers)
        say(f"{output}: {len(seeds)} studies; next: petlesion segment {output} -o RESULTS")
        return
    cohort = create_cohort(output, name)
    _keep_record(output, seed, settings, [case.case_id for case in cohort.cases])
    entries = [
        Entry(case, case, partial(simulate_study, own, settings), "simulated") for case, own in seeds.items()
    ]
    _add_entries("simulating", cohort, entries, workers)


def _add_entries(what: str, cohort: Cohort, entries: list[Entry], workers: int) -> None:
    """Make entries into cases; those that fail are listed at the end."""
    from petlesion.cohort.parallel import add_in_parallel

    outcomes = add_in_parallel(cohort, entries, workers)

    def add(_: Entry) -> None:
        nonlocal cohort
        outcome = next(outcomes)
        cohort = outcome.cohort
        if outcome.problem is not None:
            raise outcome.problem

    run_batch(what, [(entry.case_id, entry) for entry in entries], add)
    folder, cases = cohort.folder, len(cohort.cases)
    say(f"{folder}: {cohort.name} with {cases} cases; next: petlesion cohort split {folder}")


def _keep_record(folder: Path, seed: int, settings: SimulationSettings, there: list[str]) -> None:
    """Refuse settings other than those of the seed's studies among those that are there."""
    from petlesion.cohort.simulated import keep_record
    from petlesion.simulation.study import is_of_cohort

    keep_record(folder, seed, settings.as_json(), begun=any(is_of_cohort(name, seed) for name in there))


def _whole_studies(folder: Path) -> list[str]:
    """The names of the DICOM studies that were simulated into a folder before."""
    from petlesion.simulation.dicom import is_whole

    return [path.name for path in folder.glob("*") if is_whole(path)]


def _write_dicom(output: Path, seeds: dict[str, int], settings: SimulationSettings, workers: int) -> None:
    from petlesion.cohort.parallel import in_parallel
    from petlesion.simulation.dicom import simulate_dicom

    with in_parallel(partial(simulate_dicom, output, settings), seeds, workers) as results:
        run_batch("simulating", results.items(), lambda result: result())
