"""Plots: where values lie in the picture, and the statistics in it."""

import numpy as np
import pytest

from petlesion.evaluation.summary import Average, Summary
from petlesion.overlap import StudyMetrics
from petlesion.report.plots import (
    HEIGHT,
    WIDTH,
    Axis,
    Plot,
    bland_altman,
    dice_against_volume,
    size_histogram,
    sweep_plot,
)


def metrics(case_id: str, reference_ml: float, predicted_ml: float, dice: float | None) -> StudyMetrics:
    return StudyMetrics(case_id, reference_ml, predicted_ml, dice, 0.5, 0.25, int(reference_ml > 0), 1)


def numbered(*rows: StudyMetrics) -> list[tuple[int, StudyMetrics]]:
    return list(enumerate(rows))


def test_axes_place_values_linearly_and_by_decades() -> None:
    plot = Plot("", "", x=Axis("", 1, 1000, logarithmic=True), y=Axis("", -2, 2))
    assert plot.x.share(1) == 0 and plot.x.share(10) == pytest.approx(1 / 3) and plot.x.share(1000) == 1
    assert plot.x.ticks() == pytest.approx([1, 10, 100, 1000])
    assert plot.y.share(0) == 0.5 and plot.y.ticks()[0] >= -2 and plot.y.ticks()[-1] <= 2
    assert 0 < plot.across(1) < plot.across(10) < plot.across(1000) < WIDTH
    assert 0 < plot.down(2) < plot.down(0) < plot.down(-2) < HEIGHT


def test_dice_is_drawn_for_the_studies_with_a_lesion() -> None:
    plot = dice_against_volume(
        numbered(metrics("a", 12, 10, 0.8), metrics("b", 0, 3, 0.0), metrics("c", 0.4, 0, 0.0))
    )
    assert [(point.x, point.y, point.row) for point in plot.points] == [(12, 0.8, 0), (0.4, 0.0, 2)]
    assert plot.x.low == pytest.approx(0.1) and plot.x.high == pytest.approx(100)
    assert dice_against_volume(numbered(metrics("b", 0, 3, 0.0))) is None


def test_bland_altman_draws_mean_and_limits_of_agreement() -> None:
    rng = np.random.default_rng(0)
    rows = [metrics(str(i), r, p, 0.5) for i, (r, p) in enumerate(rng.uniform(1, 200, (30, 2)))]
    plot = bland_altman(numbered(*rows, metrics("empty", 0, 0, None)))
    differences = np.array([row.predicted_volume_ml - row.reference_volume_ml for row in rows])
    assert [point.y for point in plot.points] == pytest.approx(differences.tolist())
    levels = [line.points[0][1] for line in plot.lines]
    deviation = np.sqrt(((differences - differences.mean()) ** 2).sum() / 29)
    expected = [0, differences.mean(), *(differences.mean() + s * 1.96 * deviation for s in (-1, 1))]
    assert levels == pytest.approx(expected)
    assert plot.y.low < min(*differences, *levels) and plot.y.high > max(*differences, *levels)
    assert bland_altman(numbered(rows[0])) is None


def test_equal_volumes_can_be_drawn() -> None:
    plot = bland_altman(numbered(metrics("a", 10, 10, 1.0), metrics("b", 10, 10, 1.0)))
    assert plot.down(0) < HEIGHT and plot.x.ticks()


def test_the_sweep_is_drawn_by_size() -> None:
    def summary(fp: float, fn: float) -> Summary:
        averages = [Average(value, None, 2) for value in (0.5, fp, fn)]
        return Summary(2, 2, 0, *averages)

    plot = sweep_plot([(10, summary(3, 2)), (0, summary(5, 1))])
    assert [line.points for line in plot.lines] == [((0, 5), (10, 3)), ((0, 1), (10, 2))]
    assert sweep_plot([(0, summary(5, 1))]) is None


def test_every_study_is_in_one_bar_of_its_series() -> None:
    rng = np.random.default_rng(0)
    reference, predicted = (10 ** rng.uniform(0, 4, n) for n in (40, 55))
    plot = size_histogram(list(reference), list(predicted))
    totals = {kind: sum(bar.height for bar in plot.bars if bar.kind == kind) for kind, _ in plot.legend}
    assert totals == {"series-1": 40, "series-2": 55}
    assert all(bar.height <= plot.y.high for bar in plot.bars)
    assert size_histogram([], []) is None
