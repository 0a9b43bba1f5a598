"""Image files in and out: NIfTI here, MHA and NRRD through ITK.

A volume keeps the axes of its file; only the frame changes, from NIfTI's RAS to LPS millimetres. The place
of a NIfTI image is its sform if the sform's code is not 0, else its qform (NIfTI-1 standard, "3D image
orientation and location in space", as nibabel reads it). A file is refused if neither is set, if the two
name different sides of the patient, or if the sform's voxel size is not the one in pixdim.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip, igzip_lib
from nibabel import imageglobals
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from petlesion.errors import FormatError, GeometryError, PetlesionError, ValueRangeError
from petlesion.io import itk
from petlesion.io.atomic import atomic_file
from petlesion.io.header import checked_grid
from petlesion.volume import Array, Grid, Volume

NIFTI_ENDINGS = (".nii.gz", ".nii")
IMAGE_ENDINGS: tuple[str, ...] = (*NIFTI_ENDINGS, *itk.ENDINGS)

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNIT_MM = {1: 1000.0, 3: 0.001}  # NIFTI_UNITS_METER, NIFTI_UNITS_MICRON; all others are taken as mm
_HEADER_CLASSES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MAGIC = {348: b"n+1", 540: b"n+2"}
_GZIP_MAGIC = b"\x1f\x8b"
_HIGHEST_GZIP_RATIO = 1100  # deflate cannot shrink by more than 1032 : 1
_VOXEL_SIZE_TOLERANCE = 0.01
_PROBABILITY_LEVELS = 2**16 - 1
# isal's annotations call its exception a value.
_DAMAGE: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, cast(Any, igzip_lib.IsalError))


def image_stem(path: str | Path) -> str:
    """Return the file's name without its image ending: `a.b` for `folder/a.b.nii.gz`."""
    name = Path(path).name
    ending = _ending(Path(path))
    return name[: len(name) - len(ending)] if ending else name


def is_image(path: str | Path) -> bool:
    """Whether the file's name has an image's ending."""
    return _ending(Path(path)) != ""


def read_grid(path: str | Path) -> Grid:
    """Read where an image's voxels lie, from its header alone; raises what `read_volume` raises."""
    path = _existing(path)
    if _is_nifti(path):
        with _opened(path) as stream:
            return _read_header(path, stream).grid
    return itk.read_grid(path)


def is_whole(path: str | Path) -> bool:
    """Whether a .nii.gz that was written here is as long as its header promises, without unpacking it.

    The stream's last four bytes are the length of its content (RFC 1952, 2.3.1). A stream of several members,
    which is not written here, does not count as whole.
    """
    path = _existing(path)
    with path.open("rb") as raw, _opened(path) as stream:
        header = _read_header(path, stream)
        raw.seek(-4, os.SEEK_END)
        stated = int.from_bytes(raw.read(4), "little")
    return stated == (header.offset + header.bytes_needed) % 2**32


def read_volume(path: str | Path) -> Volume:
    """Read an image: integers as they are stored, scaled and floating-point values as float32.

    Raises FormatError for a file that is unreadable, truncated or of an unknown kind, GeometryError for one
    that is not 3-D or has a place in space that cannot be. Both name the file. The header is checked
    against the file's size before memory is taken.
    """
    path = _existing(path)
    if not _is_nifti(path):
        return itk.read_volume(path)
    with _opened(path) as stream:
        header = _read_header(path, stream)
        return Volume(_read_array(path, stream, header), header.grid.affine)


def read_mask(path: str | Path) -> Volume:
    """Read a lesion mask of 0 and 1 as bool; raises ValueRangeError, with the file's name, for others."""
    volume = read_volume(path)
    array = volume.array
    if not _is_binary(array):
        other = array[(array != 0) & (array != 1)][0]
        raise ValueRangeError(
            f"{path} has the value {other:g}, but a lesion mask is 0 or 1; choose the label that means lesion"
        )
    return volume.with_array(array.view(np.bool_) if array.itemsize == 1 else array != 0)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write a volume in its own axes, whole or not at all; a mask becomes 0 and 1 in bytes.

    The ending chooses the format. In NIfTI both sform and qform are set, in mm. Raises FormatError for an
    ending that cannot be written and ValueRangeError for whole numbers beyond 32 bits.
    """
    path = Path(path)
    storable = volume.with_array(_storable(path, volume.array))
    with atomic_file(path) as temporary:
        if _is_nifti(path):
            _write_nifti(temporary, storable)
        else:
            itk.write_volume(temporary, storable)


def write_probability(path: str | Path, volume: Volume) -> None:
    """Write probabilities from 0 to 1 as NIfTI of 16 bits a voxel, whole or not at all.

    They come back within 8e-6, and what is above one half stays above it, and nothing else.
    """
    path = Path(path)
    levels = volume.array * np.float32(_PROBABILITY_LEVELS)
    levels -= 0.5
    stored = volume.with_array(np.ceil(levels, out=levels).astype(np.uint16))
    with atomic_file(path) as temporary:
        _write_nifti(temporary, stored, scale=1 / _PROBABILITY_LEVELS)


@dataclass(frozen=True)
class _Header:
    grid: Grid
    dtype: np.dtype[Any]
    offset: int
    scale: tuple[float, float] | None

    @property
    def bytes_needed(self) -> int:
        return int(np.prod(self.grid.shape)) * self.dtype.itemsize


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), "")


def _is_nifti(path: Path) -> bool:
    ending = _ending(path)
    if not ending:
        endings = ", ".join(IMAGE_ENDINGS)
        raise FormatError(f"{path} is not an image that can be read or written here; give one of {endings}")
    return ending in NIFTI_ENDINGS


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path} is not a file; check the path")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a NIfTI file, compressed or not by its content; what the libraries raise becomes FormatError."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            yield igzip.IGzipFile(fileobj=raw, mode="rb") if compressed else raw
    except PetlesionError:
        raise
    except _DAMAGE as error:
        raise FormatError(
            f"{path} is truncated or damaged ({error}); copy it again from its source"
        ) from error


def _read_header(path: Path, stream: BinaryIO) -> _Header:
    header = _parse_header(path, stream)
    try:
        size = header.get_data_shape()
        dtype = header.get_data_dtype()
        offset = int(header.get_data_offset())
        slope, intercept = header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise FormatError(f"{path} has a NIfTI header that cannot be ({error}); write it again") from error
    if dtype.kind not in "iuf":
        raise FormatError(f"{path} holds voxels of type {dtype}, not one number each; convert it first")
    if dtype.itemsize > 8:
        raise FormatError(
            f"{path} holds voxels of type {dtype}, which differs between machines; write float32"
        )
    grid = checked_grid(path, size, _affine(path, header))
    scale = None if slope is None or (slope, intercept) == (1.0, 0.0) else (slope, intercept)
    parsed = _Header(grid, dtype, offset, scale)
    _check_file_size(path, parsed, compressed=isinstance(stream, gzip.GzipFile))
    return parsed


def _parse_header(path: Path, stream: BinaryIO) -> Any:
    start = stream.read(540)
    for size, header_class in _HEADER_CLASSES.items():
        stated = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        if size in stated and len(start) >= size:
            try:
                with _quiet_nibabel():
                    header = header_class(start[:size])
            except (HeaderDataError, WrapStructError, ValueError) as error:
                raise FormatError(
                    f"{path} has a NIfTI header that cannot be ({error}); write it again"
                ) from error
            if header["magic"].item().startswith(_MAGIC[size]):
                return header
    raise FormatError(f"{path} is not a single-file NIfTI image, or is truncated; write it again as .nii.gz")


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel from writing to stderr what it mends in a header, or is about to raise."""
    logger = imageglobals.logger
    former, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = former


def _affine(path: Path, header: Any) -> npt.NDArray[np.float64]:
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = _qform(path, header)
    if not sform_code and not qform_code:
        raise GeometryError(
            f"{path} has neither sform nor qform to say how the patient lies; write it again with an affine"
        )
    affine = np.asarray(sform if sform_code else qform, dtype=np.float64)
    if not np.isfinite(affine).all() or (qform_code and not np.isfinite(qform).all()):
        raise GeometryError(f"{path} has an affine that is not finite; write it again from its source")
    unit_mm = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(header["pixdim"][1:4].astype(np.float64))
    if sform_code:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.allclose(lengths, pixdim, rtol=_VOXEL_SIZE_TOLERANCE):
            raise GeometryError(
                f"{path} has the voxel size {_joined(pixdim)} in pixdim and {_joined(lengths)} in its sform; "
                "write it again with the right one"
            )
    if sform_code and qform_code:
        _check_same_sides(path, affine, qform)
    affine = _RAS_TO_LPS @ affine
    affine[:3] *= unit_mm
    return affine


def _qform(path: Path, header: Any) -> tuple[npt.NDArray[np.float64], int]:
    try:
        with np.errstate(all="ignore"):
            matrix, code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(f"{path} has a qform that cannot be ({error}); write it again") from error
    return (np.eye(4) if matrix is None else matrix), int(code)


def _check_same_sides(path: Path, sform: npt.NDArray[np.float64], qform: npt.NDArray[np.float64]) -> None:
    sides = [checked_grid(path, (1, 1, 1), _RAS_TO_LPS @ affine).orientation for affine in (sform, qform)]
    if sides[0] != sides[1]:
        raise GeometryError(
            f"{path} has a sform that says {sides[0]} and a qform that says {sides[1]}; "
            "write it again with the right direction"
        )


def _check_file_size(path: Path, header: _Header, *, compressed: bool) -> None:
    needed = header.offset + header.bytes_needed
    available = path.stat().st_size * (_HIGHEST_GZIP_RATIO if compressed else 1)
    if header.offset < min(_HEADER_CLASSES) or needed > available:
        raise FormatError(
            f"{path} is truncated: its header promises {needed} bytes, more than it can hold; copy it again"
        )


def _read_array(path: Path, stream: BinaryIO, header: _Header) -> Array:
    stream.seek(header.offset)
    buffer = bytearray(header.bytes_needed)
    view = memoryview(buffer)
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise FormatError(
                f"{path} is truncated: {filled} of {len(buffer)} bytes are there; copy it again"
            )
        filled += count
    stream.read(1)  # gzip compares its checksum only when its end is read
    array = np.frombuffer(buffer, dtype=header.dtype).reshape(header.grid.shape)
    return _scaled(array, header)


def _scaled(array: Array, header: _Header) -> Array:
    if header.scale is None and array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(np.float32, copy=False)
        if header.scale is not None:
            values = values * np.float32(header.scale[0])
            values += np.float32(header.scale[1])
    return values


def _is_binary(array: Array) -> bool:
    if array.dtype.kind == "f":
        return bool(((array == 0) | (array == 1)).all())
    return bool(array.min() >= 0 and array.max() <= 1)


def _storable(path: Path, array: Array) -> Array:
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if array.dtype.kind == "f":
        return array if array.dtype.itemsize in (4, 8) else array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 4:
        return array
    if array.dtype.kind in "iu" and np.array_equal(array.astype(np.int32), array):
        return array.astype(np.int32)
    raise ValueRangeError(f"{path} cannot hold values of type {array.dtype} as they are; convert them first")


def _write_nifti(path: Path, volume: Volume, scale: float | None = None) -> None:
    image = nibabel.Nifti1Image(volume.array.T, _RAS_TO_LPS @ volume.affine)
    if scale is not None:
        image.header.set_slope_inter(scale, 0)
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units(xyz="mm")
    with path.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the stream: the same volume gives the same file.
            with igzip.IGzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(raw)


def _joined(lengths: npt.NDArray[np.float64]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)
