"""How far the body's tiles lie from all tiles, and bfloat16 from float32, with a trained model.

    python benchmarks/agreement.py BUNDLE COHORT [--fold 0] [--cases 20]
    python benchmarks/agreement.py BUNDLE --simulated 20 [--fold 0]

On a cohort's studies, or on the simulated whole bodies of 4 mm that benchmarks/accuracy.py scores; with a
fold, by the network of that fold alone, and of a cohort on what that fold holds out. For each study: Dice of
the masks, and components over 0.1 mL that one way has and the other does not touch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
from accuracy import simulated
from machine import describe

from petlesion.cohort.layout import Cohort
from petlesion.inference.backends.openvino import computes_bfloat16
from petlesion.inference.predict import LESION_PROBABILITY, Model, PredictionSettings, load_model, predict
from petlesion.volume import Study

SMALLEST_ML = 0.1
WANTED_DICE = 0.99
EXACT = ("full", "float32")
OTHERS = {
    "body tiles": ("body", "float32"),
    "bfloat16": ("full", "bfloat16"),
    "both": ("body", "bfloat16"),
}


@dataclass(frozen=True)
class Agreement:
    """Dice of a study's two masks, and components over 0.1 mL that the exact or the other has alone."""

    dice: float
    lost: int
    made: int


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def untouched(mask: np.ndarray, other: np.ndarray, voxel_volume_ml: float) -> int:
    """Components of a mask over 0.1 mL without a voxel of the other."""
    labels, count = cc3d.connected_components(mask, connectivity=18, return_N=True)
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_volume_ml
    touched = np.unique(labels[other])
    return sum(1 for label in range(1, count + 1) if sizes_ml[label] > SMALLEST_ML and label not in touched)


def agreement(exact: np.ndarray, other: np.ndarray, voxel_volume_ml: float) -> Agreement:
    lost, made = untouched(exact, other, voxel_volume_ml), untouched(other, exact, voxel_volume_ml)
    return Agreement(dice(exact, other), lost, made)


def compare(study: Study, models: Mapping[str, Model]) -> dict[str, Agreement]:
    """How far each other way lies from all tiles in float32; `models` by precision."""

    def mask(tiles: str, precision: str) -> np.ndarray:
        probability = predict(study, models[precision], PredictionSettings(tiles)).probability
        return np.asarray(probability.array > LESION_PROBABILITY)

    exact = mask(*EXACT)
    return {
        name: agreement(exact, mask(tiles, precision), study.pet.voxel_volume_ml)
        for name, (tiles, precision) in OTHERS.items()
        if precision in models
    }


def studies_of(cohort: Cohort, fold: int | None, count: int | None) -> Iterator[Study]:
    every = [case.case_id for case in cohort.cases]
    case_ids = every if fold is None else cohort.folds[fold].validation
    return (cohort.read_study(case_id) for case_id in case_ids[:count])


def summary(name: str, found: list[Agreement]) -> str:
    values = [study.dice for study in found]
    below = sum(value < WANTED_DICE for value in values)
    lost, made = sum(study.lost for study in found), sum(study.made for study in found)
    return (
        f"{name:10s} {len(values)} studies: Dice lowest {min(values):.4f}, mean {np.mean(values):.5f}, "
        f"below {WANTED_DICE} in {below}; components over {SMALLEST_ML} mL lost {lost}, made {made}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("cohort", type=Path, nargs="?", help="folder of a cohort")
    source.add_argument("--simulated", type=int, metavar="N", help="the first N simulated studies")
    parser.add_argument("--fold", type=int, help="this network, on what its fold holds out")
    parser.add_argument("--cases", type=int, help="only the first studies of the cohort")
    arguments = parser.parse_args()

    print(describe())
    precisions = ("float32", "bfloat16") if computes_bfloat16() else ("float32",)
    folds = None if arguments.fold is None else (str(arguments.fold),)
    models = {name: load_model(arguments.bundle, folds=folds, precision=name) for name in precisions}
    if arguments.cohort:
        studies = studies_of(Cohort.open(arguments.cohort), arguments.fold, arguments.cases)
    else:
        studies = simulated(arguments.simulated)
    found: dict[str, list[Agreement]] = {}
    for study in studies:
        for name, agreed in compare(study, models).items():
            found.setdefault(name, []).append(agreed)
            print(f"{study.name}, {name}: {agreed}", flush=True)
    for name, agreements in found.items():
        print(summary(name, agreements))


if __name__ == "__main__":
    main()
