"""From a study to a network's input and from its output back to the study, as nnU-Net does both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from petlesion.errors import StudyError
from petlesion.inference.resampling import Float, Shape, Spacing, resize, shape_at_spacing
from petlesion.model.plan import CT, PET, Normalization, Plan
from petlesion.volume import Mask, Study, Volume

_SMALLEST_STD = 1e-8


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """A study as a network sees it, and what is needed for the way back.

    `data` is [channel, z, y, x] float32 on the plan's spacing; `crop` the non-zero region of the
    transposed image of shape `full_shape` and `spacing` (mm).
    """

    data: Float
    crop: tuple[slice, slice, slice]
    full_shape: Shape
    spacing: Spacing

    @property
    def cropped_shape(self) -> Shape:
        """Shape after cropping, before resampling."""
        z, y, x = (part.stop - part.start for part in self.crop)
        return z, y, x


def channel_arrays(study: Study, plan: Plan) -> list[npt.NDArray[np.floating]]:
    """The study's images in the plan's channels, orientation and axis order; views where possible.

    Raises StudyError if the plan needs a CT that the study lacks.
    """
    volumes = {PET: study.pet, CT: study.ct}
    arrays = []
    for channel in plan.channels:
        volume = volumes[channel]
        if volume is None:
            raise StudyError(
                f"study {study.name} has no CT, which this model needs; "
                "give its CT or take a model for PET alone"
            )
        arrays.append(volume.reoriented(plan.orientation).array.transpose(plan.transpose))
    return arrays


def transposed_spacing(study: Study, plan: Plan) -> Spacing:
    """The study's spacing in mm in the order of the plan's array."""
    spacing = study.pet.reoriented(plan.orientation).spacing_mm
    z, y, x = (spacing[axis] for axis in plan.transpose)
    return z, y, x


def prepare(arrays: Sequence[npt.NDArray[np.floating]], spacing: Spacing, plan: Plan) -> NetworkInput:
    """Crop to the non-zero region, normalise and resample (nnunetv2's DefaultPreprocessor.run_case_npy).

    `arrays`: one [z, y, x] per channel, transposed as the plan says, as is `spacing` (mm).
    """
    full_shape = _shape(arrays[0])
    crop = _nonzero_box(arrays)
    cropped = [array[crop] for array in arrays]
    inside = _nonzero_region(cropped) if any(n.within_mask for n in plan.normalization) else None
    shape = shape_at_spacing(_shape(cropped[0]), spacing, plan.spacing_mm)
    data = np.empty((len(cropped), *shape), dtype=np.float32)
    for channel, (array, normalization) in enumerate(zip(cropped, plan.normalization, strict=True)):
        normal = normalize(array, normalization, inside)
        data[channel] = resize(normal, shape, spacing, plan.spacing_mm, plan.image_interpolation)
    return NetworkInput(data, crop, full_shape, spacing)


def normalize(
    array: npt.NDArray[np.floating], normalization: Normalization, inside: Mask | None = None
) -> Float:
    """A float32 copy of the array, scaled as the scheme says."""
    image = np.array(array, dtype=np.float32, order="C")
    if normalization.scheme == "CTNormalization":
        np.clip(image, normalization.lower, normalization.upper, out=image)
        image -= normalization.mean
        image /= max(normalization.std, _SMALLEST_STD)
    elif normalization.scheme == "RescaleTo01Normalization":
        image -= image.min()
        image /= max(float(image.max()), _SMALLEST_STD)
    elif normalization.scheme == "ZScoreNormalization":
        where = inside if normalization.within_mask and inside is not None else None
        counted = image if where is None else image[where]
        mean = np.float32(counted.mean(dtype=np.float64))
        std = max(float(counted.std(dtype=np.float64)), _SMALLEST_STD)
        np.subtract(image, mean, out=image, where=True if where is None else where)
        np.divide(image, np.float32(std), out=image, where=True if where is None else where)
    return image


def restore(logits: Float, network_input: NetworkInput, plan: Plan, elsewhere: float) -> Float:
    """Bring logits [label, z, y, x] back to the uncropped image's grid, in its untransposed axis order.

    What was cropped away is `elsewhere`.
    """
    full = np.full((len(logits), *network_input.full_shape), elsewhere, dtype=np.float32)
    for target, source in zip(full, logits, strict=True):
        target[network_input.crop] = resize(
            source,
            network_input.cropped_shape,
            plan.spacing_mm,
            network_input.spacing,
            plan.logit_interpolation,
        )
    backward = np.argsort(plan.transpose)
    return full.transpose(0, *(int(axis) + 1 for axis in backward))


def mask_on_network_grid(mask: Volume, network_input: NetworkInput, plan: Plan) -> Mask:
    """A mask on the study's grid, taken to the grid of the network's input by the nearest voxel."""
    cropped = mask.reoriented(plan.orientation).array.transpose(plan.transpose)[network_input.crop]
    shape = network_input.data.shape[1:]
    nearest = [
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for old, new in zip(cropped.shape, shape, strict=True)
    ]
    return np.asarray(cropped[np.ix_(*nearest)], dtype=bool)


def _shape(array: npt.NDArray[np.floating]) -> Shape:
    z, y, x = array.shape
    return z, y, x


def _nonzero_box(arrays: Sequence[npt.NDArray[np.floating]]) -> tuple[slice, slice, slice]:
    z, y, x = (_nonzero_range(arrays, axis) for axis in range(3))
    return z, y, x


def _nonzero_range(arrays: Sequence[npt.NDArray[np.floating]], axis: int) -> slice:
    """The slices along an axis from the first to the last that is not zero in all channels."""
    size = arrays[0].shape[axis]

    def first_used(indices: range) -> int | None:
        return next((i for i in indices if any(array.take(i, axis).any() for array in arrays)), None)

    first = first_used(range(size))
    last = first_used(range(size - 1, -1, -1))
    return slice(0, size) if first is None or last is None else slice(first, last + 1)


def _nonzero_region(arrays: Sequence[npt.NDArray[np.floating]]) -> Mask:
    """nnU-Net's nonzero mask: where any channel differs from zero, holes filled."""
    nonzero = arrays[0] != 0
    for array in arrays[1:]:
        nonzero |= array != 0
    return np.asarray(ndimage.binary_fill_holes(nonzero), dtype=bool)
