"""Metrics worked out on paper, and held against the challenge's way of computing them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from petlesion.errors import GeometryError
from petlesion.lesions import label_components, remove_small_components
from petlesion.overlap import evaluate_masks, overlap_of, overlap_of_labels
from petlesion.volume import Volume
from tests.evaluation.paper import DRAWN, ON_PAPER, VOXEL_AFFINE, masks_of

EDGES_TOO = ndimage.generate_binary_structure(3, 2)

pairs = st.builds(
    lambda seed, shape, share: np.random.default_rng(seed).random((2, *shape)) < share,
    st.integers(0, 2**16),
    st.tuples(*[st.integers(1, 8)] * 3),
    st.floats(0, 0.4),
)


def volume_of_missed(mask: np.ndarray, other: np.ndarray) -> float:
    labels, count = ndimage.label(mask, EDGES_TOO)
    components = (labels == number + 1 for number in range(count))
    return sum(int(component.sum()) for component in components if not (component & other).any()) * 0.5


@pytest.mark.parametrize("case", DRAWN)
def test_the_metrics_are_those_worked_out_on_paper(case: str) -> None:
    row = evaluate_masks(*masks_of(case), case)
    expected = ON_PAPER[case]
    assert row.dice == (None if expected.dice is None else pytest.approx(expected.dice))
    assert replace(row, dice=None) == replace(expected, dice=None)


@given(pairs)
def test_the_metrics_are_those_of_the_challenge(masks: np.ndarray) -> None:
    prediction, reference = masks
    row = evaluate_masks(Volume(prediction, VOXEL_AFFINE), Volume(reference, VOXEL_AFFINE), "case")
    voxels = int(prediction.sum() + reference.sum())
    assert row.dice == (pytest.approx(2 * (prediction & reference).sum() / voxels) if voxels else None)
    assert row.false_positive_volume_ml == volume_of_missed(prediction, reference)
    assert row.false_negative_volume_ml == volume_of_missed(reference, prediction)
    assert row.predicted_volume_ml == prediction.sum() * 0.5
    assert row.reference_volume_ml == reference.sum() * 0.5
    assert row.reference_components == ndimage.label(reference, EDGES_TOO)[1]
    assert row.predicted_components == ndimage.label(prediction, EDGES_TOO)[1]


@given(pairs, st.integers(0, 12))
def test_without_small_components_it_is_as_if_they_had_been_removed(masks: np.ndarray, fewest: int) -> None:
    prediction, reference = (Volume(mask, VOXEL_AFFINE) for mask in masks)
    removed = prediction.with_array(remove_small_components(prediction.array, fewest))
    at_once = overlap_of(prediction, reference).without_small(fewest).metrics("case")
    assert at_once == evaluate_masks(removed, reference, "case")


@pytest.mark.parametrize("orientation", ["RAS", "SPL"])
def test_axes_that_are_only_turned_make_no_difference(rng: np.random.Generator, orientation: str) -> None:
    prediction, reference = (Volume(rng.random((4, 5, 6)) < 0.2, VOXEL_AFFINE) for _ in range(2))
    turned = evaluate_masks(prediction.reoriented(orientation), reference, "case")
    assert turned == evaluate_masks(prediction, reference, "case")


def test_masks_on_different_grids_are_refused() -> None:
    prediction, reference = masks_of("half")
    with pytest.raises(GeometryError, match="grid"):
        evaluate_masks(Volume(prediction.array, np.eye(4)), reference, "case")


@given(pairs)
def test_labels_that_are_there_already_give_the_same(masks: np.ndarray) -> None:
    prediction, reference = masks
    labelled = overlap_of_labels(label_components(prediction), label_components(reference), 0.5)
    compared = overlap_of(Volume(prediction, VOXEL_AFFINE), Volume(reference, VOXEL_AFFINE))
    assert labelled.metrics("case") == compared.metrics("case")


def test_components_that_meet_the_reference_are_real() -> None:
    overlap = overlap_of(*masks_of("half"))
    assert overlap.predicted_sizes.tolist() == [2, 2, 1]
    assert overlap.real.tolist() == [True, False, True]


def test_a_study_has_lesions_if_its_reference_does() -> None:
    assert [row.has_lesions for row in ON_PAPER.values()] == [True, True, False, False]
