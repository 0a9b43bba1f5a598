"""The logistic model of lesions: on components measured by hand, and on data drawn from a known model."""

import numpy as np
import pytest
from scipy.special import expit

from petlesion.calibration.lesions import (
    FEATURES,
    component_features,
    fit_lesions,
    lesion_model_from_json,
)
from petlesion.errors import CohortError
from petlesion.inference.predict import Prediction
from petlesion.inference.uncertainty import Uncertainty
from petlesion.lesions import label_components
from petlesion.volume import Volume

COUNT = len(FEATURES)
AFFINE = np.diag([2.0, 5.0, 10.0, 1.0])  # voxels of 0.1 mL


def volume(values: list[float]) -> Volume:
    return Volume(np.array(values, dtype=np.float32).reshape(1, 1, -1), AFFINE)


def test_components_are_described_as_by_hand() -> None:
    probability = volume([0.6, 0.8, 0.1, 0.9])
    uncertainty = Uncertainty(volume([0.9, 0.7, 0.4, 0.5]), volume([0.2, 0.4, 0.3, 0.1]), 3)
    labels, count = label_components(probability.array > 0.5)
    pet = volume([4.0, 2.0, 9.0, 7.0])
    found = component_features(labels, count, pet, Prediction(probability, uncertainty))
    large = [np.log(0.2), np.log(4), np.log(0.7 / 0.3), np.log(0.8 / 0.2), 0.8, 0.3, np.log(2), np.log(2 / 3)]
    small = [np.log(0.1), np.log(7), np.log(9), np.log(9), 0.5, 0.1, np.log(2), np.log(1 / 3)]
    np.testing.assert_allclose(found, [large, small], rtol=1e-5)
    alone = component_features(labels, count, pet, Prediction(probability))
    assert alone[1, 4] == pytest.approx(0.4689956) and not alone[:, 5].any()


def test_no_component_has_no_features() -> None:
    nothing = volume([0.1, 0.2])
    labels, count = label_components(nothing.array > 0.5)
    assert component_features(labels, count, nothing, Prediction(nothing)).shape == (0, len(FEATURES))


def test_a_known_model_is_recovered(rng: np.random.Generator) -> None:
    weights, intercept = np.array([1.0, -0.5, 2.0, 0.0, 0.3, 0.0, 0.0, -0.4]), -0.7
    features = rng.normal(0, 1, (100_000, COUNT)) * [1, 2, 0.5, 1, 3, 0, 1, 2] + [0, 1, 0, 0, -2, 5, 1, -1]
    truth = expit(intercept + features @ weights - 0.4 * features[:, 0] ** 2)
    model = fit_lesions(features, rng.random(len(features)) < truth)
    np.testing.assert_allclose(np.array(model.weights) / model.scales, weights, atol=0.1)
    np.testing.assert_allclose(model.squares, [-0.4] + [0] * (COUNT - 1), atol=0.1)
    assert model.weights[5] == model.squares[5] == 0  # it never varies
    typical = np.abs(features - features.mean(axis=0)).max(axis=1) < 4
    np.testing.assert_allclose(model.confidence(features)[typical], truth[typical], atol=0.06)


def test_the_fit_is_where_the_penalised_likelihood_is_flat(rng: np.random.Generator) -> None:
    features = rng.normal(0, 1, (40, COUNT))
    real = features[:, 0] + rng.normal(0, 1, 40) > 0
    model = fit_lesions(features, real)
    error = model.confidence(features) - real
    steps = (features - np.array(model.centres)) / np.array(model.scales)
    assert abs(error.sum()) < 1e-2
    np.testing.assert_allclose(steps.T @ error + np.array(model.weights), 0, atol=1e-2)
    np.testing.assert_allclose((steps**2).T @ error + np.array(model.squares), 0, atol=1e-2)


def test_components_of_one_kind_are_refused(rng: np.random.Generator) -> None:
    features = rng.normal(0, 1, (10, COUNT))
    with pytest.raises(CohortError, match="no false component"):
        fit_lesions(features, np.ones(10, dtype=bool))
    with pytest.raises(CohortError, match="no real component"):
        fit_lesions(features[:0], np.zeros(0, dtype=bool))


def test_a_model_survives_json_and_a_garbled_one_does_not(rng: np.random.Generator) -> None:
    model = fit_lesions(rng.normal(0, 1, (10, COUNT)), np.arange(10) % 2 == 0)
    data = model.as_json()
    assert lesion_model_from_json(data) == model
    for garbled in (
        {"features": ["volume"]},
        {"weights": [1.0]},
        {"scales": [0.0] * COUNT},
        {"intercept": "nan"},
    ):
        with pytest.raises(ValueError):
            lesion_model_from_json({**data, **garbled})
