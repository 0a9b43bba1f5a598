"""Scoring a pair of masks on disk, beside the way the challenge's script goes: one component after the other.

    python benchmarks/evaluation.py [--components 60]

Both read the same 400 × 400 × 326 files; the peer compares each component by `np.isin` over the whole image.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cc3d
import nibabel
import numpy as np
from machine import describe

from petlesion.io.nifti import read_mask, write_volume
from petlesion.overlap import evaluate_masks
from petlesion.volume import Volume

SHAPE, SPACING_XYZ = (326, 400, 400), (2.0364, 2.0364, 3.0)
BALL_RADII = (2, 9)
GAP = 24


def masks(components: int) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of as many separate balls; about two thirds of them meet."""
    rng = np.random.default_rng(0)
    places = np.argwhere(np.ones([n // GAP for n in SHAPE]))
    centres = places[rng.choice(len(places), 2 * components, replace=False)] * GAP + GAP // 2
    shared = 2 * components // 3
    reference, prediction = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for centre in centres[:components]:
        draw_ball(reference, centre, rng.integers(*BALL_RADII))
    for centre in [*(centres[:shared] + 1), *centres[components : 2 * components - shared]]:
        draw_ball(prediction, centre, rng.integers(*BALL_RADII))
    return prediction, reference


def draw_ball(mask: np.ndarray, centre: np.ndarray, radius: int) -> None:
    grid = np.indices((2 * radius + 1,) * 3) - radius
    box = tuple(slice(c - radius, c + radius + 1) for c in centre)
    mask[box] |= (grid**2).sum(axis=0) <= radius**2


def one_by_one(prediction: Path, reference: Path) -> tuple[float, float, float]:
    """Dice, false-positive and false-negative mL as autoPET's script computes them."""
    image = nibabel.load(reference)
    voxel_ml = float(np.prod(image.header.get_zooms())) / 1000
    truth = image.get_fdata().astype(bool)
    found = nibabel.load(prediction).get_fdata().astype(bool)

    def volume_of_missed(components_of: np.ndarray, other: np.ndarray) -> int:
        labels = cc3d.connected_components(components_of, connectivity=18)
        missed = 0
        for number in range(1, labels.max() + 1):
            component = np.isin(labels, number)
            if (component * other).sum() == 0:
                missed += component.sum()
        return missed

    dice = 2 * (truth * found).sum() / (truth.sum() + found.sum())
    false_positive = volume_of_missed(found, truth) * voxel_ml
    false_negative = volume_of_missed(truth, found) * voxel_ml
    return float(dice), float(false_positive), float(false_negative)


def ours(prediction: Path, reference: Path) -> tuple[float | None, float, float]:
    row = evaluate_masks(read_mask(prediction), read_mask(reference), "pair")
    return row.dice, row.false_positive_volume_ml, row.false_negative_volume_ml


def timed(work, *paths: Path, repeats: int) -> tuple[float, tuple]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work(*paths)
        times.append(time.perf_counter() - start)
    return min(times), result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--components", type=int, default=60, help="in each mask")
    components = parser.parse_args().components
    affine = np.diag([*SPACING_XYZ, 1.0])
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("prediction.nii.gz", "reference.nii.gz")]
        for path, mask in zip(paths, masks(components), strict=True):
            write_volume(path, Volume(mask, affine))
        ours_s, ours_result = timed(ours, *paths, repeats=3)
        peer_s, peer_result = timed(one_by_one, *paths, repeats=1)
    np.testing.assert_allclose(ours_result, peer_result, rtol=1e-6)
    print(f"{describe()}; {components} components each")
    print(f"petlesion   {ours_s:7.2f} s   {ours_result}")
    print(f"one by one  {peer_s:7.2f} s   {peer_result}")
    print(f"one by one / petlesion: {peer_s / ours_s:.0f} (at least 40 is wanted)")


if __name__ == "__main__":
    main()
