"""The transforms beside those that nnU-Net's own trainer chooses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from petlesion.training.augmentation import build_augmentation


def configuration(patch: tuple[int, int, int]) -> ConfigurationManager:
    strides = [[1, 1, 1], [2, 2, 2], [1, 2, 2]]
    architecture = {
        "network_class_name": "",
        "arch_kwargs": {"strides": strides},
        "_kw_requires_import": (),
    }
    return ConfigurationManager(
        {"patch_size": list(patch), "use_mask_for_norm": [False, False], "architecture": architecture}
    )


def kinds(transforms: list[Any]) -> list[Any]:
    """What the transforms are, how likely each is, and how far the first of all turns and scales."""
    spatial = next(t for t in transforms if isinstance(t, SpatialTransform))
    chances = [
        (type(t.transform), t.apply_probability) if isinstance(t, RandomTransform) else type(t)
        for t in transforms
    ]
    return [*chances, spatial.patch_size, spatial.rotation, spatial.scaling, spatial.p_rotation]


@pytest.mark.parametrize(
    "patch", [(128, 128, 128), (192, 192, 192), (64, 96, 96), (16, 64, 64), (20, 64, 48)]
)
def test_what_is_cut_and_how_it_is_turned_is_nnunets(patch: tuple[int, int, int]) -> None:
    stub = SimpleNamespace(configuration_manager=configuration(patch), print_to_log_file=lambda *_: None)
    rotation, in_plane, cut_size, axes = (
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(stub)
    )
    ours = build_augmentation(configuration(patch), mirroring=True)
    assert ours.cut_size == tuple(cut_size)
    scales = nnUNetTrainer._get_deep_supervision_scales(
        SimpleNamespace(configuration_manager=configuration(patch), enable_deep_supervision=True)
    )
    theirs = nnUNetTrainer.get_training_transforms(
        patch, rotation, scales, axes, in_plane, use_mask_for_norm=[False, False]
    )
    assert kinds(ours.training.transforms) == kinds(theirs.transforms)
    assert np.allclose(ours.training.transforms[-1].ds_scales, scales)


def test_without_mirroring_there_is_no_transform_that_mirrors() -> None:
    def mirrors(wanted: bool) -> int:
        augmentation = build_augmentation(configuration((64, 64, 64)), mirroring=wanted)
        return sum(isinstance(transform, MirrorTransform) for transform in augmentation.training.transforms)

    assert (mirrors(True), mirrors(False)) == (1, 0)
