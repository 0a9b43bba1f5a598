"""The part of a study that is worth showing, and the numbers of its lesions there."""

from __future__ import annotations

import numpy as np

from petlesion.errors import StudyError
from petlesion.lesions import LesionTable, component_sizes, label_components
from petlesion.volume import Mask, Study, Volume

Box = tuple[slice, slice, slice]

_BODY_SUV = 0.3
_BODY_HU = -300.0
_MARGIN_MM = 8.0
# A plane counts as body if this share of it does, so that the noise of the air does not.
_BODY_SHARE = 0.002


def body_box(study: Study, mask: Mask) -> Box:
    """The box (z, y, x) around body and lesions, with a margin; the whole image where nothing stands out."""
    body = (study.pet.array > _BODY_SUV) | mask
    if study.ct is not None:
        body |= study.ct.array > _BODY_HU
    z, y, x = (
        _range(body, mask, axis, round(_MARGIN_MM / spacing))
        for axis, spacing in enumerate(study.pet.spacing_mm)
    )
    return z, y, x


def _range(body: Mask, mask: Mask, axis: int, margin: int) -> slice:
    others = tuple(other for other in range(3) if other != axis)
    share = np.count_nonzero(body, axis=others) * body.shape[axis] / body.size
    used = np.flatnonzero((share >= _BODY_SHARE) | mask.any(axis=others))
    if not used.size:
        return slice(0, body.shape[axis])
    return slice(max(0, int(used[0]) - margin), min(body.shape[axis], int(used[-1]) + 1 + margin))


def cropped(volume: Volume, box: Box) -> Volume:
    """The part of a volume inside a box (z, y, x), in its place."""
    affine = volume.affine.copy()
    first = [part.start for part in reversed(box)]
    affine[:3, 3] += affine[:3, :3] @ first
    return Volume(volume.array[box], affine)


def number_lesions(mask: Volume, table: LesionTable, name: str) -> Volume:
    """Give each voxel of a mask the number (uint16) of its lesion in the table, 0 outside.

    Raises StudyError where the table was not measured on this mask.
    """
    labels, count = label_components(mask.array.astype(bool, copy=False))
    if [lesion.voxels for lesion in table.lesions] != component_sizes(labels, count).tolist():
        raise StudyError(
            f"study {name}: the lesion table was not measured on this mask; measure the lesions of this mask"
        )
    # Beyond 65,535 lesions, which no patient has, those that are left share the last number.
    return mask.with_array(np.minimum(labels, np.iinfo(np.uint16).max).astype(np.uint16))
