"""What trains the model in the box (the folder `box`): its cohorts, and the settings of its steps."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from petlesion.cohort.layout import Case, Cohort, create_cohort
from petlesion.experiments import find_experiment, with_settings
from petlesion.io.nifti import write_volume
from tests.conftest import make_phantom

BOX = Path(__file__).parents[1] / "box"


@pytest.fixture(scope="module")
def box_cohort() -> ModuleType:
    spec = importlib.util.spec_from_file_location("box_cohort", BOX / "cohort.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_simulated_study_is_in_two_cohorts(box_cohort: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "organs.nii.gz").touch()  # which is read when a study is made
    names = []
    for numbers in ("TO_BEGIN_WITH", "TO_GO_ON_WITH", "BESIDE_REAL", "MORE"):
        entries = box_cohort.simulated_entries(getattr(box_cohort, numbers), tmp_path)
        names += [entry.case_id for entry in entries]
    assert len(names) == len(set(names)) == 980 + 460


def test_more_bodies_leave_a_fold_what_it_held_out(box_cohort: ModuleType, tmp_path: Path) -> None:
    def cohort_of(name: str, ids: str) -> Cohort:
        return create_cohort(tmp_path / name).with_cases(
            Case(case_id, case_id, "any", "train", 1.0) for case_id in ids
        )

    former = box_cohort.divide(cohort_of("Dataset001_A", "abcdef"), 3)
    wider = cohort_of("Dataset002_B", "abcdefghijkl")
    box_cohort.divide_as(wider, former)
    for before, now in zip(former.folds, wider.folds, strict=True):
        assert set(before.validation) < set(now.validation) and set(before.train) < set(now.train)
        assert set(now.validation) | set(now.train) == set("abcdefghijkl")
        assert len(now.validation) == 4


def test_a_real_study_is_there_as_it_is_and_cut_anew_alike_each_time(
    box_cohort: ModuleType, tmp_path: Path
) -> None:
    study = make_phantom((40, 40, 40))
    folder = tmp_path / "studies" / "one"
    for name, volume in (("PET", study.pet), ("CT", study.ct), ("SEG", study.reference)):
        assert volume is not None
        write_volume(folder / f"{name}.nii.gz", volume.with_array(volume.array.astype(np.float32)))
    entries = list(box_cohort.real_entries(tmp_path / "studies"))
    assert [entry.case_id for entry in entries] == ["one", *(f"one_recut{n}" for n in range(1, 6))]
    assert {entry.patient_id for entry in entries} == {"one"}
    whole, most_cut = entries[0].read(), entries[-1].read()
    assert whole.pet.shape == study.pet.shape
    assert all(cut <= full for cut, full in zip(most_cut.pet.shape, whole.pet.shape, strict=True))
    np.testing.assert_array_equal(most_cut.pet.array, entries[-1].read().pet.array)


def test_each_step_of_the_training_has_settings_that_can_be() -> None:
    script = (BOX / "train.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [
        re.findall(r"--set ([a-z_]+=[^\s\"$]+)", line)
        for line in script.splitlines()
        if line.startswith(("begin ", "train "))
    ]
    assert len(steps) == 7
    for settings in steps:
        with_settings(find_experiment("box"), settings)
    assert ["epochs=75", "iterations=100", "patch_size=48x40x40", "oversampled_cases=all"] in steps
