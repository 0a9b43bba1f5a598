"""A tiny cohort and runs on it, made once for all tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from petlesion.cohort.layout import Cohort, Fold, add_study, create_cohort, write_folds
from petlesion.experiments import Experiment, find_experiment, with_settings
from petlesion.training import trainer
from petlesion.training.trainer import TrainingOptions, train
from tests.conftest import make_phantom

CASES = 5


def make_cohort(folder: Path) -> Cohort:
    """Five phantoms, the last of them a test case, in two folds; images are smaller than some patches."""
    cohort = create_cohort(folder, "Dataset001_Tiny")
    for number in range(CASES):
        study = make_phantom((32, 40, 36), seed=number)
        cohort = add_study(cohort, study, case_id=f"case{number}", patient_id=f"p{number}", source="phantom")
    cases = [*cohort.cases[:-1], cohort.cases[-1].__class__(**{**vars(cohort.cases[-1]), "split": "test"})]
    cohort = cohort.with_cases(cases)
    from petlesion.cohort.layout import write_index

    write_index(cohort)
    ids = [case.case_id for case in cohort.training_cases]
    write_folds(cohort, [Fold(tuple(ids[2:]), tuple(ids[:2])), Fold(tuple(ids[:2]), tuple(ids[2:]))])
    return Cohort.open(folder)


def tiny(*changes: str) -> Experiment:
    """An experiment of a second or two."""
    defaults = ["epochs=3", "iterations=4", "patch_size=16", "base_features=4", "max_features=8"]
    return with_settings(find_experiment("quick"), [*defaults, *changes])


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "tiny")


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs share what is preprocessed."""
    return tmp_path_factory.mktemp("preprocessed")


@pytest.fixture(scope="session")
def options(preprocessed: Path) -> TrainingOptions:
    return TrainingOptions(device="cpu", preprocessed=preprocessed, processes=1)


@pytest.fixture(scope="module")
def first_fold(
    cohort: Cohort,
    options: TrainingOptions,
    draw_in_this_process: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Experiment], Path]:
    """Trains fold 0 of an experiment in a results folder of its own, and returns the fold's folder."""
    return lambda experiment: train(cohort, experiment, 0, tmp_path_factory.mktemp("results"), options)


@pytest.fixture(scope="module")
def finished(first_fold: Callable[[Experiment], Path]) -> Path:
    """The folder of fold 0 of a short run, whose weights others start from."""
    return first_fold(tiny("epochs=1", "iterations=2"))


@pytest.fixture(scope="module")
def draw_in_this_process() -> Iterator[None]:
    """A batch is the same whichever process draws it, and starting one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_worker_count", lambda cuda: 0)
        yield
