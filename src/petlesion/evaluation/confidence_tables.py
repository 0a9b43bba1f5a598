"""Calibration's scores and the sweep over confidences as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from petlesion.calibration.cross_fit import Judged
from petlesion.calibration.lesions import FEATURES
from petlesion.evaluation.confidence import (
    BinSums,
    Bools,
    Floats,
    confidences,
    dice_pairs,
    lesion_sums,
    reliability,
    risk_coverage_area,
    roc_area,
    voxel_sums,
    with_interval,
)
from petlesion.evaluation.summary import Average, Summary, patient_groups
from petlesion.evaluation.tables import METRIC_TITLES, Table


@dataclass(frozen=True)
class Score:
    """A number that tells of calibrated studies: what `combine` makes of each study's `part`."""

    words: str
    part: Callable[[Judged], Any]
    combine: Callable[[Sequence[Any]], float]

    def of(self, studies: Sequence[Judged], patients: Mapping[str, str]) -> Average:
        """The score with its 95 % interval over patients."""
        groups = patient_groups([study.evidence.case_id for study in studies], patients)
        return with_interval([self.part(study) for study in studies], self.combine, groups)


def _calibration_error(parts: Sequence[BinSums]) -> float:
    return reliability(parts).error


def _brier(parts: Sequence[BinSums]) -> float:
    return reliability(parts).brier


def _scored(study: Judged) -> tuple[Floats, Bools]:
    return confidences([study])


def _by_feature(name: str, study: Judged) -> tuple[Floats, Bools]:
    return study.evidence.features[:, FEATURES.index(name)], study.evidence.overlap.real


def _joined(statistic: Callable[[Floats, Bools], float], parts: Sequence[tuple[Floats, Bools]]) -> float:
    scores, real = (np.concatenate(column) for column in zip(*parts, strict=True))
    return statistic(scores, real)


def _dice_difference(study: Judged) -> list[float]:
    return [abs(pair.expected - pair.achieved) for pair in dice_pairs([study])]


def _mean(parts: Sequence[list[float]]) -> float:
    values = [value for part in parts for value in part]
    return float(np.mean(values)) if values else float("nan")


_ROC = partial(_joined, roc_area)
_WHICH = {"_possible": ("possible voxels", True), "": ("all voxels", False)}
_WHEN = {"before": False, "after": True}
_KINDS = {"error": ("expected calibration error", _calibration_error), "brier": ("Brier score", _brier)}

SCORES: Mapping[str, Score] = {
    f"voxel_{kind}_{when}{which}": Score(
        f"{title} of {voxels}, {when} scaling",
        partial(voxel_sums, calibrated=calibrated, possible_only=possible),
        combine,
    )
    for kind, (title, combine) in _KINDS.items()
    for which, (voxels, possible) in _WHICH.items()
    for when, calibrated in _WHEN.items()
} | {
    "lesion_error": Score("expected calibration error of the confidence", lesion_sums, _calibration_error),
    "lesion_brier": Score("Brier score of the confidence", lesion_sums, _brier),
    "lesion_roc_area": Score("ROC area of the confidence, real against false", _scored, _ROC),
    "lesion_roc_area_of_mean_probability": Score(
        "ROC area of the mean probability", partial(_by_feature, "mean_logit"), _ROC
    ),
    "lesion_roc_area_of_volume": Score("ROC area of the volume", partial(_by_feature, "log_volume_ml"), _ROC),
    "lesion_risk_coverage_area": Score(
        "area under the risk–coverage curve of the confidence", _scored, partial(_joined, risk_coverage_area)
    ),
    "dice_error": Score("mean difference of expected and achieved Dice", _dice_difference, _mean),
}
"""What is told of a calibrated model, by its name in JSON."""


def confidence_table(studies: Sequence[Judged], patients: Mapping[str, str]) -> Table:
    """One row per score with its 95 % interval over patients."""
    rows = tuple((score.words, score.of(studies, patients)) for score in SCORES.values())
    components = sum(len(study.evidence.overlap.predicted_sizes) for study in studies)
    false = sum(int((~study.evidence.overlap.real).sum()) for study in studies)
    notes = (
        f"{len(studies)} studies, {components} predicted components, {false} of them false. Each study is "
        "judged by a calibration that its patient had no part in. A voxel is possible from a raw "
        "probability of 0.01.",
    )
    return Table(("score", "value"), rows, notes)


def scores_as_json(studies: Sequence[Judged], patients: Mapping[str, str]) -> dict[str, Any]:
    """The scores of `confidence_table` as plain data, each with its interval under `…_ci95`."""
    data: dict[str, Any] = {}
    for name, score in SCORES.items():
        average = score.of(studies, patients)
        data[name] = _finite(average.value)
        data[f"{name}_ci95"] = None if average.ci95 is None else [_finite(end) for end in average.ci95]
    return data


def sweep_of_confidence_table(
    by_size: Mapping[int, Summary], by_confidence: Mapping[float, Summary]
) -> Table:
    """Table 3 by size, and below it by confidence."""
    metrics = ("dice", "false_positive_volume_ml", "false_negative_volume_ml")
    columns = ("removed", *(METRIC_TITLES[metric] for metric in metrics))
    named = {f"below {size} voxels": summary for size, summary in by_size.items()}
    named |= {f"below confidence {least:g}": summary for least, summary in by_confidence.items()}
    rows: list[tuple[str | Average, ...]] = [
        (name, *(getattr(summary, metric) for metric in metrics)) for name, summary in named.items()
    ]
    return Table(columns, tuple(rows))


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
