"""A model's calibration: what it holds, how it is fitted, applied and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from petlesion.calibration.evidence import Evidence
from petlesion.calibration.lesions import (
    Floats,
    LesionModel,
    component_features,
    fit_lesions,
    lesion_model_from_json,
)
from petlesion.calibration.typical import (
    Ranges,
    disagreement,
    study_statistics,
    typical_ranges,
    what_is_unusual,
)
from petlesion.calibration.voxels import Counts, LogitCounts, fit_temperature, summed
from petlesion.errors import CohortError, ModelError, UsageError
from petlesion.inference.predict import Model, Prediction, PredictionSettings, mirror_axes
from petlesion.lesions import Labels
from petlesion.volume import Study


@dataclass(frozen=True)
class Calibration:
    """Temperature of the voxels, model of the lesions, usual ranges by source, and where all comes from.

    `passes` is how many passes each study was predicted in when it was fitted: after a single one, lesions
    are judged by their probability alone, and a model's passes need not be told apart. `sources` says what
    it was fitted on, by which settings, and how it scored there; it changes no figure.
    """

    temperature: float
    passes: int
    lesions: LesionModel
    ranges: Mapping[str, Ranges]
    sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_uncertainty(self) -> bool:
        """Whether lesions can be judged only from a prediction with uncertainty."""
        return self.passes > 1

    def confidence(self, labels: Labels, count: int, study: Study, prediction: Prediction) -> Floats:
        """Probability of being real of each predicted component 1 … `count`.

        Raises UsageError for a prediction without the uncertainty that it needs.
        """
        if self.needs_uncertainty and prediction.uncertainty is None:
            raise UsageError("this model's confidence needs its uncertainty; predict with it")
        if not self.needs_uncertainty:
            prediction = replace(prediction, uncertainty=None)
        return self.lesions.confidence(component_features(labels, count, study.pet, prediction))

    def expected_dice(
        self, logits: LogitCounts, sizes: Counts, confidence: Floats, kept: npt.NDArray[np.bool_]
    ) -> float | None:
        """The Dice to be expected of a mask of those components that are `kept`; None where none is.

        2 Σ p over the mask / (Σ p + size of the mask), the ratio of the expectations of its two parts.
        `logits` counts the study's voxels in and outside all predicted components, whose `sizes` (voxels) and
        `confidence` are given. What is expected within them is shared out by size, and counts for each as far
        as it is real: one that was surely false and is removed leaves nothing behind.
        """
        if not kept.any():
            return None
        outside, inside = logits.expected_lesion_voxels(self.temperature)
        expected = inside * sizes / sizes.sum() * confidence
        return float(2 * expected[kept].sum() / (outside + expected.sum() + sizes[kept].sum()))

    def doubts(self, study: Study, prediction: Prediction) -> tuple[str, ...]:
        """What makes a study unlike the training data, a clause each; empty where nothing does."""
        statistics = study_statistics(study)
        if prediction.uncertainty is not None:
            share = disagreement(prediction.uncertainty)
            statistics |= {} if share is None else {"disagreement": share}
        return what_is_unusual(statistics, self.ranges)

    def as_json(self) -> dict[str, Any]:
        """The calibration as plain data."""
        return {
            "temperature": self.temperature,
            "passes": self.passes,
            "lesions": self.lesions.as_json(),
            "ranges": {
                source: {name: list(bounds) for name, bounds in ranges.items()}
                for source, ranges in self.ranges.items()
            },
            "sources": dict(self.sources),
        }


def fit_calibration(studies: Sequence[Evidence], sources: Mapping[str, Any]) -> Calibration:
    """Fit a calibration to held-out studies.

    Raises CohortError where they lack lesions, false components or real ones.
    """
    if not studies:
        raise CohortError("there is no held-out study to calibrate on; predict some first")
    features = np.concatenate([study.features for study in studies])
    real = np.concatenate([study.overlap.real for study in studies])
    return Calibration(
        temperature=fit_temperature(summed(study.logits for study in studies)),
        passes=max(study.passes for study in studies),
        lesions=fit_lesions(features, real),
        ranges=_ranges_by_source(studies),
        sources=sources,
    )


def settings_unlike(calibration: Calibration, model: Model, settings: PredictionSettings) -> str | None:
    """One sentence where a study is predicted in another way than those of the calibration, else None."""
    calibrated_by = calibration.sources.get("prediction")
    if calibrated_by is None:
        return None
    plans = [member.plan for member in model.members]
    then, now = dict(calibrated_by), asdict(settings)
    for given in (then, now):
        given["mirror"] = [mirror_axes(plan, given.get("mirror")) for plan in plans]
    other = [name for name in now if then.get(name) != now[name]]
    if not other:
        return None
    return f"Confidence and expected Dice may be off: they were calibrated with another {', '.join(other)}."


def _ranges_by_source(studies: Sequence[Evidence]) -> dict[str, Ranges]:
    return {
        source: typical_ranges([study.statistics for study in studies if study.source == source])
        for source in sorted({study.source for study in studies})
    }


def calibration_of(model: Model) -> Calibration | None:
    """The calibration stored with a model; None where it has none. Raises ModelError for a broken one."""
    if model.calibration is None:
        return None
    try:
        return calibration_from_json(model.calibration)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{model.name}: its calibration lacks or garbles {error}; calibrate it again"
        ) from None


def calibration_from_json(data: Mapping[str, Any]) -> Calibration:
    """Read what `as_json` wrote. Raises KeyError, TypeError, ValueError or AttributeError for the rest."""
    temperature = float(data["temperature"])
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError("temperature")
    ranges = {
        str(source): {str(name): (float(low), float(high)) for name, (low, high) in bounds.items()}
        for source, bounds in data["ranges"].items()
    }
    lesions = lesion_model_from_json(data["lesions"])
    return Calibration(temperature, int(data["passes"]), lesions, ranges, dict(data["sources"]))
