import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlesion.cohort.layout import Case, Cohort
from petlesion.cohort.split import SplitSettings, describe_split, split_cohort
from petlesion.errors import CohortError, UsageError
from tests.cohort.trees import index_only


def make_cases(patients: int, seed: int, sources: tuple[str, ...] = ("one", "two")) -> list[Case]:
    """Patients with one or two studies each, half of them with lesions."""
    rng = np.random.default_rng(seed)
    cases = []
    for patient in range(patients):
        source = sources[int(rng.integers(len(sources)))]
        for study in range(1 + int(rng.random() < 0.15)):
            volume = round(float(rng.lognormal(3, 1)), 2) if rng.random() < 0.5 else 0.0
            cases.append(Case(f"c{patient:04d}-{study}", f"p{patient:04d}", source, "train", volume))
    return cases


def sides(cohort: Cohort) -> dict[str, set[object]]:
    """Which parts each patient's cases are in."""
    found = defaultdict(set)
    for case in cohort.test_cases:
        found[case.patient_id].add("test")
    patient_of = {case.case_id: case.patient_id for case in cohort.cases}
    for number, fold in enumerate(cohort.folds):
        for case_id in fold.validation:
            found[patient_of[case_id]].add(number)
    return found


@settings(max_examples=25, deadline=None)
@given(patients=st.integers(8, 120), seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.1, 0.25]))
def test_patients_stay_whole_and_folds_cover_training(
    tmp_path_factory: pytest.TempPathFactory, patients: int, seed: int, share: float
) -> None:
    cohort = index_only(tmp_path_factory.mktemp("s") / "c", make_cases(patients, seed))
    split = split_cohort(cohort, SplitSettings(test_share=share, seed=seed))
    assert Cohort.open(cohort.folder) == split
    assert all(len(found) == 1 for found in sides(split).values())
    training = sorted(case.case_id for case in split.training_cases)
    assert sorted(case for fold in split.folds for case in fold.validation) == training
    for fold in split.folds:
        assert sorted(fold.train + fold.validation) == training
    # A patient has two studies at most, so a part may be off by two.
    assert abs(len(split.test_cases) - share * len(split.cases)) <= 2


def test_parts_are_alike_in_lesions_and_sources(tmp_path: Path) -> None:
    cohort = index_only(tmp_path / "c", make_cases(1000, 7))
    split = split_cohort(cohort, SplitSettings())
    of = {case.case_id: case for case in split.cases}
    parts = [[of[case_id] for case_id in fold.validation] for fold in split.folds] + [list(split.test_cases)]
    whole = Counter((case.source, case.has_lesion) for case in split.cases)
    for part in parts:
        counts = Counter((case.source, case.has_lesion) for case in part)
        for stratum, total in whole.items():
            assert counts[stratum] == pytest.approx(total * len(part) / len(split.cases), abs=4)


def test_the_paper_s_set_gives_about_its_test_set(tmp_path: Path) -> None:
    # 1,016 studies of 900 patients, of whom the paper held out about 10 %.
    cases = [Case(f"c{i:04d}", f"p{i % 900:04d}", "autopet", "train", float(i % 2)) for i in range(1016)]
    split = split_cohort(index_only(tmp_path / "c", cases), SplitSettings())
    assert 100 <= len(split.test_cases) <= 103
    assert 48 <= sum(case.has_lesion for case in split.test_cases) <= 53


def test_the_same_seed_gives_the_same_split(tmp_path: Path) -> None:
    cases = make_cases(60, 1)
    texts = []
    for name, order, seed in (("a", 1, 5), ("b", -1, 5), ("c", 1, 6)):
        split = split_cohort(index_only(tmp_path / name, cases[::order]), SplitSettings(seed=seed))
        texts.append([(split.folder / file).read_text() for file in ("cases.csv", "splits_final.json")])
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_source_can_be_held_out(tmp_path: Path) -> None:
    cases = make_cases(40, 2)
    split = split_cohort(index_only(tmp_path / "c", cases), SplitSettings(hold_out_source="two"))
    held = {case.case_id for case in cases if case.source == "two"}
    assert {case.case_id for case in split.test_cases} == held
    assert all(len(found) == 1 for found in sides(split).values())
    with pytest.raises(UsageError, match="one, two"):
        split_cohort(split, SplitSettings(hold_out_source="three"))


def test_a_source_that_shares_patients_cannot_be_held_out(tmp_path: Path) -> None:
    cases = [
        *make_cases(40, 2),
        Case("shared", "p9", "two", "train", 1.0),
        Case("same", "p9", "one", "train", 0.0),
    ]
    cohort = index_only(tmp_path / "c", cases)
    with pytest.raises(CohortError, match=r"share 1 patient ids, p9; remove"):
        split_cohort(cohort, SplitSettings(hold_out_source="two"))
    assert not (cohort.folder / "splits_final.json").exists()


def test_dataset_json_follows_the_split(tmp_path: Path) -> None:
    split = split_cohort(index_only(tmp_path / "c", make_cases(50, 3)), SplitSettings())
    listed = json.loads((split.folder / "dataset.json").read_text())["dataset"]
    assert set(listed) == {case.case_id for case in split.training_cases}


def test_parts_are_counted(tmp_path: Path) -> None:
    split = split_cohort(index_only(tmp_path / "c", make_cases(50, 3)), SplitSettings(folds=3))
    parts = {part.name: part for part in describe_split(split)}
    assert list(parts) == ["training", "fold 0", "fold 1", "fold 2", "test"]
    assert parts["training"].studies + parts["test"].studies == len(split.cases)
    assert sum(parts[f"fold {k}"].studies for k in range(3)) == parts["training"].studies
    lesions = sum(case.has_lesion for case in split.cases)
    assert parts["training"].studies_with_lesions + parts["test"].studies_with_lesions == lesions


@pytest.mark.parametrize("bad", [{"test_share": 1.0}, {"test_share": -0.1}, {"folds": 1}, {"seed": -1}])
def test_settings_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SplitSettings(**bad)  # type: ignore[arg-type]


def test_too_few_patients_for_the_folds(tmp_path: Path) -> None:
    cohort = index_only(tmp_path / "c", make_cases(4, 0))
    with pytest.raises(UsageError, match="4 patients are left"):
        split_cohort(cohort, SplitSettings(test_share=0))
