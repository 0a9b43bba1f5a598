"""Calibration in pictures: reliability, risk against coverage, expected Dice, and what removing costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlesion.calibration.cross_fit import Judged
from petlesion.evaluation.confidence import (
    Reliability,
    confidences,
    dice_pairs,
    lesion_sums,
    reliability,
    risk_coverage,
    voxel_sums,
)
from petlesion.evaluation.summary import Average, Summary

_BEFORE, _AFTER, _LINE = "#ee6677", "#4477aa", "#999999"


def reliability_figure(studies: Sequence[Judged]) -> Figure:
    """Stated against observed: possible voxels before and after scaling, and the lesions' confidence."""
    figure, (voxels, lesions) = _panels(2)
    for calibrated, colour in ((False, _BEFORE), (True, _AFTER)):
        found = reliability(
            [voxel_sums(study, calibrated=calibrated, possible_only=True) for study in studies]
        )
        _draw_reliability(voxels, found, colour, "after scaling" if calibrated else "before scaling")
    found = reliability([lesion_sums(study) for study in studies])
    _draw_reliability(lesions, found, _AFTER, f"{found.count.sum():.0f} components")
    voxels.set(xlabel="probability of lesion", ylabel="share of voxels that are lesion")
    lesions.set(xlabel="confidence", ylabel="share of components that are real")
    return figure


def risk_coverage_figure(studies: Sequence[Judged]) -> Figure:
    """Share of false components among the most confident, against how many of them are kept."""
    figure, (axes,) = _panels(1)
    coverage, risk = risk_coverage(*confidences(studies))
    axes.plot(coverage, risk, color=_AFTER)
    axes.set(xlabel="coverage: share of components kept", ylabel="risk: share of those that are false")
    axes.set(xlim=(0, 1), ylim=(0, None))
    return figure


def dice_figure(studies: Sequence[Judged]) -> Figure:
    """Expected against achieved Dice, a point for each study with a predicted lesion."""
    figure, (axes,) = _panels(1)
    pairs = dice_pairs(studies)
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1)
    axes.scatter([p.expected for p in pairs], [p.achieved for p in pairs], color=_AFTER, alpha=0.7, s=20)
    axes.set(xlabel="expected Dice", ylabel="achieved Dice", xlim=(0, 1), ylim=(0, 1))
    return figure


def sweep_figure(by_size: Mapping[int, Summary], by_confidence: Mapping[float, Summary]) -> Figure:
    """False-positive against false-negative volume, and Dice, as components are removed both ways."""
    figure, (volumes, dice) = _panels(2)
    for summaries, colour, label, unit in (
        (by_size, _BEFORE, "by size", " voxels"),
        (by_confidence, _AFTER, "by confidence", ""),
    ):
        missed = [_value(summary.false_negative_volume_ml) for summary in summaries.values()]
        wrong = [_value(summary.false_positive_volume_ml) for summary in summaries.values()]
        scores = [_value(summary.dice) for summary in summaries.values()]
        volumes.plot(missed, wrong, marker="o", markersize=3, color=colour, label=label)
        dice.plot(missed, scores, marker="o", markersize=3, color=colour, label=label)
        last = list(summaries)[-1]
        volumes.annotate(f"{last:g}{unit}", (missed[-1], wrong[-1]), fontsize="small", color=colour)
    volumes.set(xlabel="false-negative volume (mL)", ylabel="false-positive volume (mL)")
    dice.set(xlabel="false-negative volume (mL)", ylabel="Dice")
    volumes.legend(frameon=False)
    return figure


def _value(average: Average) -> float:
    return math.nan if average.value is None else average.value


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.5 * count, 4), layout="constrained")
    panels = list(np.ravel(figure.subplots(1, count)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _draw_reliability(axes: Axes, found: Reliability, colour: str, label: str) -> None:
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1)
    axes.plot(
        found.stated,
        found.observed,
        marker="o",
        markersize=4,
        color=colour,
        label=f"{label}: calibration error {found.error:.3f}",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize="small")
