"""Whether a study looks like those that the model was trained on.

A few numbers describe a study's grid, what it shows of the body, its SUV and HU, and how well PET and CT fit.
Their ranges in the training studies are stored with the model, those of each source of the cohort by
themselves: what is usual in crops of a limb in one way and in whole bodies in another is usual in neither. A
number far outside of its range is told to the reader in words.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from petlesion.inference.uncertainty import Uncertainty
from petlesion.resample import cell_means
from petlesion.volume import Mask, Study

Cells = npt.NDArray[np.float32]
Range = tuple[float, float]
Ranges = Mapping[str, Range]

_CELL_MM = 8.0
_UPTAKE_SUV = 0.2
_TISSUE_HU = -500.0
_HOT = 2.0  # times the body's median SUV
_FARTHEST_MM = 150.0
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Statistic:
    """One number of a study, in words, and how far it may leave the training studies' range at least.

    `margin` is a difference, or of a `ratio` (a number above 0 whose ratio counts) the logarithm of one.
    `limits` are the least and the most that it can be.
    """

    words: str
    digits: int
    margin: float
    ratio: bool = False
    limits: Range = (-math.inf, math.inf)

    def scaled(self, value: float) -> float:
        """The value, or of a ratio its logarithm."""
        return math.log(max(value, 1e-9)) if self.ratio else value

    def unscaled(self, value: float) -> float:
        """What `scaled` was made of."""
        return math.exp(value) if self.ratio else value


STATISTICS: Mapping[str, Statistic] = {
    "voxel_volume_ml": Statistic("a voxel's volume (mL)", 4, math.log(1.5), ratio=True),
    "body_volume_l": Statistic(
        "the volume of the body in the picture (litres)", 1, math.log(1.5), ratio=True
    ),
    "body_length_cm": Statistic("the length of the body in the picture (cm)", 0, math.log(1.3), ratio=True),
    "body_width_cm": Statistic("the width of the body in the picture (cm)", 0, math.log(1.3), ratio=True),
    "suv_median": Statistic("the body's median SUV", 2, math.log(1.5), ratio=True),
    "suv_99": Statistic("the 99th percentile of the body's SUV", 1, math.log(1.5), ratio=True),
    "hu_median": Statistic("the body's median HU", 0, 30.0),
    "outlines_overlap": Statistic(
        "the overlap (Dice) of the body in the PET with that in the CT", 2, 0.08, limits=(0, 1)
    ),
    "uptake_in_air": Statistic("the share of high uptake where the CT shows air", 2, 0.03, limits=(0, 1)),
    "offset_mm": Statistic(
        "the shift (mm) that would bring PET and CT together", 0, 15.0, limits=(0, math.inf)
    ),
    "disagreement": Statistic(
        "the share of the uncertainty that comes from members that disagree", 2, 0.2, limits=(0, 1)
    ),
}
"""What is held against the training studies; `study_statistics` and `disagreement` say how it is computed."""

UNKNOWN_RANGES: Ranges = {"disagreement": (0.0, 0.5)}
"""Ranges of what the training studies could not tell, as each was predicted by one network in one pass."""


def study_statistics(study: Study) -> dict[str, float]:
    """STATISTICS of a study but for `disagreement`, on cells of about 8 mm; of the CT only if there is one.

    The body is what has an SUV above 0.2, in the CT what is denser than −500 HU, each without parts of one
    cell's thickness. High uptake is above twice the body's median SUV, air below −500 HU. The shift is the
    one within 150 mm along each axis that gives the highest correlation of SUV, cut at the body's median,
    with density, cut at water's.
    """
    study = study.reoriented()
    factors = [max(1, round(_CELL_MM / length)) for length in study.pet.spacing_mm]
    cell_mm = [length * factor for length, factor in zip(study.pet.spacing_mm, factors, strict=True)]
    pet = cell_means(study.pet.array, factors)
    body = ndimage.binary_opening(pet > _UPTAKE_SUV)
    statistics = {
        "voxel_volume_ml": study.pet.voxel_volume_ml,
        "body_volume_l": float(body.sum()) * math.prod(cell_mm) / 1e6,
    }
    if not body.any():
        return statistics
    median = float(np.median(pet[body]))
    statistics |= {
        "body_length_cm": _extent(body, 0) * cell_mm[0] / 10,
        "body_width_cm": _extent(body, 2) * cell_mm[2] / 10,
        "suv_median": median,
        "suv_99": float(np.percentile(pet[body], 99)),
    }
    if study.ct is not None:
        ct = cell_means(study.ct.array, factors)
        statistics |= _fit_of(pet / median, ct, body, cell_mm)
    return statistics


def disagreement(uncertainty: Uncertainty) -> float | None:
    """Mutual information as a share of the entropy, each summed over the study; None of a single pass."""
    entropy = float(uncertainty.entropy.array.sum(dtype=np.float64))
    if uncertainty.passes < 2 or entropy == 0:
        return None
    return float(uncertainty.mutual_information.array.sum(dtype=np.float64)) / entropy


def typical_ranges(studies: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """The range of each statistic that studies of a source are expected in.

    From the 2.5 to the 97.5 percentile of the training studies, widened on both sides by half of that range,
    and by the statistic's margin at least.
    """
    ranges = {}
    for name, statistic in STATISTICS.items():
        values = [statistic.scaled(study[name]) for study in studies if name in study]
        if values:
            low, high = np.percentile(values, _PERCENTILES)
            margin = max((high - low) / 2, statistic.margin)
            least, most = statistic.limits
            ranges[name] = (
                max(least, float(statistic.unscaled(low - margin))),
                min(most, float(statistic.unscaled(high + margin))),
            )
    return ranges


def what_is_unusual(
    statistics: Mapping[str, float], ranges_by_source: Mapping[str, Ranges]
) -> tuple[str, ...]:
    """One clause for each statistic that is out of its range, in the source of which the fewest are."""
    sources: Collection[Ranges] = ranges_by_source.values() or ({},)
    return min((_out_of_range(statistics, ranges) for ranges in sources), key=len)


def _out_of_range(statistics: Mapping[str, float], ranges: Ranges) -> tuple[str, ...]:
    clauses = []
    for name, value in statistics.items():
        bounds = ranges.get(name, UNKNOWN_RANGES.get(name))
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            statistic = STATISTICS[name]
            found = f"{value:.{statistic.digits}f}"
            clauses.append(f"{statistic.words} is {found}, where {_in_words(statistic, bounds)} is usual")
    return tuple(clauses)


def _in_words(statistic: Statistic, bounds: Range) -> str:
    low, high = (f"{bound:.{statistic.digits}f}" for bound in bounds)
    if bounds[0] <= statistic.limits[0]:
        return f"at most {high}"
    return f"at least {low}" if bounds[1] >= statistic.limits[1] else f"{low} to {high}"


def _extent(body: Mask, axis: int) -> int:
    """Cells from the first to the last one of the body along an axis."""
    places = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(places[-1] - places[0]) + 1


def _fit_of(uptake: Cells, ct: Cells, body: Mask, cell_mm: Sequence[float]) -> dict[str, float]:
    """What the CT is in the PET's body, and how well the two fit; `uptake` is the SUV over its median."""
    tissue = ndimage.binary_opening(ct > _TISSUE_HU)
    hot = body & (uptake > _HOT)
    return {
        "hu_median": float(np.median(ct[body])),
        "outlines_overlap": 2 * float((body & tissue).sum()) / float(body.sum() + tissue.sum()),
        "uptake_in_air": float((ct[hot] < _TISSUE_HU).mean()) if hot.any() else 0.0,
        "offset_mm": _best_shift_mm(np.clip(uptake, 0, 1), np.clip(ct / 1000 + 1, 0, 1), cell_mm),
    }


def _best_shift_mm(first: Cells, second: Cells, cell_mm: Sequence[float]) -> float:
    """Length of the shift of the second image at which its product with the first is highest."""
    correlation = signal.correlate(first, second, mode="same", method="fft")
    middle = [size // 2 for size in correlation.shape]
    reach = [int(_FARTHEST_MM / length) for length in cell_mm]
    near = tuple(slice(max(0, m - r), m + r + 1) for m, r in zip(middle, reach, strict=True))
    best = np.unravel_index(np.argmax(correlation[near]), correlation[near].shape)
    return math.hypot(
        *(
            (int(b) + part.start - m) * length
            for b, part, m, length in zip(best, near, middle, cell_mm, strict=True)
        )
    )
