"""`petlesion demo`: a whole body is simulated, segmented with the model in the box, scored and reported."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import typer

from petlesion._version import __version__
from petlesion.cli.console import print_table, progress, say
from petlesion.errors import UsageError
from petlesion.io.jsonfile import load_json

# A study with seven lesions of 0.02 to 137 mL; no model in the box was trained on it.
_SEED = 702
_IMAGES = ("PET.nii.gz", "CT.nii.gz", "SEG.nii.gz")
_RECORD = "demo.json"
_MOST_SHOWN = 10
_MEASURES = {
    "volume_ml": "mL",
    "suv_max": "SUVmax",
    "suv_mean": "SUVmean",
    "suv_peak": "SUVpeak",
    "tlg": "TLG",
}


def demo(
    context: typer.Context,
    output: Path = typer.Option(Path("demo-output"), "--output", "-o", help="Folder for all that it makes."),
) -> None:
    """Simulate a whole-body study, find its lesions, score them against the truth and report them."""
    from petlesion.io.atomic import check_place
    from petlesion.model.boxed import LIMITS, boxed_bundle

    boxed_bundle(has_ct=True)  # An installation without a model is told so before anything is made.
    check_place(output)
    study, segmented, metrics = output / "study", output / "segmented", output / "metrics.csv"
    found = segmented / study.name
    _simulate(study)
    _run(context, "segment", study, "-o", segmented, "--png")
    with progress("scoring", 1) as advance:
        _run(context, "evaluate", found / "lesions.nii.gz", study / "SEG.nii.gz", "-o", metrics)
        advance()
    _print_lesions(found / "lesions.csv")
    _print_scores(metrics)
    say(f"Open {found / 'report.html'} to see what was found.")
    say("The study is simulated, as is much of what the model learnt from: no patient is in this score.")
    say(f"The model in the box {LIMITS}, as petlesion model info tells.")


def _run(context: typer.Context, *words: str | Path) -> None:
    """Run a command of petlesion as a shell would, and show it."""
    arguments = [str(word) for word in words]
    say(f"\n$ petlesion {shlex.join(arguments)}")
    petlesion = context.find_root().command
    if status := petlesion.main(arguments, prog_name="petlesion", standalone_mode=False):
        raise typer.Exit(status)


def _simulate(folder: Path) -> None:
    """Write the study's images, unless they are there; raises UsageError where anything else is."""
    import numpy as np

    from petlesion.io.atomic import atomic_folder, write_text
    from petlesion.io.nifti import write_volume
    from petlesion.simulation import simulate

    if folder.exists():
        _require_own(folder)
        return
    with progress("simulating a whole-body study", 1 + len(_IMAGES)) as advance, atomic_folder(folder) as own:
        study = simulate(_SEED)
        advance()
        assert study.ct is not None and study.reference is not None
        truth = study.reference.with_array(study.reference.array.astype(np.uint8))
        for name, volume in zip(_IMAGES, (study.pet, study.ct, truth), strict=True):
            write_volume(own / name, volume)
            advance()
        write_text(own / _RECORD, json.dumps(_facts(own), indent=2) + "\n")


def _require_own(folder: Path) -> None:
    """Raise UsageError unless the demonstration of this version wrote the images of a folder."""
    try:
        own = load_json(folder / _RECORD) == _facts(folder)
    except (OSError, ValueError):
        own = False
    if not own:
        raise UsageError(
            f"{folder}: not the study that petlesion demo {__version__} makes; remove it or give another -o"
        )


def _facts(folder: Path) -> dict[str, Any]:
    """What makes the images of a folder the demonstration's own."""
    from petlesion.model.bundle import file_sha256
    from petlesion.simulation.study import REVISION

    return {
        "petlesion": __version__,
        "simulator": REVISION,
        "seed": _SEED,
        "sha256": {name: file_sha256(folder / name) for name in _IMAGES},
    }


def _print_lesions(path: Path) -> None:
    """Print the largest lesions, and the total of all."""
    with path.open(encoding="utf-8", newline="") as file:
        *lesions, total = csv.DictReader(file)
    shown = [*lesions[:_MOST_SHOWN], total]
    rows = [[lesion["lesion"], *(_rounded(lesion[measure]) for measure in _MEASURES)] for lesion in shown]
    print_table(("found", *_MEASURES.values()), rows)


def _rounded(number: str) -> str:
    return f"{float(number):.1f}" if number else ""


def _print_scores(path: Path) -> None:
    from petlesion.evaluation.metrics import read_metrics

    (row,) = read_metrics(path)
    scores = (
        ("Dice", "–" if row.dice is None else f"{row.dice:.3f}"),
        ("volume of the lesions, mL", f"{row.reference_volume_ml:.1f}"),
        ("volume found, mL", f"{row.predicted_volume_ml:.1f}"),
        ("false-positive volume, mL", f"{row.false_positive_volume_ml:.1f}"),
        ("false-negative volume, mL", f"{row.false_negative_volume_ml:.1f}"),
        ("lesions", str(row.reference_components)),
        ("lesions found", str(row.predicted_components)),
    )
    print_table(("against the truth", ""), scores)
