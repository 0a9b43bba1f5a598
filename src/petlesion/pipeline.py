"""From a study to its lesions, as functions on objects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from petlesion.errors import StudyError, UsageError
from petlesion.inference.predict import (
    Model,
    OnTile,
    Prediction,
    PredictionSettings,
    load_model,
    predict,
)
from petlesion.intake import find_studies, read_source, to_study
from petlesion.lesions import (
    LesionTable,
    measure_lesions,
    min_voxels_for_volume,
    remove_small_components,
)
from petlesion.model.boxed import boxed_bundle
from petlesion.volume import Study, Volume

DEFAULT_MIN_VOLUME_ML = 0.124
"""Ten voxels of autoPET's grid."""

_LESION_PROBABILITY = 0.5


@dataclass(frozen=True)
class SegmentationSettings:
    """How a study is segmented.

    Components below `min_voxels` voxels, or where that is None below `min_volume_ml` mL, are removed. Without
    either it is the volume that was chosen for the model, else DEFAULT_MIN_VOLUME_ML.
    Raises UsageError for sizes that cannot be.
    """

    min_voxels: int | None = None
    min_volume_ml: float | None = None
    prediction: PredictionSettings = field(default_factory=PredictionSettings)

    def __post_init__(self) -> None:
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

    `probability` is float32 from 0 to 1, `mask` uint8 0/1, `table` the lesions' measures.
    """

    study: Study
    probability: Volume
    mask: Volume
    table: LesionTable


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
) -> Segmentation:
    """Find and measure the lesions of a study.

    `model` is a loaded model, or the path of a bundle, a run or an nnU-Net v2 model folder; without one it
    is the model in the box that fits the study.
    `on_tile(done, total)` is called after each tile of the network's window.
    """
    if model is None:
        model = boxed_bundle(has_ct=study.ct is not None)
    if not isinstance(model, Model):
        model = load_model(Path(model))
    prediction = predict(study, model, settings.prediction, on_tile)
    return segmentation_of(study, prediction, settings.for_model(model))


def segmentation_of(study: Study, prediction: Prediction, settings: SegmentationSettings) -> Segmentation:
    """The lesions, measured, where a study's prediction says that they are."""
    mask = lesion_mask(prediction.probability, settings)
    return Segmentation(study, prediction.probability, mask, measure_lesions(mask, study.pet))


def lesion_mask(probability: Volume, settings: SegmentationSettings) -> Volume:
    """The voxels that are more probably lesion than not, without components that are too small (uint8)."""
    likely = probability.array > _LESION_PROBABILITY
    kept = remove_small_components(likely, settings.fewest_voxels(probability.voxel_volume_ml))
    return probability.with_array(kept.astype(np.uint8))
