"""`petlesion demo`: a whole body is simulated, segmented with the model in the box, scored and reported."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from petlesion.cli.console import progress, say

# A study with seven lesions of 0.1 to 136 mL; no model in the box was trained on it.
_SEED = 702


def demo(
    context: typer.Context,
    output: Path = typer.Option(Path("demo-output"), "--output", "-o", help="Folder for all that it makes."),
) -> None:
    """Simulate a whole-body study, find its lesions, score them against the truth and report them."""
    petlesion = context.find_root().command
    _simulate(output / "study")
    for arguments in _commands(output):
        say(f"\n$ petlesion {shlex.join(arguments)}")
        if status := petlesion.main(arguments, prog_name="petlesion", standalone_mode=False):
            raise typer.Exit(status)
    say(f"\nOpen {output / 'segmented' / 'study' / 'report.html'} to see what was found.")
    say("The study is simulated, as is much of what the model learnt from: no patient is in this score.")


def _simulate(folder: Path) -> None:
    """Write the study's images, if they are not there."""
    import numpy as np

    from petlesion.io.nifti import write_volume
    from petlesion.simulation import simulate

    names = ("PET", "CT", "SEG")
    if all((folder / f"{name}.nii.gz").exists() for name in names):
        return
    with progress("simulating a whole-body study", 1 + len(names)) as advance:
        study = simulate(_SEED)
        advance()
        assert study.ct is not None and study.reference is not None
        truth = study.reference.with_array(study.reference.array.astype(np.uint8))
        for name, volume in zip(names, (study.pet, study.ct, truth), strict=True):
            write_volume(folder / f"{name}.nii.gz", volume)
            advance()


def _commands(output: Path) -> Iterator[list[str]]:
    study, segmented = output / "study", output / "segmented"
    found, truth = segmented / "study" / "lesions.nii.gz", study / "SEG.nii.gz"
    yield ["segment", str(study), "-o", str(segmented), "--png"]
    yield ["evaluate", str(found), str(truth), "-o", str(output / "metrics.csv")]
    yield ["summarize", str(output / "metrics.csv")]
