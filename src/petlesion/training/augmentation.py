"""nnU-Net's augmentation for a patch: which transforms, and how much larger a piece they need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

MIRROR_AXES = (0, 1, 2)
_SCALES = (0.85, 1.25)


@dataclass(frozen=True)
class Augmentation:
    """Transforms for training and validation, and the size of the piece that training cuts from a case.

    `cut_size` is in voxels (z, y, x).
    """

    training: Any
    validation: Any
    cut_size: tuple[int, ...]


def build_augmentation(configuration: ConfigurationManager, *, mirroring: bool) -> Augmentation:
    """The transforms that nnU-Net's trainer makes for a 3-D patch, with mirroring on every axis or on none.

    A patch whose first axis is more than three times shorter than another is rotated in its plane only.
    """
    patch = tuple(configuration.patch_size)
    in_plane = max(patch) / patch[0] > ANISO_THRESHOLD
    angle = math.pi if in_plane else math.radians(30)
    rotation = (-angle, angle)
    cut_size = get_patch_size(patch, rotation, rotation, rotation, _SCALES)
    if in_plane:
        cut_size[0] = patch[0]
    scales = supervision_scales(configuration)
    training = nnUNetTrainer.get_training_transforms(
        patch,
        rotation,
        scales,
        MIRROR_AXES if mirroring else None,
        in_plane,
        use_mask_for_norm=configuration.use_mask_for_norm,
    )
    return Augmentation(training, nnUNetTrainer.get_validation_transforms(scales), tuple(map(int, cut_size)))


def supervision_scales(configuration: ConfigurationManager) -> list[list[float]]:
    """How much finer each supervised output is than the patch, the finest (1, 1, 1) first."""
    strides = np.array(configuration.pool_op_kernel_sizes)
    scales: list[list[float]] = (1 / np.cumprod(strides, axis=0))[:-1].tolist()
    return scales
