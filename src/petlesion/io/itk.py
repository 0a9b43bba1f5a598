"""MHA, MHD and NRRD files, through SimpleITK, whose frame is LPS already."""

from __future__ import annotations

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


def read_grid(path: Path) -> Grid:
    """Read where an image's voxels lie, from its header alone."""
    return _read_information(path)[1]


def read_volume(path: Path) -> Volume:
    """Read an image; whole numbers stay what they are, all others become float32."""
    reader, grid = _read_information(path)
    _check_file_size(path, reader, grid)
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
    sitk.WriteImage(to_image(volume), str(path), useCompression=True)


def to_image(volume: Volume) -> Any:
    """Return the SimpleITK image of the same voxels at the same place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array))
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetDirection((volume.affine[:3, :3] / spacing).ravel().tolist())
    return image


def _read_information(path: Path) -> tuple[Any, Grid]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(".nrrd") else "MetaImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FormatError(f"{path} cannot be read as an image; write it again from its source") from error
    if reader.GetNumberOfComponents() != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise FormatError(f"{path} holds several numbers in each voxel, not one; convert it first")
    return reader, checked_grid(path, reader.GetSize(), _affine(reader))


def _affine(reader: Any) -> npt.NDArray[np.float64]:
    axes = reader.GetDimension()
    affine = np.eye(4)
    if axes < 3:
        return affine
    directions = np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    affine[:3, :3] = directions * np.array(reader.GetSpacing())[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return affine


def _check_file_size(path: Path, reader: Any, grid: Grid) -> None:
    # Detached data may lie in any number of files, which ITK checks as it opens them.
    if path.name.lower().endswith(".mhd"):
        return
    voxels = int(np.prod(grid.shape))
    if voxels > path.stat().st_size * _HIGHEST_GZIP_RATIO:
        raise FormatError(f"{path} is truncated: its header promises {voxels} voxels; copy it again")
