"""From a study to its lesions, as functions on objects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from petlesion.calibration.stored import Calibration, calibration_of
from petlesion.calibration.voxels import count_logits
from petlesion.errors import StudyError, UsageError
from petlesion.inference.predict import (
    LESION_PROBABILITY,
    Model,
    OnTile,
    Prediction,
    PredictionSettings,
    load_model,
    predict,
)
from petlesion.inference.uncertainty import Uncertainty
from petlesion.intake import find_studies, read_source, to_study
from petlesion.lesions import (
    LesionTable,
    component_sizes,
    label_components,
    measure_lesions,
    min_voxels_for_volume,
    remove_small_components,
)
from petlesion.model.boxed import boxed_bundle
from petlesion.volume import Study, Volume

DEFAULT_MIN_VOLUME_ML = 0.124
"""Ten voxels of autoPET's grid."""


@dataclass(frozen=True)
class SegmentationSettings:
    """How a study is segmented.

    Components below `min_voxels` voxels, or where that is None below `min_volume_ml` mL, are removed. Without
    either it is the volume that was chosen for the model, else DEFAULT_MIN_VOLUME_ML. Of those that are left,
    components of a confidence below `min_confidence` are removed, for which the model must be calibrated.
    Raises UsageError for sizes and confidences that cannot be.
    """

    min_voxels: int | None = None
    min_volume_ml: float | None = None
    prediction: PredictionSettings = field(default_factory=PredictionSettings)
    min_confidence: float | None = None

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"a confidence of {self.min_confidence} cannot be; give one from 0 to 1")
        if self.min_voxels is not None and self.min_voxels < 0:
            raise UsageError(f"a smallest size of {self.min_voxels} voxels cannot be; give 0 or more")

    def fewest_voxels(self, voxel_volume_ml: float) -> int:
        """The fewest voxels that a component must have to be kept."""
        if self.min_voxels is not None:
            return self.min_voxels
        chosen = self.min_volume_ml
        return min_voxels_for_volume(DEFAULT_MIN_VOLUME_ML if chosen is None else chosen, voxel_volume_ml)

    def for_model(self, model: Model) -> SegmentationSettings:
        """The same with the smallest volume that holds for a model."""
        volumes = (self.min_volume_ml, model.min_volume_ml, DEFAULT_MIN_VOLUME_ML)
        return replace(self, min_volume_ml=next(volume for volume in volumes if volume is not None))


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A study with its lesions, all on the PET's grid and in the PET's own axes.

    `probability` is float32 from 0 to 1, `mask` uint8 0/1, `table` the lesions' measures. `uncertainty` is
    None unless it was asked for or a lesion's confidence needed it. Of a calibrated model `expected_dice` is
    the Dice to be expected of the mask, None without a lesion, and `doubts` are clauses that say what makes
    the study unlike the training data.
    """

    study: Study
    probability: Volume
    mask: Volume
    table: LesionTable
    uncertainty: Uncertainty | None = None
    expected_dice: float | None = None
    doubts: tuple[str, ...] = ()


def read_study(*paths: str | Path) -> Study:
    """Read one PET/CT study: a DICOM folder or zip, a PET and a CT as NIfTI, MHA or NRRD, or their folder.

    Raises StudyError for paths that hold several studies, another InputError for images that cannot be used.
    """
    sources = find_studies(paths)
    if len(sources) > 1:
        raise StudyError(f"{paths[0]} holds {len(sources)} studies; give the folder of one")
    return to_study(read_source(sources[0]))


def segment(
    study: Study,
    model: Model | str | Path | None = None,
    settings: SegmentationSettings = SegmentationSettings(),
    on_tile: OnTile = lambda done, total: None,
    *,
    with_uncertainty: bool = False,
) -> Segmentation:
    """Find and measure the lesions of a study.

    `model` is a loaded model, or the path of a bundle, a run or an nnU-Net v2 model folder; without one it
    is the model in the box that fits the study.
    `on_tile(done, total)` is called after each tile of the network's window; `with_uncertainty` as in
    `predict`. Raises UsageError where lesions are to be removed by a confidence that the model does not tell.
    """
    if model is None:
        model = boxed_bundle(has_ct=study.ct is not None)
    if not isinstance(model, Model):
        model = load_model(Path(model))
    calibration = calibration_of(model)
    check_confidence(settings, calibration)
    wanted = with_uncertainty or (calibration is not None and calibration.needs_uncertainty)
    prediction = predict(study, model, settings.prediction, on_tile, with_uncertainty=wanted)
    return segmentation_of(study, prediction, settings.for_model(model), calibration)


def segmentation_of(
    study: Study,
    prediction: Prediction,
    settings: SegmentationSettings,
    calibration: Calibration | None = None,
) -> Segmentation:
    """The lesions, measured and judged, where a study's prediction says that they are.

    Raises UsageError where a calibration is needed and absent.
    """
    check_confidence(settings, calibration)
    probability, uncertainty = prediction.probability, prediction.uncertainty
    if calibration is None:
        mask = lesion_mask(probability, settings)
        return Segmentation(study, probability, mask, measure_lesions(mask, study.pet), uncertainty)
    # Judged among all that were predicted, as in calibration, and removed after.
    likely = probability.array > LESION_PROBABILITY
    labels, count = label_components(likely)
    confidence = calibration.confidence(labels, count, study, prediction)
    sizes = component_sizes(labels, count)
    kept = sizes >= settings.fewest_voxels(probability.voxel_volume_ml)
    if settings.min_confidence is not None:
        kept &= confidence >= settings.min_confidence
    mask = probability.with_array(np.concatenate(([False], kept))[labels].astype(np.uint8))
    logits = count_logits(probability.array, likely)
    return Segmentation(
        study,
        probability,
        mask,
        measure_lesions(mask, study.pet, confidence[kept].tolist()),
        uncertainty,
        calibration.expected_dice(logits, sizes, confidence, kept),
        calibration.doubts(study, prediction),
    )


def check_confidence(settings: SegmentationSettings, calibration: Calibration | None) -> None:
    """Raise UsageError where lesions are to be removed by a confidence that the model does not tell."""
    if settings.min_confidence is not None and calibration is None:
        raise UsageError(
            "lesions cannot be removed by their confidence, since the model is not calibrated; "
            "run petlesion model calibrate first, or remove them by their size"
        )


def lesion_mask(
    probability: Volume, settings: SegmentationSettings, above: float = LESION_PROBABILITY
) -> Volume:
    """The voxels above a probability, by default one half, without components that are too small (uint8)."""
    likely = probability.array > above
    kept = remove_small_components(likely, settings.fewest_voxels(probability.voxel_volume_ml))
    return probability.with_array(kept.astype(np.uint8))
