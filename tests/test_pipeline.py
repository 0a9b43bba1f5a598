from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from petlesion.calibration.evidence import gather_evidence
from petlesion.calibration.stored import fit_calibration
from petlesion.errors import ModelError, UsageError
from petlesion.inference.predict import Model, PredictionSettings, load_model, predict
from petlesion.lesions import label_components
from petlesion.model import boxed
from petlesion.pipeline import (
    SegmentationSettings,
    lesion_mask,
    segment,
    segmentation_of,
)
from petlesion.volume import Volume
from tests.calibration.makers import make_case
from tests.conftest import make_phantom


def probability_of(mask: np.ndarray) -> Volume:
    return Volume(np.where(mask, 0.9, 0.1).astype(np.float32), np.diag([2.0, 2.0, 3.0, 1.0]))


def test_components_of_exactly_the_smallest_size_stay() -> None:
    mask = np.zeros((6, 20, 20), dtype=bool)
    mask[0, 0, :9] = True
    mask[3, 10, :10] = True
    kept = lesion_mask(probability_of(mask), SegmentationSettings(min_voxels=10)).array
    assert kept.dtype == np.uint8
    assert kept.sum() == 10 and kept[3, 10, :10].all()


def test_the_smallest_volume_is_ten_voxels_of_autopet_unless_told_otherwise() -> None:
    assert SegmentationSettings().fewest_voxels(2.0364 * 2.0364 * 3 / 1000) == 10
    assert SegmentationSettings().fewest_voxels(0.064) == 2
    assert SegmentationSettings(min_volume_ml=0).fewest_voxels(0.064) == 0


def test_a_models_own_smallest_volume_stands_before_the_default() -> None:
    model = Model("tiny", (), "float32", "0" * 64)
    own = replace(model, min_volume_ml=0.5)
    assert SegmentationSettings().for_model(model).min_volume_ml == 0.124
    assert SegmentationSettings().for_model(own).min_volume_ml == 0.5
    assert SegmentationSettings(min_volume_ml=0.0).for_model(own).min_volume_ml == 0.0


def test_even_odds_are_background() -> None:
    undecided = Volume(np.full((3, 3, 3), 0.5, dtype=np.float32), np.eye(4))
    assert not lesion_mask(undecided, SegmentationSettings(min_voxels=0)).array.any()


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="-1 voxels"):
        SegmentationSettings(min_voxels=-1)


def test_segmenting_finds_what_the_network_learnt_in_any_orientation(model_folder: Path) -> None:
    study = make_phantom()
    upright = segment(study, model_folder)
    turned = segment(study.reoriented("RAS"), load_model(model_folder))
    np.testing.assert_array_equal(turned.mask.reoriented().array, upright.mask.array)
    assert turned.mask.grid.matches(study.reoriented("RAS").pet.grid)
    assert upright.study.reference is not None
    overlap = 2 * np.sum(upright.mask.array * upright.study.reference.array)
    assert overlap / (upright.mask.array.sum() + upright.study.reference.array.sum()) > 0.6
    assert upright.table.count == 3


def test_the_mask_is_the_prediction_without_small_components(model_folder: Path) -> None:
    study = make_phantom()
    settings = SegmentationSettings(min_voxels=0, prediction=PredictionSettings(tiles="full"))
    segmentation = segment(study, model_folder, settings)
    expected = predict(study, load_model(model_folder), settings.prediction).probability.array > 0.5
    np.testing.assert_array_equal(segmentation.mask.array, expected)


def test_without_a_model_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxed, "_FOLDER", tmp_path)
    with pytest.raises(ModelError, match="comes without a model for PET/CT; give petlesion segment the path"):
        segment(make_phantom())


def test_a_calibrated_model_judges_lesions_and_removes_the_doubtful() -> None:
    calibration = fit_calibration([gather_evidence(*make_case(seed), "made up") for seed in range(4)], {})
    study, prediction = make_case(20)
    everything = SegmentationSettings(min_voxels=0)
    found = segmentation_of(study, prediction, everything, calibration)
    confidence = [lesion.confidence for lesion in found.table.lesions]
    assert None not in confidence and found.expected_dice is not None
    assert found.uncertainty is prediction.uncertainty
    sure = segmentation_of(study, prediction, replace(everything, min_confidence=0.5), calibration)
    kept = [value for value in confidence if value is not None and value >= 0.5]
    assert [lesion.confidence for lesion in sure.table.lesions] == kept
    assert 0 < len(kept) < len(confidence)
    labels, _ = label_components(found.mask.array > 0)
    numbers = [1 + index for index, value in enumerate(confidence) if value in kept]
    np.testing.assert_array_equal(sure.mask.array, np.isin(labels, numbers))
    plain = segmentation_of(study, prediction, everything)
    np.testing.assert_array_equal(plain.mask.array, found.mask.array)
    assert plain.expected_dice is None and plain.doubts == ()


def test_a_confidence_needs_a_calibration_and_a_number_from_0_to_1() -> None:
    study, prediction = make_case(20)
    with pytest.raises(UsageError, match="not calibrated"):
        segmentation_of(study, prediction, SegmentationSettings(min_confidence=0.5))
    with pytest.raises(UsageError, match=r"confidence of 1\.5"):
        SegmentationSettings(min_confidence=1.5)
