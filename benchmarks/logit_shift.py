"""Which shift of a lesion's logits suits a cross-validated bundle, chosen where it is not scored.

    python benchmarks/logit_shift.py BUNDLE --studies $PETLESION_DATA/sts [--shifts 0 -1 -1.5 -2 -3] [-o OUT]

Each real study, as it is and cut anew as in accuracy.py, is segmented by the networks that have not seen its
patient, whatever shift the bundle was exported with. Prints the scores by each shift, and below them those of
a shift for each fold: the one that gives the patients of the other folds the highest mean Dice as they are.
The latter are what OUT/scores.json holds, for `petlesion model export --scores`.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accuracy import patient_of, real_sets, report, write_scores
from machine import describe
from unseen import UnseenNetworks

from petlesion.evaluation.summary import summarize
from petlesion.inference.predict import Model, predict
from petlesion.model.bundle import Bundle
from petlesion.overlap import StudyMetrics, evaluate_masks
from petlesion.pipeline import SegmentationSettings, lesion_mask
from petlesion.volume import Study

SHIFTS = (0.0, -1.0, -1.5, -2.0, -3.0)
HOW = "threshold chosen on other patients"

ByShift = Mapping[float, Sequence[StudyMetrics]]


def score(study: Study, model: Model, shifts: Mapping[float, float]) -> dict[float, StudyMetrics]:
    """A study's scores by each shift; `shifts` maps it to what is added to the model's logits."""
    assert study.reference is not None
    probability = predict(study, model).probability
    settings = SegmentationSettings().for_model(model)
    scores = {}
    for shift, added in shifts.items():
        # Where the logit and what is added to it are above 0 together.
        mask = lesion_mask(probability, settings, above=1 / (1 + math.exp(added)))
        scores[shift] = evaluate_masks(mask, study.reference, study.name)
    return scores


def choose(rows: ByShift, fold_of: Mapping[str, str]) -> dict[str, float]:
    """For each fold the shift with the highest mean Dice over the cases of all other folds."""

    def mean_dice(shift: float, fold: str) -> float:
        others = [
            row.dice
            for row in rows[shift]
            if fold_of[patient_of(row.case_id)] != fold and row.dice is not None
        ]
        return float(np.mean(others))

    folds = sorted(set(fold_of.values()))
    return {fold: max(rows, key=lambda shift: mean_dice(shift, fold)) for fold in folds}


def by_chosen(rows: ByShift, chosen: Mapping[str, float], fold_of: Mapping[str, str]) -> list[StudyMetrics]:
    """Each case's score by the shift that was chosen for its fold."""
    return [
        row
        for shift, scored in rows.items()
        for row in scored
        if chosen[fold_of[patient_of(row.case_id)]] == shift
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--studies", type=Path, required=True, help="the real studies")
    parser.add_argument("--shifts", type=float, nargs="+", default=SHIFTS)
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    own = Bundle.open(arguments.bundle).members[0].logit_shift
    shifts = {shift: shift - own for shift in arguments.shifts}
    networks = UnseenNetworks(arguments.bundle)

    sets: dict[str, dict[float, list[StudyMetrics]]] = {}
    fold_of: dict[str, str] = {}
    for title, studies in real_sets(arguments.studies).items():
        rows = sets[title] = {shift: [] for shift in shifts}
        for study in studies:
            name = patient_of(study.name)
            fold_of[name] = "+".join(networks.folds(name))
            for shift, scores in score(study, networks.model(name), shifts).items():
                rows[shift].append(scores)
    chosen = choose(sets["as they are"], fold_of)
    print(describe())
    print(
        "chosen for a fold:", ", ".join(f"{shift:g} ({n})" for shift, n in Counter(chosen.values()).items())
    )
    summaries = {}
    for title, rows in sets.items():
        patients = {row.case_id: patient_of(row.case_id) for row in rows[arguments.shifts[0]]}
        by_name = {f"{shift:g}": scored for shift, scored in rows.items()}
        by_name["chosen"] = by_chosen(rows, chosen, fold_of)
        report(title, by_name, patients)
        summaries[f"{title}, {HOW}"] = summarize(by_name["chosen"], patients)
    if arguments.out is not None:
        write_scores(arguments.out, summaries)


if __name__ == "__main__":
    main()
