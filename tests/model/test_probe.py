import numpy as np

from petlesion.model.plan import plan_from_nnunet
from petlesion.model.probe import probe_images, probe_sample
from tests.inference.nnunet import Recipe, dataset_of, plans_of


def test_the_probe_is_one_patch_of_plausible_values_and_always_the_same() -> None:
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres")
    ct, pet = probe_images(plan)
    assert ct.shape == pet.shape == plan.patch_size
    assert -1100 < ct.min() < -900 and 300 < ct.max() < 600
    assert pet.min() >= 0 and 8 < pet.max() < 40
    for first, second in zip(probe_images(plan), (ct, pet), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_model_for_pet_is_probed_with_pet() -> None:
    recipe = Recipe(channels=("PET",), schemes=("ZScoreNormalization",))
    plan = plan_from_nnunet(plans_of(recipe), dataset_of(recipe), "3d_fullres")
    assert len(probe_images(plan)) == 1


def test_a_sample_is_a_fixed_part() -> None:
    values = np.arange(128**3, dtype=np.float32).reshape(128, 128, 128)
    sample = probe_sample(values)
    assert 10_000 <= sample.size <= 10_500
    for shape in ((56, 56, 96), (128, 80, 32), (192, 112, 112)):
        places = probe_sample(np.arange(np.prod(shape), dtype=np.float64)).astype(int)
        for axis, size in enumerate(shape):
            assert len(np.unique(np.unravel_index(places, shape)[axis])) == size
    np.testing.assert_array_equal(probe_sample(values[:2, :2, :2]).ravel(), values[:2, :2, :2].ravel())
