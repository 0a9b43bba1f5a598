"""The sliding window: where tiles lie, how they are weighted, and their sum.

Positions and Gaussian weights are nnU-Net's. Tiles that hold nothing of the body can be left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage

from petlesion.inference.resampling import Float, Shape
from petlesion.volume import Mask

Box = tuple[slice, slice, slice]


class Network(Protocol):
    """What runs one fold: [1, channel, *patch] -> logits against the background's, [1, label - 1, *patch]."""

    def __call__(self, patches: Float) -> Float:
        """Run the network."""

    def release(self) -> None:
        """Give back the memory of the layers' values."""


@dataclass(frozen=True, eq=False)
class MirroredNetwork:
    """A network that sees each patch mirrored along `axes` and whose answer is mirrored back."""

    network: Network
    axes: tuple[int, ...]

    def __call__(self, patches: Float) -> Float:
        """Run the network on a patch's mirror image."""
        array_axes = tuple(axis + 2 for axis in self.axes)
        return np.flip(self.network(np.ascontiguousarray(np.flip(patches, array_axes))), array_axes)

    def release(self) -> None:
        """Give back the memory of the layers' values."""
        self.network.release()


_SIGMA = 1 / 8  # of the patch's length
_HIGHEST_WEIGHT = 10.0  # nnU-Net's, whose half-precision weights shall not vanish


def tile_starts(length: int, patch: int, step: float) -> list[int]:
    """First indices of the tiles along an axis: evenly spread, no further apart than `step` patches."""
    if length <= patch:
        return [0]
    intervals = math.ceil((length - patch) / (patch * step))
    return [round((length - patch) / intervals * i) for i in range(intervals + 1)]


def all_tiles(shape: Shape, patch: Shape, step: float) -> list[Box]:
    """nnU-Net's tiles of an image that is no smaller than the patch on any axis."""
    return _tiles((0, 0, 0), shape, patch, step)


def body_tiles(body: Mask, patch: Shape, step: float) -> list[Box]:
    """Tiles spread over the body's bounding box, without those that hold no voxel of the body.

    `body` has the shape of the (padded) image; where it is empty, there are no tiles. The box is widened, as
    far as the image reaches, to room for two tiles along each axis: one alone would see its edges worse.
    """
    box = ndimage.find_objects(body.view(np.uint8))
    if not box:
        return []
    lengths = [
        min(max(part.stop - part.start, size + math.ceil(size * step)), whole)
        for part, size, whole in zip(box[0], patch, body.shape, strict=True)
    ]
    offset = [
        min(max((part.start + part.stop - length) // 2, 0), whole - length)
        for part, length, whole in zip(box[0], lengths, body.shape, strict=True)
    ]
    return [tile for tile in _tiles(offset, lengths, patch, step) if body[tile].any()]


def gaussian_weights(patch: Shape) -> Float:
    """nnU-Net's weight of each voxel of a tile, highest in its middle, nowhere zero."""
    middle = np.zeros(patch)
    middle[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(middle, [n * _SIGMA for n in patch], mode="constant")
    halves = (weights * (_HIGHEST_WEIGHT / weights.max())).astype(np.float16)
    halves[halves == 0] = halves[halves > 0].min()
    return np.asarray(halves, dtype=np.float32)


def pad_to_patch(data: Float, patch: Shape) -> tuple[Float, Box]:
    """Pad [channel, z, y, x] with zeros on both sides to the patch's size, and say where the image lies."""
    missing = [max(p - n, 0) for p, n in zip(patch, data.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    z, y, x = (slice(b, b + n) for b, n in zip(before, data.shape[1:], strict=True))
    if not any(missing):
        return data, (z, y, x)
    widths = [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))]
    return np.pad(data, widths), (z, y, x)


@dataclass(frozen=True)
class Window:
    """Where networks look: tiles of a patch's shape, and the axes along which each is also mirrored."""

    tiles: tuple[Box, ...]
    patch: Shape
    mirror_axes: tuple[int, ...] = ()

    @cached_property
    def weights(self) -> Float:
        """The weight of each voxel of a tile."""
        return gaussian_weights(self.patch)


def weighted_mean(
    data: Float, window: Window, networks: Sequence[Network], elsewhere: float, on_tile: Callable[[], None]
) -> Float:
    """Mean of the networks' outputs over overlapping tiles, [label, z, y, x]; `elsewhere` where no tile lies.

    `data` is [channel, z, y, x], no smaller than the patch. `on_tile` is called after each tile of each
    network. One network after the other sees all tiles, so that only one at a time takes memory.
    """
    weights = window.weights
    hull = _hull(window.tiles)
    tiles = [(tile, _relative(tile, hull)) for tile in window.tiles]
    total_weight = np.zeros([part.stop - part.start for part in hull], dtype=np.float32)
    for _, place in tiles:
        total_weight[place] += weights * len(networks)
    total: Float | None = None
    for network in networks:
        for tile, place in tiles:
            output = _mirrored_mean(data[(slice(None), *tile)], network, window.mirror_axes)
            if total is None:
                total = np.zeros((len(output), *total_weight.shape), dtype=np.float32)
            output *= weights
            total[(slice(None), *place)] += output
            on_tile()
        network.release()
    assert total is not None
    return _spread(total, total_weight, hull, data.shape[1:], elsewhere)


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every set of axes that a patch is mirrored along, the empty one first."""
    return [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]


def _mirrored_mean(patch_data: Float, network: Network, mirror_axes: Sequence[int]) -> Float:
    """Mean output [label, z, y, x] of a network for a patch [channel, z, y, x] and its mirror images."""
    combinations = mirror_combinations(mirror_axes)
    mean: Float | None = None
    for axes in combinations:
        output = MirroredNetwork(network, axes)(patch_data[None])[0]
        mean = np.array(output) if mean is None else np.add(mean, output, out=mean)
    assert mean is not None
    mean /= len(combinations)
    return mean


def _spread(total: Float, weight: Float, hull: Box, shape: Sequence[int], elsewhere: float) -> Float:
    """Divide the sums by their weights, in place, and put them where they belong in the whole image."""
    seen = weight > 0
    np.divide(total, weight, out=total, where=seen)
    np.copyto(total, np.float32(elsewhere), where=~seen)
    if total.shape[1:] == tuple(shape):
        return total
    whole = np.full((len(total), *shape), elsewhere, dtype=np.float32)
    whole[(slice(None), *hull)] = total
    return whole


def _tiles(offset: Sequence[int], lengths: Sequence[int], patch: Shape, step: float) -> list[Box]:
    starts = [
        [first + start for start in tile_starts(length, size, step)]
        for first, length, size in zip(offset, lengths, patch, strict=True)
    ]
    return [
        (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
        for z, y, x in itertools.product(*starts)
    ]


def _hull(tiles: Sequence[Box]) -> Box:
    z, y, x = (
        slice(min(tile[axis].start for tile in tiles), max(tile[axis].stop for tile in tiles))
        for axis in range(3)
    )
    return z, y, x


def _relative(tile: Box, hull: Box) -> Box:
    z, y, x = (slice(t.start - h.start, t.stop - h.start) for t, h in zip(tile, hull, strict=True))
    return z, y, x
