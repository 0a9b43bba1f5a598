"""The memory that `petlesion challenge` takes at its highest, for a study of the challenge's usual size.

    python benchmarks/challenge.py BUNDLE [--slices 326] [--seed 10]

A simulated study of 400 × 400 voxels a slice is written as the challenge gives it, and segmented by the
command; each in a process of its own, as a process is taken to be as large as the one that started it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe, peak_memory_gb

LIMIT_GB = 30.0


def write_input(folder: Path, seed: int, slices: int) -> tuple[int, int, int]:
    from petlesion.io.nifti import write_volume
    from petlesion.simulation.study import SimulationSettings, simulate

    study = simulate(seed, SimulationSettings(slices=slices))
    assert study.ct is not None
    write_volume(folder / "images" / "pet" / "study.mha", study.pet)
    write_volume(folder / "images" / "ct" / "study.mha", study.ct)
    return study.pet.shape


def memory_of_challenge_gb(folder: Path, bundle: Path) -> float:
    """The highest resident memory of the command, in GB."""
    command = ["challenge", "--input", folder, "--output", folder / "out", "--model", bundle]
    process = subprocess.Popen([sys.executable, "-m", "petlesion", *map(str, command)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("petlesion challenge failed")
    return peak_memory_gb(usage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--slices", type=int, default=326)
    parser.add_argument("--seed", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            z, y, x = pool.apply(write_input, (Path(name), options.seed, options.slices))
        peak = memory_of_challenge_gb(Path(name), options.bundle)
    print(f"{describe()}\n{x} × {y} × {z}: {peak:.2f} GB at most (allowed: {LIMIT_GB:g})")


if __name__ == "__main__":
    main()
