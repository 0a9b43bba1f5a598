"""The figures of the comparison with real studies, on samples whose figures are known."""

import numpy as np
import pytest

from petlesion.simulation.body import Tissue
from petlesion.simulation.burden import (
    COMPONENT_VOLUME_ML,
    COMPONENTS_PER_STUDY,
    PROBABILITIES,
    TOTAL_VOLUME_ML,
    draw_burden,
)


@pytest.mark.parametrize("quantiles", [COMPONENT_VOLUME_ML, TOTAL_VOLUME_ML])
def test_a_sample_of_the_real_distribution_lies_at_no_distance(quantiles: tuple[float, ...]) -> None:
    from simulation import distance_to_quantiles

    ranks = (np.arange(2000) + 0.5) / 2000
    sample = np.exp(np.interp(ranks, PROBABILITIES, np.log(quantiles)))
    assert distance_to_quantiles(sample.tolist(), quantiles, 1e-3) < 0.002
    # A sample whose lower half is thrown away lies half away.
    assert distance_to_quantiles(sample[1000:].tolist(), quantiles, 1e-3) == pytest.approx(0.5, abs=0.002)


def test_what_no_voxel_can_hold_counts_alike_on_both_sides() -> None:
    from simulation import distance_to_quantiles

    ranks = (np.arange(2000) + 0.5) / 2000
    sample = np.exp(np.interp(ranks, PROBABILITIES, np.log(COMPONENT_VOLUME_ML)))
    assert distance_to_quantiles(np.maximum(sample, 0.5).tolist(), COMPONENT_VOLUME_ML, 0.5) < 0.002


def test_counts_are_compared_where_the_share_is_known() -> None:
    from simulation import count_distance

    real = np.interp((np.arange(1000) + 0.5) / 1000, PROBABILITIES, COMPONENTS_PER_STUDY).round()
    assert count_distance(real.astype(int).tolist()) < 0.03
    # Of the real studies with lesions 10 to 15 % have one.
    assert count_distance([1] * 1000) == pytest.approx(0.85)


def test_the_planned_lesions_of_200_studies_have_the_real_volumes() -> None:
    from simulation import count_distance, distance_to_quantiles

    drawn = (draw_burden(seed, np.random.default_rng(seed).spawn(6)[4]) for seed in range(200))
    burdens = [burden for burden in drawn if burden.volumes_ml]
    volumes = [volume for burden in burdens for volume in burden.volumes_ml]
    assert distance_to_quantiles(volumes, COMPONENT_VOLUME_ML, 0.0124) <= 0.1
    assert distance_to_quantiles([sum(b.volumes_ml) for b in burdens], TOTAL_VOLUME_ML, 0.0124) <= 0.1
    assert count_distance([len(burden.volumes_ml) for burden in burdens]) <= 0.1


def test_each_study_weighs_the_same_inside_lesions() -> None:
    from simulation import weighted_figures

    figures = weighted_figures([np.full(3, 1.0), np.full(999, 5.0)])
    assert figures["mean"] == pytest.approx(3.0)
    assert (figures["p0.5"], figures["p99.5"]) == (1.0, 5.0)


def test_an_organ_beyond_the_published_range_is_told() -> None:
    from simulation import LITERATURE, Collected, organ_table

    collected = Collected()
    for tissue, (low, high, _) in LITERATURE.items():
        collected.organs[tissue] = [(low + high) / 2]
    assert "missed" not in organ_table(collected)
    collected.organs[Tissue.LIVER] = [9.0]
    (line,) = [line for line in organ_table(collected).splitlines() if "missed" in line]
    assert line.startswith("| liver |")
