"""Predictive entropy and mutual information of members made by hand, and of folds and mirrorings."""

from pathlib import Path

import numpy as np
import pytest

from petlesion.inference.predict import PredictionSettings, load_model, predict
from petlesion.inference.uncertainty import PassSums, binary_entropy
from petlesion.model.bundle import Bundle
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Grid, Study
from tests.inference.nnunet import Recipe, write_model_folder

GRID = Grid((1, 1, 6), np.eye(4))
FULL = PredictionSettings(tiles="full")


def entropy_of(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * np.log2(p) - (1 - p) * np.log2(1 - p)


def test_entropy_is_in_bits() -> None:
    values = np.array([0, 1, 0.5, 0.25, 0.11002786], dtype=np.float32)
    np.testing.assert_allclose(binary_entropy(values), [0, 0, 1, 0.8112781, 0.5], atol=1e-6)


def test_members_made_by_hand_have_the_entropy_and_information_on_paper() -> None:
    """Agreeing and sure, agreeing and unsure, disagreeing and sure, mixed, and two with a third."""
    members = np.array(
        [
            [0.0, 0.5, 0.0, 0.25, 0.9, 1.0],
            [0.0, 0.5, 1.0, 0.75, 0.9, 1.0],
            [0.0, 0.5, 0.0, 0.25, 0.3, 1.0],
            [0.0, 0.5, 1.0, 0.75, 0.3, 1.0],
        ],
        dtype=np.float32,
    )
    sums = PassSums(GRID)
    for member in members:
        sums.add(member.reshape(GRID.shape))
    found = sums.uncertainty()
    assert found.passes == 4
    np.testing.assert_allclose(found.entropy.array.ravel(), [0, 1, 1, 1, entropy_of(0.6), 0], atol=1e-6)
    mixed, split = 1 - entropy_of(0.25), entropy_of(0.6) - (entropy_of(0.9) + entropy_of(0.3)) / 2
    np.testing.assert_allclose(found.mutual_information.array.ravel(), [0, 0, 1, mixed, split, 0], atol=1e-6)


def test_a_single_pass_disagrees_with_nobody(rng: np.random.Generator) -> None:
    sums = PassSums(GRID)
    sums.add(rng.random(GRID.shape, dtype=np.float32))
    found = sums.uncertainty()
    assert found.passes == 1
    assert not found.mutual_information.array.any() and found.entropy.array.all()


@pytest.mark.parametrize("fold_average", ["logits", "probabilities"])
def test_folds_are_passes_and_leave_the_probability_as_it_is(
    bundle: Bundle, known_study: Study, fold_average: str
) -> None:
    settings = PredictionSettings(tiles="full", fold_average=fold_average)
    model = load_model(bundle.path, precision="float32")
    alone = [
        predict(known_study, load_model(bundle.path, [fold], precision="float32"), FULL).probability.array
        for fold in ("0", "1")
    ]
    found = predict(known_study, model, settings, with_uncertainty=True)
    expected = predict(known_study, model, settings)
    assert expected.uncertainty is None and found.uncertainty is not None and found.uncertainty.passes == 2
    np.testing.assert_allclose(found.probability.array, expected.probability.array, atol=1e-6)
    entropy = binary_entropy(np.mean(alone, axis=0))
    np.testing.assert_allclose(found.uncertainty.entropy.array, entropy, atol=1e-5)
    information = entropy - np.mean([binary_entropy(p) for p in alone], axis=0)
    np.testing.assert_allclose(found.uncertainty.mutual_information.array, information, atol=1e-5)


def test_members_count_by_their_weights(
    tmp_path: Path, member_folders: list[Path], known_study: Study
) -> None:
    """A member's folds share its weight; here three quarters for one fold, a quarter for two."""
    single, double = member_folders
    bundle = export_model(ExportRequest([single, double], weights=(3.0, 1.0)), tmp_path / "ensemble")
    found = predict(
        known_study, load_model(bundle.path, precision="float32"), FULL, with_uncertainty=True
    ).uncertainty
    alone = [
        predict(known_study, load_model(folder, [fold], precision="float32"), FULL).probability.array
        for folder, fold in ((single, "0"), (double, "0"), (double, "1"))
    ]
    shares = (0.75, 0.125, 0.125)
    entropy = binary_entropy(np.average(alone, axis=0, weights=shares))
    information = entropy - np.average([binary_entropy(p) for p in alone], axis=0, weights=shares)
    assert found is not None and found.passes == 3 and information.max() > 0.05
    np.testing.assert_allclose(found.entropy.array, entropy, atol=1e-2)
    np.testing.assert_allclose(found.mutual_information.array, information, atol=1e-2)


def test_mirrorings_are_passes_in_any_orientation(tmp_path: Path, known_study: Study) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(mirror_axes=(0, 2), patch=(16, 16, 16)))
    model = load_model(folder, precision="float32")
    turned = known_study.reoriented("RAS")
    seen = []
    found = predict(
        turned, model, FULL, lambda done, total: seen.append((done, total)), with_uncertainty=True
    )
    assert found.uncertainty is not None and found.uncertainty.passes == 4
    assert seen[-1][0] == seen[-1][1] == len(seen)
    np.testing.assert_allclose(
        found.probability.array, predict(turned, model, FULL).probability.array, atol=1e-5
    )
    information, entropy = found.uncertainty.mutual_information, found.uncertainty.entropy
    assert information.grid.matches(turned.pet.grid)
    assert information.array.max() > 0 and (information.array <= entropy.array + 1e-6).all()
