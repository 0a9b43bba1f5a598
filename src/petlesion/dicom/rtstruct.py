"""Radiotherapy structure sets in: contours (PS3.3 C.8.8.6) to a mask on an image's grid.

A voxel belongs to a structure if its centre lies inside an odd number of the contours of its plane, so that a
contour within another is a hole. Contours are taken where their coordinates say, to a fraction of a voxel;
the images that they were drawn on need not be there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from petlesion.dicom.headers import describe, text
from petlesion.errors import FormatError, GeometryError
from petlesion.volume import Grid, Mask, Volume

Points = npt.NDArray[np.float64]

TUMOUR_NAME = re.compile(r"gtv|tumou?r|lesion|metasta|neoplasm|\bmass\b", re.IGNORECASE)
_NOT_TUMOUR = re.compile(r"o?edema|ctv|ptv|itv", re.IGNORECASE)
_MOST_POINTS = 5_000_000
_FLATNESS_VOXELS = 0.1


@dataclass(frozen=True)
class Structure:
    """One region of interest: its number, the name it was given, and the coded kind of thing that it is."""

    number: int
    name: str
    kind: str = ""

    @property
    def is_tumour(self) -> bool:
        """Whether name or kind say so, and the name does not say oedema or a planning margin."""
        named = TUMOUR_NAME.search(f"{self.name} {self.kind}")
        return named is not None and _NOT_TUMOUR.search(self.name) is None


def structures(dataset: Dataset) -> list[Structure]:
    """The regions of interest that a structure set names."""
    found = []
    for item in dataset.get("StructureSetROISequence") or ():
        number = _whole(text(item, "ROINumber"))
        if number is not None:
            found.append(Structure(number, text(item, "ROIName") or f"ROI {number}"))
    return found


def tumour_structures(found: Sequence[Structure], wanted: str | None = None) -> list[Structure]:
    """The structures that make the reference: those named `wanted`, or the tumour.

    Without a name every structure called GTV, tumour, lesion, mass or metastasis counts, together one mask;
    oedema and planning margins (CTV, PTV) do not, and a structure called GTV_Mass counts alone. A set of a
    single structure is the tumour whatever its name.
    """
    if wanted is not None:
        return [structure for structure in found if structure.name.lower() == wanted.lower()]
    tumours = [structure for structure in found if structure.is_tumour]
    mass = [s for s in tumours if s.name.lower().startswith("gtv_mass")]
    if mass or tumours:
        return mass or tumours
    return list(found) if len(found) == 1 else []


def referenced_series(dataset: Dataset) -> set[str]:
    """SeriesInstanceUIDs of the images that the contours were drawn on, as far as they are stated."""
    found = set()
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                uid = text(series, "SeriesInstanceUID")
                if uid is not None:
                    found.add(uid)
    return found


def frames_of_reference(dataset: Dataset) -> set[str]:
    """FrameOfReferenceUIDs that the contours' coordinates are in, as far as they are stated."""
    frames = [
        text(item, "FrameOfReferenceUID") for item in dataset.get("ReferencedFrameOfReferenceSequence") or ()
    ]
    frames += [
        text(item, "ReferencedFrameOfReferenceUID") for item in dataset.get("StructureSetROISequence") or ()
    ]
    return {frame for frame in frames if frame}


def rasterise(dataset: Dataset, chosen: Sequence[Structure], grid: Grid) -> Volume:
    """The union of the chosen structures as a mask on `grid`.

    Raises FormatError for contours that cannot be read and GeometryError for contours that do not lie in the
    planes of the grid's slices.
    """
    mask = np.zeros(grid.shape, dtype=bool)
    numbers = {structure.number for structure in chosen}
    points_left = _MOST_POINTS
    for item in dataset.get("ROIContourSequence") or ():
        if _whole(text(item, "ReferencedROINumber")) not in numbers:
            continue
        contours = _closed_contours(item)
        points_left -= sum(len(points) for points in contours)
        if points_left < 0:
            raise FormatError(f"a structure set has more than {_MOST_POINTS} points; export it with fewer")
        mask |= _structure_mask([_to_index(points, grid) for points in contours], grid)
    return Volume(mask, grid.affine)


def _whole(number: str | None) -> int | None:
    return int(number) if number is not None and re.fullmatch(r"[+-]?\d{1,12}", number) else None


def _closed_contours(item: Dataset) -> list[Points]:
    contours = []
    for contour in item.get("ContourSequence") or ():
        if text(contour, "ContourGeometricType") not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            continue
        try:
            flat = np.array([float(value) for value in contour.ContourData], dtype=np.float64)
        except (TypeError, ValueError) as problem:
            raise FormatError(
                f"{describe('ContourData')} holds what is no number; export it again"
            ) from problem
        if flat.size % 3 or not np.isfinite(flat).all():
            raise FormatError(f"{describe('ContourData')} does not hold points; export it again")
        if flat.size >= 9:
            contours.append(flat.reshape(-1, 3))
    return contours


def _to_index(points: Points, grid: Grid) -> Points:
    """LPS mm to the grid's continuous index (x, y, z)."""
    inverse = np.linalg.inv(grid.affine)
    index: Points = points @ inverse[:3, :3].T + inverse[:3, 3]
    return index


def _structure_mask(contours: Sequence[Points], grid: Grid) -> Mask:
    """Fill each slice from the nearest plane of contours that is within half a step between planes."""
    mask = np.zeros(grid.shape, dtype=bool)
    if not contours:
        return mask
    if max(float(np.ptp(points[:, 2])) for points in contours) > 2 * _FLATNESS_VOXELS:
        raise GeometryError(
            "the contours of the structure set do not lie in the planes of the PET's slices; give the "
            "reference as a segmentation on the PET's grid"
        )
    heights = np.array([points[:, 2].mean() for points in contours])
    planes = _distinct(heights)
    reach = max(float(np.median(np.diff(planes))) if len(planes) > 1 else 1.0, 1.0) / 2
    for z in range(grid.shape[0]):
        nearest = planes[np.abs(planes - z).argmin()]
        if abs(nearest - z) <= reach + 1e-3:
            here = [
                contours[i] for i in np.flatnonzero(np.abs(heights - nearest) <= _FLATNESS_VOXELS).tolist()
            ]
            mask[z] = _fill(here, grid.shape[1:])
    return mask


def _distinct(heights: Points) -> Points:
    """The heights of the planes: sorted, those closer than a tolerance counted once."""
    ordered = np.sort(heights)
    first = np.concatenate([[True], np.diff(ordered) > _FLATNESS_VOXELS])
    distinct: Points = ordered[first]
    return distinct


def _fill(contours: Sequence[Points], shape: tuple[int, int]) -> Mask:
    """Even-odd fill: in each row, count the edges that lie to the left of each voxel's centre."""
    rows, columns = shape
    start = np.concatenate([points[:, :2] for points in contours])
    end = np.concatenate([np.roll(points[:, :2], -1, axis=0) for points in contours])
    # An edge crosses the rows from its lower end up to, but without, its upper end.
    low = np.clip(np.ceil(np.minimum(start[:, 1], end[:, 1])), 0, rows).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(start[:, 1], end[:, 1])), 0, rows).astype(np.int64)
    lengths = np.maximum(high - low, 0)
    edge = np.repeat(np.arange(len(start)), lengths)
    row = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + low[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row - start[edge, 1]) * slope
    crossings = np.zeros((rows, columns + 1), dtype=np.int64)
    np.add.at(crossings, (row, np.clip(np.ceil(x), 0, columns).astype(np.int64)), 1)
    filled: Mask = np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
    return filled
