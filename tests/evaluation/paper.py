"""Studies small enough to be scored on paper: one row of voxels of 0.5 mL each.

case        reference        prediction       shared  Dice            FP           FN
half        ##..####..       .#...##.##       3       2·3/(6+5)       2·0.5 = 1    0
missed      .##....###       ..........       0       0               0            5·0.5 = 2.5
invented    ..........       .###....#.       0       0               4·0.5 = 2    0
nothing     ..........       ..........       –       undefined       0            0
"""

import numpy as np

from petlesion.overlap import StudyMetrics
from petlesion.volume import Volume

VOXEL_AFFINE = np.diag([5.0, 10.0, 10.0, 1.0])  # 500 mm³

DRAWN = {
    "half": ("##..####..", ".#...##.##"),
    "missed": (".##....###", ".........."),
    "invented": ("..........", ".###....#."),
    "nothing": ("..........", ".........."),
}

ON_PAPER = {
    "half": StudyMetrics("half", 3.0, 2.5, 6 / 11, 1.0, 0.0, 2, 3),
    "missed": StudyMetrics("missed", 2.5, 0.0, 0.0, 0.0, 2.5, 2, 0),
    "invented": StudyMetrics("invented", 0.0, 2.0, 0.0, 2.0, 0.0, 0, 2),
    "nothing": StudyMetrics("nothing", 0.0, 0.0, None, 0.0, 0.0, 0, 0),
}


def row_of_voxels(drawing: str) -> Volume:
    """The mask of a drawing, one voxel high and deep."""
    return Volume(np.array([letter == "#" for letter in drawing]).reshape(1, 1, -1), VOXEL_AFFINE)


def masks_of(case: str) -> tuple[Volume, Volume]:
    """Prediction and reference of a case."""
    reference, prediction = DRAWN[case]
    return row_of_voxels(prediction), row_of_voxels(reference)
