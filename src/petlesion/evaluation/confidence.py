"""How well a model's probabilities keep their word: for voxels, lesions and studies.

Everything is computed from studies that are judged by a calibration which they had no part in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata

from petlesion.calibration.cross_fit import Judged
from petlesion.calibration.voxels import LOGITS
from petlesion.evaluation.summary import SEED, Average, Summary, summarize

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Part = TypeVar("Part")

POSSIBLE = 0.01
"""Raw probability from which a voxel counts as possible lesion; nearly all others are sure background."""

_BINS = 15  # as Guo et al. have
_RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often it is so where a model says that it is, in 15 equal bins of probability.

    For each bin with any voxel or lesion: mean `stated` probability, `observed` frequency and `count`.
    `error` is the expected calibration error Σ count · |observed − stated| / Σ count (Guo et al. 2017),
    `brier` the mean squared difference of probability and outcome.
    """

    stated: Floats
    observed: Floats
    count: Floats
    error: float
    brier: float


@dataclass(frozen=True)
class DicePair:
    """A study's expected Dice beside the one that its mask reached."""

    case_id: str
    expected: float
    achieved: float


@dataclass(frozen=True, eq=False)
class BinSums:
    """Sums over each of 15 equal bins of probability: cases, probability, cases that were so, squares."""

    count: Floats
    stated: Floats
    observed: Floats
    squares: Floats


def bin_sums(probability: Floats, positive: Floats, count: Floats) -> BinSums:
    """Of `count` cases with each `probability`, `positive` were so."""
    place = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    squares = positive * (1 - probability) ** 2 + (count - positive) * probability**2
    return BinSums(
        *(
            np.bincount(place, weights=weights, minlength=_BINS).astype(np.float64)
            for weights in (count, count * probability, positive, squares)
        )
    )


def reliability(parts: Sequence[BinSums]) -> Reliability:
    """Reliability of all cases together; error and Brier score are NaN where there is none."""
    count, stated, observed, squares = (
        np.sum([getattr(part, name) for part in parts], axis=0)
        for name in ("count", "stated", "observed", "squares")
    )
    used, total = count > 0, count.sum()
    count, stated, observed = count[used], stated[used] / count[used], observed[used] / count[used]
    if not used.any():
        return Reliability(stated, observed, count, math.nan, math.nan)
    error = float(count @ np.abs(observed - stated) / total)
    return Reliability(stated, observed, count, error, float(squares.sum() / total))


def voxel_sums(study: Judged, *, calibrated: bool, possible_only: bool) -> BinSums:
    """A study's voxels that a network looked at, or those with a raw probability from 0.01."""
    shown = expit(LOGITS) >= POSSIBLE if possible_only else np.ones(len(LOGITS), dtype=bool)
    temperature = study.calibration.temperature if calibrated else 1.0
    lesion, background = study.evidence.logits.lesion[shown], study.evidence.logits.background[shown]
    return bin_sums(expit(LOGITS[shown] / temperature), lesion, lesion + background)


def lesion_sums(study: Judged) -> BinSums:
    """A study's predicted components by their confidence."""
    confidence, real = confidences([study])
    return bin_sums(confidence, real.astype(np.float64), np.ones(len(real)))


def confidences(studies: Sequence[Judged]) -> tuple[Floats, Bools]:
    """Confidence of every predicted component, and whether it is real."""
    found = [study.confidence for study in studies]
    return np.concatenate(found), np.concatenate([study.evidence.overlap.real for study in studies])


def roc_area(scores: Floats, real: Bools) -> float:
    """Area under the ROC curve: how often a real one has the higher score, ties counted half.

    Mann and Whitney's statistic over the number of pairs; NaN without both kinds.
    """
    positives, negatives = int(real.sum()), int((~real).sum())
    if positives == 0 or negatives == 0:
        return math.nan
    ranks = rankdata(scores)
    return float((ranks[real].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def risk_coverage(scores: Floats, real: Bools) -> tuple[Floats, Floats]:
    """Coverage, and the share of false ones among those covered, the highest scores first."""
    order = np.argsort(-scores, kind="stable")
    kept = np.arange(1, len(scores) + 1)
    return kept / len(scores), np.cumsum(~real[order]) / kept


def risk_coverage_area(scores: Floats, real: Bools) -> float:
    """Area under the risk–coverage curve: its mean risk; NaN of nothing.

    Geifman, Uziel and El-Yaniv, ICLR 2019.
    """
    return float(risk_coverage(scores, real)[1].mean()) if len(scores) else math.nan


def with_interval(
    parts: Sequence[Part], combine: Callable[[Sequence[Part]], float], groups: npt.NDArray[np.int64]
) -> Average:
    """What `combine` makes of the studies' parts, and its 95 % interval over 1,000 seeded resamples.

    `groups` numbers the patients; whole patients are drawn.
    """
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    generator = np.random.default_rng(SEED)
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        drawn.append(combine([parts[index] for index in chosen]))
    finite = np.array(drawn)[np.isfinite(drawn)]
    low, high = np.percentile(finite, _PERCENTILES) if finite.size else (np.nan, np.nan)
    return Average(combine(parts), (float(low), float(high)), len(parts))


def dice_pairs(studies: Sequence[Judged]) -> list[DicePair]:
    """Expected and achieved Dice of the studies whose mask holds anything, nothing removed from it."""
    pairs = []
    for study in studies:
        logits, overlap = study.evidence.logits, study.evidence.overlap
        sizes = overlap.predicted_sizes
        expected = study.calibration.expected_dice(logits, sizes, study.confidence, sizes > 0)
        achieved = overlap.dice
        if expected is not None and achieved is not None:
            pairs.append(DicePair(study.evidence.case_id, expected, achieved))
    return pairs


def sweep_by_size(
    studies: Sequence[Judged], sizes: Sequence[int], patients: Mapping[str, str] | None = None
) -> dict[int, Summary]:
    """Averages without components of fewer voxels than each size (Table 3)."""
    of_study = [study.evidence.overlap.predicted_sizes for study in studies]
    return {size: _summary(studies, [found >= size for found in of_study], patients) for size in sizes}


def sweep_by_confidence(
    studies: Sequence[Judged], lowest: Sequence[float], patients: Mapping[str, str] | None = None
) -> dict[float, Summary]:
    """Averages without components of a confidence below each of `lowest`."""
    of_study = [study.confidence for study in studies]
    return {
        least: _summary(studies, [confidence >= least for confidence in of_study], patients)
        for least in lowest
    }


def _summary(studies: Sequence[Judged], kept: Sequence[Bools], patients: Mapping[str, str] | None) -> Summary:
    rows = [
        study.evidence.overlap.keeping(of_study).metrics(study.evidence.case_id)
        for study, of_study in zip(studies, kept, strict=True)
    ]
    return summarize(rows, patients)
