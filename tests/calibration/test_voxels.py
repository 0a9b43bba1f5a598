"""Temperature scaling of logits whose temperature is known, and the Dice to be expected."""

import numpy as np
import pytest
from scipy.special import expit

from petlesion.calibration.voxels import (
    LOGITS,
    LogitCounts,
    count_logits,
    fit_temperature,
    negative_log_likelihood,
    summed,
)
from petlesion.errors import CohortError


def study_of(rng: np.random.Generator, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Voxels whose truth is drawn from σ(logit), and which say σ(logit · temperature)."""
    logits = rng.normal(-3, 2.5, (20, 60, 60))
    truth = rng.random(logits.shape) < expit(logits)
    return expit(logits * temperature).astype(np.float32), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(rng: np.random.Generator, temperature: float) -> None:
    studies = [study_of(rng, temperature) for _ in range(3)]
    counts = summed(count_logits(said, said > 0.5, truth) for said, truth in studies)
    assert fit_temperature(counts) == pytest.approx(temperature, rel=0.02)


def test_the_likelihood_is_that_of_the_voxels(rng: np.random.Generator) -> None:
    said, truth = study_of(rng, 2.0)
    counts = count_logits(said, said > 0.5, truth)
    calibrated = expit(np.log(said / (1 - said)) / 1.5)
    expected = -np.mean(np.log(np.where(truth, calibrated, 1 - calibrated)))
    assert negative_log_likelihood(counts, 1.5) == pytest.approx(expected, rel=1e-3)


def test_voxels_are_counted_by_place_truth_and_logit() -> None:
    probability = np.array([[[0.0, 1.0, 0.5, 0.9]]], dtype=np.float32)
    mask, truth = probability > 0.5, np.array([[[False, True, True, False]]])
    counts = count_logits(probability, mask, truth)
    assert counts.voxels.sum() == 3  # what no network took for possible is left out
    assert counts.lesion[-1] == 1 and counts.voxels[1].sum() == 2
    assert abs(LOGITS[np.flatnonzero(counts.background)[0]] - np.log(9)) <= 0.025


def test_the_expected_lesion_voxels_are_those_of_many_drawn_truths(rng: np.random.Generator) -> None:
    probability = expit(rng.normal(-2, 3, (10, 30, 30))).astype(np.float32)
    mask = probability > 0.5
    drawn = rng.random((50, *mask.shape)) < probability
    outside, inside = count_logits(probability, mask).expected_lesion_voxels(1.0)
    assert outside == pytest.approx((drawn & ~mask).sum() / 50, rel=0.02)
    assert inside == pytest.approx((drawn & mask).sum() / 50, rel=0.02)


def test_voxels_of_one_kind_are_refused() -> None:
    probability = np.full((2, 3, 3), 0.2, dtype=np.float32)
    counts = count_logits(probability, probability > 0.5)
    with pytest.raises(CohortError, match="no temperature"):
        fit_temperature(counts)
    assert isinstance(summed([counts, counts]), LogitCounts)
