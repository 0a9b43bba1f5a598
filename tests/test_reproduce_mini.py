"""The miniature of the paper's experiments: how every row is scaled. Running it takes too long for a test."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from petlesion.experiments import PUBLISHED, Experiment, find_experiment, with_settings

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("reproduce_mini")


def small(miniature: ModuleType, name: str, *, simulated: bool) -> Experiment:
    arguments = miniature.scaled(find_experiment(name), simulated=simulated)
    assert set(arguments[::2]) == {"--set"}
    return with_settings(find_experiment(name), arguments[1::2])


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_row_is_scaled_alike(name: str, simulated: bool, miniature: ModuleType) -> None:
    row, scaled = find_experiment(name), small(miniature, name, simulated=simulated)
    patch, features = (48, 64) if name in "de" else (32, 40)
    assert (scaled.patch_size, scaled.base_features, scaled.max_features) == ((patch,) * 3, 4, features)
    assert scaled.epochs == {1000: 2, 1500: 3}[row.epochs]
    for setting in ("oversampling", "oversampling_kind", "mirroring", "loss", "input", "batch_size"):
        assert getattr(scaled, setting) == getattr(row, setting)


def test_the_learning_rates_keep_their_order(miniature: ModuleType) -> None:
    for simulated in (False, True):
        rates = {name: small(miniature, name, simulated=simulated).learning_rate for name in PUBLISHED}
        assert rates["c"] == rates["d"] > rates["b"]
        assert len({rates[name] for name in PUBLISHED if name not in "cd"}) == 1
