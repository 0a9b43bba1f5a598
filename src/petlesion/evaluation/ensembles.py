"""Ensembles: which members to average, with which weights and which smallest size.

All is chosen on held-out studies, those that each member's network did not see. What is reported of a choice
comes from other studies than it was made on: patients are put into inner folds, and each fold is scored by
what the others chose. The best is the highest mean Dice, then the least false volume, then the fewest
members.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from petlesion.errors import InputError, UsageError
from petlesion.evaluation.compare import Difference, compare_rows
from petlesion.evaluation.summary import METRICS, SEED, Floats, Summary, patient_groups, summarize
from petlesion.inference.predict import LESION_PROBABILITY
from petlesion.lesions import bounding_box, min_voxels_for_volume
from petlesion.overlap import Overlap, StudyMetrics, in_place_of, overlap_of
from petlesion.volume import Mask, Volume

MIN_VOLUMES_ML = (0.0, 0.062, 0.124, 0.248, 0.497, 0.995)
"""Table 3's sizes of 0, 5, 10, 20, 40 and 80 voxels on autoPET's grid."""

MOST_MEMBERS = 6
SCORING = "cross_validation"

_INNER_FOLDS = 5
_SHARES = 6  # weights are sixths, which halves and thirds are too
_TIE = 1e-9


@dataclass(frozen=True)
class Combination:
    """How members are averaged: `weights` by member, 0 for one that is left out, 1 in all."""

    name: str
    weights: tuple[float, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """The members that have a part in it, counted from 0."""
        return tuple(index for index, weight in enumerate(self.weights) if weight > 0)


@dataclass(frozen=True)
class HeldOutStudy:
    """A study that no member's network has seen, and how each combination's mask overlaps its reference."""

    case_id: str
    patient_id: str
    overlaps: tuple[Overlap, ...]


@dataclass(frozen=True)
class Scored:
    """One line of the table.

    `rows` are the studies' metrics, each with what the other inner folds chose; `chosen` and `min_volume_ml`
    are the choice on all studies.
    """

    name: str
    chosen: Combination
    min_volume_ml: float
    rows: tuple[StudyMetrics, ...]


@dataclass(frozen=True)
class Selection:
    """Each member and combination, the best weights, and the best of all of these (`picked`).

    `scoring` says whether its rows are of held-out studies (`cross_validation`) or of a `test` set.
    """

    combinations: tuple[Scored, ...]
    weighted: Scored
    picked: Scored
    patients: dict[str, str]
    scoring: str = SCORING

    @property
    def lines(self) -> tuple[Scored, ...]:
        """All lines of the table."""
        return (*self.combinations, self.weighted, self.picked)

    @cached_property
    def best_member(self) -> Scored:
        """The single member with the highest mean Dice, to which all others are compared."""
        single = [line for line in self.combinations if len(line.chosen.members) == 1]
        return max(single, key=lambda line: self.summary(line).dice.value or 0.0)

    def summary(self, line: Scored) -> Summary:
        """A line's averages; intervals resample whole patients."""
        return summarize(line.rows, self.patients)

    def differences(self, line: Scored) -> list[Difference]:
        """A line's metrics less those of the best single member, study by study; none of that one itself."""
        best = self.best_member
        if line is best:
            return []
        return compare_rows((best.name, line.name), self.scoring, (best.rows, line.rows), self.patients)

    def reported_on(self, case_ids: Container[str]) -> Selection:
        """The same choices, reported on some of the studies alone."""
        return self._with_rows(
            [tuple(row for row in line.rows if row.case_id in case_ids) for line in self.lines]
        )

    def applied_to(self, studies: Sequence[HeldOutStudy]) -> Selection:
        """What was chosen on all held-out studies, scored on a test set that had no part in it.

        The studies' overlaps are those of the lines' choices, in their order.
        """
        rows = [
            tuple(_metrics(study, index, line.min_volume_ml) for study in studies)
            for index, line in enumerate(self.lines)
        ]
        patients = {study.case_id: study.patient_id for study in studies}
        return replace(self._with_rows(rows), patients=patients, scoring="test")

    def _with_rows(self, rows: Sequence[tuple[StudyMetrics, ...]]) -> Selection:
        lines = [replace(line, rows=own) for line, own in zip(self.lines, rows, strict=True)]
        return replace(self, combinations=tuple(lines[:-2]), weighted=lines[-2], picked=lines[-1])


def all_combinations(names: Sequence[str]) -> list[Combination]:
    """Every choice of members with equal weights, then every weighting in sixths that is none of these.

    Raises UsageError for fewer than two members or more than MOST_MEMBERS.
    """
    if not 2 <= len(names) <= MOST_MEMBERS:
        raise UsageError(f"an ensemble is made of 2 to {MOST_MEMBERS} members, not {len(names)}")
    equal = [
        Combination(" + ".join(names[i] for i in chosen), _equal_weights(chosen, len(names)))
        for size in range(1, len(names) + 1)
        for chosen in combinations(range(len(names)), size)
    ]
    known = {combination.weights for combination in equal}
    weightings = [weights for weights in _weightings(len(names)) if weights not in known]
    return equal + [Combination(_weighted_name(names, weights), weights) for weights in weightings]


def overlaps_with(
    probabilities: Sequence[Volume], reference: Volume, candidates: Sequence[Combination]
) -> tuple[Overlap, ...]:
    """Overlap of each combination's mask with the reference (bool); raises GeometryError for another grid.

    An average is above one half only where a member is, so that nothing else is looked at.
    """
    members = [in_place_of(volume, reference).array for volume in probabilities]
    found = np.any([member > LESION_PROBABILITY for member in members], axis=0)
    box = bounding_box(found | reference.array) or (slice(0, 1),) * 3
    found, inside = found[box], Volume(reference.array[box], reference.affine)
    values = np.stack([member[box][found] for member in members])

    def overlap(candidate: Combination) -> Overlap:
        mask = np.zeros(found.shape, dtype=bool)
        mask[found] = np.array(candidate.weights, dtype=np.float32) @ values > LESION_PROBABILITY
        return overlap_of(inside.with_array(mask), inside)

    return tuple(overlap(candidate) for candidate in candidates)


def select(candidates: Sequence[Combination], studies: Sequence[HeldOutStudy]) -> Selection:
    """Choose on held-out studies, and score each choice where it was not made.

    `candidates` are `all_combinations`, in the order of the studies' overlaps. Raises InputError for studies
    of a single patient.
    """
    patients = {study.case_id: study.patient_id for study in studies}
    choice = _Choice(candidates, studies, _inner_folds(studies))
    equal = [index for index, candidate in enumerate(candidates) if _is_equal(candidate)]
    lines = [choice.scored(candidates[index].name, [index]) for index in equal]
    everything = range(len(candidates))
    return Selection(
        combinations=tuple(lines),
        weighted=choice.scored("best weights", [i for i in everything if len(candidates[i].members) > 1]),
        picked=choice.scored("picked of all", everything),
        patients=patients,
    )


class _Choice:
    """All metrics of all studies, by candidate and smallest size, and what is best on some of the studies."""

    def __init__(
        self,
        candidates: Sequence[Combination],
        studies: Sequence[HeldOutStudy],
        folds: npt.NDArray[np.int64],
    ) -> None:
        self.candidates = candidates
        self.folds = folds
        self.metrics = [
            [_metrics(study, index, size) for study in studies]
            for index, size in product(range(len(candidates)), MIN_VOLUMES_ML)
        ]
        self.values = {metric: _as_array(self.metrics, value) for metric, value in METRICS.items()}

    def scored(self, name: str, indices: Sequence[int]) -> Scored:
        """The best of some candidates: chosen on all studies, scored by what the other folds choose."""
        count = len(MIN_VOLUMES_ML)
        options = np.array([index * count + size for index in indices for size in range(count)])
        chosen_by = {fold: self._best(options, self.folds != fold) for fold in np.unique(self.folds)}
        rows = tuple(self.metrics[chosen_by[fold]][study] for study, fold in enumerate(self.folds))
        index, size = divmod(self._best(options, np.ones(len(self.folds), dtype=bool)), count)
        return Scored(name, self.candidates[index], MIN_VOLUMES_ML[size], rows)

    def _best(self, options: npt.NDArray[np.int64], studies: Mask) -> int:
        dice, false_positive, false_negative = (
            _mean(self.values[metric][np.ix_(options, studies)])
            for metric in ("dice", "false_positive_volume_ml", "false_negative_volume_ml")
        )
        members = [len(self.candidates[option // len(MIN_VOLUMES_ML)].members) for option in options]
        # Sums in another order differ in their last digits, which shall not decide.
        volume = np.round((false_positive + false_negative) / _TIE)
        order = np.lexsort((np.array(members), volume, np.round(-dice / _TIE)))
        return int(options[order[0]])


def _metrics(study: HeldOutStudy, index: int, min_volume_ml: float) -> StudyMetrics:
    overlap = study.overlaps[index]
    min_voxels = min_voxels_for_volume(min_volume_ml, overlap.voxel_volume_ml)
    return overlap.without_small(min_voxels).metrics(study.case_id)


def _as_array(
    metrics: Sequence[Sequence[StudyMetrics]], value: Callable[[StudyMetrics], float | None]
) -> Floats:
    """One metric by option and study; NaN where it has no value."""
    return np.array([[np.nan if (v := value(row)) is None else v for row in rows] for rows in metrics])


def _mean(values: Floats) -> Floats:
    """Mean of each row without NaN; 0 where nothing else is there, as that is so in every row alike."""
    present = np.isfinite(values)
    total = np.where(present, values, 0.0).sum(axis=1)
    mean: Floats = total / np.maximum(present.sum(axis=1), 1)
    return mean


def _inner_folds(studies: Sequence[HeldOutStudy]) -> npt.NDArray[np.int64]:
    """The inner fold of each study: whole patients, in an order that their names do not decide."""
    names = {study.case_id: study.patient_id for study in studies}
    patients = patient_groups([study.case_id for study in studies], names)
    count = int(patients.max()) + 1 if len(patients) else 0
    if count < 2:
        raise InputError("an ensemble is chosen on studies of two patients or more; predict more of them")
    fold_of_patient = np.random.default_rng(SEED).permutation(count) % _INNER_FOLDS
    return np.asarray(fold_of_patient[patients], dtype=np.int64)


def _is_equal(candidate: Combination) -> bool:
    return len({weight for weight in candidate.weights if weight > 0}) == 1


def _equal_weights(chosen: Sequence[int], members: int) -> tuple[float, ...]:
    return tuple(1 / len(chosen) if index in chosen else 0.0 for index in range(members))


def _weightings(members: int) -> Iterator[tuple[float, ...]]:
    for shares in product(range(_SHARES + 1), repeat=members):
        if sum(shares) == _SHARES:
            yield tuple(share / _SHARES for share in shares)


def _weighted_name(names: Sequence[str], weights: Sequence[float]) -> str:
    parts = zip(names, weights, strict=True)
    return " + ".join(f"{weight:.2f} {name}" for name, weight in parts if weight > 0)
