"""DICOM segmentations in, from any tool: binary, fractional or label maps, in any order of their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from petlesion.dicom.files import DicomFile, read_dataset, reading
from petlesion.dicom.frames import frame_headers
from petlesion.dicom.headers import number, numbers, text
from petlesion.dicom.pixels import NATIVE, decode_frame
from petlesion.dicom.rtstruct import Structure
from petlesion.errors import FormatError
from petlesion.resample import resample_mask_to_grid
from petlesion.volume import Array, Grid, Mask, Volume

Affine = npt.NDArray[np.float64]

_OFF_GRID_VOXELS = 0.1
_OFF_LATTICE_STEPS = 0.25
_MOST_VOXELS = 2**30


@dataclass(frozen=True)
class _Plane:
    """One frame with a lesion in it: `pixels` [y, x] and the affine of its index (x, y) to LPS mm (4 × 4)."""

    pixels: Mask
    affine: Affine


def read_seg(file: DicomFile, grid: Grid, chosen: Sequence[Structure]) -> Volume:
    """The chosen segments of a DICOM SEG as one mask on `grid`.

    Each frame is placed by its own position and orientation. Where its pixels fall on the grid's voxels they
    are copied; otherwise the whole is brought to the grid by nearest neighbour. Raises FormatError for a SEG
    that cannot be read.
    """
    dataset = read_dataset(file)
    with reading(file):
        planes = list(_planes(dataset, file, [segment.number for segment in chosen]))
        mask = _copied(planes, grid)
        return mask if mask is not None else resample_mask_to_grid(_lattice(planes, file), grid)


def segments(dataset: Dataset) -> list[Structure]:
    """The segments that a SEG describes, by their labels and coded types."""
    found = []
    for item in dataset.get("SegmentSequence") or ():
        segment = number(item, "SegmentNumber")
        codes = item.get("SegmentedPropertyTypeCodeSequence") or ()
        kind = " ".join(text(code, "CodeMeaning") or "" for code in codes)
        if segment is not None:
            found.append(Structure(int(segment), text(item, "SegmentLabel") or kind, kind))
    return found


def _planes(dataset: Dataset, file: DicomFile, chosen: Sequence[int]) -> Iterator[_Plane]:
    kind = text(dataset, "SegmentationType")
    half = (number(dataset, "MaximumFractionalValue") or 255.0) / 2
    headers = frame_headers(dataset, str(file))
    _check_size(dataset, len(headers), file)
    for index, header in enumerate(headers):
        if kind != "LABELMAP" and number(header, "ReferencedSegmentNumber") not in chosen:
            continue
        stored = _stored_frame(dataset, file, index)
        if kind == "LABELMAP":
            pixels = np.isin(stored, chosen)
        elif kind == "FRACTIONAL":
            pixels = stored >= half
        else:
            pixels = stored != 0
        if pixels.any():
            yield _Plane(pixels, _plane_affine(header))


def _check_size(dataset: Dataset, frames: int, file: DicomFile) -> None:
    promised = (number(dataset, "Rows") or 0) * (number(dataset, "Columns") or 0) * frames
    bits = promised * (number(dataset, "BitsAllocated") or 0)
    native = str(dataset.file_meta.TransferSyntaxUID) in NATIVE
    if promised < 1 or promised > _MOST_VOXELS or (native and bits > 8 * len(dataset.PixelData)):
        raise FormatError(f"{file} does not hold the pixels that its header states; copy it again")


def _stored_frame(dataset: Dataset, file: DicomFile, index: int) -> Array:
    """One frame's stored values [y, x]; frames of single bits follow each other without a gap."""
    if number(dataset, "BitsAllocated") != 1 or str(dataset.file_meta.TransferSyntaxUID) not in NATIVE:
        return decode_frame(file, dataset, index)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    start = index * rows * columns
    first, last = start // 8, -(-(start + rows * columns) // 8)
    packed = np.frombuffer(dataset.PixelData[first:last], np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[start - 8 * first :]
    return bits[: rows * columns].reshape(rows, columns)


def _plane_affine(header: Dataset) -> Affine:
    cosines = np.array(numbers(header, "ImageOrientationPatient", 6))
    between_rows, between_columns = numbers(header, "PixelSpacing", 2)
    row, column = cosines[:3], cosines[3:]
    affine = np.eye(4)
    affine[:3, 0] = row * between_columns
    affine[:3, 1] = column * between_rows
    affine[:3, 2] = np.cross(row, column)
    affine[:3, 3] = numbers(header, "ImagePositionPatient", 3)
    return affine


def _copied(planes: Sequence[_Plane], grid: Grid) -> Volume | None:
    """The planes written into the grid's voxels, None where they do not fall on them one to one.

    Along the slices half a voxel is allowed, since a series' steps may vary; within them a tenth.
    """
    mask = np.zeros(grid.shape, dtype=bool)
    inverse = np.linalg.inv(grid.affine)
    for plane in planes:
        to_index = inverse @ plane.affine
        steps = np.round(to_index[:3, :2])
        in_plane = np.abs(steps).sum(axis=1) > 0
        height, width = plane.pixels.shape
        drift = np.abs(to_index[:3, :2] - steps) @ (width - 1, height - 1)
        offset = np.abs(to_index[:3, 3] - np.round(to_index[:3, 3]))
        one_to_one = np.abs(steps).sum(axis=0).tolist() == [1, 1] and in_plane.sum() == 2
        if not one_to_one or (drift + offset * in_plane).max() > _OFF_GRID_VOXELS:
            return None
        y, x = np.nonzero(plane.pixels)
        index = np.round(to_index[:3, 3:] + steps @ np.stack([x, y])).astype(np.int64)
        inside = np.all((index >= 0) & (grid.shape[::-1] > index.T).T, axis=0)
        mask[tuple(index[::-1, inside])] = True
    return Volume(mask, grid.affine)


def _lattice(planes: Sequence[_Plane], file: DicomFile) -> Volume:
    """The planes stacked to a volume of their own, with empty slices where no frame is stored."""
    first = planes[0].affine
    normal = first[:3, 2]
    heights = np.array([(plane.affine[:3, 3] - first[:3, 3]) @ normal for plane in planes])
    steps = np.diff(np.unique(np.round(heights, 3)))
    step = float(steps.min()) if len(steps) else 1.0
    places = (heights - heights.min()) / step
    alike = all(np.allclose(plane.affine[:3, :3], first[:3, :3], atol=1e-3) for plane in planes)
    if not alike or np.abs(places - np.round(places)).max() > _OFF_LATTICE_STEPS:
        raise FormatError(f"{file} has frames that make no volume; write the segmentation on the PET's grid")
    depth = int(np.round(places).max()) + 1
    if depth * planes[0].pixels.size > _MOST_VOXELS:
        raise FormatError(
            f"{file} spans {depth} slices, more than fits in memory; write it on the PET's grid"
        )
    mask = np.zeros((depth, *planes[0].pixels.shape), dtype=bool)
    for place, plane in zip(np.round(places).astype(int), planes, strict=True):
        mask[place] |= plane.pixels
    affine = first.copy()
    affine[:3, 2] = normal * step
    affine[:3, 3] = first[:3, 3] + normal * heights.min()
    return Volume(mask, affine)
