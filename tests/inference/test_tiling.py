import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from petlesion.inference.tiling import (
    Window,
    all_tiles,
    body_tiles,
    gaussian_weights,
    mirror_combinations,
    pad_to_patch,
    tile_starts,
    weighted_mean,
)


@given(st.integers(1, 700), st.integers(4, 192), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_tiles_start_where_nnunets_do(beyond: int, patch: int, step: float) -> None:
    length = patch + beyond - 1
    assert tile_starts(length, patch, step) == compute_steps_for_sliding_window((length,), (patch,), step)[0]


@pytest.mark.parametrize("patch", [(8, 8, 8), (16, 12, 20), (128, 32, 32), (1, 16, 16)])
def test_weights_are_nnunets(patch: tuple[int, int, int]) -> None:
    expected = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10, device=torch.device("cpu"))
    np.testing.assert_array_equal(gaussian_weights(patch), expected.numpy())


class Echo:
    """A network whose only output is a multiple of its first channel."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.released = 0

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        return patches[:, :1] * self.factor

    def release(self) -> None:
        self.released += 1


def test_overlapping_tiles_of_the_same_answer_give_that_answer(rng: np.random.Generator) -> None:
    data = rng.normal(size=(2, 20, 24, 17)).astype(np.float32)
    networks = [Echo(1.0), Echo(3.0)]
    seen = []
    window = Window(tuple(all_tiles((20, 24, 17), (8, 8, 8), 0.5)), (8, 8, 8), mirror_axes=(0, 2))
    found = weighted_mean(data, window, networks, -100.0, lambda: seen.append(1))
    np.testing.assert_allclose(found[0], 2 * data[0], atol=1e-5)
    assert len(seen) == 2 * len(window.tiles)
    assert [network.released for network in networks] == [1, 1]


def test_no_voxel_of_the_body_is_left_out(rng: np.random.Generator) -> None:
    body = np.zeros((40, 60, 50), dtype=bool)
    body[5:30, 20:28, 10:45] = True
    body[28:38, 40:58, 30:34] = True
    tiles = body_tiles(body, (16, 16, 16), 0.5)
    assert len(tiles) < len(all_tiles(body.shape, (16, 16, 16), 0.5))
    covered = np.zeros(body.shape, dtype=bool)
    for tile in tiles:
        assert body[tile].any()
        assert covered[tile].shape == (16, 16, 16)
        covered[tile] = True
    assert covered[body].all()

    data = rng.normal(size=(1, *body.shape)).astype(np.float32)
    found = weighted_mean(data, Window(tuple(tiles), (16, 16, 16)), [Echo()], -100.0, lambda: None)[0]
    np.testing.assert_allclose(found[covered], data[0][covered], atol=1e-5)
    assert (found[~covered] == -100.0).all()


def test_an_empty_body_has_no_tiles() -> None:
    assert body_tiles(np.zeros((20, 20, 20), dtype=bool), (8, 8, 8), 0.5) == []


def test_a_small_body_is_seen_by_two_tiles_along_an_axis_that_is_longer_than_a_patch() -> None:
    body = np.zeros((20, 20, 8), dtype=bool)
    body[0:5, 9:12, 3:6] = True
    expected = [(slice(z, z + 8), slice(y, y + 8), slice(0, 8)) for z in (0, 4) for y in (4, 8)]
    assert body_tiles(body, (8, 8, 8), 0.5) == expected


def test_what_is_smaller_than_a_patch_lies_in_its_middle() -> None:
    padded, box = pad_to_patch(np.ones((1, 3, 9, 8), dtype=np.float32), (8, 8, 8))
    assert padded.shape == (1, 8, 9, 8)
    assert box == (slice(2, 5), slice(0, 9), slice(0, 8))
    assert padded.sum() == padded[(0, *box)].sum() == 3 * 9 * 8


def test_mirroring_three_axes_takes_eight_images() -> None:
    assert len(mirror_combinations((0, 1, 2))) == 8
    assert mirror_combinations(()) == [()]
