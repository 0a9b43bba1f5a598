"""A prediction against its reference: Dice, false-positive and false-negative volume.

The definitions are those of the autoPET challenge, with 18-connected components. Both masks are labelled
once, and a table of which components meet answers the rest, also for the prediction without its small
components.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from petlesion.errors import FormatError, GeometryError
from petlesion.io.atomic import write_text
from petlesion.lesions import component_sizes, label_components
from petlesion.volume import Volume

Counts = npt.NDArray[np.int64]


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


METRICS_COLUMNS = tuple(field.name for field in fields(StudyMetrics))
_COUNT_COLUMNS = ("reference_components", "predicted_components")


@dataclass(frozen=True, eq=False)
class Overlap:
    """The components of a prediction and of its reference, and which of them meet.

    `predicted_sizes` and `reference_sizes` are in voxels. Row i of `pairs` (n, 2) says that the predicted
    component pairs[i, 0] and the reference's pairs[i, 1], both counted from 0, share `shared_voxels[i]`
    voxels.
    """

    predicted_sizes: Counts
    reference_sizes: Counts
    pairs: Counts
    shared_voxels: Counts
    voxel_volume_ml: float

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
        predicted, reference = int(self.predicted_sizes.sum()), int(self.reference_sizes.sum())
        shared = int(self.shared_voxels.sum())
        false_positive = np.delete(self.predicted_sizes, self.pairs[:, 0]).sum()
        false_negative = np.delete(self.reference_sizes, self.pairs[:, 1]).sum()
        return StudyMetrics(
            case_id=case_id,
            reference_volume_ml=reference * self.voxel_volume_ml,
            predicted_volume_ml=predicted * self.voxel_volume_ml,
            dice=2 * shared / (predicted + reference) if predicted + reference else None,
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
    predicted_lesion, reference_lesion = prediction.array != 0, reference.array != 0
    predicted_labels, predicted_count = label_components(predicted_lesion)
    reference_labels, reference_count = label_components(reference_lesion)
    shared = predicted_lesion & reference_lesion
    codes = (predicted_labels[shared].astype(np.int64) - 1) * reference_count + reference_labels[shared] - 1
    found, voxels = np.unique(codes, return_counts=True)
    return Overlap(
        predicted_sizes=component_sizes(predicted_labels, predicted_count),
        reference_sizes=component_sizes(reference_labels, reference_count),
        pairs=np.stack(np.divmod(found, max(reference_count, 1)), axis=1),
        shared_voxels=voxels.astype(np.int64),
        voxel_volume_ml=reference.voxel_volume_ml,
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


def write_metrics(path: str | Path, rows: Sequence[StudyMetrics]) -> None:
    """Write metrics.csv: one row per study, an undefined value as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(METRICS_COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, column)) for column in METRICS_COLUMNS])
    write_text(path, text.getvalue())


def read_metrics(path: str | Path) -> list[StudyMetrics]:
    """Read metrics.csv; raises FormatError, which names the file and the row, for what cannot be."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path} cannot be read; give a metrics.csv that petlesion evaluate wrote"
        ) from error
    reader = csv.DictReader(lines)
    missing = [column for column in METRICS_COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise FormatError(
            f"{path} has no column {', '.join(missing)}; give a metrics.csv of petlesion evaluate"
        )
    rows = [_parse_row(path, number, cells) for number, cells in enumerate(reader, start=2)]
    check_unique(path, (row.case_id for row in rows))
    return rows


def check_unique(path: str | Path, case_ids: Iterable[str]) -> None:
    """Raise FormatError for a study that is listed twice."""
    seen: set[str] = set()
    for case_id in case_ids:
        if case_id in seen:
            raise FormatError(f"{path} lists the study {case_id} twice; each study counts once")
        seen.add(case_id)


def _parse_row(path: Path, number: int, cells: Mapping[str, str | None]) -> StudyMetrics:
    try:
        counts = {column: int(cells[column] or "") for column in _COUNT_COLUMNS}
        values = {
            column: _parse_number(cells[column])
            for column in METRICS_COLUMNS
            if column not in ("case_id", *_COUNT_COLUMNS)
        }
    except ValueError as error:
        raise FormatError(
            f"{path}, line {number}, is not a row of metrics ({error}); evaluate again"
        ) from error
    if not cells["case_id"] or any(value is None for column, value in values.items() if column != "dice"):
        raise FormatError(f"{path}, line {number}, lacks a value; evaluate again")
    return StudyMetrics(case_id=str(cells["case_id"]), **values, **counts)  # type: ignore[arg-type]


def _parse_number(cell: str | None) -> float | None:
    if cell is None or cell == "":
        return None
    value = float(cell)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{cell} cannot be")
    return value


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
