from dataclasses import replace

import numpy as np
import pytest

from petlesion.inference.body import MARGIN_MM, body_mask
from petlesion.volume import Study, Volume

SPACING = (4.0, 4.0, 4.0)


def body_on_a_table(shape: tuple[int, int, int] = (60, 90, 120)) -> tuple[Study, np.ndarray, np.ndarray]:
    """An elliptic cylinder of tissue with uptake, and a flat table under it without any."""
    _, y, x = np.indices(shape)
    body = ((y - 40) / 28) ** 2 + ((x - 60) / 40) ** 2 <= 1
    table = (y >= 82) & (y < 84) & (x > 5) & (x < 115)
    ct = np.where(body, 30.0, np.where(table, 200.0, -1000.0)).astype(np.float32)
    pet = np.where(body, 1.0, 0.01).astype(np.float32)
    affine = np.diag([*SPACING[::-1], 1.0])
    return Study("on a table", Volume(pet, affine), Volume(ct, affine)), body, table


def test_the_body_is_in_with_a_margin_and_the_table_is_out() -> None:
    study, body, table = body_on_a_table()
    found = body_mask(study)
    assert found[body].all()
    assert not found[table].any()
    margin = round(MARGIN_MM / SPACING[0])
    assert found[:, 40, 60 - 40 - margin].all()
    assert not found[:, 40, 60 - 40 - 4 * margin].any()


def test_a_limb_without_uptake_is_in_as_long_as_it_lies_near() -> None:
    study, body, _ = body_on_a_table()
    cold = study.pet.array.copy()
    cold[:, :, 90:] = 0.05
    found = body_mask(replace(study, pet=study.pet.with_array(cold)))
    assert found[:, :, :97][body[:, :, :97]].all()


def test_a_hot_spot_in_the_air_is_in() -> None:
    study, _, _ = body_on_a_table()
    hot = study.pet.array.copy()
    hot[50:52, 3:5, 3:5] = 20.0
    assert body_mask(replace(study, pet=study.pet.with_array(hot)))[50, 3, 3]


def test_the_pet_alone_shows_the_body() -> None:
    study, body, _ = body_on_a_table()
    assert body_mask(replace(study, ct=None))[body].all()


@pytest.mark.parametrize("slices", [1, 2])
def test_a_study_of_few_slices_has_a_body(slices: int) -> None:
    study, body, _ = body_on_a_table((slices, 90, 120))
    assert body_mask(study)[body].all()


def test_air_has_no_body() -> None:
    study, _, _ = body_on_a_table()
    air = study.pet.with_array(np.zeros(study.pet.shape, dtype=np.float32))
    assert not body_mask(replace(study, pet=air)).any()
