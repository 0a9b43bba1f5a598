from dataclasses import replace

import numpy as np
import pytest

from petlesion.simulation.body import Canvas
from petlesion.simulation.scanner import (
    Scanner,
    blur,
    correlated_noise,
    ct_surroundings,
    draw_scanner,
    scan_ct,
    scan_pet,
)
from petlesion.simulation.uptake import Phantom
from petlesion.volume import Volume

QUIET = Scanner(
    resolution_mm=6.0, liver_noise=0.0, noise_grain_mm=5.0, scatter=0.0, breathing_mm=0.0, inspiration_mm=0.0,
    ct_noise_hu=0.0, contrast=False, ct_field_mm=500.0,
)  # fmt: skip
SPACING = (2.0, 2.0, 2.0)


def phantom_of(suv: np.ndarray, hu: float = 0.0, lowest_z: float = -2000.0) -> Phantom:
    """A phantom far from the diaphragm unless `lowest_z` says otherwise."""
    z, y, x = (np.arange(n, dtype=np.float32) * 2 for n in suv.shape)
    grid = np.meshgrid(z + np.float32(lowest_z), y - y.mean(), x - x.mean(), indexing="ij")
    canvas = Canvas(np.ones(suv.shape, np.uint8), grid[2], grid[1], grid[0], SPACING)
    return Phantom(canvas, suv.astype(np.float32), np.full(suv.shape, hu, np.float32))


def width_at_half_maximum(line: np.ndarray, step: float) -> float:
    half = line.max() / 2
    above = np.flatnonzero(line >= half)
    first, last = above[0], above[-1]
    left = first - (line[first] - half) / (line[first] - line[first - 1])
    right = last + (line[last] - half) / (line[last] - line[last + 1])
    return float((right - left) * step)


def test_activity_adds_up_and_a_point_gets_the_scanner_s_width(rng: np.random.Generator) -> None:
    suv = np.zeros((41, 41, 41))
    suv[20, 20, 20] = 1000.0
    image = scan_pet(phantom_of(suv), QUIET, rng)
    assert image.sum() == pytest.approx(1000.0, rel=1e-3)
    for axis in range(3):
        line = np.moveaxis(image, axis, 0)[:, 20, 20]
        assert width_at_half_maximum(line, 2.0) == pytest.approx(6.0, rel=0.1)


def test_noise_follows_the_liver_s_and_leaves_the_mean(rng: np.random.Generator) -> None:
    image = scan_pet(phantom_of(np.full((60, 60, 60), 2.2)), replace(QUIET, liver_noise=0.12), rng)
    core = image[8:-8, 8:-8, 8:-8]
    assert core.mean() == pytest.approx(2.2, rel=0.01)
    assert core.std() / core.mean() == pytest.approx(0.12, rel=0.1)
    neighbours = np.corrcoef(core[:, :, 1:].ravel(), core[:, :, :-1].ravel())[0, 1]
    assert neighbours > 0.5


def test_scatter_moves_counts_far_away(rng: np.random.Generator) -> None:
    suv = np.zeros((80, 80, 80))
    suv[35:45, 35:45, 35:45] = 10.0
    clean = scan_pet(phantom_of(suv), QUIET, rng)
    tailed = scan_pet(phantom_of(suv), replace(QUIET, scatter=0.04), rng)
    assert tailed[40, 40, 60] > 10 * clean[40, 40, 60]
    assert tailed[40, 40, 60] < 0.05
    assert tailed[40, 40, 40] == pytest.approx(0.96 * clean[40, 40, 40], rel=0.02)
    assert tailed.sum() == pytest.approx(clean.sum(), rel=0.01)


def test_scatter_loses_no_voxel_and_no_share(rng: np.random.Generator) -> None:
    for place in (40, 41, 43):  # tails are computed on a coarse grid
        suv = np.zeros((83, 83, 83))
        suv[place, place, place] = 1e5
        clean = scan_pet(phantom_of(suv), QUIET, rng).sum()
        assert scan_pet(phantom_of(suv), replace(QUIET, scatter=0.05), rng).sum() == pytest.approx(
            clean, rel=0.01
        )


def test_breathing_smears_and_shifts_at_the_diaphragm_only(rng: np.random.Generator) -> None:
    suv = np.zeros((120, 40, 40))
    suv[:60] = 2.0
    phantom = phantom_of(suv, lowest_z=275.0)  # the step stands at the diaphragm's 395 mm
    phantom.hu[:60] = 60.0
    still, moved = scan_pet(phantom, QUIET, rng), scan_pet(phantom, replace(QUIET, breathing_mm=12.0), rng)
    slope = [np.abs(np.diff(image[:, 20, 20])).max() for image in (still, moved)]
    assert slope[1] < 0.7 * slope[0]
    assert moved.sum() == pytest.approx(still.sum(), rel=0.01)
    low = scan_ct(phantom, replace(QUIET, inspiration_mm=10.0), rng)
    edge = float(np.interp(-30, -low[:, 20, 20], np.arange(120))) * 2
    assert edge == pytest.approx(119 - 10, abs=1.5)


def test_ct_noise(rng: np.random.Generator) -> None:
    image = scan_ct(phantom_of(np.ones((40, 190, 190)), hu=50.0), replace(QUIET, ct_noise_hu=15.0), rng)
    assert image.mean() == pytest.approx(50, abs=1)
    assert image.std() == pytest.approx(15, rel=0.15)


def test_noise_is_of_unit_variance_and_blur_keeps_the_sum(rng: np.random.Generator) -> None:
    noise = correlated_noise(rng, (30, 30, 30), 6.0, SPACING)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    image = np.zeros((30, 30, 30), np.float32)
    image[15, 15, 15] = 1
    assert blur(image, 6.0, SPACING).sum() == pytest.approx(1, abs=1e-3)


def test_scanners_stay_within_their_ranges() -> None:
    scanners = [draw_scanner(np.random.default_rng(seed)) for seed in range(200)]
    assert all(4 <= scanner.resolution_mm <= 7 for scanner in scanners)
    assert {scanner.contrast for scanner in scanners} == {True, False}


def test_a_table_stands_behind_the_patient_and_nothing_beyond_the_ct_s_field(
    rng: np.random.Generator,
) -> None:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    tissue = np.zeros((10, 150, 150), np.uint8)
    tissue[:, 50:80, 40:110] = 1
    body = Volume(np.where(tissue, 40.0, -1000.0).astype(np.float32), affine)
    ct = ct_surroundings(body, body.with_array(tissue), QUIET, rng)
    np.testing.assert_array_equal(ct.array[tissue > 0], 40)
    middle = ct.array[:, :, 75].mean(axis=0)
    shell = np.flatnonzero((middle > -700) & (middle < 0))
    assert shell.size and shell.min() >= 80  # carbon fibre, behind the back alone
    assert ((shell.max() - shell.min()) * 4) == pytest.approx(40, abs=8)
    assert middle[20:50].mean() == pytest.approx(-1000, abs=3)
    y, x = np.indices(ct.shape[1:])
    away_mm = np.hypot(y - 74.5, x - 74.5) * 4
    assert (ct.array[:, away_mm > 252] == -1024).all()
    assert (ct.array[:, away_mm < 248] != -1024).all()
