"""Figure 1."""

from pathlib import Path

import numpy as np
import pytest

from petlesion.errors import UsageError
from petlesion.evaluation.figures import median_sizes, size_histogram, write_figure
from petlesion.overlap import overlap_of
from tests.evaluation.paper import DRAWN, masks_of


def test_medians_are_of_the_studies_that_have_components() -> None:
    reference, predicted = median_sizes([overlap_of(*masks_of(case)) for case in DRAWN])
    assert reference == [3.0, 2.5]  # half: 2 and 4 voxels; missed: 2 and 3
    assert predicted == [2.0, 2.0]  # half: 1, 2 and 2; invented: 3 and 1


def test_every_study_is_in_a_bin(rng: np.random.Generator) -> None:
    reference, predicted = rng.integers(1, 5000, 40).tolist(), rng.integers(1, 900, 25).tolist()
    axes = size_histogram(reference, predicted).axes[0]
    counts = [sum(bar.get_height() for bar in bars) for bars in axes.containers]
    assert counts == [40, 25]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_picture_is_the_same_each_time(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        write_figure(tmp_path / f"{name}{ending}", size_histogram([3, 40], []))
    content = (tmp_path / f"a{ending}").read_bytes()
    assert content == (tmp_path / f"b{ending}").read_bytes()
    assert content.startswith(b"\x89PNG" if ending == ".png" else b"<?xml")


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"figure\.pdf"):
        write_figure(tmp_path / "figure.pdf", size_histogram([1], [1]))
    assert not list(tmp_path.iterdir())
