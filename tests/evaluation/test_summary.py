"""Averages worked out on paper, and intervals held against scipy's bootstrap."""

import json

import numpy as np
import pytest
from scipy import stats

from petlesion.errors import InputError, UsageError
from petlesion.evaluation.summary import bootstrap_interval, patient_groups, summarize, summarize_by
from petlesion.overlap import StudyMetrics
from tests.evaluation.paper import ON_PAPER

ROWS = list(ON_PAPER.values())


def lesion_study(case_id: str, dice: float) -> StudyMetrics:
    return StudyMetrics(case_id, 1.0, 1.0, dice, 0.5, 0.25, 1, 1)


def test_averages_are_over_the_studies_that_the_paper_takes() -> None:
    summary = summarize(ROWS)
    assert (summary.studies, summary.studies_with_lesions, summary.undefined_dice) == (4, 2, 1)
    assert summary.dice.value == pytest.approx((6 / 11 + 0) / 2)
    assert summary.false_negative_volume_ml.value == pytest.approx((0 + 2.5) / 2)
    assert summary.false_positive_volume_ml.value == pytest.approx((1 + 0 + 2 + 0) / 4)
    assert summary.dice.studies == summary.false_negative_volume_ml.studies == 2
    assert summary.false_positive_volume_ml.studies == 4


def test_the_json_has_each_average_and_its_interval() -> None:
    data = json.loads(json.dumps(summarize(ROWS).as_json(), allow_nan=False))
    assert set(data) == {
        "studies",
        "studies_with_lesions",
        "undefined_dice",
        "dice",
        "dice_ci95",
        "false_positive_volume_ml",
        "false_positive_volume_ml_ci95",
        "false_negative_volume_ml",
        "false_negative_volume_ml_ci95",
    }
    for metric in ("dice", "false_positive_volume_ml", "false_negative_volume_ml"):
        low, high = data[f"{metric}_ci95"]
        assert low <= data[metric] <= high


def test_without_a_lesion_in_any_reference_there_is_no_average() -> None:
    summary = summarize([ON_PAPER["invented"], ON_PAPER["nothing"]])
    assert summary.dice.value is None
    assert summary.false_negative_volume_ml.ci95 is None
    assert summary.false_positive_volume_ml.value == 1.0
    assert summary.as_json()["dice_ci95"] is None


def test_no_study_is_refused() -> None:
    with pytest.raises(UsageError, match="no study"):
        summarize([])


def test_the_interval_is_that_of_scipys_percentile_bootstrap(rng: np.random.Generator) -> None:
    values = rng.gamma(2, 2, 80)
    ours = bootstrap_interval(values, np.arange(80))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    interval = theirs.confidence_interval
    width = interval.high - interval.low
    assert ours == pytest.approx((interval.low, interval.high), abs=0.05 * width)
    assert ours == bootstrap_interval(values, np.arange(80))


def test_studies_of_one_patient_are_resampled_together() -> None:
    rows = [lesion_study(f"{patient}-{visit}", patient / 10) for patient in range(8) for visit in range(4)]
    patients = {row.case_id: row.case_id.split("-")[0] for row in rows}
    alone, together = summarize(rows).dice, summarize(rows, patients).dice
    assert alone.value == pytest.approx(together.value)
    widths = [average.ci95[1] - average.ci95[0] for average in (alone, together)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.15)  # a quarter as many independent values


def test_undefined_values_are_left_out_of_every_resample() -> None:
    values = np.array([1.0, np.nan, np.nan, np.nan])
    assert bootstrap_interval(values, np.arange(4)) == (1.0, 1.0)


def test_averages_by_source() -> None:
    sources = {"half": "A", "missed": "A", "invented": "B", "nothing": "B"}
    parts = summarize_by(ROWS, sources)
    assert list(parts) == ["A", "B"]
    assert parts["A"].dice.value == pytest.approx(3 / 11)
    assert parts["B"].dice.value is None
    with pytest.raises(InputError, match="no case nothing"):
        summarize_by(ROWS, {"half": "A", "missed": "A", "invented": "B"})
    with pytest.raises(InputError, match="no case half"):
        patient_groups(["half"], {})
