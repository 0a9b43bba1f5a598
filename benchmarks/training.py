"""Training steps beside stock nnU-Net's, in turns: iterations per second, and the loss on the same batches.

    python benchmarks/training.py [--iterations 200] [--patch 64] [--precision auto] [--device cpu]

nnU-Net's 3-D U-Net (32, 64, 128, 256, 320 features) takes batches of two patches. Stock is nnUNetTrainer's
own train_step, on a processor in float32, on CUDA compiled and in mixed precision. Each has a process of its
own and the other waits meanwhile. The loss is compared over the last quarter of the iterations.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np
from machine import describe

FEATURES = (32, 64, 128, 256, 320)
SUPERVISED = len(FEATURES) - 1
WARM_UP = 3


def make_batch(number: int, patch: int) -> dict[str, Any]:
    """Two channels of smooth noise, with a hot ball in the second where the label is."""
    import torch
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(number)
    noise = rng.normal(size=(2, 2, patch, patch, patch)).astype(np.float32)
    data = 3 * gaussian_filter(noise, (0, 0, 1.5, 1.5, 1.5)) + 0.5 * noise
    grid = np.indices((patch, patch, patch))
    labels = np.zeros((2, 1, patch, patch, patch), dtype=np.int16)
    for sample in range(2):
        centre = rng.uniform(0.2, 0.8, 3) * patch
        radius = rng.uniform(0.05, 0.15) * patch
        labels[sample, 0] = ((grid - centre[:, None, None, None]) ** 2).sum(0) <= radius**2
    data[:, 1] += rng.uniform(1, 4, (2, 1, 1, 1)) * labels[:, 0]
    targets = [torch.from_numpy(labels[..., :: 2**i, :: 2**i, :: 2**i].copy()) for i in range(SUPERVISED)]
    return {"data": torch.from_numpy(data), "target": targets}


def make_network() -> Any:
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    torch.manual_seed(0)
    stages = len(FEATURES)
    network = PlainConvUNet(
        input_channels=2,
        n_stages=stages,
        features_per_stage=FEATURES,
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        num_classes=2,
        n_conv_per_stage_decoder=[2] * (stages - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    return network.apply(network.initialize)


def stock_step(device: str) -> Any:
    """nnUNetTrainer.train_step on what its initialize and configure_optimizers would make."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from petlesion.training.losses import build_loss

    network = make_network().to(device).train()
    on_cuda = device == "cuda"
    torch.backends.cudnn.benchmark = on_cuda  # as nnU-Net's run_training has it
    stand_in = SimpleNamespace(
        device=torch.device(device),
        network=torch.compile(network) if on_cuda else network,
        optimizer=torch.optim.SGD(
            network.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True
        ),
        loss=build_loss("dice_ce", batch_dice=False, outputs=SUPERVISED),
        grad_scaler=torch.amp.GradScaler("cuda") if on_cuda else None,
    )
    return lambda batch: float(nnUNetTrainer.train_step(stand_in, batch)["loss"])


def our_step(patch: int, precision: str, device: str) -> Any:
    import torch

    from petlesion.experiments import Experiment
    from petlesion.training.learner import Learner
    from petlesion.training.losses import build_loss
    from petlesion.training.precision import choose_computation, prepare_device

    experiment = Experiment("benchmark", epochs=1000, learning_rate=0.01, precision=precision)
    plan = {"configurations": {"3d_fullres": {"patch_size": [patch] * 3}}}
    computation = choose_computation(torch.device(device), experiment, plan, print)
    prepare_device(torch.device(device))
    loss = build_loss("dice_ce", batch_dice=False, outputs=SUPERVISED)
    learner = Learner(make_network(), loss, experiment, computation, print)
    print(f"ours: {computation.describe()}", flush=True)
    learner.begin_epoch(0)
    return learner.train_step


def work(kind: str, patch: int, precision: str, device: str, pipe: Connection) -> None:
    """Take one step for each number that comes through the pipe; answer with seconds and loss."""
    step = stock_step(device) if kind == "stock" else our_step(patch, precision, device)
    while True:
        number = pipe.recv()
        if number is None:
            return
        batch = make_batch(number, patch)
        started = time.perf_counter()
        loss = step(batch)
        pipe.send((time.perf_counter() - started, loss))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for kind in ("stock", "ours"):
        pipes[kind], theirs = context.Pipe()
        arguments = (kind, options.patch, options.precision, options.device, theirs)
        context.Process(target=work, args=arguments, daemon=True).start()
    taken: dict[str, list[tuple[float, float]]] = {"stock": [], "ours": []}
    for number in range(options.iterations):
        for kind, pipe in pipes.items():
            pipe.send(number)
            taken[kind].append(pipe.recv())
        if (number + 1) % 20 == 0:
            seconds = ", ".join(f"{kind} {results[-1][0]:.2f} s" for kind, results in taken.items())
            print(f"iteration {number + 1}: {seconds}", flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    report({kind: np.array(results) for kind, results in taken.items()})


def report(taken: dict[str, np.ndarray]) -> None:
    stock, ours = taken["stock"], taken["ours"]
    seconds = {kind: float(np.median(results[WARM_UP:, 0])) for kind, results in taken.items()}
    ratios = stock[WARM_UP:, 0] / ours[WARM_UP:, 0]
    last = slice(len(stock) * 3 // 4, None)
    losses = {kind: float(results[last, 1].mean()) for kind, results in taken.items()}
    print(describe())
    for kind in taken:
        print(f"{kind:6s} {seconds[kind]:8.3f} s an iteration   {1 / seconds[kind]:6.3f} iterations a second")
    print(f"ours is {np.median(ratios):.2f} times as fast (median of {len(ratios)} pairs)")
    print(f"mean loss over iterations {last.start + 1} to {len(stock)}:", end=" ")
    difference = abs(losses["ours"] - losses["stock"]) / abs(losses["stock"])
    print(f"stock {losses['stock']:.4f}, ours {losses['ours']:.4f}, {difference:.2%} apart")


if __name__ == "__main__":
    main()
