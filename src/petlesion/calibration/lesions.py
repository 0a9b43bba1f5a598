"""Lesions: a small logistic model of whether a predicted component is real, that is, meets the reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from petlesion.errors import CohortError
from petlesion.inference.predict import Prediction
from petlesion.inference.uncertainty import binary_entropy
from petlesion.lesions import Labels
from petlesion.volume import Volume

Floats = npt.NDArray[np.float64]

FEATURES = (
    "log_volume_ml",
    "log_suv_max",
    "mean_logit",
    "highest_logit",
    "mean_entropy",
    "mean_mutual_information",
)

_RIDGE = 1.0
_FARTHEST = 4.0  # in standard deviations: what lies beyond counts as much
_SURE = 1e-6


@dataclass(frozen=True)
class LesionModel:
    """Confidence = σ(intercept + Σ weight · (feature − centre) / scale), a probability from 0 to 1."""

    features: tuple[str, ...]
    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def confidence(self, features: Floats) -> Floats:
        """Probability of being real for each component; `features` [component, feature] as in FEATURES."""
        logits = self.intercept + self._standardised(features) @ np.array(self.weights)
        return np.asarray(expit(logits), dtype=np.float64)

    def as_json(self) -> dict[str, Any]:
        """The model as plain data."""
        return asdict(self)

    def _standardised(self, features: Floats) -> Floats:
        steps = (features - np.array(self.centres)) / np.array(self.scales)
        return np.asarray(np.clip(steps, -_FARTHEST, _FARTHEST), dtype=np.float64)


def component_features(labels: Labels, count: int, pet: Volume, prediction: Prediction) -> Floats:
    """FEATURES of each component 1 … `count`, [component, feature].

    Mean and highest probability as logits, entropy and mutual information in bits averaged over the
    component; of a prediction without uncertainty the entropy is that of the probability.
    """
    voxels = np.flatnonzero(labels)
    component = labels.ravel()[voxels].astype(np.int64) - 1
    size = np.bincount(component, minlength=count)

    def mean(values: npt.NDArray[np.floating]) -> Floats:
        return np.asarray(np.bincount(component, weights=values, minlength=count) / np.maximum(size, 1))

    def highest(values: npt.NDArray[np.floating]) -> Floats:
        found = np.zeros(count)
        np.maximum.at(found, component, values)
        return found

    probability = prediction.probability.array.ravel()[voxels]
    if prediction.uncertainty is None:
        entropy, information = binary_entropy(probability), np.zeros_like(probability)
    else:
        entropy = prediction.uncertainty.entropy.array.ravel()[voxels]
        information = prediction.uncertainty.mutual_information.array.ravel()[voxels]
    columns = (
        np.log(np.maximum(size, 1) * pet.voxel_volume_ml),
        np.log(np.maximum(highest(pet.array.ravel()[voxels]), 0.01)),
        logit(np.clip(mean(probability), _SURE, 1 - _SURE)),
        logit(np.clip(highest(probability), _SURE, 1 - _SURE)),
        mean(entropy),
        mean(information),
    )
    return np.stack(columns, axis=1).reshape(count, len(FEATURES))


def fit_lesions(features: Floats, real: npt.NDArray[np.bool_]) -> LesionModel:
    """Logistic regression on standardised features, with half the squared weights as penalty.

    The penalty is fixed, not tuned. A feature that never varies gets no weight. Raises CohortError unless
    there are real and false components.
    """
    if real.all() or not real.any():
        kind = "false" if real.any() else "real"
        raise CohortError(
            f"the held-out predictions hold no {kind} component, so that no confidence can be fitted; "
            "take a larger cohort"
        )
    centres, spread = features.mean(axis=0), features.std(axis=0)
    varies = spread > 1e-9
    scales = np.where(varies, spread, 1.0)
    model = LesionModel(FEATURES, _floats(centres), _floats(scales), (0.0,) * len(FEATURES), 0.0)
    columns = model._standardised(features) * varies
    sign = np.where(real, 1.0, -1.0)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        intercept, weights = parameters[0], parameters[1:]
        margin = sign * (intercept + columns @ weights)
        pull = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + _RIDGE / 2 * weights @ weights
        return float(value), np.array([pull.sum(), *(columns.T @ pull + _RIDGE * weights)])

    found = minimize(loss, np.zeros(1 + len(FEATURES)), jac=True, method="L-BFGS-B")
    intercept, *weights = (float(value) for value in found.x)
    return LesionModel(FEATURES, model.centres, model.scales, tuple(weights), intercept)


def lesion_model_from_json(data: dict[str, Any]) -> LesionModel:
    """Read what `as_json` wrote. Raises ValueError, TypeError or KeyError for what cannot be."""
    model = LesionModel(
        tuple(str(name) for name in data["features"]),
        _floats(data["centres"]),
        _floats(data["scales"]),
        _floats(data["weights"]),
        float(data["intercept"]),
    )
    values = (*model.centres, *model.scales, *model.weights, model.intercept)
    lengths = {len(model.centres), len(model.scales), len(model.weights), len(FEATURES)}
    if (
        model.features != FEATURES
        or len(lengths) > 1
        or not np.isfinite(values).all()
        or min(model.scales) <= 0
    ):
        raise ValueError("features")
    return model


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
