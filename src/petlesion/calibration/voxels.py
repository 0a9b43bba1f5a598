"""Voxels: temperature scaling, and the histogram of logits that it and its scores need.

A voxel's calibrated probability is σ(logit / T). The temperature T is that of the lowest negative
log-likelihood (Guo et al., ICML 2017, section 4.2), which has one minimum, since it is convex in 1/T.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from petlesion.errors import CohortError
from petlesion.volume import Array, Mask

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_LOWEST, _HIGHEST, _WIDTH = -30.0, 17.0, 0.05  # above 17, a probability in float32 is 1
_LEAST = expit(_LOWEST)
_BINS = round((_HIGHEST - _LOWEST) / _WIDTH)
LOGITS: Floats = np.asarray(_LOWEST + (np.arange(_BINS) + 0.5) * _WIDTH, dtype=np.float64)
"""The logit in the middle of each bin."""

_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, eq=False)
class LogitCounts:
    """A study's voxels by their logit: `voxels[outside/inside the mask, background/lesion, bin]`.

    Voxels below the lowest bin (probability under 1e-13: none that a network looked at and took for possible)
    are left out. The bins are `LOGITS`, 0.05 wide.
    """

    voxels: Counts

    @property
    def background(self) -> Counts:
        """Voxels of each bin that the reference calls background."""
        return np.asarray(self.voxels[:, 0].sum(axis=0))

    @property
    def lesion(self) -> Counts:
        """Voxels of each bin that the reference calls lesion."""
        return np.asarray(self.voxels[:, 1].sum(axis=0))

    def expected_lesion_voxels(self, temperature: float) -> tuple[float, float]:
        """How many voxels outside and inside the mask are expected to be lesion: the sums of calibrated p.

        Such a sum is an unbiased volume (Popordanoska et al., MICCAI 2021).
        """
        probability = expit(LOGITS / temperature)
        outside, inside = (float(counts @ probability) for counts in self.voxels.sum(axis=1))
        return outside, inside


def count_logits(probability: Array, mask: Mask, reference: Mask | None = None) -> LogitCounts:
    """Count a study's voxels, [z, y, x] each; without a reference, all of them as background."""
    voxels = np.zeros((2, 2, _BINS), dtype=np.int64)
    for index, plane in enumerate(probability):
        counted = plane >= _LEAST
        with np.errstate(divide="ignore"):
            logits = logit(plane[counted].astype(np.float64))
        bins = ((np.clip(logits, _LOWEST, _HIGHEST) - _LOWEST) / _WIDTH).astype(np.int64)
        code = mask[index][counted] * np.int64(2)
        if reference is not None:
            code += reference[index][counted]
        code = code * _BINS + np.minimum(bins, _BINS - 1)
        voxels += np.bincount(code, minlength=voxels.size).reshape(voxels.shape)
    return LogitCounts(voxels)


def summed(studies: Iterable[LogitCounts]) -> LogitCounts:
    """The voxels of several studies together."""
    return LogitCounts(np.sum([study.voxels for study in studies], axis=0))


def negative_log_likelihood(counts: LogitCounts, temperature: float) -> float:
    """Mean negative log-likelihood of the voxels in nats."""
    scaled = LOGITS / temperature
    surprise = counts.lesion @ np.logaddexp(0, -scaled) + counts.background @ np.logaddexp(0, scaled)
    return float(surprise / counts.voxels.sum())


def fit_temperature(counts: LogitCounts) -> float:
    """The temperature of the lowest negative log-likelihood, between 0.05 and 20.

    Raises CohortError without voxels of both kinds.
    """
    if not counts.lesion.any() or not counts.background.any():
        raise CohortError(
            "the held-out studies hold no lesion, or nothing else, so that no temperature can be fitted; "
            "take a larger cohort"
        )
    low, high = (math.log(bound) for bound in _TEMPERATURES)
    found = minimize_scalar(
        lambda x: negative_log_likelihood(counts, math.exp(x)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(math.exp(found.x))
