"""`petlesion demo`: the whole path in miniature, command by command, on studies that it simulates."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from petlesion.cli.console import say

_COHORT = "Dataset001_Demo"
_RUN = f"results/{_COHORT}/quick__nnUNetPlans__3d_fullres"


def demo(
    context: typer.Context,
    output: Path = typer.Option(Path("demo-output"), "--output", "-o", help="Folder for all that it makes."),
) -> None:
    """Simulate studies, train a small network, find the lesions of unseen studies, score and report them."""
    petlesion = context.find_root().command
    for arguments in _commands(output):
        say(f"\n$ petlesion {shlex.join(arguments)}")
        petlesion.main(arguments, prog_name="petlesion", standalone_mode=False)
    say(f"\nOpen {next((output / 'segmented').glob('*/report.html'))} to see what was found.")
    say("This network saw a few simulated studies for a minute: it shows the path, not what can be reached.")


def _commands(output: Path) -> Iterator[list[str]]:
    cohort, run = str(output / _COHORT), str(output / _RUN)
    predictions, scores = str(output / "predictions"), str(output / "metrics.csv")
    # Voxels of 6 mm and few iterations, so that a laptop is done in a minute or two.
    yield ["cohort", "simulate", "-n", "12", "--seed", "7", "--spacing", "6", "-o", cohort]
    yield ["cohort", "split", cohort, "--test-share", "0.2", "--folds", "3"]
    yield ["train", cohort, "-e", "quick", "-f", "0", "-o", str(output / "results")]
    yield ["predict", run, cohort, "-o", predictions]
    yield ["evaluate", predictions, cohort, "-o", scores]
    yield ["summarize", scores]
    yield ["segment", *_unseen_study(output / _COHORT), "-m", run, "-o", str(output / "segmented")]


def _unseen_study(folder: Path) -> list[str]:
    """CT and PET of a study with lesions that no training saw."""
    from petlesion.cohort.layout import CT_CHANNEL, PET_CHANNEL, Cohort

    cohort = Cohort.open(folder)
    case = max(cohort.test_cases, key=lambda case: case.reference_volume_ml)
    return [str(cohort.image_path(case.case_id, channel)) for channel in (CT_CHANNEL, PET_CHANNEL)]
