"""Experiments side by side: Table 2's rows, and whether two of them differ by more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from petlesion.errors import CohortError, ExperimentError, InputError
from petlesion.evaluation.metrics import StudyMetrics, read_metrics
from petlesion.evaluation.summary import METRICS, bootstrap_interval, patient_groups
from petlesion.experiments import Experiment

# Where a run keeps its scores, beside each scoring's predictions/.
SCORINGS = ("cross_validation", "test")
METRICS_NAME = "metrics.csv"
EXPERIMENT_NAME = "experiment.json"


@dataclass(frozen=True)
class ScoredRun:
    """A trained experiment and what it scored: rows of metrics by `cross_validation` and `test`."""

    name: str
    experiment: Experiment
    scores: Mapping[str, Sequence[StudyMetrics]]


@dataclass(frozen=True)
class Difference:
    """How a metric differs between two experiments on the studies that both have scored.

    `mean` is the second minus the first, with the 95 % interval of a paired bootstrap; `p_value` is that of
    Wilcoxon's signed-rank test, two-sided.
    """

    metric: str
    studies: int
    mean: float
    ci95: tuple[float, float]
    p_value: float


def metrics_path(run: str | Path, scoring: str) -> Path:
    """Where a run keeps the metrics of its `cross_validation` or its `test`."""
    return Path(run) / scoring / METRICS_NAME


def predictions_folder(run: str | Path, scoring: str) -> Path:
    """Where a run keeps the masks that `metrics_path` scores."""
    return Path(run) / scoring / "predictions"


def read_run(folder: str | Path) -> ScoredRun:
    """Read a run's experiment and the metrics that it has.

    Raises CohortError for a folder that is no run or has no metrics, FormatError for metrics that cannot be
    read.
    """
    folder = Path(folder)
    scores = {
        scoring: read_metrics(metrics_path(folder, scoring))
        for scoring in SCORINGS
        if metrics_path(folder, scoring).is_file()
    }
    experiment = _read_experiment(folder / EXPERIMENT_NAME)
    if not scores:
        raise CohortError(
            f"{folder} holds no {SCORINGS[0]}/{METRICS_NAME} and no {SCORINGS[1]}/{METRICS_NAME}; "
            "predict and evaluate the run first"
        )
    return ScoredRun(experiment.name, experiment, scores)


def compare_metrics(
    first: Sequence[StudyMetrics], second: Sequence[StudyMetrics], patients: Mapping[str, str] | None = None
) -> list[Difference]:
    """Compare two experiments study by study; metrics that no common study has are left out.

    Raises InputError where they have no study in common.
    """
    others = {row.case_id: row for row in second}
    pairs = [(row, others[row.case_id]) for row in first if row.case_id in others]
    if not pairs:
        raise InputError("the two experiments have no study in common; evaluate both on the same cohort")
    groups = patient_groups([row.case_id for row, _ in pairs], patients)
    differences = []
    for metric, value in METRICS.items():
        values = np.array([[_or_nan(value(row)) for row in pair] for pair in pairs])
        change = values[:, 1] - values[:, 0]
        if np.isfinite(change).any():
            differences.append(_difference(metric, change, groups))
    return differences


def _difference(metric: str, change: np.ndarray, groups: np.ndarray) -> Difference:
    present = change[np.isfinite(change)]
    p_value = float(wilcoxon(present).pvalue) if present.any() else 1.0
    return Difference(
        metric, len(present), float(present.mean()), bootstrap_interval(change, groups), p_value
    )


def _read_experiment(path: Path) -> Experiment:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Experiment.from_dict(stored["experiment"])
    except (OSError, ValueError, KeyError, TypeError, ExperimentError) as error:
        raise CohortError(
            f"{path} is missing or no experiment of this version; give a run's folder"
        ) from error


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
