"""A prediction against its reference, component by component: Dice, false-positive and false-negative volume.

The definitions are those of the autoPET challenge, with 18-connected components. Both masks are labelled
once, and a table of which components meet answers the rest, also for the prediction without some of its
components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from petlesion.errors import GeometryError
from petlesion.lesions import Counts, Labels, component_sizes, label_components
from petlesion.volume import Volume


@dataclass(frozen=True)
class StudyMetrics:
    """One row of metrics.csv. Volumes are in mL.

    `dice` is None where both masks are empty, and 0 where just one is. `false_positive_volume_ml` is the
    volume of the predicted components without one voxel of the reference, `false_negative_volume_ml` that
    of the reference's components without one voxel of the prediction.
    """

    case_id: str
    reference_volume_ml: float
    predicted_volume_ml: float
    dice: float | None
    false_positive_volume_ml: float
    false_negative_volume_ml: float
    reference_components: int
    predicted_components: int

    @property
    def has_lesions(self) -> bool:
        """Whether the reference has a lesion."""
        return self.reference_components > 0


@dataclass(frozen=True, eq=False)
class Overlap:
    """The components of a prediction and of its reference, and which of them meet.

    `predicted_sizes` and `reference_sizes` are in voxels, in the order of `label_components`. Row i of
    `pairs` (n, 2) says that the predicted component pairs[i, 0] and the reference's pairs[i, 1], both counted
    from 0, share `shared_voxels[i]` voxels.
    """

    predicted_sizes: Counts
    reference_sizes: Counts
    pairs: Counts
    shared_voxels: Counts
    voxel_volume_ml: float

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        """Which of the predicted components meet the reference."""
        return np.isin(np.arange(len(self.predicted_sizes)), self.pairs[:, 0])

    @property
    def dice(self) -> float | None:
        """Dice of the two masks; None where both are empty."""
        voxels = int(self.predicted_sizes.sum() + self.reference_sizes.sum())
        return 2 * int(self.shared_voxels.sum()) / voxels if voxels else None

    def without_small(self, min_voxels: int) -> Overlap:
        """The same with the predicted components of fewer than `min_voxels` voxels removed."""
        return self.keeping(self.predicted_sizes >= min_voxels)

    def keeping(self, kept: npt.NDArray[np.bool_]) -> Overlap:
        """The same with only those of the predicted components that `kept` tells to keep."""
        number = np.cumsum(kept) - 1
        met = kept[self.pairs[:, 0]]
        pairs = np.stack((number[self.pairs[met, 0]], self.pairs[met, 1]), axis=1)
        return Overlap(
            self.predicted_sizes[kept],
            self.reference_sizes,
            pairs,
            self.shared_voxels[met],
            self.voxel_volume_ml,
        )

    def metrics(self, case_id: str) -> StudyMetrics:
        """What the overlap amounts to."""
        false_positive = self.predicted_sizes[~self.real].sum()
        false_negative = np.delete(self.reference_sizes, self.pairs[:, 1]).sum()
        return StudyMetrics(
            case_id=case_id,
            reference_volume_ml=int(self.reference_sizes.sum()) * self.voxel_volume_ml,
            predicted_volume_ml=int(self.predicted_sizes.sum()) * self.voxel_volume_ml,
            dice=self.dice,
            false_positive_volume_ml=float(false_positive * self.voxel_volume_ml),
            false_negative_volume_ml=float(false_negative * self.voxel_volume_ml),
            reference_components=len(self.reference_sizes),
            predicted_components=len(self.predicted_sizes),
        )


def overlap_of(prediction: Volume, reference: Volume) -> Overlap:
    """Compare two masks, 0 and anything else, component by component.

    Axes that are only permuted or flipped are put in order first. Raises GeometryError where the masks do
    not lie on one grid.
    """
    prediction = in_place_of(prediction, reference)
    predicted, true = label_components(prediction.array != 0), label_components(reference.array != 0)
    return overlap_of_labels(predicted, true, reference.voxel_volume_ml)


def overlap_of_labels(
    prediction: tuple[Labels, int], reference: tuple[Labels, int], voxel_volume_ml: float
) -> Overlap:
    """Compare two masks [z, y, x] of one grid, each as `label_components` numbers it."""
    (predicted_labels, predicted_count), (reference_labels, reference_count) = prediction, reference
    shared = (predicted_labels > 0) & (reference_labels > 0)
    codes = (predicted_labels[shared].astype(np.int64) - 1) * reference_count + reference_labels[shared] - 1
    found, voxels = np.unique(codes, return_counts=True)
    return Overlap(
        predicted_sizes=component_sizes(predicted_labels, predicted_count),
        reference_sizes=component_sizes(reference_labels, reference_count),
        pairs=np.stack(np.divmod(found, max(reference_count, 1)), axis=1),
        shared_voxels=voxels.astype(np.int64),
        voxel_volume_ml=voxel_volume_ml,
    )


def in_place_of(prediction: Volume, reference: Volume) -> Volume:
    """The prediction in the reference's axes; raises GeometryError where the two do not lie on one grid."""
    prediction = prediction.reoriented(reference.orientation)
    if not prediction.grid.matches(reference.grid):
        raise GeometryError(
            f"the prediction's grid {prediction.shape} is not the reference's {reference.shape} or lies "
            "elsewhere; resample one of them to the other's grid first"
        )
    return prediction


def evaluate_masks(prediction: Volume, reference: Volume, case_id: str) -> StudyMetrics:
    """Score a predicted mask (bool) against its reference; raises GeometryError where the grids differ."""
    return overlap_of(prediction, reference).metrics(case_id)
