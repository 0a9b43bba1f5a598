import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petlesion.errors import MissingExtraError, ModelError, StudyError, UsageError
from petlesion.inference.predict import (
    LESION_PROBABILITY,
    Member,
    Model,
    PredictionSettings,
    _as_probability,
    lesion_probability,
    load_model,
    predict,
    prepare_study,
)
from petlesion.model.bundle import Bundle
from petlesion.model.plan import plan_from_nnunet
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Study, Volume
from tests.conftest import make_phantom
from tests.inference.nnunet import (
    Recipe,
    dataset_of,
    plans_of,
    stock_ensemble,
    stock_prediction,
    sums_in_float32,
    write_model_folder,
)

FULL = PredictionSettings(tiles="full")


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans format")
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(old_plans=True),
        Recipe(spacing=(3.0, 5.0, 4.5), transpose=(2, 0, 1)),
        Recipe(spacing=(16.0, 5.0, 4.5), patch=(8, 32, 32)),
        Recipe(patch=(48, 32, 64)),
        Recipe(channels=("PET",), schemes=("CTNormalization",)),
        Recipe(mirror_axes=(0, 2)),
        Recipe(folds=("0", "1", "2", "3", "4")),
        Recipe(folds=("0", "all"), mirror_axes=(0, 1, 2)),
    ],
    ids=[
        "as it is",
        "plans of 2023",
        "resampled and transposed",
        "thick slices",
        "smaller than a patch",
        "PET alone",
        "mirrored",
        "five folds",
        "folds mirrored",
    ],
)
def test_full_tiles_with_random_weights_are_stock_nnunets(
    recipe: Recipe, tmp_path: Path, known_study: Study
) -> None:
    folder = write_model_folder(tmp_path / "model", recipe)
    with sums_in_float32():
        mirrored = recipe.mirror_axes is not None
        mask, probability = stock_prediction(folder, known_study, mirror=mirrored, folds=recipe.folds)
    assert 0.001 < mask.mean() < 0.999
    model = load_model(folder, recipe.folds, precision="float32")
    found = predict(known_study, model, FULL).probability.array
    assert found.dtype == np.float32
    assert_same_labels(found > 0.5, mask)
    np.testing.assert_allclose(found, probability, atol=1e-4)


def assert_same_labels(found: np.ndarray, stock: np.ndarray) -> None:
    """All voxels but one in ten thousand, and a Dice of 0.999."""
    assert (found == stock).mean() >= 0.9999
    assert 2 * (found & stock).sum() / (found.sum() + stock.sum()) >= 0.999


@pytest.mark.parametrize("step", [0.25, 0.75, 1.0])
def test_other_steps_are_stock_nnunets(step: float, tmp_path: Path, known_study: Study) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    with sums_in_float32():
        mask, probability = stock_prediction(folder, known_study, step=step)
    settings = replace(FULL, step=step)
    found = predict(known_study, load_model(folder, precision="float32"), settings).probability.array
    assert_same_labels(found > 0.5, mask)
    np.testing.assert_allclose(found, probability, atol=1e-4)


def test_a_lesion_among_several_labels_has_stock_nnunets_probability(
    tmp_path: Path, known_study: Study
) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(labels=("background", "organ", "lesion")))
    with sums_in_float32():
        _, probability = stock_prediction(folder, known_study)
    assert 0.001 < (probability > 0.5).mean() < 0.999
    bundle = export_model(ExportRequest([folder]), tmp_path / "bundle")
    for path, tolerance in ((folder, 1e-4), (bundle.path, 1e-3)):
        found = predict(known_study, load_model(path, precision="float32"), FULL).probability.array
        np.testing.assert_allclose(found, probability, atol=tolerance)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(mirror_axes=(0, 1, 2)),
        Recipe(spacing=(3.0, 5.0, 4.5), transpose=(2, 0, 1)),
    ],
    ids=["mirrored", "resampled and transposed"],
)
def test_a_bundle_with_trained_weights_gives_stock_nnunets_labels(
    recipe: Recipe, tmp_path: Path, known_study: Study
) -> None:
    """Stock nnU-Net as it is, sums in half precision included."""
    folder = write_model_folder(tmp_path / "model", recipe, known_study)
    mirrored = recipe.mirror_axes is not None
    stock, _ = stock_prediction(folder, known_study, mirror=mirrored, folds=recipe.folds)
    assert stock.any()
    bundle = export_model(ExportRequest([folder]), tmp_path / "bundle")
    found = predict(known_study, load_model(bundle.path, precision="float32"), FULL).probability.array
    assert_same_labels(found > 0.5, stock)


@pytest.mark.parametrize("folds", [("0",), ("0", "1")])
def test_full_tiles_with_trained_weights_are_stock_nnunets(
    folds: tuple[str, ...], model_folder: Path, bundle: Bundle, known_study: Study
) -> None:
    stock, _ = stock_prediction(model_folder, known_study, folds=folds)
    for path in (model_folder, bundle.path):
        found = (
            predict(known_study, load_model(path, folds, precision="float32"), FULL).probability.array > 0.5
        )
        assert stock.any()
        assert_same_labels(found, stock)


def test_the_papers_network_gives_stock_nnunets_labels(tmp_path: Path) -> None:
    """Its six stages and features, on patches of 64 voxels in place of 128 to save time."""
    study = make_phantom((30, 60, 70))
    recipe = Recipe(patch=(64, 64, 64), features=(32, 64, 128, 256, 320, 320))
    folder = write_model_folder(tmp_path / "model", recipe)
    with sums_in_float32():
        mask, probability = stock_prediction(folder, study)
    assert 0.001 < mask.mean() < 0.999
    bundle = export_model(ExportRequest([folder]), tmp_path / "bundle")
    found = predict(study, load_model(bundle.path, precision="float32"), FULL).probability.array
    assert_same_labels(found > 0.5, mask)
    np.testing.assert_allclose(found, probability, atol=1e-3)


def test_no_mirror_overrides_the_training(tmp_path: Path, known_study: Study) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(mirror_axes=(0, 1, 2)))
    with sums_in_float32():
        _, probability = stock_prediction(folder, known_study)
    settings = replace(FULL, mirror=False)
    found = predict(known_study, load_model(folder, precision="float32"), settings).probability.array
    np.testing.assert_allclose(found, probability, atol=1e-4)


def test_a_model_trained_without_mirroring_mirrors_on_request(bundle: Bundle, known_study: Study) -> None:
    model = load_model(bundle.path, ["0"], precision="float32")
    tiles = [0, 0, 0]
    for index, mirror in enumerate((None, False, True)):
        found = predict(known_study, model, replace(FULL, mirror=mirror)).probability.array
        tiles[index] = found.sum()
    assert tiles[0] == tiles[1] != tiles[2]


def test_probabilities_of_folds_can_be_averaged_as_in_the_paper(bundle: Bundle, known_study: Study) -> None:
    alone = [
        predict(known_study, load_model(bundle.path, [fold], precision="float32"), FULL).probability.array
        for fold in ("0", "1")
    ]
    settings = replace(FULL, fold_average="probabilities")
    both = predict(known_study, load_model(bundle.path, precision="float32"), settings)
    np.testing.assert_allclose(both.probability.array, np.mean(alone, axis=0), atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 1.7)])
def test_means_keep_no_volume_but_their_sum(
    weights: tuple[float, float], bundle: Bundle, known_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(FULL, fold_average="probabilities")
    model = load_model(bundle.path, precision="float32")
    (member,) = model.members
    model = replace(model, members=tuple(replace(member, weight=weight) for weight in weights))
    expected = [
        predict(known_study, load_model(bundle.path, [fold], precision="float32"), FULL).probability.array
        for fold in ("0", "1")
    ]
    folds_mean = (expected[0] + expected[1]) / np.float32(2)
    first, second = (np.float32(weight) for weight in weights)
    expected_mean = (folds_mean * first + folds_mean * second) / (first + second)
    alive: list[int] = []
    made: list[weakref.ref[Volume]] = []

    def as_probability(*arguments: Any) -> Volume:
        alive.append(sum(volume() is not None for volume in made))
        volume = _as_probability(*arguments)
        made.append(weakref.ref(volume))
        return volume

    monkeypatch.setattr("petlesion.inference.predict._as_probability", as_probability)
    found = predict(known_study, model, settings).probability.array
    assert alive == [0, 0, 0, 0]
    np.testing.assert_array_equal(found, expected_mean)


def test_one_member_is_taken_as_it_is_whatever_its_weight(bundle: Bundle, known_study: Study) -> None:
    model = load_model(bundle.path, ["0"], precision="float32")
    heavy = replace(model, members=(replace(model.members[0], weight=0.3),))
    found, expected = (predict(known_study, each, FULL).probability.array for each in (heavy, model))
    np.testing.assert_array_equal(found, expected)


def test_body_tiles_find_the_same_and_are_fewer(bundle: Bundle) -> None:
    small = make_phantom()
    rim = ((0, 0), (40, 40), (40, 40))
    ct = np.pad(small.ct.array, rim, constant_values=-1000)
    study = Study("in air", *(Volume(a, small.pet.affine) for a in (np.pad(small.pet.array, rim), ct)))
    model = load_model(bundle.path, precision="float32")
    counts: dict[str, int] = {}
    found = {}
    for tiles in ("full", "body"):

        def note(done: int, total: int, tiles: str = tiles) -> None:
            assert 1 <= done <= total
            counts[tiles] = total

        found[tiles] = predict(study, model, PredictionSettings(tiles=tiles), note).probability.array > 0.5
    assert counts["body"] < counts["full"]
    inside = (slice(None), slice(40, -40), slice(40, -40))  # this network knows nothing of pure air
    full, body = found["full"][inside], found["body"][inside]
    assert 2 * (full & body).sum() / (full.sum() + body.sum()) > 0.95


def test_the_answer_comes_in_the_studys_own_axes(bundle: Bundle, known_study: Study) -> None:
    model = load_model(bundle.path, ["0"], precision="float32")
    odd = make_phantom((41, 47, 55))  # in no axis a whole number of the cells on which the body is found
    for study, orientation in ((known_study, "ASR"), (odd, "RAI")):
        expected = predict(study, model).probability
        turned = predict(study.reoriented(orientation), model).probability
        assert turned.orientation == orientation
        np.testing.assert_array_equal(turned.reoriented("LPS").array, expected.array)


def test_a_network_whose_answer_is_no_number_is_refused(bundle: Bundle, known_study: Study) -> None:
    model = load_model(bundle.path, ["0"], precision="float32")
    (member,) = model.members

    def broken(patches: np.ndarray) -> np.ndarray:
        return np.full_like(patches[:, :1], np.nan)

    broken.release = lambda: None  # type: ignore[attr-defined]
    model = replace(model, members=(replace(member, networks={"0": broken}),))
    with pytest.raises(ModelError, match=r"^study phantom-0: .* no number somewhere; take"):
        predict(known_study, model)


def test_a_study_of_a_batch_is_as_alone(bundle: Bundle) -> None:
    """One model sees several studies, of several shapes, one after the other."""
    studies = [make_phantom(), make_phantom((30, 40, 40), seed=1), make_phantom(seed=2)]
    model = load_model(bundle.path, precision="float32")
    together = [predict(study, model).probability.array for study in studies]
    for study, expected in zip(studies, together, strict=True):
        alone = predict(study, load_model(bundle.path, precision="float32")).probability.array
        np.testing.assert_array_equal(alone, expected)


def test_members_of_other_input_are_averaged_as_stock_nnunet_does(
    tmp_path: Path, member_folders: list[Path], known_study: Study
) -> None:
    bundle = export_model(ExportRequest(member_folders), tmp_path / "ensemble")
    model = load_model(bundle.path, precision="float32")
    assert model.needs_ct
    found = predict(known_study, model, FULL)
    folds = [("0",), ("0", "1")]
    with sums_in_float32():
        alone = [
            stock_prediction(folder, known_study, folds=names)[1]
            for folder, names in zip(member_folders, folds, strict=True)
        ]
    for member, expected in zip(model.members, alone, strict=True):
        one = predict(known_study, replace(model, members=(member,)), FULL).probability.array
        np.testing.assert_allclose(one, expected, atol=2e-3)
    mask, probability = stock_ensemble(tmp_path / "stock", alone)
    np.testing.assert_allclose(found.probability.array, probability, atol=2e-3)
    assert 0 < mask.sum() < mask.size
    assert ((found.probability.array > LESION_PROBABILITY) == mask).mean() >= 0.9999
    with pytest.raises(StudyError, match="has no CT"):
        predict(replace(known_study, ct=None), model)


def test_what_several_members_see_alike_is_prepared_once(known_study: Study) -> None:
    recipes = [
        Recipe(),
        Recipe(patch=(16, 16, 16)),
        Recipe(spacing=(5.0, 5.0, 5.0)),
        Recipe(schemes=("CTNormalization",) * 2),
    ]
    plans = [plan_from_nnunet(plans_of(recipe), dataset_of(recipe), "3d_fullres") for recipe in recipes]
    model = Model("ensemble", tuple(Member(plan, {}) for plan in plans), "float32", "")
    both, smaller, coarser, scaled = prepare_study(known_study, model, FULL).members
    assert smaller.network_input is both.network_input
    assert len(smaller.window.tiles) > len(both.window.tiles)
    assert coarser.network_input.data.shape != both.network_input.data.shape
    assert (scaled.network_input.data[1] != both.network_input.data[1]).any()


@pytest.mark.parametrize("shape", [(1, 40, 44), (3, 20, 90)])
def test_studies_smaller_than_a_patch(
    shape: tuple[int, int, int], bundle: Bundle, model_folder: Path
) -> None:
    study = make_phantom(shape)
    _, stock = stock_prediction(model_folder, study, folds=("0",))
    found = predict(study, load_model(bundle.path, ["0"], precision="float32"), FULL).probability
    assert found.shape == shape
    assert ((found.array > 0.5) == (stock > 0.5)).mean() >= 0.9999
    assert predict(study, load_model(bundle.path, ["0"])).probability.shape == shape


def test_air_is_refused_unless_all_of_it_is_to_be_searched(bundle: Bundle) -> None:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    ct = Volume(np.full((40, 40, 40), -1000, dtype=np.float32), affine)
    study = Study("air", Volume(np.zeros((40, 40, 40), dtype=np.float32), affine), ct)
    model = load_model(bundle.path, ["0"])
    with pytest.raises(StudyError, match="no body is found"):
        predict(study, model)
    assert predict(study, model, FULL).probability.shape == (40, 40, 40)


def test_softmax_of_several_labels() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 2, 3, 4)).astype(np.float32)
    exponentials = np.exp(np.concatenate([np.zeros((1, 2, 3, 4)), logits]))
    expected = exponentials / exponentials.sum(axis=0)
    for channel in range(3):
        np.testing.assert_allclose(lesion_probability(logits, channel), expected[channel + 1], atol=1e-6)
    far = np.full((1, 1, 1, 2), -100, dtype=np.float32)
    assert (lesion_probability(far, 0) < 1e-30).all()


@pytest.mark.parametrize(
    "settings", [{"tiles": "some"}, {"step": 0.0}, {"step": 1.5}, {"fold_average": "median"}]
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PredictionSettings(**settings)  # type: ignore[arg-type]


def test_what_is_no_model_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(ModelError, match=r"neither a bundle .*; give the folder"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="no fold 7"):
        load_model(bundle.path, ["7"])
    with pytest.raises(UsageError, match="device"):
        load_model(bundle.path, device="tpu")
    with pytest.raises(UsageError, match="bundle runs on the processor"):
        load_model(bundle.path, device="cuda")
    with pytest.raises(UsageError, match="precision"):
        load_model(bundle.path, precision="int4")


def test_checkpoints_need_the_extra(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "petlesion.inference.backends.torch", None)
    with pytest.raises(MissingExtraError, match=r"petlesion\[train\]"):
        load_model(model_folder)
