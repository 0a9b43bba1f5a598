"""Packed volumes, unpacked again by hand."""

import base64
import gzip
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from petlesion.report import layers
from petlesion.report.layers import ct_layer, encode_layers, encode_numbers, fraction_layer, pet_layer


def decode(packed: dict[str, Any], dtype: str = "u1") -> np.ndarray:
    cells = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), dtype).reshape(packed["shape"])
    return np.array(packed["levels"])[cells] if "levels" in packed else cells


def one(name: str, layer: layers.Layer) -> dict[str, Any]:
    return encode_layers({name: layer})[name]


@pytest.mark.parametrize(("low", "high", "error"), [(0, 5, 0.026), (5, 15, 0.056), (15, 80, 2.5)])
def test_suv_comes_back_within_half_a_step(low: float, high: float, error: float) -> None:
    values = np.random.default_rng(0).uniform(low, high, (7, 8, 9))
    values.flat[0] = 80
    decoded = decode(one("pet", pet_layer(values)))
    assert np.abs(decoded - values).max() <= error
    assert decoded.flat[0] == pytest.approx(80)


@pytest.mark.parametrize(("low", "high", "error"), [(-160, 236, 2.6), (-960, -160, 5.6), (240, 2000, 12.5)])
def test_hu_comes_back_within_half_a_step(low: float, high: float, error: float) -> None:
    values = np.random.default_rng(0).uniform(low, high, (7, 8, 9))
    assert np.abs(decode(one("ct", ct_layer(values))) - values).max() <= error


def test_values_beyond_the_levels_take_the_outermost() -> None:
    values = np.array([[[-3000.0, 9000.0], [-1024.0, 2000.0]]])
    assert decode(one("ct", ct_layer(values))).ravel().tolist() == [-960, 2000, -960, 2000]
    assert decode(one("pet", pet_layer(np.full((1, 1, 2), -0.3)))).ravel().tolist() == [0, 0]
    assert decode(one("pet", pet_layer(np.full((1, 1, 2), 1e9)))).ravel() == pytest.approx([500, 500])
    fractions = decode(one("uncertainty", fraction_layer(np.array([[[0.0, 0.5, 1.0]]]))))
    assert fractions.ravel() == pytest.approx([0, 0.5, 1], abs=0.003)


def test_lesion_numbers_come_back_as_they_are() -> None:
    numbers = np.arange(60).reshape(3, 4, 5) * 1000
    assert np.array_equal(decode(encode_numbers(numbers.astype(np.uint16)), "<u2"), numbers)


def test_equal_volumes_give_equal_text() -> None:
    values = np.random.default_rng(0).uniform(0, 5, (7, 8, 9))
    assert one("pet", pet_layer(values)) == one("pet", pet_layer(values.copy()))


def test_what_is_too_large_is_averaged_the_ct_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    pet, ct = rng.uniform(0, 15, (13, 30, 31)), rng.uniform(-100, 200, (13, 30, 31))
    shapes = []
    for budget in (100_000, 16_000, 10_000, 4_000):
        monkeypatch.setattr(layers, "_BUDGET_BYTES", budget)
        packed = encode_layers({"pet": pet_layer(pet), "ct": ct_layer(ct)})
        size = sum(len(base64.b64decode(layer["data"])) for layer in packed.values())
        assert size <= budget * 1.1
        shapes.append((packed["pet"]["shape"], packed["ct"]["shape"]))
    assert shapes[0] == ([13, 30, 31], [13, 30, 31])
    assert shapes[1] == ([13, 30, 31], [13, 15, 16])
    assert all(a[0] >= b[0] and a[1] >= b[1] for a, b in pairwise(shapes))


def test_blocks_are_means_and_the_last_repeats_the_edge() -> None:
    values = np.arange(2 * 3 * 5, dtype=float).reshape(2, 3, 5) / 2
    cells = layers.quantised(pet_layer(values), (2, 2, 2))
    padded = np.pad(values, ((0, 0), (0, 1), (0, 1)), mode="edge")
    expected = padded.reshape(1, 2, 2, 2, 3, 2).mean(axis=(1, 3, 5))
    assert np.abs(pet_layer(values).levels[cells] - expected).max() < 0.06
