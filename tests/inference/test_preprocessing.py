from dataclasses import replace

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.special import expit

from petlesion.errors import StudyError
from petlesion.inference.preprocessing import channel_arrays, prepare, restore, transposed_spacing
from petlesion.model.plan import plan_from_nnunet
from petlesion.volume import Study, Volume
from tests.inference.nnunet import Recipe, dataset_of, plans_of

RECIPES = {
    "as it is": Recipe(),
    "resampled": Recipe(spacing=(5.0, 3.0, 4.5)),
    "thick slices": Recipe(spacing=(16.0, 5.0, 4.5)),
    "transposed": Recipe(spacing=(3.0, 5.0, 4.5), transpose=(2, 0, 1)),
    "PET by the cohort": Recipe(schemes=("CTNormalization", "CTNormalization")),
    "within the mask": Recipe(within_mask=True, schemes=("ZScoreNormalization", "ZScoreNormalization")),
    "rescaled": Recipe(schemes=("RescaleTo01Normalization", "NoNormalization")),
    "PET alone": Recipe(channels=("PET",), schemes=("ZScoreNormalization",)),
}


@pytest.fixture
def padded_phantom(phantom: Study) -> Study:
    """A study with a rim of zeros in both images, which nnU-Net crops away."""
    ct, pet = phantom.ct.array.copy(), phantom.pet.array.copy()
    for array in (ct, pet):
        array[:3], array[:, -4:], array[:, :, :2] = 0, 0, 0
    return replace(phantom, pet=phantom.pet.with_array(pet), ct=phantom.ct.with_array(ct))


@pytest.mark.parametrize("name", RECIPES)
def test_input_and_way_back_are_nnunets(name: str, padded_phantom: Study) -> None:
    recipe = RECIPES[name]
    plans, dataset = plans_of(recipe), dataset_of(recipe)
    plan = plan_from_nnunet(plans, dataset, "3d_fullres")
    images = {"CT": padded_phantom.ct, "PET": padded_phantom.pet}
    data = np.stack([images[channel].array for channel in recipe.channels])
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    properties = {"spacing": list(padded_phantom.pet.spacing_mm)}
    expected, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        data, None, properties, manager, configuration, dataset
    )

    spacing = transposed_spacing(padded_phantom, plan)
    found = prepare(channel_arrays(padded_phantom, plan), spacing, plan)
    np.testing.assert_allclose(found.data, expected, atol=1e-3)

    logits = np.random.default_rng(1).normal(size=(2, *found.data.shape[1:])).astype(np.float32)
    mask, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(logits), manager, configuration, manager.get_label_manager(dataset), properties, True
    )
    restored = restore(logits[1:] - logits[:1], found, plan, -100.0)[0]
    assert restored.shape == padded_phantom.pet.shape
    np.testing.assert_array_equal(restored > 0, mask == 1)
    np.testing.assert_allclose(expit(restored), probabilities[1], atol=1e-5)


def test_the_network_sees_the_same_however_the_files_lie(phantom: Study) -> None:
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres")
    turned = phantom.reoriented("RSA")
    for expected, found in zip(channel_arrays(phantom, plan), channel_arrays(turned, plan), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert transposed_spacing(turned, plan) == transposed_spacing(phantom, plan)


def test_a_model_of_another_orientation_sees_the_patient_turned(phantom: Study) -> None:
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres", orientation="RAS")
    _, pet = channel_arrays(phantom, plan)
    np.testing.assert_array_equal(pet, phantom.pet.array[:, ::-1, ::-1])


def test_a_model_for_ct_and_pet_refuses_pet_alone(phantom: Study) -> None:
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres")
    with pytest.raises(StudyError, match="has no CT"):
        channel_arrays(replace(phantom, ct=None), plan)


def test_an_image_of_zeros_is_not_cropped() -> None:
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres")
    zeros = Volume(np.zeros((5, 6, 7), dtype=np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))
    study = Study("zeros", zeros, zeros)
    assert prepare(channel_arrays(study, plan), (4.0, 4.0, 4.0), plan).data.shape == (2, 5, 6, 7)
