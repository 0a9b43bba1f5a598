"""Stock nnU-Net's predictor beside petlesion, on the same weights and the same study, one after the other.

    python benchmarks/inference.py [--small] [--model FOLDER] [--full-tiles] [--turns 3] [--device cpu]

The network is the paper's (128³ patches, 32 … 320 features, one fold, no mirroring) and the study a simulated
whole body on 400 × 400 × 326 voxels. --model takes a trained network in its place: the first fold of a run
or of any nnU-Net v2 model folder for CT and PET, in the patches and on the grid that it was trained with (not
of a bundle, which stock nnU-Net cannot read). Without it the weights are random, with a last bias that makes
one voxel in 200 of a patch a lesion: the hard case for agreement, as trained weights leave far fewer voxels
near to 0.5. Each way runs in a process of its own; times are from images in memory to a mask, networks
loaded. --small makes study and network small and takes two minutes. --turns lets the networks alone take
turns on so many patches in one process, on one thread each, and prints the processor's seconds of each patch
and of all tiles: what to expect where other programs disturb the clock. --device cuda runs both on a GPU,
petlesion from the model folder, since a bundle's networks run on the processor alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, peak_memory_gb

sys.path.insert(0, str(Path(__file__).parents[1]))  # the small model folders are the tests' own

FULL_SPACING_MM, SMALL_SPACING_MM = (3.0, 2.0364, 2.0364), (6.0, 4.0728, 4.0728)
MATRICES = (2048, 4096, 8192)
SEED = 16


@dataclass(frozen=True)
class Task:
    """What is predicted with what: a folder with study.npz and the bundle, a model folder, its fold."""

    folder: Path
    model: Path
    fold: str
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """Seconds from images to mask, seconds to load, highest memory in GB, network calls, and the mask."""

    seconds: float
    loading: float
    memory_gb: float
    calls: int
    mask: np.ndarray


def read_study(folder: Path) -> Any:
    from petlesion.volume import Study, Volume

    with np.load(folder / "study.npz") as file:
        pet, ct, affine = file["pet"], file["ct"], file["affine"]
    return Study("benchmark", Volume(pet, affine), Volume(ct, affine))


def stock(task: Task, precision: str) -> Outcome:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    study = read_study(task.folder)
    before = time.perf_counter()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(task.device), allow_tqdm=True)
    predictor.initialize_from_trained_model_folder(str(task.model), (task.fold,))
    loading = time.perf_counter() - before
    images = {"CT": study.ct, "PET": study.pet}
    names = predictor.dataset_json["channel_names"].values()
    data = np.stack([images[name].array for name in names])
    calls = Counter(predictor.network.forward)
    predictor.network.forward = calls
    before = time.perf_counter()
    mask = predictor.predict_single_npy_array(data, {"spacing": list(study.pet.spacing_mm)})
    lesion = predictor.dataset_json["labels"].get("lesion", 1)
    return Outcome(time.perf_counter() - before, loading, peak_memory_gb(), calls.count, mask == lesion)


class Counter:
    """Counts the calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.count = 0

    def __call__(self, *inputs: Any) -> Any:
        self.count += 1
        return self.function(*inputs)


def petlesion(task: Task, precision: str, tiles: str = "body") -> Outcome:
    from petlesion.inference.predict import PredictionSettings, load_model, predict

    study = read_study(task.folder)
    before = time.perf_counter()
    if task.device == "cpu":
        model = load_model(task.folder / "bundle", precision=precision)
    else:
        model = load_model(task.model, [task.fold], task.device, precision)
    loading = time.perf_counter() - before
    counts = [0]
    before = time.perf_counter()
    settings = PredictionSettings(tiles=tiles, mirror=False)
    prediction = predict(study, model, settings, lambda done, total: counts.append(total))
    mask = prediction.probability.array > 0.5
    return Outcome(time.perf_counter() - before, loading, peak_memory_gb(), counts[-1], mask)


def petlesion_full(task: Task, precision: str) -> Outcome:
    return petlesion(task, precision, "full")


def take_turns(task: Task, turns: int) -> None:
    """Print the processor's seconds that stock's network and ours take for a patch, and for their tiles."""
    tiles, patches = tiles_of(task, turns)
    spent = median_seconds(networks_of(task), patches)
    peer = spent.pop("stock nnU-Net")
    print(f"stock nnU-Net: {peer:.2f} s of the processor a patch, {peer * tiles['full']:.0f} s for all tiles")
    for name, seconds in spent.items():
        total = seconds * tiles["body"]
        print(
            f"{name}: {seconds:.2f} s a patch, {total:.0f} s for {tiles['body']} of {tiles['full']} tiles; "
            f"ratio {peer / seconds:.1f} a patch, {peer * tiles['full'] / total:.1f} in all"
        )


def networks_of(task: Task) -> dict[str, Callable[[np.ndarray], Any]]:
    """Stock's network, and ours in each precision that the processor has."""
    import torch

    from petlesion.inference.backends.openvino import OpenVinoNetwork
    from petlesion.inference.backends.torch import open_model_folder
    from petlesion.model.bundle import Bundle

    torch.set_num_threads(1)  # several that wait for each other count as work
    path = next(Bundle.open(task.folder / "bundle").network_paths())[2]
    network = open_model_folder(task.model, [task.fold]).networks[task.fold].eval().requires_grad_(False)
    return {
        "stock nnU-Net": lambda patch: network(torch.from_numpy(patch)),
        **{
            f"petlesion {precision}": OpenVinoNetwork(path, precision, threads=1)
            for precision in precisions()
        },
    }


def tiles_of(task: Task, turns: int) -> tuple[dict[str, int], list[np.ndarray]]:
    """How many tiles each window has, and the first patches of the body's."""
    from petlesion.inference.predict import PredictionSettings, load_model, prepare_study

    model, study = load_model(task.folder / "bundle", precision="float32"), read_study(task.folder)
    counts = {}
    for window in ("full", "body"):
        (part,) = prepare_study(study, model, PredictionSettings(window, mirror=False)).members
        counts[window] = len(part.window.tiles)
    tiles = part.window.tiles[:turns]
    return counts, [np.ascontiguousarray(part.padded[(slice(None), *tile)][None]) for tile in tiles]


def precisions(device: str = "cpu") -> tuple[str, ...]:
    """Those that a device computes in."""
    if device == "cuda":
        return ("float32", "bfloat16")
    from petlesion.inference.backends.openvino import computes_bfloat16

    return ("float32", "bfloat16") if computes_bfloat16() else ("float32",)


def median_seconds(
    networks: dict[str, Callable[[np.ndarray], Any]], patches: list[np.ndarray]
) -> dict[str, float]:
    """Median seconds of the processor that each network takes for a patch; a first round warms up."""
    spent: dict[str, list[float]] = {name: [] for name in networks}
    for patch in [patches[0], *patches]:
        for name, network in networks.items():
            before = time.process_time()
            network(patch)
            spent[name].append(time.process_time() - before)
    return {name: float(np.median(seconds[1:])) for name, seconds in spent.items()}


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def make_task(folder: Path, model: Path | None, device: str, small: bool) -> tuple[Task, float]:
    """Simulate the study, make or take the model, for a processor export its bundle; TFLOP of one patch."""
    import torch
    from tests.inference.nnunet import Recipe, write_model_folder
    from torch.utils.flop_counter import FlopCounterMode

    from petlesion.inference.backends.torch import open_model_folder
    from petlesion.simulation.study import SimulationSettings, simulate

    spacing = SMALL_SPACING_MM if small else FULL_SPACING_MM
    study = simulate(SEED, SimulationSettings(spacing_mm=spacing, slices=163 if small else 326))
    print(f"study: {study.pet.shape} voxels of {spacing} mm; {body_extent(study)}", flush=True)
    np.savez(folder / "study.npz", pet=study.pet.array, ct=study.ct.array, affine=study.pet.affine)
    if model is None:
        features = (16, 32, 64, 128) if small else (32, 64, 128, 256, 320, 320)
        recipe = Recipe(patch=(64,) * 3 if small else (128,) * 3, spacing=spacing, features=features)
        model = write_model_folder(folder / "model", recipe)
        set_bias(model, study)
    opened = open_model_folder(model)
    fold, network = next(iter(opened.networks.items()))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, len(opened.plan.channels), *opened.plan.patch_size))
    if device == "cpu":
        from petlesion.training.export import ExportRequest, export_model

        export_model(ExportRequest([model], folds=[fold]), folder / "bundle")
    return Task(folder, model, fold, device), counter.get_total_flops() / 1e12


def set_bias(model: Path, study: Any) -> None:
    """Choose the last layer's bias so that one voxel in 200 of the study's middle patches is a lesion."""
    import torch

    from petlesion.inference.backends.torch import open_model_folder
    from petlesion.inference.preprocessing import channel_arrays, prepare, transposed_spacing
    from petlesion.inference.tiling import all_tiles

    folder = open_model_folder(model)
    data = prepare(
        channel_arrays(study, folder.plan), transposed_spacing(study, folder.plan), folder.plan
    ).data
    z, y, x = data.shape[1:]
    tiles = all_tiles((z, y, x), folder.plan.patch_size, 0.5)
    fold, network = next(iter(folder.networks.items()))
    with torch.inference_mode():
        patch = torch.from_numpy(data[(slice(None), *tiles[len(tiles) // 2])])[None]
        logits = network(patch)[0]
        threshold = float(np.quantile((logits[1] - logits[0]).numpy(), 0.995))
    path = model / f"fold_{fold}" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)  # which this program has just written
    last = max(name for name in checkpoint["network_weights"] if "seg_layers" in name and "bias" in name)
    checkpoint["network_weights"][last][1] -= threshold
    torch.save(checkpoint, path)


def body_extent(study: Any) -> str:
    """Width and depth of what is tissue in the middle slice's largest piece, in cm."""
    from scipy import ndimage

    labels, _ = ndimage.label(study.ct.array[len(study.ct.array) // 2] > -300)
    largest = (labels == np.bincount(labels.ravel())[1:].argmax() + 1).astype(np.uint8)
    (rows, columns), (_, dy, dx) = ndimage.find_objects(largest)[0], study.pet.spacing_mm
    width, depth = (columns.stop - columns.start) * dx / 10, (rows.stop - rows.start) * dy / 10
    return f"body {width:.0f} × {depth:.0f} cm in its middle"


def matrix_ceiling(precision: str) -> float:
    """TFLOP/s of a plain product of large matrices by OpenVINO: the best of ten of each of three sizes."""
    return max(matrix_product(size, precision) for size in MATRICES)


def matrix_product(size: int, precision: str) -> float:
    import openvino
    from openvino import opset13 as ops

    left = ops.parameter([size, size], np.float32)
    right = ops.constant(np.full((size, size), 0.01, dtype=np.float32))
    model = openvino.Model([ops.matmul(left, right, False, False)], [left])
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    request = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    ones = np.ones((size, size), dtype=np.float32)
    seconds = []
    for _ in range(10):
        before = time.perf_counter()
        request.infer({0: ones}, share_inputs=True)
        seconds.append(time.perf_counter() - before)
    return 2 * size**3 / min(seconds) / 1e12


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else float("nan")


def report(name: str, outcome: Outcome, peer: Outcome, exact: Outcome | None) -> None:
    agreement = (outcome.mask == peer.mask).mean() * 100
    line = f"{name:28s} {outcome.seconds:8.1f} s {outcome.loading:6.1f} s {outcome.memory_gb:6.2f} GB "
    line += f"{outcome.calls:5d} {peer.seconds / outcome.seconds:7.1f} {agreement:9.4f} % "
    line += f"{dice(outcome.mask, peer.mask):7.4f}"
    if exact is not None:
        line += f" {dice(outcome.mask, exact.mask):7.4f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small study and network: two minutes")
    parser.add_argument(
        "--model", type=Path, help="a run or nnU-Net v2 model folder for CT and PET; its first fold"
    )
    parser.add_argument("--turns", type=int, help="time the networks alone, in turns, on so many patches")
    parser.add_argument("--full-tiles", action="store_true", help="run petlesion with nnU-Net's tiles too")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()

    print(describe())
    with tempfile.TemporaryDirectory() as name:
        task, flops = in_own_process(
            make_task, Path(name), arguments.model, arguments.device, arguments.small
        )
        print(f"one patch: {flops:.3f} TFLOP", flush=True)
        if arguments.turns:
            in_own_process(take_turns, task, arguments.turns)
            return
        peer = in_own_process(stock, task, "float32")
        columns = (
            "",
            "images to mask",
            "loading",
            "peak",
            "calls",
            "ratio",
            "same label",
            "Dice",
            "to exact",
        )
        print("{:28s} {:>10s} {:>8s} {:>9s} {:>5s} {:>7s} {:>11s} {:>7s} {:>8s}".format(*columns))
        report("stock nnU-Net", peer, peer, None)
        exact: Outcome | None = None
        for precision in precisions(task.device):
            if arguments.full_tiles:
                full = in_own_process(petlesion_full, task, precision)
                exact = exact or full
                report(f"petlesion {precision} full", full, peer, exact)
            found = in_own_process(petlesion, task, precision)
            exact = exact or found
            report(f"petlesion {precision} body", found, peer, exact)
            if task.device == "cuda":
                continue
            ceiling = in_own_process(matrix_ceiling, precision)
            reached = flops * found.calls / found.seconds
            print(f"    {reached:.2f} of {ceiling:.2f} TFLOP/s of a matrix product: {reached / ceiling:.0%}")


if __name__ == "__main__":
    main()
