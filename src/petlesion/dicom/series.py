"""DICOM image series: found, sorted by position, checked, and stacked to a volume.

Slices are sorted along their common normal (PS3.3 C.7.6.2.1.1), never by file name or instance number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from petlesion.dicom.files import DicomFile
from petlesion.dicom.frames import Frame, frames_of
from petlesion.dicom.headers import number, numbers, text, texts
from petlesion.dicom.pixels import decode
from petlesion.errors import GeometryError, SeriesError
from petlesion.volume import Array, Grid, Volume

Vector = npt.NDArray[np.float64]

_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 0.05
_NOTABLE_VARIATION = 0.005
_SAME_PLACE = 0.01
_GAP = 1.5
_LARGEST_DRIFT = 0.5
_MOST_VOXELS = 2**30
_LONGEST_SIDE = 4096


@dataclass(frozen=True, eq=False)
class Series:
    """The files of one SeriesInstanceUID, with their headers."""

    uid: str
    modality: str
    files: tuple[DicomFile, ...]
    headers: tuple[Dataset, ...]

    @property
    def header(self) -> Dataset:
        """The header of one of its files."""
        return self.headers[0]

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID, empty where the header has none."""
        return text(self.header, "StudyInstanceUID") or ""

    @property
    def frame_of_reference(self) -> str | None:
        """FrameOfReferenceUID."""
        return text(self.header, "FrameOfReferenceUID")

    @property
    def label(self) -> str:
        """What tells this series apart within its study, without its UID."""
        described = text(self.header, "SeriesDescription") or "no description"
        return f"number {text(self.header, 'SeriesNumber') or 'unknown'} ({described})"

    def __str__(self) -> str:
        return f"series {self.uid} ({text(self.header, 'SeriesDescription') or 'no description'})"


@dataclass(frozen=True, eq=False)
class Stack:
    """The frames of one volume in the order of its slices, and their grid."""

    frames: tuple[Frame, ...]
    grid: Grid
    gates: int = 1
    warnings: tuple[str, ...] = field(default=())

    @property
    def headers(self) -> list[Dataset]:
        """One header per frame, gates of a slice next to each other."""
        return [frame.header for frame in self.frames]


def group_series(files: Sequence[DicomFile], headers: Sequence[Dataset]) -> list[Series]:
    """Sort objects into series by SeriesInstanceUID, in the order of their UIDs."""
    members: dict[tuple[str, str], list[int]] = {}
    for index, header in enumerate(headers):
        uid = text(header, "SeriesInstanceUID")
        if uid is not None:
            members.setdefault((uid, (text(header, "Modality") or "").upper()), []).append(index)
    return [
        Series(uid, modality, tuple(files[i] for i in indices), tuple(headers[i] for i in indices))
        for (uid, modality), indices in sorted(members.items())
    ]


def stack(series: Series) -> Stack:
    """Order the slices of an image series and check that they make one volume.

    Raises SeriesError, naming the slices, for gaps, duplicates, or slices that differ in size, direction or
    spacing; GeometryError for a volume whose axes do not stand at right angles (a tilted gantry).
    """
    frames = [
        frame
        for file, header in zip(series.files, series.headers, strict=True)
        for frame in frames_of(file, header)
        if "LOCALIZER" not in texts(frame.header, "ImageType")
    ]
    if not frames:
        raise SeriesError(f"{series} holds no image slice; give the folder of the images")
    _check_alike(series, frames)
    gates = _gates(series, frames)
    row, column = _directions(frames[0])
    normal = np.cross(row, column)
    positions = np.array([numbers(frame.header, "ImagePositionPatient", 3) for frame in frames])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    frames, positions, heights = [frames[i] for i in order], positions[order], heights[order]
    _check_places(series, frames, heights, gates)
    warnings = _check_steps(series, frames[::gates], heights[::gates])
    affine = _affine(frames, positions[::gates], (row, column, normal))
    shape = (len(frames) // gates, int(_size(frames[0])[0]), int(_size(frames[0])[1]))
    try:
        grid = Grid(shape, affine)
    except GeometryError as problem:
        raise GeometryError(f"{series}: {problem}") from None
    if gates > 1:
        warnings.append(f"the PET is gated; the mean of its {gates} gates was taken")
    return Stack(tuple(frames), grid, gates, tuple(warnings))


def read_volume(stacked: Stack, factors: Sequence[float] | None = None) -> Volume:
    """Decode a stack's pixels: stored value × RescaleSlope + RescaleIntercept, times each frame's factor.

    One frame is decoded at a time. The array is int16 where the values are whole numbers that fit (CT), else
    float32. Raises FormatError for pixels that cannot be decoded.
    """
    rescale = [_rescale(frame) for frame in stacked.frames]
    if factors is not None:
        rescale = [(slope * f, intercept * f) for (slope, intercept), f in zip(rescale, factors, strict=True)]
    whole = stacked.gates == 1 and all(slope == 1.0 and rest.is_integer() for slope, rest in rescale)
    array: Array = np.zeros(stacked.grid.shape, dtype=np.int16 if whole else np.float32)
    for index, pixels in enumerate(decode(stacked.frames)):
        slope, intercept = rescale[index]
        if whole:
            values = pixels.astype(np.int32) + int(intercept)
            if array.dtype == np.int16 and (values.min() < -(2**15) or values.max() >= 2**15):
                array = array.astype(np.float32)
            array[index] = values
        else:
            plane = array[index // stacked.gates]
            plane += pixels * np.float32(slope / stacked.gates) + np.float32(intercept / stacked.gates)
    return Volume(array, stacked.grid.affine)


def _rescale(frame: Frame) -> tuple[float, float]:
    """Slope and intercept; a PET without a slope would be a guess, while a CT may hold HU as they are."""
    slope = number(frame.header, "RescaleSlope", SeriesError)
    intercept = number(frame.header, "RescaleIntercept", SeriesError)
    if text(frame.header, "Modality") == "PT" and (slope is None or slope < 0):
        found = "absent" if slope is None else f"{slope:g}"
        raise SeriesError(
            f"{frame.name}: RescaleSlope (0028,1053) is {found}, so that the values of the PET mean nothing; "
            "export the series again"
        )
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _size(frame: Frame) -> tuple[float, float]:
    return number(frame.header, "Rows") or 0.0, number(frame.header, "Columns") or 0.0


def _directions(frame: Frame) -> tuple[Vector, Vector]:
    """Unit vectors towards the next column and the next row."""
    cosines = np.array(numbers(frame.header, "ImageOrientationPatient", 6))
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise SeriesError(
            f"{frame.name} has an ImageOrientationPatient (0020,0037) that cannot be; export again"
        )
    return row / lengths[0], column / lengths[1]


def _check_alike(series: Series, frames: Sequence[Frame]) -> None:
    """Every slice has to agree with the first in size, direction, spacing and frame of reference."""
    first = frames[0]
    rows, columns = _size(first)
    if not (1 <= rows <= _LONGEST_SIDE and 1 <= columns <= _LONGEST_SIDE):
        raise SeriesError(f"{series}: {first.name} has {rows:g} rows and {columns:g} columns; export again")
    if rows * columns * len(frames) > _MOST_VOXELS:
        raise SeriesError(
            f"{series} has {len(frames)} slices of {rows:g} × {columns:g}, more than fits in memory"
        )
    for keyword, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        wanted = np.array(numbers(first.header, keyword, count))
        for frame in frames:
            found = np.array(numbers(frame.header, keyword, count))
            if np.abs(found - wanted).max() > _DIRECTION_TOLERANCE * max(1.0, np.abs(wanted).max()):
                _refuse_mixture(series, keyword, first, frame)
    for frame in frames:
        if _size(frame) != (rows, columns):
            _refuse_mixture(series, "Rows and Columns", first, frame)
        for keyword in ("FrameOfReferenceUID", "PatientID"):
            if text(frame.header, keyword) != text(first.header, keyword):
                _refuse_mixture(series, keyword, first, frame)


def _refuse_mixture(series: Series, what: str, first: Frame, other: Frame) -> None:
    raise SeriesError(
        f"{series} is a mixture: {what} of {first.name} and {other.name} differ; separate the two series"
    )


def _gates(series: Series, frames: Sequence[Frame]) -> int:
    """How many gates of a cycle each slice of a PET was divided into.

    A dynamic PET is refused, unless it has a single frame in time: scanners call such a one dynamic, too.
    """
    series_type = texts(frames[0].header, "SeriesType")
    places = {numbers(frame.header, "ImagePositionPatient", 3) for frame in frames}
    if "DYNAMIC" in series_type and len(frames) > len(places):
        raise SeriesError(
            f"{series} is a dynamic PET, whose frames have no one SUV; give a static reconstruction"
        )
    if "GATED" not in series_type:
        return 1
    gates, rest = divmod(len(frames), len(places))
    if rest:
        raise SeriesError(f"{series} is gated, but some gates of its slices are missing; export it whole")
    return gates


def _check_places(series: Series, frames: Sequence[Frame], heights: Vector, gates: int) -> None:
    """Each place along the normal has to hold one slice, or one slice per gate."""
    places = heights.reshape(-1, gates)
    steps = np.diff(places[:, 0])
    tolerance_mm = _SAME_PLACE * (float(np.median(steps)) if len(steps) else 1.0)
    if np.ptp(places, axis=1).max() > max(tolerance_mm, _SAME_PLACE):
        raise SeriesError(f"{series} is gated, but some gates of its slices are missing; export it whole")
    for index in np.flatnonzero(steps <= max(tolerance_mm, _SAME_PLACE)).tolist():
        lower, upper = frames[index * gates], frames[(index + 1) * gates]
        raise SeriesError(
            f"{series}: {lower.name} and {upper.name} lie at the same place ({places[index, 0]:.2f} mm "
            "along the axis); remove the duplicate"
        )


def _check_steps(series: Series, slices: Sequence[Frame], heights: Vector) -> list[str]:
    """Gaps and uneven steps: beyond 5 % of the nominal step an error, below it a warning."""
    steps = np.diff(heights)
    if len(steps) == 0:
        return []
    nominal = float(np.median(steps))
    for (lower, upper), step, height in zip(pairwise(slices), steps, heights[:-1], strict=True):
        between = f"between {lower.name} and {upper.name} (at {height:.2f} mm)"
        if step > _GAP * nominal:
            missing = round(float(step) / nominal) - 1
            raise SeriesError(f"{series} misses {missing} slice(s) {between}; export the whole series")
        if abs(step - nominal) > _SPACING_TOLERANCE * nominal:
            raise SeriesError(
                f"{series}: the step {between} is {step:.3f} mm, but {nominal:.3f} mm elsewhere; resample "
                "the series to even steps"
            )
    even = np.linspace(heights[0], heights[-1], len(heights))
    drift = np.abs(heights - even)
    if drift.max() > _LARGEST_DRIFT * nominal:
        raise SeriesError(
            f"{series}: {slices[int(drift.argmax())].name} lies {drift.max():.2f} mm from where even steps "
            "would put it; resample the series to even steps"
        )
    if np.abs(steps - nominal).max() <= _NOTABLE_VARIATION * nominal:
        return []
    return [f"slice spacing varies from {steps.min():.3f} to {steps.max():.3f} mm; its mean was taken"]


def _affine(frames: Sequence[Frame], positions: Vector, axes: tuple[Vector, Vector, Vector]) -> Vector:
    row, column, normal = axes
    between_rows, between_columns = numbers(frames[0].header, "PixelSpacing", 2)
    affine = np.eye(4)
    affine[:3, 0] = row * between_columns
    affine[:3, 1] = column * between_rows
    if len(positions) > 1:
        affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    else:
        affine[:3, 2] = normal * (number(frames[0].header, "SliceThickness") or 1.0)
    affine[:3, 3] = positions[0]
    return affine
