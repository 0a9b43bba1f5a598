"""How far the body's tiles lie from all tiles, and bfloat16 from float32, on a trained model's own studies.

    python benchmarks/agreement.py BUNDLE COHORT [--cases 20]

For each study: Dice of the masks, and components over 0.1 mL that one way has and the other does not touch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cc3d
import numpy as np
from machine import describe

from petlesion.cohort.layout import Cohort
from petlesion.inference.predict import PredictionSettings, load_model, predict

SMALLEST_ML = 0.1
PAIRS = (
    ("body tiles", ("full", "float32"), ("body", "float32")),
    ("bfloat16", ("full", "float32"), ("full", "bfloat16")),
    ("both", ("full", "float32"), ("body", "bfloat16")),
)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def untouched(mask: np.ndarray, other: np.ndarray, voxel_volume_ml: float) -> int:
    """Components of a mask over 0.1 mL without a voxel of the other."""
    labels, count = cc3d.connected_components(mask, connectivity=18, return_N=True)
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_volume_ml
    touched = np.unique(labels[other])
    return sum(1 for label in range(1, count + 1) if sizes_ml[label] > SMALLEST_ML and label not in touched)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--cases", type=int, help="only the first studies")
    arguments = parser.parse_args()

    print(describe())
    cohort = Cohort.open(arguments.cohort)
    models = {
        precision: load_model(arguments.bundle, precision=precision) for precision in ("float32", "bfloat16")
    }
    dices: dict[str, list[float]] = {name: [] for name, *_ in PAIRS}
    changed = dict.fromkeys(dices, 0)
    for case in cohort.cases[: arguments.cases]:
        study = cohort.read_study(case.case_id)
        masks = {
            (tiles, precision): predict(study, model, PredictionSettings(tiles)).probability.array > 0.5
            for tiles in ("full", "body")
            for precision, model in models.items()
        }
        for name, first, second in PAIRS:
            volume_ml = study.pet.voxel_volume_ml
            dices[name].append(dice(masks[first], masks[second]))
            changed[name] += untouched(masks[first], masks[second], volume_ml)
            changed[name] += untouched(masks[second], masks[first], volume_ml)
    for name, values in dices.items():
        print(
            f"{name:12s} {len(values)} studies: Dice lowest {min(values):.4f}, mean {np.mean(values):.5f}, "
            f"below 0.99 in {sum(value < 0.99 for value in values)}; components lost or made: {changed[name]}"
        )


if __name__ == "__main__":
    main()
