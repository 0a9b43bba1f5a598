"""Peak memory of `petlesion segment` with the paper's network, and whether it grows from study to study.

    python benchmarks/memory.py [--slices 326 677] [--precision bfloat16 float32] [--tiles body full]
    python benchmarks/memory.py --studies 20

The first way segments simulated studies of 400 × 400 voxels with the paper's network (128³ patches,
32 … 320 features), each in a process of its own that also reads the images and writes the report. Tiles lie a
whole patch apart, which saves time and takes the same memory. The second segments so many copies of
a study in one process, with a smaller network, and prints each one's time and the memory in use after it.
Weights are random with a last bias that lets them find nothing: what many lesions take is measured by
benchmarks/report.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe

sys.path.insert(0, str(Path(__file__).parents[1]))  # the model folders are the tests' own

SPACING_MM = (3.0, 2.0364, 2.0364)
COARSE_MM = (6.0, 4.0728, 4.0728)
PAPER, SMALLER = (32, 64, 128, 256, 320, 320), (8, 16, 32, 64)
NOTHING = -20.0
SEED = 16


@dataclass(frozen=True)
class Outcome:
    """Of one process: seconds, highest memory in GB, and memory in use (GB) by study when it was finished."""

    seconds: float
    peak_gb: float
    finished: list[tuple[float, float]]


def write_study(folder: Path, spacing_mm: tuple[float, float, float], slices: int) -> None:
    """Simulate a study and write it as NIfTI."""
    from petlesion.io.nifti import write_volume
    from petlesion.simulation.study import SimulationSettings, simulate

    study = simulate(SEED, SimulationSettings(spacing_mm=spacing_mm, slices=slices))
    assert study.ct is not None
    write_volume(folder / "SUV.nii.gz", study.pet)
    write_volume(folder / "CTres.nii.gz", study.ct)
    print(f"study: {study.pet.shape} voxels", flush=True)


def write_bundle(folder: Path, features: tuple[int, ...], patch: int) -> Path:
    """Export a network with random weights."""
    from tests.inference.nnunet import Recipe, write_model_folder

    from petlesion.training.export import ExportRequest, export_model

    spacing = SPACING_MM if features == PAPER else COARSE_MM
    recipe = Recipe(patch=(patch, patch, patch), spacing=spacing, features=features)
    model = write_model_folder(folder / f"model-{patch}", recipe, bias=NOTHING)
    return export_model(ExportRequest([model]), folder / f"bundle-{patch}").path


def in_own_process(function: str, *arguments: object) -> None:
    """Run one of this file's functions in a process whose memory is not counted."""
    code = f"import memory; memory.{function}(*{arguments!r})"
    code = f"from pathlib import Path, PosixPath, WindowsPath; {code}"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)


def segment(studies: Path, bundle: Path, out: Path, *options: str) -> Outcome:
    """Run petlesion segment, and watch its memory whenever a study's folder has appeared."""
    command = [sys.executable, "-m", "petlesion", "segment", str(studies), "-m", str(bundle), "-o", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    finished: list[tuple[float, float]] = []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if len(list(out.glob("*/run.json"))) > len(finished):
            finished.append((time.perf_counter() - started, memory_in_use_gb(process.pid)))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "petlesion segment failed"
    return Outcome(time.perf_counter() - started, usage.ru_maxrss / 1e6, finished)


def memory_in_use_gb(pid: int) -> float:
    """What the process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def measure_peaks(work: Path, slices: list[int], precisions: list[str], windows: list[str]) -> None:
    """Print the highest memory of each length, precision and window."""
    in_own_process("write_bundle", work, PAPER, 128)
    for count in slices:
        study = work / f"study-{count}"
        in_own_process("write_study", study, SPACING_MM, count)
        for precision in precisions:
            for tiles in windows:
                options = ("--precision", precision, "--tiles", tiles, "--step", "1")
                found = segment(study, work / "bundle-128", work / f"{count}-{precision}-{tiles}", *options)
                print(
                    f"400 × 400 × {count}, {precision:8s} --tiles {tiles}: peak {found.peak_gb:.2f} GB "
                    f"({found.seconds:.0f} s)",
                    flush=True,
                )


def measure_growth(work: Path, studies: int) -> None:
    """Print time and memory after each of so many copies of a study."""
    in_own_process("write_bundle", work, SMALLER, 64)
    first = work / "studies" / "study-01"
    in_own_process("write_study", first, COARSE_MM, 163)
    for number in range(2, studies + 1):
        copy = work / "studies" / f"study-{number:02d}"
        copy.mkdir()
        for file in first.iterdir():
            os.link(file, copy / file.name)
    found = segment(work / "studies", work / "bundle-64", work / "out")
    ends, memory = zip(*found.finished, strict=True)
    seconds = np.diff((0.0, *ends))
    for number, (spent, used) in enumerate(zip(seconds, memory, strict=True), start=1):
        print(f"study {number:2d}: {spent:6.2f} s, {used:.2f} GB in use")
    middle = len(seconds) // 2
    early, late = np.median(seconds[1:middle]), np.median(seconds[middle:])
    print(f"median of studies 2 to {middle}: {early:.2f} s, of the rest: {late:.2f} s")
    print(
        f"in use after the second {memory[1]:.2f} GB, the last {memory[-1]:.2f} GB; peak {found.peak_gb:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[326, 677])
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--tiles", nargs="+", default=["body", "full"])
    parser.add_argument("--studies", type=int, help="segment so many copies of a study in one process")
    arguments = parser.parse_args()

    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        if arguments.studies:
            measure_growth(Path(name), arguments.studies)
        else:
            measure_peaks(Path(name), arguments.slices, arguments.precision, arguments.tiles)


if __name__ == "__main__":
    main()
