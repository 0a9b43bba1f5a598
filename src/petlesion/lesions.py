"""Lesions: the 18-connected components of a mask; finding, removing and measuring them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.spatial.distance import pdist

from petlesion.errors import GeometryError, UsageError, ValueRangeError
from petlesion.io.atomic import write_text
from petlesion.volume import Array, Mask, Volume

Labels = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PEAK_SPHERE_ML = 1.0
CSV_COLUMNS = (
    "lesion",
    "volume_ml",
    "suv_max",
    "suv_mean",
    "suv_peak",
    "tlg",
    "centroid_x_mm",
    "centroid_y_mm",
    "centroid_z_mm",
    "confidence",
)

_CONNECTIVITY = 18
_ROUNDING = 1e-6
_COLUMNS_PER_VOXEL = 48
_SLAB_SLICES = 32
_DENSE_SHARE = 10


@dataclass(frozen=True)
class Lesion:
    """One lesion and its measures.

    `number` counts from 1 by descending volume. `suv_peak` is the highest mean SUV in a sphere of 1 mL
    centred on one of the lesion's voxels (see `peak_sphere`). `tlg` is the total lesion glycolysis, mean
    SUV × mL. `centroid_mm` is (x, y, z) in LPS, `centroid_index` the same place as (z, y, x) in voxels,
    `bounds` the box around the lesion as (start, stop) for z, y, x, and `extent_mm` that box's size along
    z, y, x.
    """

    number: int
    voxels: int
    volume_ml: float
    suv_max: float
    suv_mean: float
    suv_peak: float
    tlg: float
    centroid_mm: tuple[float, float, float]
    centroid_index: tuple[float, float, float]
    bounds: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    extent_mm: tuple[float, float, float]
    confidence: float | None = None


@dataclass(frozen=True)
class LesionTable:
    """The lesions of a study, largest first, and what they amount to."""

    lesions: tuple[Lesion, ...]

    @property
    def count(self) -> int:
        """How many lesions there are."""
        return len(self.lesions)

    @property
    def metabolic_tumour_volume_ml(self) -> float:
        """Volume of all lesions together in mL."""
        return math.fsum(lesion.volume_ml for lesion in self.lesions)

    @property
    def total_lesion_glycolysis(self) -> float:
        """Sum over the lesions of mean SUV × volume in mL."""
        return math.fsum(lesion.tlg for lesion in self.lesions)

    @property
    def suv_max(self) -> float | None:
        """The highest SUV in any lesion; None where there is no lesion."""
        return max((lesion.suv_max for lesion in self.lesions), default=None)

    @property
    def dmax_mm(self) -> float:
        """The distance between the centroids of the two lesions farthest apart, in mm; 0 below two lesions.

        Cottereau et al., J Nucl Med 2020;61:40-45.
        """
        if self.count < 2:
            return 0.0
        return float(pdist([lesion.centroid_mm for lesion in self.lesions]).max())


def label_components(mask: Mask) -> tuple[Labels, int]:
    """Number the 18-connected components of a mask [z, y, x]: labels 1 … n by descending size, and n."""
    labels = np.zeros(mask.shape, dtype=np.uint32)
    box = bounding_box(mask)
    if box is None:
        return labels, 0
    inside, count = cc3d.connected_components(
        np.ascontiguousarray(mask[box]), connectivity=_CONNECTIVITY, return_N=True, binary_image=True
    )
    voxels = inside > 0
    found = inside[voxels]
    by_size = np.argsort(-np.bincount(found, minlength=count + 1)[1:], kind="stable")
    number = np.empty(count, dtype=np.uint32)
    number[by_size] = np.arange(1, count + 1)
    labels[box][voxels] = number[found - 1]
    return labels, int(count)


def component_sizes(labels: Labels, count: int) -> Counts:
    """Voxels of each component: entry i is the size of label i + 1."""
    return np.bincount(labels[labels > 0], minlength=count + 1)[1:]


def remove_small_components(mask: Mask, min_voxels: int) -> Mask:
    """Keep the 18-connected components of `min_voxels` voxels or more."""
    labels, count = label_components(mask)
    voxels = labels > 0
    kept = component_sizes(labels, count) >= min_voxels
    result = np.zeros_like(voxels)
    result[voxels] = kept[labels[voxels] - 1]
    return result


def min_voxels_for_volume(min_volume_ml: float, voxel_volume_ml: float) -> int:
    """Return the fewest voxels that make up at least `min_volume_ml`, to one part in a million.

    0.124 mL on autoPET's grid (2.0364 × 2.0364 × 3 mm) are 10 voxels. Raises UsageError for a volume
    below zero.
    """
    if not (math.isfinite(min_volume_ml) and min_volume_ml >= 0):
        raise UsageError(f"a smallest volume of {min_volume_ml} mL cannot be; give 0 or more")
    return math.ceil(min_volume_ml / voxel_volume_ml * (1 - _ROUNDING))


def bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """Return the smallest box (z, y, x) around a mask's voxels, None for an empty mask."""
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if not used.size:
            return None
        slices.append(slice(int(used[0]), int(used[-1]) + 1))
    z, y, x = slices
    return z, y, x


def measure_lesions(mask: Volume, pet: Volume, confidence: Sequence[float] | None = None) -> LesionTable:
    """Measure the 18-connected components of a mask on a PET in SUV.

    `confidence` gives one number per lesion, in the order of `label_components`. Raises GeometryError where
    the mask does not lie on the PET's grid, ValueRangeError for a PET that is not finite and UsageError for
    another number of confidences than of lesions.
    """
    if not mask.grid.matches(pet.grid):
        raise GeometryError(
            f"the lesion mask's grid {mask.shape} is not the PET's {pet.shape} or lies elsewhere; "
            "resample the mask to the PET first"
        )
    if not np.isfinite(pet.array).all():
        raise ValueRangeError("the PET has voxels that are not finite; convert it again from its source")
    labels, count = label_components(mask.array.astype(bool, copy=False))
    if confidence is not None and len(confidence) != count:
        raise UsageError(f"there are {len(confidence)} confidences for {count} lesions; give one for each")
    if count == 0:
        return LesionTable(())
    components = _sorted_by_label(labels, count)
    measures = _measure(components, pet)
    sure = [None] * count if confidence is None else [float(value) for value in confidence]
    return LesionTable(tuple(_lesion(i, measures, pet, sure[i]) for i in range(count)))


def peak_sphere(spacing_mm: tuple[float, float, float]) -> tuple[Counts, Floats]:
    """Return the voxels of a 1 mL sphere: offsets (n, 3) from its centre voxel in z, y, x, and their weights.

    A weight is the share of the sphere that lies in that voxel, so that voxels at its edge count in part
    and the weights add up to 1. Following Wahl et al., J Nucl Med 2009;50 Suppl 1:122S-150S (PERCIST) and
    QIBA's FDG-PET profile, SUVpeak is the highest mean that such a sphere gives; here it is centred on each
    of the lesion's voxels in turn and takes in voxels outside of the lesion.
    """
    radius = (3 * PEAK_SPHERE_ML * 1000 / (4 * math.pi)) ** (1 / 3)
    reach = [math.ceil(radius / spacing - 0.5) for spacing in spacing_mm]
    axes = [np.arange(-n, n + 1) for n in reach]
    fine_y, fine_x = (_sub_positions(axes[i], spacing_mm[i]) for i in (1, 2))
    # Each voxel is cut into thin columns along z, and each column's part inside the sphere is exact.
    half_chord = np.sqrt(np.clip(radius**2 - fine_y[:, None] ** 2 - fine_x[None, :] ** 2, 0, None))
    weights = []
    for z in axes[0]:
        low, high = (z - 0.5) * spacing_mm[0], (z + 0.5) * spacing_mm[0]
        length = np.clip(np.minimum(high, half_chord) - np.maximum(low, -half_chord), 0, None)
        weights.append(_summed_per_voxel(length))
    stacked = np.array(weights)
    offsets = np.argwhere(stacked > 0)
    values = stacked[stacked > 0]
    return offsets - reach, values / values.sum()


def write_lesions_csv(path: str | Path, table: LesionTable) -> None:
    """Write one row per lesion and a last row `total` with metabolic tumour volume and lesion glycolysis."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for lesion in table.lesions:
        values = (lesion.volume_ml, lesion.suv_max, lesion.suv_mean, lesion.suv_peak, lesion.tlg)
        numbers = [_number(value) for value in (*values, *lesion.centroid_mm, lesion.confidence)]
        writer.writerow([lesion.number, *numbers])
    volume, glycolysis = table.metabolic_tumour_volume_ml, table.total_lesion_glycolysis
    writer.writerow(["total", _number(volume), "", "", "", _number(glycolysis), "", "", "", ""])
    write_text(path, text.getvalue())


def lesions_as_json(table: LesionTable) -> dict[str, Any]:
    """Return the lesions and the study's totals as plain data."""
    return {
        "lesions": [asdict(lesion) for lesion in table.lesions],
        "count": table.count,
        "metabolic_tumour_volume_ml": table.metabolic_tumour_volume_ml,
        "total_lesion_glycolysis": table.total_lesion_glycolysis,
        "dmax_mm": table.dmax_mm,
        "suv_max": table.suv_max,
    }


@dataclass(frozen=True, eq=False)
class _Components:
    """The voxels (n, 3) of all components, one component after the other, and where each begins."""

    voxels: Counts
    starts: Counts
    sizes: Counts


@dataclass(frozen=True, eq=False)
class _Measures:
    """One row per lesion."""

    sizes: Counts
    suv_sum: Floats
    suv_max: Floats
    suv_peak: Floats
    centroid: Floats
    lowest: Counts
    highest: Counts


def _sorted_by_label(labels: Labels, count: int) -> _Components:
    places = np.flatnonzero(labels)
    voxels = np.stack(np.unravel_index(places, labels.shape), axis=1)
    found = labels.ravel()[places]
    sizes = np.bincount(found, minlength=count + 1)[1:]
    return _Components(voxels[np.argsort(found, kind="stable")], np.cumsum(sizes) - sizes, sizes)


def _measure(components: _Components, pet: Volume) -> _Measures:
    voxels, starts = components.voxels, components.starts
    suv = pet.array[tuple(voxels.T)].astype(np.float64)
    return _Measures(
        sizes=components.sizes,
        suv_sum=np.add.reduceat(suv, starts),
        suv_max=np.maximum.reduceat(suv, starts),
        suv_peak=np.maximum.reduceat(_sphere_means(voxels, pet), starts),
        centroid=np.add.reduceat(voxels, starts, axis=0) / components.sizes[:, None],
        lowest=np.minimum.reduceat(voxels, starts, axis=0),
        highest=np.maximum.reduceat(voxels, starts, axis=0),
    )


def _lesion(index: int, measures: _Measures, pet: Volume, confidence: float | None) -> Lesion:
    voxels = int(measures.sizes[index])
    centroid = measures.centroid[index]
    start, stop = measures.lowest[index], measures.highest[index] + 1
    position = pet.affine @ [*centroid[::-1], 1.0]
    z, y, x = zip(start.tolist(), stop.tolist(), strict=True)
    return Lesion(
        number=index + 1,
        voxels=voxels,
        volume_ml=voxels * pet.voxel_volume_ml,
        suv_max=float(measures.suv_max[index]),
        suv_mean=float(measures.suv_sum[index]) / voxels,
        suv_peak=float(measures.suv_peak[index]),
        tlg=float(measures.suv_sum[index]) * pet.voxel_volume_ml,
        centroid_mm=_triple(position[:3]),
        centroid_index=_triple(centroid),
        bounds=(z, y, x),
        extent_mm=_triple((stop - start) * pet.spacing_mm),
        confidence=confidence,
    )


def _sphere_means(voxels: Counts, pet: Volume) -> Floats:
    """Mean SUV of the 1 mL sphere around each voxel (n, 3); what lies outside of the image is left out."""
    offsets, weights = peak_sphere(pet.spacing_mm)
    reach = offsets.max(axis=0)
    sphere = np.zeros(2 * reach + 1)
    sphere[tuple((offsets + reach).T)] = weights
    means = np.empty(len(voxels))
    slabs = voxels[:, 0] // _SLAB_SLICES
    for slab in np.flatnonzero(np.bincount(slabs)):
        here = slabs == slab
        means[here] = _means_in_slab(voxels[here], pet, sphere)
    return means


def _means_in_slab(voxels: Counts, pet: Volume, sphere: Floats) -> Floats:
    """`_sphere_means` of voxels whose box, with the sphere's reach around it, fits into memory."""
    reach = np.array(sphere.shape) // 2
    low = voxels.min(axis=0) - reach
    high = voxels.max(axis=0) + reach + 1
    inside = [slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, pet.shape, strict=True)]
    margins = [(s.start - a, b - s.stop) for s, a, b in zip(inside, low, high, strict=True)]
    centres = voxels - low
    sums = _weighted_sums(np.pad(pet.array[tuple(inside)], margins), centres, sphere)
    if any(before or after for before, after in margins):
        present = np.pad(np.ones([s.stop - s.start for s in inside], dtype=np.uint8), margins)
        sums /= _weighted_sums(present, centres, sphere)
    return sums


def _weighted_sums(image: Array, centres: Counts, sphere: Floats) -> Floats:
    """Sum of image × sphere around each centre (n, 3): one by one, or everywhere at once if many are asked.

    The sphere fits into the image around each centre, so that what a circular convolution carries over the
    edges comes nowhere near; and it is symmetric, so that its convolution is its correlation.
    """
    reach = np.array(sphere.shape) // 2
    if image.size < _DENSE_SHARE * len(centres):
        shape = [next_fast_len(n, real=True) for n in image.shape]
        spectrum = rfftn(image.astype(np.float64), shape)
        spectrum *= rfftn(sphere, shape)
        everywhere: Floats = irfftn(spectrum, shape)
        return np.asarray(everywhere[tuple((centres + reach).T)])
    strides = np.array([image.shape[1] * image.shape[2], image.shape[2], 1])
    flat, first = image.ravel(), (centres - reach) @ strides
    sums = np.zeros(len(centres))
    for offset in np.argwhere(sphere > 0):
        sums += sphere[tuple(offset)] * flat[first + offset @ strides]
    return sums


def _sub_positions(axis: Counts, spacing: float) -> Floats:
    within = (np.arange(_COLUMNS_PER_VOXEL) + 0.5) / _COLUMNS_PER_VOXEL - 0.5
    return ((axis[:, None] + within) * spacing).ravel()


def _summed_per_voxel(columns: Floats) -> Floats:
    height, width = (n // _COLUMNS_PER_VOXEL for n in columns.shape)
    cut = columns.reshape(height, _COLUMNS_PER_VOXEL, width, _COLUMNS_PER_VOXEL)
    return np.asarray(cut.sum(axis=(1, 3)))


def _triple(values: Array) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
