"""Small nnU-Net v2 model folders with random weights, and stock nnU-Net's own answers with them."""

import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nnunetv2.ensembling.ensemble import merge_files
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from petlesion.inference.backends.torch import build_network
from petlesion.inference.preprocessing import channel_arrays, prepare, transposed_spacing
from petlesion.inference.resampling import resize
from petlesion.inference.tiling import all_tiles, pad_to_patch
from petlesion.model.plan import Plan, plan_from_nnunet
from petlesion.volume import Study

STATISTICS = {
    "0": {"mean": 30.0, "std": 90.0, "percentile_00_5": -800.0, "percentile_99_5": 300.0},
    "1": {"mean": 7.0, "std": 8.0, "percentile_00_5": 1.0, "percentile_99_5": 50.0},
}


@dataclass(frozen=True)
class Recipe:
    """What a model folder of the tests is like; lengths in the order of the transposed array."""

    patch: tuple[int, int, int] = (32, 32, 32)
    spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)
    features: tuple[int, ...] = (8, 16)
    channels: tuple[str, ...] = ("CT", "PET")
    schemes: tuple[str, ...] = ("CTNormalization", "ZScoreNormalization")
    within_mask: bool = False
    mirror_axes: tuple[int, ...] | None = None
    transpose: tuple[int, int, int] = (0, 1, 2)
    old_plans: bool = False
    residual: bool = False
    folds: tuple[str, ...] = ("0",)
    labels: tuple[str, ...] = ("background", "lesion")


def write_model_folder(path: Path, recipe: Recipe, study: Study | None = None, *, bias: float = 0.0) -> Path:
    """Write plans.json, dataset.json and a checkpoint per fold, as nnU-Net's trainer does.

    The weights are random, with a `bias` of the first label's logit, or briefly trained to find the lesions
    of `study`, each fold a little more.
    """
    path.mkdir(parents=True)
    plans, dataset = plans_of(recipe), dataset_of(recipe)
    (path / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (path / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    plan = plan_from_nnunet(plans, dataset, "3d_fullres")
    torch.manual_seed(0)
    network = build_network(plans["configurations"]["3d_fullres"], plan)
    for fold in recipe.folds:
        if study is not None:
            _train_briefly(network, study, plan, steps=30)
        else:
            last = network.decoder.seg_layers[-1]
            torch.nn.init.normal_(last.weight, std=2.0)
            torch.nn.init.zeros_(last.bias)
            torch.nn.init.constant_(last.bias[1:2], bias)
        (path / f"fold_{fold}").mkdir()
        checkpoint = _checkpoint(network, plans, dataset, recipe)
        torch.save(checkpoint, path / f"fold_{fold}" / "checkpoint_final.pth")
    return path


def _checkpoint(
    network: torch.nn.Module, plans: dict[str, Any], dataset: dict[str, Any], recipe: Recipe
) -> dict[str, Any]:
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "dice_per_class": [np.array([0.5])]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": dataset,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": recipe.mirror_axes,
    }


def _train_briefly(network: torch.nn.Module, study: Study, plan: Plan, steps: int) -> None:
    spacing = transposed_spacing(study, plan)
    assert study.reference is not None
    reference = study.reference.reoriented(plan.orientation).array.transpose(plan.transpose)
    image = prepare(channel_arrays(study, plan), spacing, plan).data
    z, y, x = image.shape[1:]
    target = resize(
        reference.astype(np.float32), (z, y, x), spacing, plan.spacing_mm, plan.logit_interpolation
    )
    image, _ = pad_to_patch(image, plan.patch_size)
    target, _ = pad_to_patch(target[None], plan.patch_size)
    z, y, x = image.shape[1:]
    tiles = all_tiles((z, y, x), plan.patch_size, 0.5)
    with_lesion = [tile for tile in tiles if (target[(0, *tile)] > 0.5).any()]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    weight = torch.tensor([1.0, 10.0])
    for step in range(steps):
        choice = with_lesion if step % 2 else tiles
        tile = (slice(None), *choice[(7 * step) % len(choice)])
        labels = torch.from_numpy(target[tile] > 0.5).long()
        loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(image[tile])[None]), labels, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def dataset_of(recipe: Recipe) -> dict[str, Any]:
    return {
        "channel_names": {str(i): name for i, name in enumerate(recipe.channels)},
        "labels": {name: i for i, name in enumerate(recipe.labels)},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }


def plans_of(recipe: Recipe) -> dict[str, Any]:
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(recipe.patch),
        "median_image_size_in_voxels": [64.0, 64.0, 64.0],
        "spacing": list(recipe.spacing),
        "normalization_schemes": list(recipe.schemes),
        "use_mask_for_norm": [recipe.within_mask] * len(recipe.channels),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False,
            "order": 1,
            "order_z": 0,
            "force_separate_z": None,
        },
        "batch_dice": False,
    }
    configuration.update(_old_architecture(recipe) if recipe.old_plans else _architecture(recipe))
    statistics_key = "modality" if recipe.old_plans else "channel"
    backward = [recipe.transpose.index(axis) for axis in range(3)]
    return {
        "dataset_name": "Dataset901_Test",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(recipe.spacing),
        "original_median_shape_after_transp": [64, 64, 64],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(recipe.transpose),
        "transpose_backward": backward,
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        f"foreground_intensity_properties_{'by' if recipe.old_plans else 'per'}_{statistics_key}": STATISTICS,
    }


def _architecture(recipe: Recipe) -> dict[str, Any]:
    stages = len(recipe.features)
    plain, residual = ("PlainConvUNet", "n_conv_per_stage"), ("ResidualEncoderUNet", "n_blocks_per_stage")
    network, blocks = residual if recipe.residual else plain
    return {
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(recipe.features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                blocks: [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    }


def _old_architecture(recipe: Recipe) -> dict[str, Any]:
    stages = len(recipe.features)
    return {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": recipe.features[0],
        "unet_max_num_features": recipe.features[-1],
        "n_conv_per_stage_encoder": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "num_pool_per_axis": [stages - 1] * 3,
        "pool_op_kernel_sizes": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "conv_kernel_sizes": [[3, 3, 3]] * stages,
    }


def stock_prediction(
    folder: Path, study: Study, *, mirror: bool = False, folds: Sequence[str] = ("0",), step: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Stock nnUNetPredictor's mask and lesion probability [z, y, x] of a study whose axes lie in LPS."""
    predictor = nnUNetPredictor(step, use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), tuple(folds))
    channels = predictor.dataset_json["channel_names"].values()
    images = {"CT": study.ct, "PET": study.pet}
    data = np.stack([images[name].array for name in channels]).astype(np.float32)
    properties = {"spacing": list(study.pet.spacing_mm)}
    mask, probabilities = predictor.predict_single_npy_array(data, properties, None, None, True)
    lesion = predictor.dataset_json["labels"]["lesion"]
    return mask == lesion, probabilities[lesion]


def stock_ensemble(folder: Path, probabilities: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What nnUNetv2_ensemble makes of several models' lesion probabilities [z, y, x]: mask and mean."""
    folder.mkdir()
    files = [folder / f"{number}.npz" for number in range(len(probabilities))]
    for path, lesion in zip(files, probabilities, strict=True):
        np.savez(path, probabilities=np.stack([1 - lesion, lesion]))
    files[0].with_suffix(".pkl").write_bytes(pickle.dumps({}))
    written: list[np.ndarray] = []
    writer = SimpleNamespace(write_seg=lambda mask, *_: written.append(mask))
    labels = LabelManager({"background": 0, "lesion": 1}, None)
    merge_files(list(map(str, files)), str(folder / "merged"), ".npz", writer, labels, True)
    return written[0] == 1, np.load(folder / "merged.npz")["probabilities"][1]


@contextmanager
def sums_in_float32() -> Iterator[None]:
    """Let stock nnU-Net add up tiles in float32.

    It does so in half precision, whose rounding decides the label of a voxel in a thousand where the
    weights are random, and of hardly any where they are trained.
    """
    half = torch.half
    torch.half = torch.float32
    try:
        yield
    finally:
        torch.half = half
