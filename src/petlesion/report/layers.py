"""Volumes as a page carries them: bytes of quantised levels, compressed, in base64.

A byte is an index into `levels`, the values in SUV or HU, which lie closer together where a reader's
windows are narrow. Where a study is too large for a page, voxels are averaged in blocks, the CT's before
the PET's.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from petlesion.volume import Array

Bytes = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float64]
Factors = tuple[int, int, int]

# What is left for the volumes beside projections, table and program; base64 writes 3 bytes as 4.
_BUDGET_BYTES = 9_600_000
_HIGHEST_SUV = 500.0
_SAMPLED_SLICES = 24
_GZIP_LEVEL = 6
_COARSENINGS: tuple[Factors, ...] = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 3, 3), (3, 4, 4), (4, 6, 6))


@dataclass(frozen=True, eq=False)
class Layer:
    """A volume [z, y, x], the levels to store it in, and the step to which a value is rounded before."""

    array: Array
    levels: Levels
    resolution: float


def pet_layer(array: Array) -> Layer:
    """A PET in SUV: steps of 0.04 to SUV 5, of 0.1 to SUV 15, and of equal ratio above, to 500 at most."""
    highest = float(np.clip(array.max(), 16, _HIGHEST_SUV))
    levels = np.concatenate(
        [np.arange(0, 5, 0.04), np.arange(5, 15, 0.1), np.geomspace(15, highest, 256 - 125 - 100)]
    )
    return Layer(array, levels, 0.01)


def ct_layer(array: Array) -> Layer:
    """A CT in HU: steps of 4 HU in soft tissue, wider in lung and bone.

    Air below −960 HU is one level: its noise would be half of the page.
    """
    levels = np.concatenate([np.arange(-960, -160, 10), np.arange(-160, 240, 4), np.linspace(240, 2000, 76)])
    return Layer(array, levels, 1.0)


def fraction_layer(array: Array) -> Layer:
    """A volume of values from 0 to 1."""
    return Layer(array, np.linspace(0, 1, 256), 0.001)


def encode_layers(layers: dict[str, Layer]) -> dict[str, dict[str, Any]]:
    """For each layer: shape, factors (voxels per cell, z y x), levels, and data (base64 of gzip)."""
    factors = _affordable_factors(layers)
    return {name: _encode_layer(layer, factors[name]) for name, layer in layers.items()}


def encode_numbers(numbers: Array) -> dict[str, Any]:
    """Lesion numbers as 16-bit integers, lowest byte first: shape and data (base64 of gzip)."""
    return {"shape": list(numbers.shape), "data": compress(numbers.astype("<u2"))}


def compress(array: Array) -> str:
    """Base64 of the gzipped bytes of an array, the same for the same array."""
    packed = gzip.compress(np.ascontiguousarray(array).data, compresslevel=_GZIP_LEVEL, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def quantised(layer: Layer, factors: Factors) -> Bytes:
    """The layer's nearest levels, after averaging blocks of `factors` voxels (z, y, x)."""
    values = _block_means(np.asarray(layer.array, dtype=np.float32), factors)
    lowest, highest = (round(level / layer.resolution) for level in (layer.levels[0], layer.levels[-1]))
    steps = np.rint(values / np.float32(layer.resolution)).clip(lowest, highest).astype(np.int32)
    # A table of all steps is an order of magnitude faster than a search for each voxel.
    middles = (layer.levels[1:] + layer.levels[:-1]) / 2
    nearest = np.searchsorted(middles, np.arange(lowest, highest + 1) * layer.resolution).astype(np.uint8)
    cells: Bytes = nearest[steps - lowest]
    return cells


def _encode_layer(layer: Layer, factors: Factors) -> dict[str, Any]:
    cells = quantised(layer, factors)
    return {
        "shape": list(cells.shape),
        "factors": list(factors),
        "levels": [round(float(level), 4) for level in layer.levels],
        "data": compress(cells),
    }


def _affordable_factors(layers: dict[str, Layer]) -> dict[str, Factors]:
    """The finest blocks with which all layers together stay within the budget, by a sample of slices."""
    for step in range(2 * len(_COARSENINGS) - 1):
        ct, others = _COARSENINGS[(step + 1) // 2], _COARSENINGS[step // 2]
        factors = {name: ct if name == "ct" else others for name in layers}
        if sum(_estimated_bytes(layers[name], factors[name]) for name in layers) <= _BUDGET_BYTES:
            break
    return factors


def _estimated_bytes(layer: Layer, factors: Factors) -> int:
    """Compressed size, from blocks of slices spread over the volume."""
    depth = layer.array.shape[0]
    blocks = max(1, depth // factors[0])
    starts = np.unique(np.linspace(0, blocks - 1, _SAMPLED_SLICES).round().astype(int)) * factors[0]
    sample = sum(
        len(gzip.compress(quantised(Layer(part, layer.levels, layer.resolution), factors).data, _GZIP_LEVEL))
        for part in (layer.array[start : start + factors[0]] for start in starts)
    )
    return int(sample * blocks // len(starts))


def _block_means(array: npt.NDArray[np.float32], factors: Factors) -> npt.NDArray[np.float32]:
    """Means of blocks of voxels; at the far sides the outermost voxels are repeated to fill a block."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        missing = -array.shape[axis] % factor
        array = np.pad(array, [(0, missing if a == axis else 0) for a in range(3)], mode="edge")
        shape = list(array.shape)
        shape[axis : axis + 1] = [shape[axis] // factor, factor]
        array = array.reshape(shape).mean(axis=axis + 1)
    return array
