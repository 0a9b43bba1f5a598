"""nnU-Net's preprocessing beside petlesion's where a study must be resampled: time and largest difference.

    python benchmarks/preprocessing.py [--small]

CT and PET of a simulated whole body (2.04 × 2.04 × 3 mm, 400 × 400 × 326 voxels) go to a plan of 2.6 mm, as
the network's input, and a map of logits comes back; each from arrays in memory to arrays in memory. The
processor's seconds are printed too: other programs disturb them less than the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

sys.path.insert(0, str(Path(__file__).parents[1]))  # the plans are the tests' own

PLAN_SPACING_MM = (2.6, 2.6, 2.6)


@dataclass(frozen=True)
class Timed:
    """What work gave, and its seconds by the clock and of the processor."""

    result: Any
    clock: float
    processor: float


def timed(work: Callable[[], Any]) -> Timed:
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return Timed(result, time.perf_counter() - clock, time.process_time() - processor)


def report(what: str, stock: Timed, ours: Timed) -> None:
    difference = float(np.abs(stock.result - ours.result).max())
    print(f"{what}: largest difference {difference:.1e}")
    for measure in ("clock", "processor"):
        peer, own = getattr(stock, measure), getattr(ours, measure)
        times = f"nnU-Net {peer:7.2f} s   petlesion {own:6.2f} s   ratio {peer / own:6.1f}"
        print(f"    {measure:9s}  {times}", flush=True)


def main() -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from tests.inference.nnunet import Recipe, dataset_of, plans_of

    from petlesion.inference.preprocessing import channel_arrays, prepare, restore, transposed_spacing
    from petlesion.model.plan import plan_from_nnunet
    from petlesion.simulation.study import SimulationSettings, simulate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a study of a quarter of the slices")
    slices = 82 if parser.parse_args().small else 326
    study = simulate(1, SimulationSettings(slices=slices))
    recipe = Recipe(spacing=PLAN_SPACING_MM)
    plans, dataset = plans_of(recipe), dataset_of(recipe)
    plan = plan_from_nnunet(plans, dataset, "3d_fullres")
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    spacing = transposed_spacing(study, plan)
    properties = {"spacing": list(spacing)}
    data = np.stack(channel_arrays(study, plan))
    print(f"{describe()}; {study.pet.shape} voxels of {spacing} mm to {PLAN_SPACING_MM} mm")

    preprocessor = DefaultPreprocessor(verbose=False)
    stock = timed(
        lambda: preprocessor.run_case_npy(data, None, properties, manager, configuration, dataset)[0]
    )
    ours = timed(lambda: prepare(channel_arrays(study, plan), spacing, plan))
    prepared = ours.result
    report("preparing", stock, replace(ours, result=prepared.data))

    logits = np.random.default_rng(0).normal(size=(1, *prepared.data.shape[1:])).astype(np.float32)
    back = configuration.resampling_fn_probabilities
    pair = np.concatenate([np.zeros_like(logits), logits])
    stock = timed(lambda: back(pair, prepared.cropped_shape, plan.spacing_mm, spacing)[1])
    report("logits back", stock, timed(lambda: restore(logits, prepared, plan, -100.0)[0][prepared.crop]))


if __name__ == "__main__":
    main()
