"""Experiments side by side: Table 2's rows, and whether two of them differ by more than chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from petlesion.errors import CohortError, ExperimentError, InputError
from petlesion.evaluation.metrics import read_metrics
from petlesion.evaluation.summary import (
    METRICS,
    Floats,
    Summary,
    bootstrap_interval,
    patient_groups,
    summarize,
)
from petlesion.experiments import Experiment
from petlesion.io.jsonfile import load_json
from petlesion.lesions import Counts
from petlesion.overlap import StudyMetrics

# Where a run keeps its scores: <run>/<scoring>/metrics.csv, beside <run>/<scoring>/predictions/.
SCORINGS = ("cross_validation", "test")
METRICS_NAME = "metrics.csv"
COMPARED: Mapping[str, Callable[[StudyMetrics], float | None]] = {
    **METRICS,
    "predicted_components": lambda row: row.predicted_components,
}
EXPERIMENT_NAME = "experiment.json"


@dataclass(frozen=True)
class ScoredRun:
    """A trained experiment and what it scored: rows of metrics by `cross_validation` and `test`."""

    name: str
    experiment: Experiment
    scores: Mapping[str, Sequence[StudyMetrics]]

    def summaries(self, patients: Mapping[str, str] | None = None) -> dict[str, Summary]:
        """The averages of each scoring that the run has."""
        return {scoring: summarize(rows, patients) for scoring, rows in self.scores.items()}


@dataclass(frozen=True)
class Difference:
    """How a metric differs between two runs on the studies that both have scored.

    `mean` is the second run's minus the first's, with the 95 % interval of a paired bootstrap; `p_value` is
    that of Wilcoxon's signed-rank test, two-sided.
    """

    first: str
    second: str
    scoring: str
    metric: str
    studies: int
    mean: float
    ci95: tuple[float, float]
    p_value: float

    def as_json(self) -> dict[str, Any]:
        """The difference as plain data."""
        return {**asdict(self), "ci95": list(self.ci95)}


def metrics_path(run: str | Path, scoring: str) -> Path:
    """Where a run keeps the metrics of its `cross_validation` or its `test`."""
    return Path(run) / scoring / METRICS_NAME


def read_runs(folders: Sequence[str | Path]) -> list[ScoredRun]:
    """Read runs' experiments and the metrics that they have; runs of one experiment go by their folders.

    Raises CohortError for a folder that is no run or has no metrics, and FormatError for metrics that
    cannot be read.
    """
    experiments = [read_experiment(folder) for folder in folders]
    times = Counter(experiment.name for experiment in experiments)
    return [
        ScoredRun(
            experiment.name if times[experiment.name] == 1 else str(folder), experiment, _scores(folder)
        )
        for folder, experiment in zip(folders, experiments, strict=True)
    ]


def compare_runs(
    first: ScoredRun, second: ScoredRun, patients: Mapping[str, str] | None = None
) -> list[Difference]:
    """Compare two runs study by study, in each scoring that both have; metrics without a value are left out.

    Raises InputError where a scoring has no study in common.
    """
    return [
        difference
        for scoring in SCORINGS
        if scoring in first.scores and scoring in second.scores
        for difference in compare_rows(
            (first.name, second.name), scoring, (first.scores[scoring], second.scores[scoring]), patients
        )
    ]


def compare_rows(
    names: tuple[str, str],
    scoring: str,
    scores: tuple[Sequence[StudyMetrics], Sequence[StudyMetrics]],
    patients: Mapping[str, str] | None = None,
) -> list[Difference]:
    """Compare two sets of metrics study by study; metrics without a value are left out.

    Raises InputError where they have no study in common.
    """
    others = {row.case_id: row for row in scores[1]}
    pairs = [(row, others[row.case_id]) for row in scores[0] if row.case_id in others]
    if not pairs:
        raise InputError(
            f"{names[0]} and {names[1]} have no study of {scoring} in common; compare runs on the same cohort"
        )
    groups = patient_groups([row.case_id for row, _ in pairs], patients)
    differences = []
    for metric, value in COMPARED.items():
        change = np.array([_or_nan(value(other)) - _or_nan(value(row)) for row, other in pairs])
        if np.isfinite(change).any():
            facts = _paired_statistics(change, groups)
            differences.append(Difference(names[0], names[1], scoring, metric, *facts))
    return differences


def _paired_statistics(change: Floats, groups: Counts) -> tuple[int, float, tuple[float, float], float]:
    present = change[np.isfinite(change)]
    p_value = float(wilcoxon(present).pvalue) if present.any() else 1.0
    return len(present), float(present.mean()), bootstrap_interval(change, groups), p_value


def _scores(folder: str | Path) -> dict[str, list[StudyMetrics]]:
    paths = {scoring: metrics_path(folder, scoring) for scoring in SCORINGS}
    scores = {scoring: read_metrics(path) for scoring, path in paths.items() if path.is_file()}
    if not scores:
        raise CohortError(
            f"{folder} holds neither {SCORINGS[0]}/{METRICS_NAME} nor {SCORINGS[1]}/{METRICS_NAME}; "
            "predict and evaluate the run first"
        )
    return scores


def read_experiment(run: str | Path) -> Experiment:
    """The experiment that a run was trained as; raises CohortError for a folder that is no run."""
    path = Path(run) / EXPERIMENT_NAME
    try:
        stored = load_json(path)
        return Experiment.from_dict(stored["experiment"])
    except (OSError, ValueError, KeyError, TypeError, ExperimentError) as error:
        raise CohortError(
            f"{path} is missing or no experiment of this version; give a run's folder"
        ) from error


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
