"""Lesions: a small logistic model of whether a predicted component is real, that is, meets the reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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
    "log_components",
    "log_volume_share",
)

_RIDGE = 1.0
_FARTHEST = 4.0  # in standard deviations: what lies beyond counts as much
_SURE = 1e-6


@dataclass(frozen=True)
class LesionModel:
    """Confidence = σ(intercept + Σ weight · z + Σ square · z²), with z = (feature − centre) / scale.

    Squares, since it need be neither the smallest nor the largest, the faintest nor the hottest that is most
    often real.
    """

    features: tuple[str, ...]
    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    squares: tuple[float, ...]
    intercept: float

    def confidence(self, features: Floats) -> Floats:
        """Probability of being real for each component; `features` [component, feature] as in FEATURES."""
        logits = self.intercept + self._columns(features) @ np.array((*self.weights, *self.squares))
        return np.asarray(expit(logits), dtype=np.float64)

    def as_json(self) -> dict[str, Any]:
        """The model as plain data."""
        return asdict(self)

    def _columns(self, features: Floats) -> Floats:
        """Standardised features and their squares, [component, 2 · feature]."""
        steps = (features - np.array(self.centres)) / np.array(self.scales)
        steps = np.clip(steps, -_FARTHEST, _FARTHEST)
        return np.asarray(np.concatenate([steps, steps**2], axis=1), dtype=np.float64)


def component_features(labels: Labels, count: int, pet: Volume, prediction: Prediction) -> Floats:
    """FEATURES of each component 1 … `count`, [component, feature].

    Mean and highest probability as logits, entropy and mutual information in bits averaged over the
    component; of a prediction without uncertainty the entropy is that of the probability. Of the study, the
    number of components and the component's share of their volume: `labels` are all that were predicted.
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
        np.full(count, np.log(max(count, 1))),
        np.log(np.maximum(size, 1) / max(len(voxels), 1)),
    )
    return np.stack(columns, axis=1).reshape(count, len(FEATURES))


def fit_lesions(features: Floats, real: npt.NDArray[np.bool_]) -> LesionModel:
    """Logistic regression on standardised features and their squares; penalty: half the squared weights.

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
    none = (0.0,) * len(FEATURES)
    model = LesionModel(FEATURES, _floats(centres), _floats(scales), none, none, 0.0)
    columns = model._columns(features) * np.tile(varies, 2)
    sign = np.where(real, 1.0, -1.0)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        intercept, weights = parameters[0], parameters[1:]
        margin = sign * (intercept + columns @ weights)
        pull = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + _RIDGE / 2 * weights @ weights
        return float(value), np.array([pull.sum(), *(columns.T @ pull + _RIDGE * weights)])

    found = minimize(loss, np.zeros(1 + columns.shape[1]), jac=True, method="L-BFGS-B")
    intercept, *weights = (float(value) for value in found.x)
    half = len(FEATURES)
    return replace(model, weights=tuple(weights[:half]), squares=tuple(weights[half:]), intercept=intercept)


def lesion_model_from_json(data: dict[str, Any]) -> LesionModel:
    """Read what `as_json` wrote. Raises ValueError, TypeError or KeyError for what cannot be."""
    model = LesionModel(
        tuple(str(name) for name in data["features"]),
        _floats(data["centres"]),
        _floats(data["scales"]),
        _floats(data["weights"]),
        _floats(data["squares"]),
        float(data["intercept"]),
    )
    lists = (model.centres, model.scales, model.weights, model.squares)
    values = (*(value for values in lists for value in values), model.intercept)
    lengths = {*(len(values) for values in lists), len(FEATURES)}
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
