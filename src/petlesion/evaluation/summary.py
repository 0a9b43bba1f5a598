"""Averages over studies, each with a bootstrap confidence interval.

Dice and false-negative volume are averaged over the studies that have a lesion in the reference,
false-positive volume over all studies. The intervals are the 2.5 and 97.5 percentiles of 2,000 seeded
resamples of whole patients where it is known whose studies they are, else of studies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from petlesion.errors import InputError, UsageError
from petlesion.overlap import StudyMetrics

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
SEED = 2023
_PERCENTILES = (2.5, 97.5)
_ROWS_AT_ONCE = 200


@dataclass(frozen=True)
class Average:
    """A mean over `studies` studies and its 95 % interval; both None where no study has a value."""

    value: float | None
    ci95: tuple[float, float] | None
    studies: int


@dataclass(frozen=True)
class Summary:
    """What a set of studies scored. `undefined_dice` counts the studies without a Dice, left out of it."""

    studies: int
    studies_with_lesions: int
    undefined_dice: int
    dice: Average
    false_positive_volume_ml: Average
    false_negative_volume_ml: Average

    def as_json(self) -> dict[str, Any]:
        """The averages, and under `…_ci95` their intervals, as plain data."""
        data: dict[str, Any] = {
            "studies": self.studies,
            "studies_with_lesions": self.studies_with_lesions,
            "undefined_dice": self.undefined_dice,
        }
        for metric in METRICS:
            average: Average = getattr(self, metric)
            data[metric] = average.value
            data[f"{metric}_ci95"] = None if average.ci95 is None else list(average.ci95)
        return data


def _over_lesions(metric: str) -> Callable[[StudyMetrics], float | None]:
    return lambda row: getattr(row, metric) if row.has_lesions else None


# What counts for each average: a study's value, or None where the study is left out.
METRICS: Mapping[str, Callable[[StudyMetrics], float | None]] = {
    "dice": _over_lesions("dice"),
    "false_positive_volume_ml": lambda row: row.false_positive_volume_ml,
    "false_negative_volume_ml": _over_lesions("false_negative_volume_ml"),
}


def summarize(rows: Sequence[StudyMetrics], patients: Mapping[str, str] | None = None) -> Summary:
    """Average the metrics of some studies; `patients` says whose a case is, as patient ids by case id.

    Raises UsageError where there is no study, and InputError for a case whose patient is not known.
    """
    if not rows:
        raise UsageError("there is no study to average; give a metrics.csv with at least one row")
    groups = patient_groups([row.case_id for row in rows], patients)
    averages = {metric: _average([value(row) for row in rows], groups) for metric, value in METRICS.items()}
    return Summary(
        studies=len(rows),
        studies_with_lesions=sum(row.has_lesions for row in rows),
        undefined_dice=sum(row.dice is None for row in rows),
        **averages,
    )


def summarize_by(
    rows: Sequence[StudyMetrics], groups: Mapping[str, str], patients: Mapping[str, str] | None = None
) -> dict[str, Summary]:
    """Average each group's studies; `groups` gives a group's name, such as a source, by case id."""
    by_row = _looked_up([row.case_id for row in rows], groups)
    parts = {
        name: [row for row, of in zip(rows, by_row, strict=True) if of == name]
        for name in sorted(set(by_row))
    }
    return {name: summarize(part, patients) for name, part in parts.items()}


def patient_groups(case_ids: Sequence[str], patients: Mapping[str, str] | None) -> npt.NDArray[np.int64]:
    """Number the patients: entry i says whose study case i is. Without `patients` each study stands alone."""
    if patients is None:
        return np.arange(len(case_ids))
    _, groups = np.unique(_looked_up(case_ids, patients), return_inverse=True)
    return np.asarray(groups, dtype=np.int64)


def bootstrap_interval(values: Floats, groups: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of the mean of `values`, resampling whole groups; NaN is left out of each mean."""
    present = np.isfinite(values)
    units = int(groups.max()) + 1
    sums = np.bincount(groups, weights=np.where(present, values, 0.0), minlength=units)
    counts = np.bincount(groups, weights=present, minlength=units)
    generator = np.random.default_rng(SEED)
    means = []
    for _ in range(0, RESAMPLES, _ROWS_AT_ONCE):
        drawn = generator.integers(units, size=(_ROWS_AT_ONCE, units))
        total, count = sums[drawn].sum(axis=1), counts[drawn].sum(axis=1)
        means.append(total[count > 0] / count[count > 0])
    low, high = np.percentile(np.concatenate(means), _PERCENTILES)
    return float(low), float(high)


def _looked_up(case_ids: Sequence[str], names: Mapping[str, str]) -> list[str]:
    missing = [case_id for case_id in case_ids if case_id not in names]
    if missing:
        raise InputError(f"cases.csv has no case {missing[0]}; give the cohort that was evaluated")
    return [names[case_id] for case_id in case_ids]


def _average(values: Sequence[float | None], groups: npt.NDArray[np.int64]) -> Average:
    numbers = np.array([np.nan if value is None else value for value in values])
    present = np.isfinite(numbers)
    if not present.any():
        return Average(None, None, 0)
    interval = bootstrap_interval(numbers, groups)
    return Average(float(numbers[present].mean()), interval, int(present.sum()))
