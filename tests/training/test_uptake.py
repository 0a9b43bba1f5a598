"""Where a case takes up most."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from petlesion.cohort.layout import Cohort
from petlesion.training.trainer import TrainingOptions, prepare_run
from petlesion.training.uptake import draw_uptake
from tests.training.conftest import tiny


def test_voxels_are_drawn_in_proportion_to_the_square_of_uptake(
    cohort: Cohort, preprocessed: Path, tmp_path: Path
) -> None:
    options = TrainingOptions(preprocessed=preprocessed, processes=1)
    _, folder = prepare_run(cohort, tiny(), tmp_path, options, None)
    centres = draw_uptake(folder, ("case0", "case1"), 1, lambda what, steps: nullcontext(lambda: None))
    voxels = centres.read("case0")
    data, *_ = nnUNetDatasetBlosc2(str(folder), ["case0"]).load_case("case0")
    pet = np.asarray(data[1], dtype=np.float64)
    weights = (pet - pet.min()) ** 2
    assert voxels.shape == (5000, 4)
    drawn = weights[tuple(voxels[:, 1:].T)]
    # Drawn by weight w, w itself is on average the sum of squares over the sum.
    expected = (weights**2).sum() / weights.sum()
    spread = np.sqrt((weights**3).sum() / weights.sum() - expected**2)
    assert abs(drawn.mean() - expected) < 4 * spread / np.sqrt(len(drawn)) + 1e-9
    assert not np.array_equal(voxels, centres.read("case1"))


def test_a_case_is_drawn_once(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    _, shared = prepare_run(
        cohort, tiny(), tmp_path, TrainingOptions(preprocessed=preprocessed, processes=1), None
    )
    # Beside a folder of its own, nothing has been drawn by another test.
    folder = Path(shutil.copytree(shared, tmp_path / "arrays"))
    counted: list[int] = []

    def progress(what: str, steps: int) -> nullcontext[object]:
        counted.append(steps)
        return nullcontext(lambda: None)

    draw_uptake(folder, ("case2",), 1, progress)
    draw_uptake(folder, ("case2",), 1, progress)
    assert counted == [1]
