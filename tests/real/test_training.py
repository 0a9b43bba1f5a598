"""A training on real studies, killed in the middle."""

import os

import numpy as np

from tests.real.conftest import EPOCHS, KilledTraining
from tests.training.test_trainer import ALL_FILES, progress, wait_until


def test_a_killed_training_on_real_studies_goes_on_and_finishes(killed_training: KilledTraining) -> None:
    before, after = killed_training.epochs_before, progress(killed_training.fold_folder)
    assert 1 <= len(before) < EPOCHS
    assert after[: len(before)] == before
    assert [record["epoch"] for record in after] == list(range(EPOCHS))
    assert np.isfinite([record["train_loss"] for record in after]).all()
    assert after[-1]["train_loss"] < after[0]["train_loss"]
    left = [path.name for path in killed_training.fold_folder.iterdir() if not path.name.startswith(".")]
    assert sorted(left) == ALL_FILES


def test_no_process_is_left(killed_training: KilledTraining) -> None:
    wait_until(lambda: not any(map(has_processes, killed_training.process_groups)), 30)


def has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
