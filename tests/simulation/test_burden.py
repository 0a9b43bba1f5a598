import numpy as np
import pytest

from petlesion.simulation.burden import (
    COMPONENT_VOLUME_ML,
    COMPONENTS_PER_STUDY,
    PROBABILITIES,
    SHARE_WITH_LESIONS,
    TOTAL_VOLUME_ML,
    Burden,
    draw_burden,
)


@pytest.fixture(scope="module")
def burdens() -> list[Burden]:
    return [draw_burden(seed, np.random.default_rng(seed)) for seed in range(2000)]


def test_half_the_studies_have_lesions(burdens: list[Burden]) -> None:
    assert np.mean([bool(burden.volumes_ml) for burden in burdens]) == pytest.approx(
        SHARE_WITH_LESIONS, abs=0.01
    )


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.75, 0.9])
def test_counts_totals_and_volumes_have_the_real_quantiles(burdens: list[Burden], probability: float) -> None:
    with_lesions = [burden for burden in burdens if burden.volumes_ml]
    samples = {
        COMPONENTS_PER_STUDY: [len(burden.volumes_ml) for burden in with_lesions],
        TOTAL_VOLUME_ML: [sum(burden.volumes_ml) for burden in with_lesions],
        COMPONENT_VOLUME_ML: [volume for burden in with_lesions for volume in burden.volumes_ml],
    }
    for table, sample in samples.items():
        value = table[PROBABILITIES.index(probability)]
        below, upto = np.mean(np.array(sample) < value * 0.999), np.mean(np.array(sample) <= value * 1.001)
        assert below - 0.05 <= probability <= upto + 0.05


def test_some_dozen_studies_are_enough() -> None:
    for first in (0, 40, 7_000_000, 123_000_000, 4_294_967_295_000_000, 10**320):
        present = [
            bool(draw_burden(seed, np.random.default_rng(0)).volumes_ml) for seed in range(first, first + 40)
        ]
        assert 18 <= sum(present) <= 21


def test_a_burden_belongs_to_its_seed() -> None:
    first, again = (draw_burden(12, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert len(first.volumes_ml) == len(first.suvs)
    assert all(volume > 0 for volume in first.volumes_ml)


def test_high_activity_is_as_frequent_as_low(burdens: list[Burden]) -> None:
    suvs = np.array([suv for burden in burdens for suv in burden.suvs])
    assert 3 < np.median(suvs) < 8
    assert suvs.min() > 0
