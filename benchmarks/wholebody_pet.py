"""What a PET-only model finds in a real whole body with one sarcoma that it has not seen.

    python benchmarks/wholebody_pet.py MODEL --study $PETLESION_DATA/wholebody_pet [--patient STS_001]

MODEL is a bundle or a run of input `pet` with the folds of a cross-validation; only those networks segment
that were not trained on the patient. Prints the tumour's Dice within reach of its reference, the volume that
is found elsewhere, and each of the lesions found elsewhere with its height in the picture: brain, heart and
bladder must not be among them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from machine import describe

from petlesion.evaluation.metrics import evaluate_masks
from petlesion.evaluation.tables import Cell, Table, render
from petlesion.inference.predict import Model, load_model
from petlesion.intake import IntakeOptions, find_studies, read_source, to_study
from petlesion.lesions import label_components
from petlesion.pipeline import Segmentation, segment
from petlesion.volume import Study

TUMOUR = "GTV_Mass"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--patient", default="STS_001", help="the patient's name in the model's cohort")
    options = parser.parse_args()
    (source,) = find_studies([options.study], IntakeOptions(roi=TUMOUR))
    study = to_study(read_source(source))
    model = unseen(options.model, options.patient)
    found = segment(study, model)
    print(f"{describe()}\n\n{model.name}, {len(model.members)} members\n")
    print(render(summary(found), "markdown"))
    print(render(elsewhere(study, found), "markdown"))


def unseen(path: Path, patient: str) -> Model:
    """The model with those of its folds alone that were not trained on the patient."""
    folds = sorted({fold for member in load_model(path).members for fold in member.networks})
    kept = [fold for fold in folds if not load_model(path, [fold]).has_seen([patient])]
    if not kept:
        raise SystemExit(f"{path}: all networks were trained on {patient}; give one with a fold that was not")
    return load_model(path, kept)


def summary(found: Segmentation) -> Table:
    """How well the tumour is found, and how much else."""
    reference = found.study.reference
    assert reference is not None
    metrics = evaluate_masks(found.mask, reference, found.study.name)
    columns = ("Dice", "tumour mL", "found mL", "found elsewhere mL", "missed mL")
    volumes = (metrics.reference_volume_ml, metrics.predicted_volume_ml)
    wrong = (metrics.false_positive_volume_ml, metrics.false_negative_volume_ml)
    return Table(columns, ((metrics.dice, *volumes, *wrong),))


def elsewhere(study: Study, found: Segmentation) -> Table:
    """Each component that does not meet the tumour: volume, highest SUV, height from the lowest slice."""
    assert study.reference is not None
    labels, count = label_components(found.mask.array > 0)
    met = set(np.unique(labels[study.reference.array]).tolist())
    slice_mm = study.pet.spacing_mm[0]
    rows: list[tuple[Cell, ...]] = []
    for number in set(range(1, count + 1)) - met:
        inside = labels == number
        volume_ml = float(inside.sum()) * study.pet.voxel_volume_ml
        height_mm = float(np.flatnonzero(inside.any(axis=(1, 2))).mean()) * slice_mm
        rows.append((volume_ml, float(study.pet.array[inside].max()), height_mm))
    rows.sort(key=lambda row: -float(str(row[0])))
    return Table(("elsewhere mL", "SUVmax", "height mm"), tuple(rows))


if __name__ == "__main__":
    main()
