"""A real whole-body PET without CT: is the tumour found, and what else is marked?

    python benchmarks/without_ct.py BUNDLE --data $PETLESION_DATA

BUNDLE takes PET alone. STS_001 (TCIA Soft-tissue-Sarcoma, CC BY 3.0), as the scanner wrote it, is segmented
by those of its networks that did not train on that patient, and by fixed thresholds. What meets GTV_Mass is
the tumour, scored against it by Dice; all other components are elsewhere: brain, heart, bladder, and whatever
nobody outlined.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from baselines import METHODS
from machine import describe
from unseen import UnseenNetworks

from petlesion.evaluation.tables import Table, render
from petlesion.inference.predict import Model
from petlesion.intake import IntakeOptions, find_studies, read_source, to_study
from petlesion.lesions import LesionTable, label_components, measure_lesions
from petlesion.overlap import evaluate_masks
from petlesion.pipeline import segment
from petlesion.volume import Study, Volume

CASE = "STS_001"
SERIES = Path("wholebody_pet", "STS_001_FDG_PET.zip")
TUMOUR = "GTV_Mass"
THRESHOLDS = ("suv-2.5", "suv-4", "41-percent")
SHOWN = 8


@dataclass(frozen=True)
class Found:
    """What a method marked: Dice of all of it and of what meets the tumour, and the components elsewhere."""

    dice: float | None
    tumour_dice: float | None
    elsewhere: LesionTable


def read_whole_body(data: Path) -> Study:
    path = data / SERIES
    if not path.is_file():
        raise SystemExit(f"{path} is missing; give the folder of the real data with --data")
    (source,) = find_studies([path], IntakeOptions(roi=TUMOUR))
    return to_study(read_source(source))


def unseen_model(bundle: Path) -> Model:
    model = UnseenNetworks(bundle).model(CASE)
    if model.needs_ct:
        raise SystemExit(f"{bundle} needs a CT, which {CASE} lacks; give a bundle for PET alone")
    return model


def judge(study: Study, mask: Volume) -> Found:
    """Part a mask by whether its components meet the reference, and score it."""
    assert study.reference is not None
    marked = mask.array > 0
    labels, count = label_components(marked)
    meets = np.zeros(count + 1, dtype=bool)
    meets[labels[study.reference.array & marked]] = True
    tumour = mask.with_array(meets[labels].astype(np.uint8))
    elsewhere = mask.with_array((marked & ~meets[labels]).astype(np.uint8))
    return Found(
        evaluate_masks(mask, study.reference, CASE).dice,
        evaluate_masks(tumour, study.reference, CASE).dice,
        measure_lesions(elsewhere, study.pet),
    )


def top_mm(pet: Volume) -> float:
    """Height (LPS z) of the voxel that stands highest in the patient."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in pet.shape[::-1]), [1])).reshape(4, -1)
    return float((pet.affine @ corners)[2].max())


def summary_table(found: dict[str, Found]) -> Table:
    columns = ("method", "tumour's Dice", "Dice of all that is marked", "elsewhere mL", "components there")
    rows = tuple(
        (
            name,
            one.tumour_dice,
            one.dice,
            f"{one.elsewhere.metabolic_tumour_volume_ml:.1f}",
            one.elsewhere.count,
        )
        for name, one in found.items()
    )
    return Table(columns, rows)


def elsewhere_table(found: dict[str, Found], top: float) -> Table:
    """The largest components elsewhere."""
    columns = ("method", "mL", "SUVmax", "cm from the top")
    rows = tuple(
        (
            name,
            f"{lesion.volume_ml:.1f}",
            f"{lesion.suv_max:.1f}",
            f"{(top - lesion.centroid_mm[2]) / 10:.1f}",
        )
        for name, one in found.items()
        for lesion in one.elsewhere.lesions[:SHOWN]
    )
    return Table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the real data")
    arguments = parser.parse_args()
    study, model = read_whole_body(arguments.data), unseen_model(arguments.bundle)
    masks = {"petlesion": segment(study, model).mask}
    masks |= {name: study.pet.with_array(METHODS[name](study).astype(np.uint8)) for name in THRESHOLDS}
    found = {name: judge(study, mask) for name, mask in masks.items()}
    print(f"{describe()}; {model.name}, {sum(len(member.networks) for member in model.members)} networks\n")
    print(render(summary_table(found), "markdown"))
    print("The largest components elsewhere\n")
    print(render(elsewhere_table(found, top_mm(study.pet)), "markdown"))


if __name__ == "__main__":
    main()
