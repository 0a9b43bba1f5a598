"""Plots as coordinates of an SVG picture; a template writes them down, and the page gives the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.ticker import MaxNLocator

from petlesion.evaluation.summary import Summary
from petlesion.overlap import StudyMetrics

WIDTH = 460
HEIGHT = 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 42
_BINS = 24
_LIMITS_OF_AGREEMENT = 1.96


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high`; `counts` are marked at whole numbers alone."""

    label: str
    low: float
    high: float
    logarithmic: bool = False
    counts: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        if self.logarithmic:
            decades = range(
                math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1
            )
            return [10.0**decade for decade in decades]
        values = MaxNLocator(6, steps=[1, 2, 5, 10], integer=self.counts).tick_values(self.low, self.high)
        return [float(value) for value in values if self.low <= value <= self.high]


@dataclass(frozen=True)
class Point:
    """A dot with a text for the mouse and, where there is one, the page's row that it stands for."""

    x: float
    y: float
    text: str
    row: int | None = None


@dataclass(frozen=True)
class Line:
    """A line through points, with a style class and a label at its end."""

    points: tuple[tuple[float, float], ...]
    kind: str = "series-1"
    label: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar from the x axis up."""

    left: float
    right: float
    height: float
    kind: str
    text: str


@dataclass(frozen=True)
class Plot:
    """Axes, what is drawn in them, and a sentence that says what it shows."""

    title: str
    note: str
    x: Axis
    y: Axis
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    legend: tuple[tuple[str, str], ...] = field(default=())

    def across(self, value: float) -> float:
        """Where a value of x lies in the picture."""
        return round(_LEFT + self.x.share(value) * (WIDTH - _LEFT - _RIGHT), 1)

    def down(self, value: float) -> float:
        """Where a value of y lies in the picture."""
        return round(HEIGHT - _BOTTOM - self.y.share(value) * (HEIGHT - _TOP - _BOTTOM), 1)


# The number of a row on the page, and the metrics of its study.
NumberedMetrics = Sequence[tuple[int, StudyMetrics]]


def dice_against_volume(rows: NumberedMetrics) -> Plot | None:
    """Dice over the reference's volume, for the studies with a lesion; None where there is no such study."""
    points = tuple(
        Point(row.reference_volume_ml, row.dice, f"{row.case_id}: Dice {row.dice:.3f}", index)
        for index, row in rows
        if row.has_lesions and row.dice is not None
    )
    if not points:
        return None
    return Plot(
        title="Dice against lesion volume",
        note=f"{len(points)} studies with a lesion in the reference.",
        x=_decades("reference volume (mL)", [point.x for point in points]),
        y=Axis("Dice", 0, 1),
        points=points,
    )


def bland_altman(rows: NumberedMetrics) -> Plot | None:
    """Difference of the volumes over their mean, with the mean difference and the limits of agreement.

    Bland and Altman, Lancet 1986;1:307-310. Studies that are empty in both masks are left out; None
    where fewer than two remain.
    """
    pairs = [(i, row) for i, row in rows if row.reference_volume_ml + row.predicted_volume_ml > 0]
    if len(pairs) < 2:
        return None
    points = tuple(
        Point(
            (row.predicted_volume_ml + row.reference_volume_ml) / 2,
            row.predicted_volume_ml - row.reference_volume_ml,
            f"{row.case_id}: {row.predicted_volume_ml:.1f} mL for {row.reference_volume_ml:.1f} mL",
            index,
        )
        for index, row in pairs
    )
    differences = np.array([point.y for point in points])
    bias, spread = float(differences.mean()), _LIMITS_OF_AGREEMENT * float(differences.std(ddof=1))
    x = _decades("mean of both volumes (mL)", [point.x for point in points])
    y = _padded("prediction − reference (mL)", [*differences, bias - spread, bias + spread, 0.0])
    ends = (x.low, x.high)
    lines = tuple(
        Line(tuple((end, value) for end in ends), kind, label)
        for value, kind, label in (
            (0.0, "zero", ""),
            (bias, "series-1", f"mean {_signed(bias)}"),
            (bias - spread, "limit", _signed(bias - spread)),
            (bias + spread, "limit", _signed(bias + spread)),
        )
    )
    return Plot(
        title="Metabolic tumour volume: Bland–Altman",
        note=f"{len(points)} studies; mean difference and 95 % limits of agreement (±1.96 SD).",
        x=x,
        y=y,
        points=points,
        lines=lines,
    )


def sweep_plot(sweep: Sequence[tuple[int, Summary]]) -> Plot | None:
    """False-positive and false-negative volume over the smallest size of a component."""
    found = [
        (size, summary.false_positive_volume_ml.value, summary.false_negative_volume_ml.value)
        for size, summary in sorted(sweep, key=lambda pair: pair[0])
    ]
    rows = [(float(size), fp, fn) for size, fp, fn in found if fp is not None and fn is not None]
    if len(rows) < 2:
        return None
    return Plot(
        title="Smallest component kept",
        note="Mean volumes of false positives and false negatives when smaller components are removed.",
        x=Axis("smallest size (voxels)", rows[0][0], rows[-1][0]),
        y=_padded("volume (mL)", [0.0, *(value for _, *values in rows for value in values)]),
        lines=(
            Line(tuple((size, fp) for size, fp, _ in rows), "series-1"),
            Line(tuple((size, fn) for size, _, fn in rows), "series-2"),
        ),
        legend=(("series-1", "false positive"), ("series-2", "false negative")),
    )


def size_histogram(reference: Sequence[float], predicted: Sequence[float]) -> Plot | None:
    """Figure 1 of the paper: the studies' median component sizes in voxels, reference beside prediction."""
    if not reference and not predicted:
        return None
    x = _decades("median size of a study's components (voxels)", [*reference, *predicted])
    edges = np.geomspace(x.low, x.high, _BINS + 1)
    counts = [np.histogram(sizes, edges)[0] for sizes in (reference, predicted)]
    bars = []
    for which, (name, kind) in enumerate((("reference", "series-1"), ("prediction", "series-2"))):
        for left, right, count in zip(edges, edges[1:], counts[which], strict=False):
            middle = math.sqrt(left * right)
            sides = (float(left), middle) if which == 0 else (middle, float(right))
            if count:
                bars.append(Bar(*sides, float(count), kind, f"{name}: {count} studies"))
    return Plot(
        title="Size of the lesions of a typical study",
        note="Histogram over the studies of the median size of a study's connected components.",
        x=x,
        y=Axis("studies", 0, float(max(1, *(count.max() for count in counts))) * 1.05, counts=True),
        bars=tuple(bars),
        legend=(
            ("series-1", f"reference ({len(reference)} studies)"),
            ("series-2", f"prediction ({len(predicted)} studies)"),
        ),
    )


def _decades(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis over whole decades around the values, all above zero."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    return Axis(label, 10.0**low, 10.0 ** max(high, low + 1), logarithmic=True)


def _padded(label: str, values: Sequence[float]) -> Axis:
    low, high = float(min(values)), float(max(values))
    margin = 0.06 * (high - low) or 1.0
    return Axis(label, low - margin if low < 0 else low, high + margin)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
