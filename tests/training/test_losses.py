"""Each loss against its formula, written out in float64 NumPy."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from petlesion.training.losses import build_loss

Array = npt.NDArray[np.float64]


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def cross_entropy(logits: Array, labels: npt.NDArray[np.int64]) -> float:
    probabilities = softmax(logits)
    chosen = np.where(labels == 1, probabilities[:, 1], probabilities[:, 0])
    return float(-np.log(chosen).mean())


def soft_dice(logits: Array, labels: npt.NDArray[np.int64], *, batch: bool) -> float:
    """nnU-Net's: of the lesion, with 1e-5 above and below, per patch or over the batch."""
    lesion = softmax(logits)[:, 1]
    scores = []
    for patch in [slice(None)] if batch else range(len(logits)):
        p, r = lesion[patch], labels[patch]
        scores.append((2 * (p * r).sum() + 1e-5) / (p.sum() + r.sum() + 1e-5))
    return float(np.mean(scores))


def generalised_dice(logits: Array, labels: npt.NDArray[np.int64]) -> float:
    """Both labels, each weighted by one over its voxels in the reference (at least one)."""
    probabilities = softmax(logits)
    above = below = 0.0
    for label in (0, 1):
        p, r = probabilities[:, label], labels == label
        weight = 1 / max(r.sum(), 1)
        above += weight * (p * r).sum()
        below += weight * (p.sum() + r.sum())
    return float((2 * above + 1e-5) / (below + 1e-5))


@pytest.fixture(params=["some lesion", "one patch without", "no lesion"])
def problem(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.int64]]:
    logits = rng.normal(0, 2, (2, 2, 6, 8, 10))
    labels = (rng.random((2, 6, 8, 10)) < 0.1).astype(np.int64)
    labels[{"some lesion": slice(0), "one patch without": 1, "no lesion": slice(None)}[request.param]] = 0
    return logits, labels


def value(name: str, logits: Array, labels: npt.NDArray[np.int64], *, batch_dice: bool = False) -> float:
    loss = build_loss(name, batch_dice=batch_dice, outputs=1)
    return float(loss([torch.from_numpy(logits).float()], [torch.from_numpy(labels)[:, None]]))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_soft_dice_and_cross_entropy(problem: tuple[Array, npt.NDArray[np.int64]], batch_dice: bool) -> None:
    expected = cross_entropy(*problem) - soft_dice(*problem, batch=batch_dice)
    assert value("dice_ce", *problem, batch_dice=batch_dice) == pytest.approx(expected, abs=2e-6)


def test_generalised_dice_and_cross_entropy(problem: tuple[Array, npt.NDArray[np.int64]]) -> None:
    expected = cross_entropy(*problem) - generalised_dice(*problem)
    assert value("generalised_dice_ce", *problem) == pytest.approx(expected, abs=2e-6)


def test_deep_supervision_halves_the_weight_and_leaves_out_the_coarsest() -> None:
    loss = build_loss("dice_ce", batch_dice=False, outputs=5)
    assert loss.weight_factors == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])
