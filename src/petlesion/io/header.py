"""What is checked of an image's header before its voxels are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from petlesion.errors import GeometryError
from petlesion.volume import Grid

# A 512 × 512 CT of 4,000 slices; what claims to be larger is a broken or hostile header.
LARGEST_VOXEL_COUNT = 2**30


def checked_grid(path: Path, size: Sequence[int], affine: npt.NDArray[np.float64]) -> Grid:
    """Return the grid of an image of `size` (x, y, z) voxels whose affine maps (x, y, z) to LPS mm.

    Further axes of one voxel are dropped. Raises GeometryError, which names the file, for an image that
    is not 3-D, is larger than 2**30 voxels, or has an affine that cannot be.
    """
    size = tuple(int(n) for n in size)
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 3:
        raise GeometryError(
            f"{path} has {len(size)} axes {size}, but an image needs three; extract one volume"
        )
    x, y, z = size
    if min(size) < 1 or x * y * z > LARGEST_VOXEL_COUNT:
        raise GeometryError(
            f"{path} says that it has {x} × {y} × {z} voxels, which cannot be; write it again from its source"
        )
    try:
        return Grid((z, y, x), affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
