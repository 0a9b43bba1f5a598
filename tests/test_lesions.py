"""Lesions, held against scipy.ndimage, sums and brute force."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from petlesion.errors import GeometryError, UsageError, ValueRangeError
from petlesion.lesions import (
    CSV_COLUMNS,
    bounding_box,
    component_sizes,
    label_components,
    lesions_as_json,
    measure_lesions,
    min_voxels_for_volume,
    peak_sphere,
    remove_small_components,
    write_lesions_csv,
)
from petlesion.volume import Volume

EDGES_TOO = ndimage.generate_binary_structure(3, 2)  # 18 neighbours
AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])
AFFINE[:3, 3] = (-10.0, 20.0, 5.0)

masks = st.builds(
    lambda seed, shape, share: np.random.default_rng(seed).random(shape) < share,
    st.integers(0, 2**16),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.floats(0, 0.5),
)


@given(masks)
def test_components_are_those_of_scipy_numbered_by_size(mask: np.ndarray) -> None:
    labels, count = label_components(mask)
    expected, expected_count = ndimage.label(mask, EDGES_TOO)
    assert count == expected_count
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels > 0, mask)
    pairs = {(a, b) for a, b in zip(labels[mask], expected[mask], strict=True)}
    assert len(pairs) == count
    sizes = component_sizes(labels, count)
    np.testing.assert_array_equal(sizes, [np.sum(labels == i + 1) for i in range(count)])
    assert (np.diff(sizes) <= 0).all()


def test_voxels_that_share_an_edge_are_connected_and_those_at_a_corner_are_not() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True
    assert label_components(mask)[1] == 1
    mask[1, 2, 2] = True
    assert label_components(mask)[1] == 2


@given(masks, st.integers(0, 20))
def test_components_of_fewer_voxels_are_removed(mask: np.ndarray, fewest: int) -> None:
    labels, count = ndimage.label(mask, EDGES_TOO)
    expected = np.zeros_like(mask)
    for number in range(1, count + 1):
        if (labels == number).sum() >= fewest:
            expected |= labels == number
    np.testing.assert_array_equal(remove_small_components(mask, fewest), expected)


@pytest.mark.parametrize(
    ("volume_ml", "voxel_ml", "voxels"),
    [
        (0.124, 2.0364201**2 * 3 / 1000, 10),
        (0.124, 0.0124, 10),
        (0.3, 0.1, 3),
        (0.31, 0.1, 4),
        (0.0, 0.1, 0),
        (0.124, 0.072, 2),
    ],
)
def test_a_smallest_volume_becomes_voxels(volume_ml: float, voxel_ml: float, voxels: int) -> None:
    assert min_voxels_for_volume(volume_ml, voxel_ml) == voxels


@pytest.mark.parametrize("volume_ml", [-1, math.nan, math.inf])
def test_a_smallest_volume_that_cannot_be_is_refused(volume_ml: float) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        min_voxels_for_volume(volume_ml, 0.1)


def test_the_box_around_a_mask() -> None:
    mask = np.zeros((5, 6, 7), bool)
    assert bounding_box(mask) is None
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 7))


def sphere_share(offset: np.ndarray, spacing: tuple[float, float, float], fine: int = 60) -> float:
    """Share of a 1 mL sphere that lies in the voxel at an offset, by counting points."""
    radius = (3000 / (4 * math.pi)) ** (1 / 3)
    within = (np.arange(fine) + 0.5) / fine - 0.5
    z, y, x = ((offset[i] + within) * spacing[i] for i in range(3))
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius**2
    return float(inside.mean() * np.prod(spacing) / 1000)


@pytest.mark.parametrize(
    "spacing", [(3.0, 2.04, 2.04), (4.0, 4.0, 4.0), (3.27, 5.47, 5.47), (20.0, 20.0, 20.0)]
)
def test_the_peak_sphere_holds_one_millilitre_with_parts_of_voxels(
    spacing: tuple[float, float, float],
) -> None:
    offsets, weights = peak_sphere(spacing)
    assert weights.sum() == pytest.approx(1)
    for offset, weight in zip(offsets, weights, strict=True):
        assert weight == pytest.approx(min(sphere_share(offset, spacing), 1), abs=3e-4)


def brute_force_peak(lesion: np.ndarray, pet: np.ndarray, spacing: tuple[float, float, float]) -> float:
    reach = [math.ceil(6.3 / step) for step in spacing]
    offsets = [np.array(o) - reach for o in np.ndindex(*(2 * n + 1 for n in reach))]
    shares = [sphere_share(offset, spacing, 24) for offset in offsets]
    highest = -math.inf
    for voxel in np.argwhere(lesion):
        total = weight = 0.0
        for offset, share in zip(offsets, shares, strict=True):
            z, y, x = voxel + offset
            if share and 0 <= z < pet.shape[0] and 0 <= y < pet.shape[1] and 0 <= x < pet.shape[2]:
                total += share * pet[z, y, x]
                weight += share
        highest = max(highest, total / weight)
    return highest


@pytest.mark.parametrize("seed", range(4))
def test_measures_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (9, 8, 10)
    mask = ndimage.binary_opening(rng.random(shape) < 0.55)
    mask[0, 0, 0] = True
    pet = rng.gamma(2, 2, shape).astype(np.float32)
    table = measure_lesions(Volume(mask, AFFINE), Volume(pet, AFFINE))
    labels, count = label_components(mask)
    assert table.count == count > 1
    for number, lesion in enumerate(table.lesions, start=1):
        inside = labels == number
        values = pet[inside].astype(np.float64)
        assert lesion.number == number
        assert lesion.voxels == inside.sum()
        assert lesion.volume_ml == pytest.approx(inside.sum() * 0.015)
        assert lesion.suv_max == values.max()
        assert lesion.suv_mean == pytest.approx(values.mean())
        assert lesion.tlg == pytest.approx(values.sum() * 0.015)
        assert lesion.suv_peak == pytest.approx(brute_force_peak(inside, pet, (3.0, 2.5, 2.0)), rel=2e-3)
        centroid = np.argwhere(inside).mean(axis=0)
        assert lesion.centroid_index == pytest.approx(centroid)
        assert lesion.centroid_mm == pytest.approx((AFFINE @ [*centroid[::-1], 1])[:3])
        assert tuple(slice(*b) for b in lesion.bounds) == ndimage.find_objects(inside.astype(int))[0]
        size = [b - a for a, b in lesion.bounds]
        assert lesion.extent_mm == pytest.approx(np.multiply(size, (3.0, 2.5, 2.0)))
    values = pet[mask].astype(np.float64)
    assert table.metabolic_tumour_volume_ml == pytest.approx(mask.sum() * 0.015)
    assert table.total_lesion_glycolysis == pytest.approx(values.sum() * 0.015)
    assert table.suv_max == values.max()
    places = np.array([lesion.centroid_mm for lesion in table.lesions])
    assert table.dmax_mm == pytest.approx(max(np.linalg.norm(a - b) for a in places for b in places))


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_peaks_of_large_masks_are_those_of_a_correlation(rng: np.random.Generator, share: float) -> None:
    shape = (70, 30, 34)
    mask, pet = rng.random(shape) < share, rng.gamma(2, 2, shape).astype(np.float32)
    offsets, weights = peak_sphere((3.0, 2.5, 2.0))
    sphere = np.zeros(2 * offsets.max(axis=0) + 1)
    sphere[tuple((offsets + offsets.max(axis=0)).T)] = weights
    means = ndimage.correlate(pet.astype(np.float64), sphere, mode="constant")
    means /= ndimage.correlate(np.ones(shape), sphere, mode="constant")
    labels, count = label_components(mask)
    expected = ndimage.maximum(means, labels, range(1, count + 1))
    found = [lesion.suv_peak for lesion in measure_lesions(Volume(mask, AFFINE), Volume(pet, AFFINE)).lesions]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_mean_in_a_uniform_region_is_its_value_also_at_the_images_edge() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[3, 3, 3] = True
    table = measure_lesions(Volume(mask, AFFINE), Volume(np.full((6, 6, 6), 4.0, np.float32), AFFINE))
    assert [lesion.suv_peak for lesion in table.lesions] == pytest.approx([4.0, 4.0])


def test_measures_do_not_depend_on_the_order_of_the_axes(rng: np.random.Generator) -> None:
    mask = Volume(rng.random((7, 8, 9)) < 0.1, AFFINE)
    pet = Volume(rng.random((7, 8, 9)).astype(np.float32), AFFINE)
    straight = measure_lesions(mask, pet)
    turned = measure_lesions(mask.reoriented("SAR"), pet.reoriented("SAR"))
    assert turned.dmax_mm == pytest.approx(straight.dmax_mm)

    def peaks(table):
        return sorted(lesion.suv_peak for lesion in table.lesions)

    assert peaks(turned) == pytest.approx(peaks(straight), rel=1e-4)


def test_no_lesion_and_one_lesion() -> None:
    pet = Volume(np.ones((4, 4, 4), np.float32), AFFINE)
    none = measure_lesions(pet.with_array(np.zeros((4, 4, 4), bool)), pet)
    assert (none.count, none.metabolic_tumour_volume_ml, none.total_lesion_glycolysis) == (0, 0, 0)
    assert none.suv_max is None
    assert none.dmax_mm == 0
    one = measure_lesions(pet.with_array(np.ones((4, 4, 4), bool)), pet)
    assert one.count == 1
    assert one.dmax_mm == 0


def test_a_thousand_lesions_are_measured_one_by_one() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[::4, ::4, ::4] = True
    pet = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    table = measure_lesions(Volume(mask, AFFINE), Volume(pet, AFFINE), [0.5] * 1000)
    assert table.count == 1000
    assert sorted(lesion.suv_max for lesion in table.lesions) == sorted(pet[mask].tolist())


def test_what_cannot_be_measured_is_refused() -> None:
    pet = Volume(np.ones((4, 4, 4), np.float32), AFFINE)
    mask = pet.with_array(np.ones((4, 4, 4), bool))
    with pytest.raises(GeometryError, match="grid"):
        measure_lesions(Volume(mask.array, np.eye(4)), pet)
    with pytest.raises(UsageError, match="confidences"):
        measure_lesions(mask, pet, [0.5, 0.5])
    spoilt = pet.array.copy()
    spoilt[0, 0, 0] = np.nan
    with pytest.raises(ValueRangeError, match="not finite"):
        measure_lesions(mask, pet.with_array(spoilt))


def test_the_csv_has_a_row_per_lesion_and_the_total_last(tmp_path: Path) -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3:5] = mask[4, 5, 6] = True
    pet = np.arange(210, dtype=np.float32).reshape(5, 6, 7)
    table = measure_lesions(Volume(mask, AFFINE), Volume(pet, AFFINE), [0.9, 0.25])
    write_lesions_csv(tmp_path / "lesions.csv", table)
    with (tmp_path / "lesions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["lesion"] for row in rows] == ["1", "2", "total"]
    assert [row["confidence"] for row in rows] == ["0.9", "0.25", ""]
    assert float(rows[0]["suv_mean"]) == pytest.approx((pet[1, 2, 3] + pet[1, 2, 4]) / 2)
    assert float(rows[0]["centroid_x_mm"]) == pytest.approx(-10 + 2 * 3.5)
    assert float(rows[0]["centroid_y_mm"]) == pytest.approx(20 + 2.5 * 2)
    assert float(rows[0]["centroid_z_mm"]) == pytest.approx(5 + 3 * 1)
    assert float(rows[2]["volume_ml"]) == pytest.approx(3 * 0.015)
    assert float(rows[2]["tlg"]) == pytest.approx(0.015 * (pet[1, 2, 3] + pet[1, 2, 4] + pet[4, 5, 6]))


def test_the_json_is_plain_data(rng: np.random.Generator) -> None:
    mask = Volume(rng.random((5, 6, 7)) < 0.1, AFFINE)
    table = measure_lesions(mask, mask.with_array(rng.random((5, 6, 7)).astype(np.float32)))
    data = json.loads(json.dumps(lesions_as_json(table), allow_nan=False))
    assert data["count"] == len(data["lesions"]) == table.count
    assert data["metabolic_tumour_volume_ml"] == table.metabolic_tumour_volume_ml
