"""Where a run keeps what its folds' networks predict of the studies that they have not seen.

RUN/cross_validation/predictions/
  predict.json                      which weights, folds and settings made them
  <case>.nii.gz                     masks
  probabilities/<case>.nii.gz       where they were asked for
"""

from __future__ import annotations

from pathlib import Path

RECORD = "predict.json"
PROBABILITIES = "probabilities"


def predictions_folder(run: Path) -> Path:
    """The folder of a run's held-out predictions."""
    return run / "cross_validation" / "predictions"


def probability_path(run: Path, case_id: str) -> Path:
    """The lesion probability of a held-out case."""
    return predictions_folder(run) / PROBABILITIES / f"{case_id}.nii.gz"


def how_to_predict(run: Path, cohort_folder: Path) -> str:
    """The command that makes a run's held-out predictions with their probabilities."""
    output = predictions_folder(run)
    return f"run petlesion predict {run} {cohort_folder} --held-out --probabilities -o {output}"
