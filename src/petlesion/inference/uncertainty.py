"""How sure an ensemble is of each voxel, from the probabilities that its passes give it.

A pass is one network (a fold of a member) under one mirroring. With p_k the lesion probability of pass k, p
the passes' mean, by their members' weights, and H(p) = −p log2 p − (1 − p) log2(1 − p):

    predictive entropy    H(p)                 how unsure the ensemble is
    mutual information    H(p) − mean H(p_k)   the part of it in which the passes disagree

Both are in bits, from 0 to 1; the second is never above the first (Houlsby et al. 2011, arXiv:1112.5745;
Depeweg et al., ICML 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from petlesion.inference.resampling import Float
from petlesion.volume import Grid, Volume

_NOTHING = 1e-7


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Predictive entropy and mutual information in bits (float32, 0 to 1), and of how many passes."""

    entropy: Volume
    mutual_information: Volume
    passes: int


class PassSums:
    """Sums over the passes of an ensemble: two arrays in memory, however many passes there are."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._probability: Float = np.zeros(grid.shape, dtype=np.float32)
        self._entropy: Float = np.zeros(grid.shape, dtype=np.float32)
        self._weight = 0.0
        self._passes = 0

    def add(self, probability: Float, weight: float = 1.0) -> None:
        """Take in a pass: its lesion probability in every voxel of the grid, in the grid's axes."""
        self._probability += np.float32(weight) * probability
        self._entropy += np.float32(weight) * binary_entropy(probability)
        self._weight += weight
        self._passes += 1

    def uncertainty(self) -> Uncertainty:
        """What the passes so far amount to; at least one must have been added."""
        weight = np.float32(self._weight)
        entropy = binary_entropy(self._probability / weight)
        information = np.clip(entropy - self._entropy / weight, 0, 1)
        affine = self._grid.affine
        return Uncertainty(Volume(entropy, affine), Volume(information, affine), self._passes)


def binary_entropy(probability: Float) -> Float:
    """Entropy in bits of each probability; 0 at 0 and 1, 1 at 0.5.

    What is less than a ten-millionth from 0 or 1, as nearly all of a study is, counts as 0 or 1.
    """
    entropy = np.zeros(probability.shape, dtype=np.float32)
    unsure = (probability > _NOTHING) & (probability < 1 - _NOTHING)
    values = probability[unsure]
    entropy[unsure] = (entr(values) + entr(1 - values)) / math.log(2)
    return entropy
