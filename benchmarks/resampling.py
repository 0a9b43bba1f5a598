"""CT to the PET's grid, beside nilearn: time, memory and largest difference, one after the other.

    python benchmarks/resampling.py [--repeats 3]

A 512 × 512 × 400 CT of noise goes to a 400 × 400 × 326 PET, each way in a process of its own. Differences
are taken inside the CT, where nilearn interpolates too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe, peak_memory_gb

CT_SHAPE, CT_SPACING_XYZ = (400, 512, 512), (0.9765625, 0.9765625, 2.5)
PET_SHAPE, PET_SPACING_XYZ = (326, 400, 400), (2.0364, 2.0364, 3.0)
AIR_HU = -1024.0


def affine_of(spacing_xyz: tuple[float, float, float], shape: tuple[int, int, int]) -> np.ndarray:
    """Axes along LPS, the image's middle at the origin."""
    affine = np.diag([*spacing_xyz, 1.0])
    affine[:3, 3] = -0.5 * np.array(spacing_xyz) * (np.array(shape[::-1]) - 1)
    return affine


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 3000, CT_SHAPE).astype(np.float32)


def ours(repeats: int) -> tuple[float, np.ndarray]:
    from petlesion.resample import resample_to_grid
    from petlesion.volume import Grid, Volume

    ct = Volume(noise(), affine_of(CT_SPACING_XYZ, CT_SHAPE))
    pet = Grid(PET_SHAPE, affine_of(PET_SPACING_XYZ, PET_SHAPE))
    return best_of(repeats, lambda: resample_to_grid(ct, pet, fill=AIR_HU).array)


def nilearns(repeats: int) -> tuple[float, np.ndarray]:
    import nibabel
    from nilearn.image import resample_to_img

    ct = nibabel.Nifti1Image(noise().T, affine_of(CT_SPACING_XYZ, CT_SHAPE))
    pet = nibabel.Nifti1Image(np.zeros(PET_SHAPE[::-1], np.uint8), affine_of(PET_SPACING_XYZ, PET_SHAPE))

    def resample() -> np.ndarray:
        return np.asarray(resample_to_img(ct, pet, fill_value=AIR_HU, clip=False).dataobj).T

    return best_of(repeats, resample)


WAYS = {"petlesion": ours, "nilearn": nilearns}


def best_of(repeats: int, work) -> tuple[float, np.ndarray]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def measure(name: str, repeats: int, folder: Path) -> tuple[float, float]:
    """Seconds and the process's peak memory in GB; the result goes to a file."""
    seconds, result = WAYS[name](repeats)
    np.save(folder / f"{name}.npy", result)
    return seconds, peak_memory_gb()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many counts")
    repeats = parser.parse_args().repeats
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[way] = pool.apply(measure, (way, repeats, folder))
        a, b = (np.load(folder / f"{way}.npy") for way in WAYS)
        inside = (a != AIR_HU) & (b != AIR_HU)
        difference = float(np.abs(a - b)[inside].max())
        share = float(((a == AIR_HU) == (b == AIR_HU)).mean())
    print(f"{describe()}; best of {repeats}")
    for way, (seconds, gigabytes) in found.items():
        print(f"{way:10} {seconds:7.2f} s   peak {gigabytes:.2f} GB")
    print(f"nilearn / petlesion: {found['nilearn'][0] / found['petlesion'][0]:.1f} (at least 3 is wanted)")
    print(
        f"largest difference inside: {difference:.5f} HU over {inside.sum()} voxels; same edge: {share:.4%}"
    )


if __name__ == "__main__":
    main()
