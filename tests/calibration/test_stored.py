"""Evidence, calibrations fitted to it, and who had a part in which."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from petlesion.calibration.cross_fit import INNER_FOLDS, cross_fitted
from petlesion.calibration.evidence import Evidence, gather_evidence, read_evidence, write_evidence
from petlesion.calibration.stored import (
    calibration_from_json,
    calibration_of,
    fit_calibration,
    settings_unlike,
)
from petlesion.calibration.voxels import LOGITS, count_logits
from petlesion.errors import CohortError, FormatError, ModelError, StudyError, UsageError
from petlesion.inference.predict import Member, Model, PredictionSettings
from petlesion.lesions import component_sizes, label_components
from petlesion.model.plan import plan_from_nnunet
from petlesion.overlap import evaluate_masks
from tests.calibration.makers import make_case
from tests.inference.nnunet import Recipe, dataset_of, plans_of


@pytest.fixture(scope="module")
def evidence() -> list[Evidence]:
    return [gather_evidence(*make_case(seed), "made up") for seed in range(12)]


def test_evidence_tells_what_the_masks_tell(evidence: list[Evidence]) -> None:
    study, prediction = make_case(3)
    assert study.reference is not None
    mask = study.pet.with_array(prediction.probability.array > 0.5)
    metrics = evaluate_masks(mask, study.reference, study.name)
    found = evidence[3]
    assert (found.case_id, found.passes) == ("case3", 2)
    assert found.overlap.dice == pytest.approx(metrics.dice)
    assert len(found.overlap.real) == metrics.predicted_components == len(found.features)
    false = found.overlap.predicted_sizes[~found.overlap.real].sum() * found.overlap.voxel_volume_ml
    assert false == pytest.approx(metrics.false_positive_volume_ml)
    assert found.logits.voxels[1].sum() == mask.array.sum()
    assert found.logits.lesion.sum() == study.reference.array.sum()


def test_evidence_is_read_as_it_was_written(evidence: list[Evidence], tmp_path: Path) -> None:
    path = tmp_path / "case.npz"
    write_evidence(path, evidence[0])
    again = read_evidence(path)
    assert (again.case_id, again.source, again.passes) == ("case0", "made up", 2)
    assert again.statistics == evidence[0].statistics
    np.testing.assert_array_equal(again.features, evidence[0].features)
    for name, value in vars(evidence[0].overlap).items():
        np.testing.assert_array_equal(getattr(again.overlap, name), value)
    np.testing.assert_array_equal(again.logits.voxels, evidence[0].logits.voxels)
    with np.load(path) as stored:  # names that files of earlier versions have
        assert sorted(stored.files) == [
            *("case_id", "features", "logits", "pairs", "passes", "predicted_sizes", "reference_sizes"),
            *("shared_voxels", "source", "statistic_names", "statistics", "voxel_volume_ml"),
        ]
    whole = path.read_bytes()
    write_evidence(path, replace(evidence[0], features=evidence[0].features[:, 1:]))
    with pytest.raises(FormatError, match="no evidence"):
        read_evidence(path)
    path.write_bytes(whole[:100])
    with pytest.raises(FormatError, match="no evidence"):
        read_evidence(path)


def test_evidence_needs_a_reference() -> None:
    study, prediction = make_case(0)
    with pytest.raises(StudyError, match="no reference"):
        gather_evidence(replace(study, reference=None), prediction, "made up")


def test_a_calibration_survives_json_and_judges(evidence: list[Evidence]) -> None:
    calibration = fit_calibration(evidence, {"cohort": "made up"})
    data = json.loads(json.dumps(calibration.as_json()))
    assert calibration_from_json(data) == calibration
    assert calibration.needs_uncertainty and "disagreement" in calibration.ranges["made up"]
    study, prediction = make_case(50)
    labels, count = label_components(prediction.probability.array > 0.5)
    confidence = calibration.confidence(labels, count, study, prediction)
    real = gather_evidence(study, prediction, "made up").overlap.real
    assert confidence[real].mean() > confidence[~real].mean() + 0.3
    logits, sizes = count_logits(prediction.probability.array, labels > 0), component_sizes(labels, count)
    expected = calibration.expected_dice(logits, sizes, confidence, sizes > 0)
    inside = logits.voxels[1].sum(axis=0) @ expit(LOGITS / calibration.temperature)
    outside = logits.voxels[0].sum(axis=0) @ expit(LOGITS / calibration.temperature)
    inside *= (sizes * confidence).sum() / sizes.sum()
    assert expected is not None
    assert expected == pytest.approx(2 * inside / (inside + outside + sizes.sum()))
    assert expected < (calibration.expected_dice(logits, sizes, np.ones(count), sizes > 0) or 0)
    assert calibration.expected_dice(logits, sizes, confidence, sizes < 0) is None
    assert calibration.doubts(study, prediction) == ()
    hot = replace(study, pet=study.pet.with_array(study.pet.array * 10))
    assert any("SUV" in clause for clause in calibration.doubts(hot, prediction))
    with pytest.raises(UsageError, match="uncertainty"):
        calibration.confidence(labels, count, study, replace(prediction, uncertainty=None))


def test_what_is_surely_false_and_removed_does_not_lower_the_expected_dice(evidence: list[Evidence]) -> None:
    """Two cubes of 1,000 voxels, of probability 0.95; one is kept and real, the other is removed."""
    calibration = replace(fit_calibration(evidence, {}), temperature=1.0)
    probability = np.zeros((10, 10, 30), dtype=np.float32)
    probability[..., :10] = probability[..., 20:] = 0.95
    logits, sizes = count_logits(probability, probability > 0.5), np.array([1000, 1000])
    kept, confidence = np.array([True, False]), np.array([1.0, 0.0])
    alone = 2 * 0.95 / (0.95 + 1)
    assert calibration.expected_dice(logits, sizes, confidence, kept) == pytest.approx(alone, abs=2e-3)
    # Were the other one real too, what is left out would be missing.
    missing = 2 * 0.95 / (2 * 0.95 + 1)
    assert calibration.expected_dice(logits, sizes, np.ones(2), kept) == pytest.approx(missing, abs=2e-3)


def test_after_a_single_pass_the_probability_alone_counts(evidence: list[Evidence]) -> None:
    calibration = replace(fit_calibration(evidence, {}), passes=1)
    study, prediction = make_case(50)
    labels, count = label_components(prediction.probability.array > 0.5)
    alone = calibration.confidence(labels, count, study, replace(prediction, uncertainty=None))
    np.testing.assert_array_equal(calibration.confidence(labels, count, study, prediction), alone)
    evidence_alone = gather_evidence(study, replace(prediction, uncertainty=None), "made up")
    np.testing.assert_array_equal(calibration.lesions.confidence(evidence_alone.features), alone)


def test_a_garbled_calibration_is_named(evidence: list[Evidence]) -> None:
    data = fit_calibration(evidence, {}).as_json()
    model = Model("tiny", (), "float32", "abc", data)
    assert calibration_of(model) == calibration_from_json(data)
    assert calibration_of(replace(model, calibration=None)) is None
    for garbled in ({"temperature": 0}, {"temperature": "nan"}, {"ranges": {"suv_99": 3}}, {"lesions": {}}):
        with pytest.raises(ModelError, match="its calibration lacks or garbles"):
            calibration_of(replace(model, calibration={**data, **garbled}))


def test_no_patient_has_a_part_in_its_own_calibration(evidence: list[Evidence]) -> None:
    patients = {f"case{number}": f"patient{number // 2}" for number in range(12)}
    judged = cross_fitted(evidence, patients)
    assert [study.evidence for study in judged] == evidence
    by_patient: dict[str, set[float]] = {}
    for study in judged:
        by_patient.setdefault(patients[study.evidence.case_id], set()).add(study.calibration.temperature)
    assert all(len(temperatures) == 1 for temperatures in by_patient.values())
    calibrations = {study.calibration.temperature: study.calibration for study in judged}
    assert len(calibrations) == INNER_FOLDS
    for temperature, calibration in calibrations.items():
        others = [s.evidence for s in judged if s.calibration.temperature != temperature]
        assert fit_calibration(others, {}) == calibration


def test_one_patient_cannot_be_judged(evidence: list[Evidence]) -> None:
    with pytest.raises(CohortError, match="other patients"):
        cross_fitted(evidence[:2], {"case0": "p", "case1": "p"})
    with pytest.raises(CohortError, match="no held-out study"):
        fit_calibration([], {})


def test_settings_other_than_the_calibrations_are_told(evidence: list[Evidence]) -> None:
    unmirrored = PredictionSettings(mirror=False)
    calibration = fit_calibration(evidence, {"prediction": asdict(unmirrored)})

    def told(settings: PredictionSettings, mirror_axes: tuple[int, ...] | None = (0, 1, 2)) -> str | None:
        recipe = Recipe(mirror_axes=mirror_axes)
        plan = plan_from_nnunet(plans_of(recipe), dataset_of(recipe), "3d_fullres")
        plan = replace(plan, mirror_axes=mirror_axes or ())
        return settings_unlike(calibration, Model("tiny", (Member(plan, {}),), "float32", ""), settings)

    assert told(unmirrored) is None and told(PredictionSettings(), None) is None
    assert (told(PredictionSettings()) or "").endswith("calibrated with another mirror.")
    assert (told(replace(unmirrored, step=0.4, tiles="full")) or "").endswith("another tiles, step.")
    silent = replace(calibration, sources={})
    assert settings_unlike(silent, Model("tiny", (), "float32", ""), unmirrored) is None
