"""Runs side by side: read from disk, compared study by study."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from petlesion.errors import CohortError, InputError
from petlesion.evaluation.compare import compare_runs, metrics_path, read_runs
from petlesion.evaluation.metrics import write_metrics
from petlesion.experiments import find_experiment
from petlesion.overlap import StudyMetrics
from tests.evaluation.paper import ON_PAPER


def scored(count: int, seed: int, shift: float = 0.0) -> list[StudyMetrics]:
    noise = np.random.default_rng(seed).uniform(0.3, 0.6, count)
    return [
        StudyMetrics(f"case{i}", 1.0, 1.0, float(value + shift), value, 2 * value, 1, int(100 * value))
        for i, value in enumerate(noise)
    ]


def make_run(folder: Path, experiment: str, **scores: list[StudyMetrics]) -> Path:
    folder.mkdir(parents=True)
    stored = {"experiment": find_experiment(experiment).as_dict(), "versions": {}}
    (folder / "experiment.json").write_text(json.dumps(stored), encoding="utf-8")
    for scoring, rows in scores.items():
        write_metrics(metrics_path(folder, scoring), rows)
    return folder


def test_the_differences_are_those_of_scipy(tmp_path: Path) -> None:
    first, second = scored(30, 1), scored(30, 2, shift=0.1)
    runs = read_runs(
        [
            make_run(tmp_path / "b", "b", cross_validation=first, test=first[:5]),
            make_run(tmp_path / "d", "d", cross_validation=second),
        ]
    )
    differences = compare_runs(*runs)
    assert [d.scoring for d in differences] == ["cross_validation"] * 4
    assert (differences[0].first, differences[0].second) == ("b", "d")
    for difference in differences:
        change = np.array(
            [
                getattr(b, difference.metric) - getattr(a, difference.metric)
                for a, b in zip(first, second, strict=True)
            ]
        )
        assert difference.studies == 30
        assert difference.mean == pytest.approx(change.mean(), abs=1e-8)
        assert difference.p_value == pytest.approx(wilcoxon(change).pvalue)
        low, high = difference.ci95
        assert low < difference.mean < high
        assert high - low == pytest.approx(2 * 1.96 * change.std() / np.sqrt(30), rel=0.2)
    json.dumps([d.as_json() for d in differences], allow_nan=False)


def test_only_common_studies_with_a_value_in_both_count(tmp_path: Path) -> None:
    rows = list(ON_PAPER.values())
    better = [replace(row, dice=None if row.dice is None else row.dice + 0.1) for row in rows]
    runs = read_runs(
        [
            make_run(tmp_path / "b", "b", test=rows),
            make_run(tmp_path / "d", "d", test=[*better[1:], scored(1, 0)[0]]),
        ]
    )
    dice, false_positive, false_negative, components = compare_runs(*runs)
    assert (dice.studies, dice.mean) == (1, pytest.approx(0.1))
    assert (false_positive.studies, false_positive.p_value) == (3, 1.0)
    assert false_negative.studies == 1
    assert (components.metric, components.studies, components.mean) == ("predicted_components", 3, 0)


def test_runs_without_a_common_study_are_refused(tmp_path: Path) -> None:
    rows = scored(4, 0)
    runs = read_runs(
        [make_run(tmp_path / "b", "b", test=rows[:2]), make_run(tmp_path / "d", "d", test=rows[2:])]
    )
    with pytest.raises(InputError, match="b and d have no study of test in common"):
        compare_runs(*runs)


def test_runs_of_one_experiment_go_by_their_folders(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, "b", test=scored(3, 0)) for name in ("one", "two")]
    assert [run.name for run in read_runs(folders)] == [str(folder) for folder in folders]


def test_a_folder_that_is_no_scored_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="predict and evaluate the run first"):
        read_runs([make_run(tmp_path / "b", "b")])
    with pytest.raises(CohortError, match=r"experiment\.json"):
        read_runs([tmp_path])
    (tmp_path / "experiment.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CohortError, match=r"experiment\.json"):
        read_runs([tmp_path])
