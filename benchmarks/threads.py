"""How far the number of threads moves a network's answer, and what it costs that in float32 it does not.

    python benchmarks/threads.py [--bundle BUNDLE] [--turns 3]

One patch of noise goes through a network (the paper's with random weights, on 128³ voxels, or the first of a
bundle) on one thread and on two: in float32 as petlesion runs it, with OpenVINO's own instance normalisation
in its place, and in bfloat16. All take turns. Prints the median seconds of each, and the largest difference
between one thread and two in logits and in probabilities.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from machine import describe

from petlesion.inference.backends import openvino as backend
from petlesion.inference.backends.openvino import OpenVinoNetwork
from petlesion.model.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parents[1]))  # the model folder is the tests' own

THREADS = (1, 2)
WAYS = ("float32", "float32, OpenVINO's own normalisation", "bfloat16")


def open_network(path: Path, way: str, threads: int) -> OpenVinoNetwork:
    precision = way.split(",", maxsplit=1)[0]
    if way == precision:
        return OpenVinoNetwork(path, precision, threads=threads)
    with mock.patch.object(backend, "_sum_in_blocks"):
        return OpenVinoNetwork(path, precision, threads=threads)


def papers_bundle(folder: Path) -> Path:
    from tests.inference.nnunet import Recipe, write_model_folder

    from petlesion.training.export import ExportRequest, export_model

    recipe = Recipe(patch=(128, 128, 128), features=(32, 64, 128, 256, 320, 320))
    return export_model(ExportRequest([write_model_folder(folder / "model", recipe)]), folder / "bundle").path


def timed(network: Callable[[np.ndarray], np.ndarray], patch: np.ndarray) -> tuple[float, np.ndarray]:
    before = time.perf_counter()
    logits = network(patch)
    return time.perf_counter() - before, logits


def measure(bundle: Path, turns: int) -> None:
    (member, *_), path = Bundle.open(bundle).members, next(Bundle.open(bundle).network_paths())[2]
    ways = WAYS if backend.computes_bfloat16() else WAYS[:2]
    networks = {(way, n): open_network(path, way, n) for way in ways for n in THREADS}
    shape = (1, len(member.plan.channels), *member.plan.patch_size)
    patch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in networks}
    logits = {}
    for _ in range(turns + 1):
        for key, network in networks.items():
            spent, logits[key] = timed(network, patch)
            seconds[key].append(spent)
    for way in ways:
        one, two = (float(np.median(seconds[way, n][1:])) for n in THREADS)
        apart = np.abs(logits[way, 1] - logits[way, 2]).max()
        probabilities = [1 / (1 + np.exp(-logits[way, n])) for n in THREADS]
        moved = np.abs(probabilities[0] - probabilities[1]).max()
        print(
            f"{way}: {one:.2f} s, on two threads {two:.2f} s; logits {apart:.1e}, probabilities {moved:.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        measure(arguments.bundle or papers_bundle(Path(name)), arguments.turns)


if __name__ == "__main__":
    main()
