"""How many lesions a study has, how large and how active they are: drawn as in the real autoPET studies.

The figures are quantiles over the 919 FDG studies of autoPET (451 with lesions, 7,694 components of
18-connected voxels on a grid of 2.0364 × 2.0364 × 3 mm) on which the authors of "AutoPET Challenge 2023:
nnUNet-based whole-body 3D PET-CT Tumour Segmentation" trained, from their published component counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

SHARE_WITH_LESIONS = 451 / 919
PROBABILITIES = (
    0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5,
    0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1,
)  # fmt: skip
COMPONENTS_PER_STUDY = (
    1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 9, 10, 12, 14, 18, 25, 38, 62, 113, 157, 1057,
)  # fmt: skip
COMPONENT_VOLUME_ML = (
    0.0124, 0.0124, 0.0124, 0.0124, 0.0373, 0.0746, 0.1617, 0.2613, 0.3732, 0.4976, 0.6594, 0.8335, 1.0699,
    1.3561, 1.6795, 2.1274, 2.7246, 3.5955, 5.1008, 8.1862, 15.0288, 43.2823, 132.1734, 266.1881, 2005.5174,
)  # fmt: skip
TOTAL_VOLUME_ML = (
    0.1, 0.572, 1.045, 1.916, 4.578, 9.293, 16.161, 21.722, 34.648, 49.801, 63.947, 81.153, 99.242,
    126.674, 149.33, 182.759, 219.97, 263.426, 316.574, 417.981, 535.462, 855.146, 1485.918, 1665.367,
    2226.246,
)  # fmt: skip
_MOST_COMPONENTS = 300
# Chosen so that lesions of many studies together have the volumes above: studies with many have much.
_COUNT_WITH_TOTAL = 0.8
_SMALL_ML = 0.5

# Log-normal activity of lesions: of the study, and of one lesion within it.
_MEDIAN_SUV = 5.35
_STUDY_SPREAD = 0.60
_LESION_SPREAD = 0.35

# Steps of a low-discrepancy sequence: the golden ratio for one dimension, and for three more its
# generalisation by the root of x⁴ = x + 1 (Roberts 2018, "The unreasonable effectiveness of quasirandom
# sequences").
_GOLDEN, _GOLDEN_3D = 1.618033988749895, 1.2207440846057596
_STEPS = (1 / _GOLDEN, 1 / _GOLDEN_3D, 1 / _GOLDEN_3D**2, 1 / _GOLDEN_3D**3)


@dataclass(frozen=True)
class Burden:
    """A study's lesions: volume in mL and activity in SUV of each, largest first."""

    volumes_ml: tuple[float, ...]
    suvs: tuple[float, ...]


def draw_burden(seed: int, rng: np.random.Generator) -> Burden:
    """Draw a study's lesions; half the studies have none.

    Share of studies with lesions, count, total volume and activity come from a low-discrepancy sequence over
    the seeds, so that already some dozen studies of consecutive seeds have the right distribution.
    """
    present, count_rank, total_rank, activity_rank = _low_discrepancy(seed)
    if present >= SHARE_WITH_LESIONS:
        return Burden((), ())
    normal = NormalDist()
    deviate = normal.inv_cdf(count_rank)
    other = normal.inv_cdf(total_rank)
    mixed = _COUNT_WITH_TOTAL * deviate + np.sqrt(1 - _COUNT_WITH_TOTAL**2) * other
    count = min(round(_quantile(COMPONENTS_PER_STUDY, count_rank)), _MOST_COMPONENTS)
    total_ml = _quantile(TOTAL_VOLUME_ML, normal.cdf(mixed))
    volumes = _volumes(count, total_ml, rng)
    avidity = _MEDIAN_SUV * np.exp(_STUDY_SPREAD * normal.inv_cdf(activity_rank))
    suvs = avidity * rng.lognormal(0, _LESION_SPREAD, count)
    return Burden(tuple(volumes.tolist()), tuple(suvs.tolist()))


def _low_discrepancy(seed: int) -> list[float]:
    # Of larger numbers times a step, a float holds no fraction any more.
    number = seed % 2**32
    return [float(np.clip((0.5 + number * step) % 1, 1e-6, 1 - 1e-6)) for step in _STEPS]


def _quantile(table: tuple[float, ...], rank: float) -> float:
    """A value between the table's quantiles, evenly on a log scale."""
    return float(np.exp(np.interp(rank, PROBABILITIES, np.log(table))))


def _volumes(count: int, total_ml: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Volumes of `count` lesions, each as likely as among all lesions, that add up to the total."""
    ranks = (np.arange(count) + rng.random(count)) / count
    volumes = np.array([_quantile(COMPONENT_VOLUME_ML, rank) for rank in ranks])[::-1]
    rest = volumes[1:].sum()
    if count == 1 or total_ml - rest >= volumes[1]:
        volumes[0] = total_ml - rest
        return volumes
    return _tempered(volumes, total_ml)


def _tempered(volumes: npt.NDArray[np.float64], total_ml: float) -> npt.NDArray[np.float64]:
    """Draw the larger volumes in until the sum fits; the many small ones stay."""
    large = volumes > _SMALL_ML
    room_ml = total_ml - volumes[~large].sum()
    if room_ml <= _SMALL_ML * large.sum():
        volumes *= total_ml / volumes.sum()
        return volumes
    ratios = volumes[large] / _SMALL_ML
    low, high = 0.0, 1.0
    for _ in range(40):
        power = (low + high) / 2
        low, high = (low, power) if (_SMALL_ML * ratios**power).sum() > room_ml else (power, high)
    result = volumes.copy()
    result[large] = _SMALL_ML * ratios**low
    return result
