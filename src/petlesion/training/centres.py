"""Voxels on which patches may be centred, drawn once for each case and kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from petlesion.io.atomic import atomic_file

VOXELS_PER_CASE = 5000

Voxels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Centres:
    """The voxels on which patches may be centred, case by case, as they lie on disk."""

    folder: Path

    def path(self, case_id: str) -> Path:
        """Where a case's voxels lie."""
        return self.folder / f"{case_id}.npz"

    def missing(self, case_ids: tuple[str, ...]) -> list[str]:
        """The cases of which no voxels are kept yet."""
        return [case_id for case_id in case_ids if not self.path(case_id).is_file()]

    def read(self, case_id: str) -> Voxels:
        """Voxels (number, 4) of the preprocessed array, behind a 0 for the channel, as nnU-Net has them."""
        voxels: Voxels = self._entry(case_id, "voxels")
        return voxels

    def weight_ml(self, case_id: str) -> float:
        """The sum of the weights of the case's voxels, each times its volume."""
        return float(self._entry(case_id, "weight_ml"))

    def write(self, case_id: str, voxels: Voxels, **weight_ml: float) -> None:
        """Keep a case's voxels (number, 3), whole or not at all, and `weight_ml` where cases are weighed."""
        channel = np.zeros((len(voxels), 1), dtype=np.int32)
        entries: dict[str, Any] = {"voxels": np.hstack([channel, voxels]), **weight_ml}
        with atomic_file(self.path(case_id)) as temporary:
            np.savez(temporary, **entries)

    def _entry(self, case_id: str, name: str) -> Any:
        with np.load(self.path(case_id)) as stored:
            return stored[name]


def draw_voxels(weights: npt.NDArray[np.float32], count: int, rng: np.random.Generator) -> Voxels:
    """Draw voxels (count, 3) of an array in proportion to their weights; none if nothing weighs anything."""
    heavy = np.flatnonzero(weights)
    if not heavy.size:
        return np.empty((0, weights.ndim), dtype=np.int32)
    cumulative = np.cumsum(weights.ravel()[heavy], dtype=np.float64)
    drawn = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    voxels = np.unravel_index(heavy[np.minimum(drawn, heavy.size - 1)], weights.shape)
    return np.stack(voxels, axis=1).astype(np.int32)


def case_generator(case_id: str, *entropy: int) -> np.random.Generator:
    """A generator for one case: the same whichever process draws, and in whatever order."""
    digest = hashlib.sha256(case_id.encode()).digest()
    return np.random.default_rng([*entropy, *np.frombuffer(digest, dtype="<u4").tolist()])
