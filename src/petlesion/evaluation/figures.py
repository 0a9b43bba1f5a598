"""Figure 1: how large the lesions of a typical study are, in the reference and in the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from petlesion.errors import UsageError
from petlesion.io.atomic import atomic_file
from petlesion.overlap import Overlap

FIGURE_ENDINGS = (".png", ".svg")
_BINS = 30
_REFERENCE_COLOUR = "#4477aa"
_PREDICTION_COLOUR = "#ee6677"


def median_sizes(overlaps: Sequence[Overlap]) -> tuple[list[float], list[float]]:
    """Median component size in voxels of each study's reference, and of each study's prediction.

    A study without components has no median and is left out of that list.
    """
    reference = [float(np.median(o.reference_sizes)) for o in overlaps if len(o.reference_sizes)]
    predicted = [float(np.median(o.predicted_sizes)) for o in overlaps if len(o.predicted_sizes)]
    return reference, predicted


def size_histogram(reference: Sequence[float], predicted: Sequence[float]) -> Figure:
    """Draw the histograms of the studies' median component sizes in voxels, side by side."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    sizes = [*reference, *predicted]
    bins = np.geomspace(1, max([*sizes, 10.0]) * 1.01, _BINS + 1)
    axes.hist(
        [list(reference), list(predicted)],
        bins=bins.tolist(),
        color=[_REFERENCE_COLOUR, _PREDICTION_COLOUR],
        label=[f"reference ({len(reference)} studies)", f"prediction ({len(predicted)} studies)"],
    )
    axes.set_xscale("log")
    axes.set_xlabel("median size of a study's components (voxels)")
    axes.set_ylabel("studies")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def check_ending(path: Path) -> None:
    """Raise UsageError for a path that is neither PNG nor SVG."""
    if path.suffix.lower() not in FIGURE_ENDINGS:
        raise UsageError(f"{path} is no picture that can be drawn; give a name ending in .png or .svg")


def write_figure(path: str | Path, figure: Figure) -> None:
    """Write a figure as PNG or SVG, the same bytes each time; raises UsageError for another ending."""
    path = Path(path)
    check_ending(path)
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "petlesion"}), atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata)
