"""What a predicted study with a reference tells about the model's probabilities, without its images.

From the evidence of some studies a calibration is fitted and scored. It is a few kilobytes a study, so that
predicting, which takes long, is done once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from petlesion.calibration.lesions import FEATURES, Floats, component_features
from petlesion.calibration.typical import disagreement, study_statistics
from petlesion.calibration.voxels import LogitCounts, count_logits
from petlesion.errors import FormatError, StudyError
from petlesion.inference.predict import LESION_PROBABILITY, Prediction
from petlesion.io.atomic import atomic_file
from petlesion.lesions import Counts, component_sizes, label_components
from petlesion.volume import Study


@dataclass(frozen=True, eq=False)
class Evidence:
    """One study's evidence.

    `logits` counts its voxels, `features` [component, feature] describes the predicted components in the
    order of `label_components`, none of them removed. Sizes are in voxels. Row i of `pairs` says that the
    predicted component pairs[i, 0] and the reference's pairs[i, 1], both counted from 0, share
    `shared_voxels[i]` voxels.
    """

    case_id: str
    passes: int
    logits: LogitCounts
    features: Floats
    predicted_sizes: Counts
    reference_sizes: Counts
    pairs: Counts
    shared_voxels: Counts
    voxel_volume_ml: float
    statistics: dict[str, float]

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        """Which of the predicted components meet the reference."""
        return np.isin(np.arange(len(self.predicted_sizes)), self.pairs[:, 0])

    @property
    def dice(self) -> float | None:
        """Dice of the predicted mask; None where both masks are empty."""
        voxels = int(self.predicted_sizes.sum() + self.reference_sizes.sum())
        return 2 * int(self.shared_voxels.sum()) / voxels if voxels else None


def gather_evidence(study: Study, prediction: Prediction) -> Evidence:
    """Hold a prediction against the study's reference. Raises StudyError for a study without one."""
    if study.reference is None:
        raise StudyError(f"study {study.name} has no reference, without which nothing can be calibrated")
    probability, reference = prediction.probability.array, study.reference.array
    mask = probability > LESION_PROBABILITY
    labels, count = label_components(mask)
    of_reference, reference_count = label_components(reference)
    shared = mask & reference
    codes = (labels[shared].astype(np.int64) - 1) * reference_count + of_reference[shared] - 1
    met, voxels = np.unique(codes, return_counts=True)
    statistics = study_statistics(study)
    if prediction.uncertainty is not None:
        share = disagreement(prediction.uncertainty)
        statistics |= {} if share is None else {"disagreement": share}
    return Evidence(
        case_id=study.name,
        passes=prediction.uncertainty.passes if prediction.uncertainty is not None else 1,
        logits=count_logits(probability, mask, reference),
        features=component_features(labels, count, study.pet, prediction),
        predicted_sizes=component_sizes(labels, count),
        reference_sizes=component_sizes(of_reference, reference_count),
        pairs=np.stack(np.divmod(met, max(reference_count, 1)), axis=1),
        shared_voxels=voxels.astype(np.int64),
        voxel_volume_ml=study.pet.voxel_volume_ml,
        statistics=statistics,
    )


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write a study's evidence, whole or not at all."""
    with atomic_file(path) as temporary:
        np.savez_compressed(
            temporary,
            case_id=evidence.case_id,
            passes=evidence.passes,
            logits=evidence.logits.voxels,
            features=evidence.features,
            predicted_sizes=evidence.predicted_sizes,
            reference_sizes=evidence.reference_sizes,
            pairs=evidence.pairs,
            shared_voxels=evidence.shared_voxels,
            voxel_volume_ml=evidence.voxel_volume_ml,
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
                passes=int(stored["passes"]),
                logits=LogitCounts(stored["logits"]),
                features=stored["features"].reshape(-1, len(FEATURES)),
                predicted_sizes=stored["predicted_sizes"],
                reference_sizes=stored["reference_sizes"],
                pairs=stored["pairs"],
                shared_voxels=stored["shared_voxels"],
                voxel_volume_ml=float(stored["voxel_volume_ml"]),
                statistics={str(name): float(value) for name, value in zip(names, values, strict=True)},
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise FormatError(f"{path} is no evidence of a study; remove it and calibrate again") from error
    return evidence
