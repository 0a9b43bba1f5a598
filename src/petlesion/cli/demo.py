"""`petlesion demo`: the whole path in miniature, command by command, on studies that it simulates."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from petlesion.cli.console import progress, say

_COHORT = "Dataset001_Demo"
_RUN = f"results/{_COHORT}/quick__nnUNetPlans__3d_fullres"
# Simulated studies with one large lesion and a few small ones: what a minute of training can learn to see.
_SEEDS = (11, 17, 35, 84, 90, 139, 166, 184, 239, 260, 333, 388)
_SPACING_MM = 6.0


def demo(
    context: typer.Context,
    output: Path = typer.Option(Path("demo-output"), "--output", "-o", help="Folder for all that it makes."),
) -> None:
    """Simulate studies, train a small network, find the lesions of unseen studies, score and report them."""
    petlesion = context.find_root().command
    _simulate(output / _COHORT)
    for arguments in _commands(output):
        say(f"\n$ petlesion {shlex.join(arguments)}")
        if status := petlesion.main(arguments, prog_name="petlesion", standalone_mode=False):
            raise typer.Exit(status)
    say(f"\nOpen {next((output / 'segmented').glob('*/report.html'))} to see what was found.")
    say("This network saw a few simulated studies for a minute: it shows the path, not what can be reached.")


def _simulate(folder: Path) -> None:
    """Make the cohort, or what of it is missing."""
    from petlesion.cohort.layout import add_study, create_cohort, is_complete
    from petlesion.simulation import SimulationSettings, simulate
    from petlesion.simulation.study import study_name

    cohort = create_cohort(folder)
    with progress("simulating whole-body studies", len(_SEEDS)) as advance:
        for seed in _SEEDS:
            name = study_name(seed)
            if not is_complete(cohort, name):
                study = simulate(seed, SimulationSettings((_SPACING_MM,) * 3))
                cohort = add_study(cohort, study, case_id=name, patient_id=name, source="simulated")
            advance()


def _commands(output: Path) -> Iterator[list[str]]:
    cohort, run = str(output / _COHORT), str(output / _RUN)
    predictions, scores = str(output / "predictions"), str(output / "metrics.csv")
    settings = ["iterations=60", "oversampling=0.6", "pet_normalization=cohort"]
    changes = [part for setting in settings for part in ("--set", setting)]
    yield ["cohort", "split", cohort, "--test-share", "0.2", "--folds", "3"]
    yield ["train", cohort, "-e", "quick", "-f", "0", *changes, "-o", str(output / "results")]
    yield ["predict", run, cohort, "-o", predictions]
    yield ["evaluate", predictions, cohort, "-o", scores]
    yield ["summarize", scores]
    yield ["segment", *_unseen_study(output / _COHORT), "-m", run, "-o", str(output / "segmented")]


def _unseen_study(folder: Path) -> list[str]:
    """CT and PET of a study that no training saw."""
    from petlesion.cohort.layout import CT_CHANNEL, PET_CHANNEL, Cohort

    cohort = Cohort.open(folder)
    case = cohort.test_cases[0]
    return [str(cohort.image_path(case.case_id, channel)) for channel in (CT_CHANNEL, PET_CHANNEL)]
