"""Scores of calibration against brute force and figures on paper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from petlesion.calibration.cross_fit import Judged, cross_fitted
from petlesion.calibration.evidence import gather_evidence
from petlesion.calibration.voxels import count_logits
from petlesion.evaluation.confidence import (
    bin_sums,
    confidences,
    dice_pairs,
    reliability,
    risk_coverage,
    risk_coverage_area,
    roc_area,
    sweep_by_confidence,
    sweep_by_size,
    voxel_sums,
    with_interval,
)
from petlesion.evaluation.confidence_figures import (
    dice_figure,
    reliability_figure,
    risk_coverage_figure,
    sweep_figure,
)
from petlesion.evaluation.confidence_tables import (
    SCORES,
    confidence_table,
    scores_as_json,
    sweep_of_confidence_table,
)
from petlesion.evaluation.figures import write_figure
from petlesion.evaluation.summary import summarize
from petlesion.evaluation.tables import render
from petlesion.lesions import label_components, remove_small_components
from petlesion.overlap import evaluate_masks
from tests.calibration.makers import make_case

PATIENTS = {f"case{seed}": f"patient{seed}" for seed in range(10)}


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return cross_fitted([gather_evidence(*make_case(seed), "made up") for seed in range(10)], PATIENTS)


def test_calibration_error_and_brier_score_on_paper() -> None:
    probability = np.array([0.9, 0.9, 0.1, 0.1])
    found = reliability(
        [bin_sums(probability, np.array([6.0, 2.0, 0.0, 1.0]), np.array([8.0, 2.0, 8.0, 2.0]))]
    )
    # Ten voxels say 0.9 and eight are; ten say 0.1 and one is.
    np.testing.assert_allclose(
        (found.stated, found.observed, found.count), ([0.1, 0.9], [0.1, 0.8], [10, 10])
    )
    assert found.error == pytest.approx(0.05)
    assert found.brier == pytest.approx((8 * 0.01 + 2 * 0.81 + 9 * 0.01 + 0.81) / 20)
    parts = [bin_sums(probability[:2], np.array([6.0, 2.0]), np.array([8.0, 2.0]))] * 2
    assert reliability(parts).error == pytest.approx(0.1)


def test_of_nothing_there_is_no_score() -> None:
    nothing = np.zeros(0)
    found = reliability([bin_sums(nothing, nothing, nothing)])
    assert np.isnan([found.error, found.brier, risk_coverage_area(nothing, nothing > 0)]).all()


def test_roc_area_is_the_share_of_pairs_in_order(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 6, 60) / 5
    real = rng.random(60) < 0.2 + 0.6 * scores
    pairs = scores[real][:, None] - scores[~real][None, :]
    assert roc_area(scores, real) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(roc_area(scores, np.ones(60, dtype=bool)))


def test_risk_grows_with_coverage_on_paper() -> None:
    scores, real = np.array([0.2, 0.9, 0.6, 0.4]), np.array([False, True, False, True])
    coverage, risk = risk_coverage(scores, real)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert risk_coverage_area(scores, real) == pytest.approx(1 / 3)


def test_possible_voxels_are_scored_as_one_by_one(judged: list[Judged]) -> None:
    found = reliability([voxel_sums(s, calibrated=False, possible_only=True) for s in judged])
    probability, truth = [], []
    for seed in range(10):
        study, prediction = make_case(seed)
        probability.append(prediction.probability.array.ravel())
        truth.append(study.reference.array.ravel())
    said, true = np.concatenate(probability), np.concatenate(truth)
    possible = said >= 0.01
    assert found.count.sum() == pytest.approx(possible.sum(), rel=0.02)
    assert found.brier == pytest.approx(np.mean((said - true)[possible] ** 2), rel=0.05)


def test_scaling_by_the_known_temperature_makes_voxels_keep_their_word(
    judged: list[Judged], rng: np.random.Generator
) -> None:
    """Truths drawn by probabilities that are then said twice as surely, as logits go."""
    true_logits = rng.normal(-1, 1.5, (20, 40, 40))
    truth = rng.random(true_logits.shape) < expit(true_logits)
    said = expit(2 * true_logits).astype(np.float32)
    evidence = replace(judged[0].evidence, logits=count_logits(said, said > 0.5, truth))
    study = Judged(evidence, replace(judged[0].calibration, temperature=2.0))
    before, after = (
        reliability([voxel_sums(study, calibrated=calibrated, possible_only=False)])
        for calibrated in (False, True)
    )
    assert before.error > 0.08
    assert after.error < 0.01
    assert after.brier == pytest.approx(np.mean((expit(true_logits) - truth) ** 2), abs=1e-3)
    assert after.brier < before.brier - 0.01


def test_a_sweep_by_size_is_table_3s(judged: list[Judged]) -> None:
    sizes = (0, 15, 30)
    for size, found in sweep_by_size(judged, sizes, PATIENTS).items():
        rows = []
        for seed in range(10):
            study, prediction = make_case(seed)
            kept = remove_small_components(prediction.probability.array > 0.5, size)
            rows.append(evaluate_masks(study.pet.with_array(kept), study.reference, study.name))
        assert found == summarize(rows, PATIENTS)


def test_a_sweep_by_confidence_removes_the_doubtful(judged: list[Judged]) -> None:
    found = sweep_by_confidence(judged, (0.0, 0.5), PATIENTS)
    rows = []
    for seed, judgement in enumerate(judged):
        study, prediction = make_case(seed)
        labels, count = label_components(prediction.probability.array > 0.5)
        confidence = judgement.calibration.confidence(labels, count, study, prediction)
        kept = np.isin(labels, 1 + np.flatnonzero(confidence >= 0.5))
        rows.append(evaluate_masks(study.pet.with_array(kept), study.reference, study.name))
    assert found[0.5] == summarize(rows, PATIENTS)
    assert found[0.5].false_positive_volume_ml.value < found[0.0].false_positive_volume_ml.value


def test_expected_dice_stands_beside_the_achieved(judged: list[Judged]) -> None:
    pairs = dice_pairs(judged)
    assert [pair.case_id for pair in pairs] == list(PATIENTS)
    assert all(0 < pair.expected < 1 and 0 < pair.achieved < 1 for pair in pairs)


def test_intervals_draw_whole_patients() -> None:
    values = [0.0, 0.0, 1.0, 1.0]
    found = with_interval(values, lambda parts: float(np.mean(parts)), np.array([0, 0, 1, 1]))
    assert found.value == 0.5 and found.ci95 == (0, 1)


def test_scores_are_told_as_table_and_data(judged: list[Judged], tmp_path: Path) -> None:
    table, data = confidence_table(judged, PATIENTS), scores_as_json(judged, PATIENTS)
    assert len(table.rows) == len(SCORES) and set(SCORES) <= set(data)
    confidence, real = confidences(judged)
    assert data["lesion_roc_area"] == pytest.approx(roc_area(confidence, real))
    assert "ROC area of the confidence" in render(table, "markdown")
    by_size = sweep_by_size(judged, (0, 10), PATIENTS)
    by_confidence = sweep_by_confidence(judged, (0.0, 0.5, 1.0), PATIENTS)
    assert "below confidence 0.5" in render(sweep_of_confidence_table(by_size, by_confidence), "markdown")
    figures = (reliability_figure(judged), risk_coverage_figure(judged), dice_figure(judged))
    for number, figure in enumerate((*figures, sweep_figure(by_size, by_confidence))):
        write_figure(tmp_path / f"{number}.svg", figure)
        assert (tmp_path / f"{number}.svg").stat().st_size > 2000
