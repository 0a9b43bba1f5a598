"""Peak memory of `petlesion segment` with the paper's network, and whether it grows from study to study.

    python benchmarks/memory.py [--slices 326 677] [--precision bfloat16 float32] [--tiles body full]
        [--batch 2]
    python benchmarks/memory.py --first-tile
    python benchmarks/memory.py --studies 20

The first way segments simulated studies of 400 × 400 voxels with the paper's network (128³ patches,
32 … 320 features), each in a process of its own that also reads the images and writes the report. Tiles lie a
whole patch apart, which saves time and takes the same memory. The CT has 512 × 512 voxels of its own; with
--batch so many copies of a study are segmented in one process. With --first-tile the network computes the
first tile alone and finds nothing in the others, and no report is written: quicker still. The last way
segments so many copies of a small study in one process, with a small network, and prints what each one took,
in seconds and in seconds of the processor, which other programs disturb less, and the memory in use after it.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, peak_memory_gb

from petlesion.volume import Grid

sys.path.insert(0, str(Path(__file__).parents[1]))  # the model folders are the tests' own

SPACING_MM = (3.0, 2.0364, 2.0364)
COARSE_MM, COARSE_SLICES = (8.0, 8.0, 8.0), 120
PAPER, SMALL = (32, 64, 128, 256, 320, 320), (8, 16, 32)
NOTHING = -20.0
SEED = 16


@dataclass(frozen=True)
class Outcome:
    """Of one process: seconds, highest memory in GB, and its state whenever a study was finished.

    A state holds the seconds since the start, the processor's seconds, and the memory in use in GB.
    """

    seconds: float
    peak_gb: float
    states: list[tuple[float, float, float]]


def write_study(folder: Path, spacing_mm: tuple[float, float, float], slices: int) -> None:
    """Simulate a study and write it as NIfTI."""
    from petlesion.io.nifti import write_volume
    from petlesion.resample import resample_to_grid
    from petlesion.simulation.study import SimulationSettings, simulate

    study = simulate(SEED, SimulationSettings(spacing_mm=spacing_mm, slices=slices))
    assert study.ct is not None
    ct = resample_to_grid(study.ct, ct_grid(study.ct.grid), fill=-1024, order=1)
    write_volume(folder / "SUV.nii.gz", study.pet)
    write_volume(folder / "CT.nii.gz", ct.with_array(ct.array.astype(np.int16)))
    print(f"study: PET {study.pet.shape}, CT {ct.shape} voxels", flush=True)


def ct_grid(grid: Grid) -> Grid:
    """The same field of view on 512 voxels in a row where the PET has 400."""
    slices, *in_plane = grid.shape
    finer = np.eye(4)
    finer[[0, 1], [0, 1]] = 400 / 512
    finer[[0, 1], 3] = (400 / 512 - 1) / 2
    rows, columns = (round(size * 512 / 400) for size in in_plane)
    return Grid((slices, rows, columns), grid.affine @ finer)


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
    process = subprocess.Popen([*command, *options])
    states: list[tuple[float, float, float]] = []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if len(list(out.glob("*/run.json"))) > len(states):
            states.append((time.perf_counter() - started, *processor_and_memory(process.pid)))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "petlesion segment failed"
    return Outcome(time.perf_counter() - started, peak_memory_gb(usage), states)


def processor_and_memory(pid: int) -> tuple[float, float]:
    """Seconds of the processor that a process has taken, and GB that it holds now."""
    folder = Path(f"/proc/{pid}")
    ticks = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e9


class FirstTileOnly:
    """A network that computes its first patch alone and finds nothing in the others."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.empty: np.ndarray | None = None

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Run the network, or not."""
        if self.empty is not None:
            return self.empty.copy()
        output: np.ndarray = self.network(patches)
        self.empty = np.full_like(output, NOTHING)
        return output

    def release(self) -> None:
        """Give back the memory of the layers' values."""
        self.network.release()


def predict_first_tile(study: Path, bundle: Path, precision: str, tiles: str) -> None:
    """Predict a study with a network that computes one tile, and print this process's highest memory."""
    from petlesion.inference.predict import PredictionSettings, load_model, predict
    from petlesion.pipeline import read_study

    model = load_model(bundle, precision=precision)
    (member,) = model.members
    networks = {fold: FirstTileOnly(network) for fold, network in member.networks.items()}
    model = replace(model, members=(replace(member, networks=networks),))
    predict(read_study(study), model, PredictionSettings(tiles))
    peak_gb = peak_memory_gb()
    print(
        f"{study.parent.name}, {precision:8s} --tiles {tiles}: peak {peak_gb:.2f} GB in prediction",
        flush=True,
    )


def copy_study(first: Path, studies: int) -> None:
    """Put copies of a study beside it until there are so many."""
    for number in range(2, studies + 1):
        copy = first.with_name(f"study-{number:02d}")
        copy.mkdir()
        for file in first.iterdir():
            os.link(file, copy / file.name)


def measure_peaks(work: Path, arguments: argparse.Namespace) -> None:
    """Print the highest memory of each length, precision and window."""
    in_own_process("write_bundle", work, PAPER, 128)
    for count in arguments.slices:
        study = work / f"studies-{count}" / "study-01"
        in_own_process("write_study", study, SPACING_MM, count)
        copy_study(study, arguments.batch)
        for precision in arguments.precision:
            for tiles in arguments.tiles:
                if arguments.first_tile:
                    in_own_process("predict_first_tile", study, work / "bundle-128", precision, tiles)
                    continue
                options = ("--precision", precision, "--tiles", tiles, "--step", "1")
                found = segment(
                    study.parent, work / "bundle-128", work / f"{count}-{precision}-{tiles}", *options
                )
                print(
                    f"400 × 400 × {count}, {precision:8s} --tiles {tiles}: peak {found.peak_gb:.2f} GB "
                    f"({found.seconds:.0f} s)",
                    flush=True,
                )


def measure_growth(work: Path, studies: int) -> None:
    """Print time and memory after each of so many copies of a study."""
    in_own_process("write_bundle", work, SMALL, 32)
    first = work / "studies" / "study-01"
    in_own_process("write_study", first, COARSE_MM, COARSE_SLICES)
    copy_study(first, studies)
    found = segment(work / "studies", work / "bundle-32", work / "out")
    ends, processor, memory = (np.array(values) for values in zip(*found.states, strict=True))
    seconds, worked = np.diff(ends, prepend=0), np.diff(processor, prepend=0)
    for number, facts in enumerate(zip(seconds, worked, memory, strict=True), start=1):
        print("study {:2d}: {:6.2f} s, {:6.2f} s of the processor, {:.3f} GB in use".format(number, *facts))
    middle = len(worked) // 2
    early, late = np.median(worked[1:middle]), np.median(worked[middle:])
    print(f"median of studies 2 to {middle}: {early:.2f} s of the processor, of the rest: {late:.2f} s")
    print(
        f"in use after the second {memory[1]:.3f} GB, the last {memory[-1]:.3f} GB; peak {found.peak_gb:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[326, 677])
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--tiles", nargs="+", default=["body", "full"])
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="segment so many copies of each")
    parser.add_argument("--first-tile", action="store_true", help="predict, computing the first tile alone")
    parser.add_argument("--studies", type=int, help="segment so many copies of a study in one process")
    arguments = parser.parse_args()

    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        if arguments.studies:
            measure_growth(Path(name), arguments.studies)
        else:
            measure_peaks(Path(name), arguments)


if __name__ == "__main__":
    main()
