"""MHA, MHD and NRRD files, through SimpleITK, whose frame is LPS already.

ITK trusts a header: it may take any amount of memory, open any file that the header names, and crash on a
dimension below zero. So what a header says is looked at before ITK sees the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from petlesion.errors import FormatError
from petlesion.io.header import checked_grid
from petlesion.volume import Grid, Volume

ENDINGS = (".mha", ".mhd", ".nrrd")
_WRITABLE_ENDINGS = (".mha", ".nrrd")
_HIGHEST_GZIP_RATIO = 1100
_LONGEST_HEADER = 2**16
_DIMENSIONS = re.compile("[1-9]")
_FIELD = re.compile(r"^\s*([\w ]+?)\s*[:=]=?\s*(.*?)\s*$", re.MULTILINE)


def read_grid(path: Path) -> Grid:
    """Read where an image's voxels lie, from its header alone."""
    return _read_information(path)[1]


def read_volume(path: Path) -> Volume:
    """Read an image; whole numbers stay what they are, all others become float32."""
    reader, grid = _read_information(path)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise FormatError(f"{path} is truncated or damaged; copy it again from its source") from error
    array = sitk.GetArrayFromImage(image).reshape(grid.shape)
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    return Volume(array, grid.affine)


def write_volume(path: Path, volume: Volume) -> None:
    """Write one compressed file; the caller sees to its being whole."""
    if not path.name.lower().endswith(_WRITABLE_ENDINGS):
        raise FormatError(f"{path.name} would be two files, a header and its data; write .mha instead")
    _write_checked(path, to_image(volume))


def write_like(path: Path, volume: Volume, original: Path) -> None:
    """Write one compressed file with the origin, spacing and direction of `original` to the last bit.

    An affine holds spacing and direction as one product, out of which they come rounded.
    """
    reader, _ = _read_information(original)
    axes = reader.GetDimension()
    image = to_image(volume)
    image.SetOrigin(reader.GetOrigin()[:3])
    image.SetSpacing(reader.GetSpacing()[:3])
    image.SetDirection(np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3].ravel().tolist())
    _write_checked(path, image)


def to_image(volume: Volume) -> Any:
    """Return the SimpleITK image of the same voxels at the same place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array))
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetDirection((volume.affine[:3, :3] / spacing).ravel().tolist())
    return image


def _write_checked(path: Path, image: Any) -> None:
    """Write one compressed file; raises OSError where it does not come back as it was written.

    ITK overlooks a disk that turns out to be full only when the file is closed.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        whole = _same(sitk.ReadImage(str(path)), image)
    except RuntimeError:
        whole = False
    if not whole:
        raise OSError("the image does not come back as it was written")


def _same(one: Any, other: Any) -> bool:
    """Whether two images have the same voxels at the same place."""
    voxels, place = sitk.GetArrayViewFromImage(one), _place(one)
    same_voxels = np.array_equal(voxels, sitk.GetArrayViewFromImage(other), equal_nan=True)
    return same_voxels and np.allclose(place, _place(other))


def _place(image: Any) -> list[float]:
    return [*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()]


def _read_information(path: Path) -> tuple[Any, Grid]:
    fields = _header_fields(path)
    _check_header(path, fields)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(".nrrd") else "MetaImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FormatError(f"{path} cannot be read as an image; write it again from its source") from error
    if reader.GetNumberOfComponents() != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise FormatError(f"{path} holds several numbers in each voxel, not one; convert it first")
    grid = checked_grid(path, reader.GetSize(), _affine(reader))
    _check_file_size(path, fields, sitk.Image([1, 1, 1], reader.GetPixelID()), grid)
    return reader, grid


def _affine(reader: Any) -> npt.NDArray[np.float64]:
    axes = reader.GetDimension()
    affine = np.eye(4)
    if axes < 3:
        return affine
    directions = np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    affine[:3, :3] = directions * np.array(reader.GetSpacing())[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return affine


def _header_fields(path: Path) -> dict[str, str]:
    """The fields of a MetaImage (key = value) or NRRD (key: value) header, with keys in lower case."""
    with path.open("rb") as file:
        text = file.read(_LONGEST_HEADER).decode("latin-1").replace("\r\n", "\n")
    end = re.search(r"\n\n|^\s*ElementDataFile\s*=.*$", text, re.MULTILINE)
    found = [(key.lower(), value) for key, value in _FIELD.findall(text[: end.end() if end else 0])]
    if len(dict(found)) < len(found):
        raise FormatError(f"{path} says something twice in its header; write it again from its source")
    return dict(found)


def _check_header(path: Path, fields: Mapping[str, str]) -> None:
    if path.name.lower().endswith(".nrrd"):
        outside = "data file" in fields or "datafile" in fields
    else:
        if not _DIMENSIONS.fullmatch(fields.get("ndims", "")):
            raise FormatError(f"{path} cannot be read as an image; write it again from its source")
        data = fields.get("elementdatafile", "")
        detached = path.name.lower().endswith(".mhd") and data.upper() not in ("", "LIST") and "%" not in data
        outside = data.upper() != "LOCAL" and not (detached and Path(data).name == data)
    if outside:
        raise FormatError(f"{path} has its voxels in files elsewhere; write it as one .mha or .nii.gz")


def _check_file_size(path: Path, fields: Mapping[str, str], voxel: Any, grid: Grid) -> None:
    data = fields.get("elementdatafile", "LOCAL")
    file = path if data.upper() == "LOCAL" else path.parent / data
    size = file.stat().st_size if file.is_file() else 0
    raw = fields.get("compresseddata", "").lower() == "false" or fields.get("encoding", "") == "raw"
    needed = int(np.prod(grid.shape)) * voxel.GetSizeOfPixelComponent()
    compressed = fields.get("compresseddatasize", "0")
    promised = int(compressed) if compressed.isdecimal() else 0
    if max(needed, promised) > size * (1 if raw else _HIGHEST_GZIP_RATIO) or promised > size:
        raise FormatError(f"{path} is truncated: its header promises {needed} bytes of voxels; copy it again")
