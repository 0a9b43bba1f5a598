"""What a predicted study with a reference tells about the model's probabilities, without its images.

From the evidence of some studies a calibration is fitted and scored. It is a few kilobytes a study, so that
predicting, which takes long, is done once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from petlesion.calibration.lesions import FEATURES, Floats, component_features
from petlesion.calibration.typical import disagreement, study_statistics
from petlesion.calibration.voxels import LogitCounts, count_logits
from petlesion.errors import FormatError, StudyError
from petlesion.inference.predict import LESION_PROBABILITY, Prediction
from petlesion.io.atomic import atomic_file
from petlesion.lesions import label_components
from petlesion.overlap import Overlap, overlap_of_labels
from petlesion.volume import Study


@dataclass(frozen=True, eq=False)
class Evidence:
    """One study's evidence.

    `source` is where the cohort has it from. `logits` counts its voxels, `features` [component, feature]
    describes the predicted components in the order of `label_components`, none of them removed, and `overlap`
    says which of them meet the reference.
    """

    case_id: str
    source: str
    passes: int
    logits: LogitCounts
    features: Floats
    overlap: Overlap
    statistics: dict[str, float]


def gather_evidence(study: Study, prediction: Prediction, source: str) -> Evidence:
    """Hold a prediction against the reference of a study from a cohort's source.

    Raises StudyError for a study without a reference.
    """
    if study.reference is None:
        raise StudyError(f"study {study.name} has no reference, without which nothing can be calibrated")
    probability, reference = prediction.probability.array, study.reference.array
    mask = probability > LESION_PROBABILITY
    labels, count = label_components(mask)
    statistics = study_statistics(study)
    if prediction.uncertainty is not None:
        share = disagreement(prediction.uncertainty)
        statistics |= {} if share is None else {"disagreement": share}
    return Evidence(
        case_id=study.name,
        source=source,
        passes=prediction.uncertainty.passes if prediction.uncertainty is not None else 1,
        logits=count_logits(probability, mask, reference),
        features=component_features(labels, count, study.pet, prediction),
        overlap=overlap_of_labels((labels, count), label_components(reference), study.pet.voxel_volume_ml),
        statistics=statistics,
    )


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write a study's evidence, whole or not at all."""
    with atomic_file(path) as temporary:
        np.savez_compressed(
            temporary,
            case_id=evidence.case_id,
            source=evidence.source,
            passes=evidence.passes,
            logits=evidence.logits.voxels,
            features=evidence.features,
            predicted_sizes=evidence.overlap.predicted_sizes,
            reference_sizes=evidence.overlap.reference_sizes,
            pairs=evidence.overlap.pairs,
            shared_voxels=evidence.overlap.shared_voxels,
            voxel_volume_ml=evidence.overlap.voxel_volume_ml,
            statistic_names=np.array(list(evidence.statistics), dtype=np.str_),
            statistics=np.array(list(evidence.statistics.values()), dtype=np.float64),
        )


def read_evidence(path: Path) -> Evidence:
    """Read what `write_evidence` wrote. Raises FormatError for anything else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names, values = stored["statistic_names"], stored["statistics"]
            evidence = Evidence(
                case_id=str(stored["case_id"]),
                source=str(stored["source"]),
                passes=int(stored["passes"]),
                logits=LogitCounts(stored["logits"]),
                features=_checked(stored["features"]),
                overlap=Overlap(
                    predicted_sizes=stored["predicted_sizes"],
                    reference_sizes=stored["reference_sizes"],
                    pairs=stored["pairs"],
                    shared_voxels=stored["shared_voxels"],
                    voxel_volume_ml=float(stored["voxel_volume_ml"]),
                ),
                statistics={str(name): float(value) for name, value in zip(names, values, strict=True)},
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise FormatError(f"{path} is no evidence of a study; remove it and calibrate again") from error
    return evidence


def _checked(features: Floats) -> Floats:
    if features.shape[1:] != (len(FEATURES),):
        raise ValueError("features")
    return features
