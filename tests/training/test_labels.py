"""Labels with organs among them, from a cohort's masks to a network that tells them apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from petlesion.cohort.layout import Cohort
from petlesion.cohort.organs import write_organ_names, write_organs
from petlesion.errors import CohortError
from petlesion.inference.predict import load_model, predict
from petlesion.io.nifti import read_volume
from petlesion.training.labels import write_labels_with_organs
from petlesion.training.trainer import TrainingOptions, train
from petlesion.volume import Volume
from tests.training.conftest import make_cohort, tiny

ORGANS = ("liver", "brain")


pytestmark = pytest.mark.usefixtures("draw_in_this_process")


@pytest.fixture(scope="module")
def organs_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Phantoms with two organs, but for the last training case, whose organs nobody has marked."""
    cohort = make_cohort(tmp_path_factory.mktemp("organs") / "cohort")
    write_organ_names(cohort, ORGANS)
    for case in cohort.training_cases[:-1]:
        write_organs(cohort, case.case_id, halves(cohort, case.case_id))
    return cohort


def halves(cohort: Cohort, case_id: str) -> Volume:
    """The lower half of a case one organ, and of the upper half the front the other."""
    lesions = read_volume(cohort.label_path(case_id))
    organs = np.zeros(lesions.shape, dtype=np.uint8)
    organs[: lesions.shape[0] // 2] = 1
    organs[lesions.shape[0] // 2 :, : lesions.shape[1] // 2] = 2
    return lesions.with_array(organs)


def test_lesions_lie_over_organs(organs_cohort: Cohort, tmp_path: Path) -> None:
    write_labels_with_organs(organs_cohort, "case0", tmp_path / "labels.nii.gz")
    labels = read_volume(tmp_path / "labels.nii.gz").array
    lesions = read_volume(organs_cohort.label_path("case0")).array
    numbers = np.array([0, 2, 3])[halves(organs_cohort, "case0").array]
    np.testing.assert_array_equal(labels, np.where(lesions > 0, 1, numbers))


def test_what_nobody_marked_is_unknown(organs_cohort: Cohort, tmp_path: Path) -> None:
    unmarked = organs_cohort.training_cases[-1].case_id
    write_labels_with_organs(organs_cohort, unmarked, tmp_path / "labels.nii.gz")
    labels = read_volume(tmp_path / "labels.nii.gz").array
    lesions = read_volume(organs_cohort.label_path(unmarked)).array
    np.testing.assert_array_equal(labels, np.where(lesions > 0, 1, 4))


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    with pytest.raises(CohortError, match="no organ masks"):
        write_labels_with_organs(cohort, "case0", tmp_path / "labels.nii.gz")
    write_organ_names(cohort, ORGANS[:1])
    organs = halves(cohort, "case0")
    write_organs(cohort, "case0", organs)
    with pytest.raises(CohortError, match="does not name"):
        write_labels_with_organs(cohort, "case0", tmp_path / "labels.nii.gz")
    write_organs(cohort, "case0", Volume(organs.array[1:], organs.affine))
    with pytest.raises(CohortError, match="another grid"):
        write_labels_with_organs(cohort, "case0", tmp_path / "labels.nii.gz")
    (cohort.folder / "organsTr" / "labels.json").write_text('{"liver": 2}')
    with pytest.raises(CohortError, match="numbered 1, 2, 3"):
        write_labels_with_organs(cohort, "case0", tmp_path / "labels.nii.gz")


def test_a_network_that_learns_organs_still_tells_lesions(organs_cohort: Cohort, tmp_path: Path) -> None:
    """It has an output for each organ, starts another without them, and predicts lesions as any other."""
    options = TrainingOptions(device="cpu", preprocessed=tmp_path / "preprocessed", processes=1)
    fold = train(organs_cohort, tiny("organs=true", "epochs=2"), 0, tmp_path / "with", options)
    labels = json.loads((fold.parent / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "lesion": 1, "liver": 2, "brain": 3}
    study = organs_cohort.read_study("case0")
    probability = predict(study, load_model(fold.parent, ("0",))).probability
    assert probability.shape == study.pet.shape
    assert 0 <= probability.array.min() <= probability.array.max() <= 1

    start = fold / "checkpoint_final.pth"
    barely = tiny(f"initial_weights={start}", "epochs=1", "iterations=1", "learning_rate=1e-9")
    alone = train(organs_cohort, barely, 0, tmp_path / "without", options)
    before, after = (
        torch.load(folder / "checkpoint_final.pth", weights_only=True)["network_weights"]
        for folder in (fold, alone)
    )
    heads = [name for name in before if "seg_layers" in name and name.endswith("weight")]
    assert heads
    for name in heads:
        assert before[name].shape[0] == 4
        np.testing.assert_allclose(after[name].numpy(), before[name][:2].numpy(), atol=1e-6)
