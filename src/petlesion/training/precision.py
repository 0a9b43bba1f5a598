"""How a network is computed on this machine: number format, memory layout, compiled or not."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from petlesion.errors import UsageError
from petlesion.experiments import Experiment
from petlesion.training.jsonfile import Json
from petlesion.training.nnunet import CONFIGURATION

DEVICES = ("auto", "cpu", "cuda")
Outputs = list[torch.Tensor]

# Compiling takes a processor about a minute and saves it a fifth of every iteration: it pays for itself in
# some hundreds of iterations on 64³ patches, counted here in voxels times features of the first stage.
_WORK_WORTH_COMPILING = 1e10

# glibc's mallopt: https://man7.org/linux/man-pages/man3/mallopt.3.html
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


@dataclass(frozen=True)
class Computation:
    """Device and number format of a training; `compiled` networks go through torch.compile."""

    device: torch.device
    autocast: torch.dtype | None = None
    compiled: bool = False

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients need nnU-Net's loss scaling: float16 has too few exponents for them."""
        return self.autocast is torch.float16

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, but for a processor that runs layer by layer: its normalisation is slow so."""
        plain = self.device.type == "cpu" and not self.compiled
        return torch.contiguous_format if plain else torch.channels_last_3d

    def describe(self) -> str:
        """One phrase for the log."""
        numbers = str(self.autocast or torch.float32).removeprefix("torch.")
        return f"{self.device.type}, {numbers}, {'compiled' if self.compiled else 'not compiled'}"


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu or cuda. Raises UsageError for one that is not there."""
    if name not in DEVICES:
        raise UsageError(f"there is no device {name!r}; choose {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is at hand; train with --device cpu, or install torch for CUDA")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda", 0) if cuda else torch.device("cpu")


def choose_computation(
    device: torch.device, experiment: Experiment, plan: Json, say: Callable[[str], None]
) -> Computation:
    """How to compute with an experiment's precision on a device; what is missing for it is said.

    auto is nnU-Net's mixed precision on CUDA, and on a processor bfloat16 if it has instructions for it.
    float32 on a processor is computed as nnU-Net does it, and never compiled.
    """
    autocast: torch.dtype | None = None
    if experiment.precision == "bfloat16":
        autocast = torch.bfloat16
    elif experiment.precision == "auto" and device.type == "cuda":
        autocast = torch.float16
    elif experiment.precision == "auto" and processor_has_bfloat16():
        autocast = torch.bfloat16
    worthwhile = device.type == "cuda" or (
        autocast is not None and _work(experiment, plan) > _WORK_WORTH_COMPILING
    )
    compiler = missing_compiler(device)
    if worthwhile and compiler:
        say(f"there is no {compiler}, so the network runs uncompiled and slower")
    return Computation(device, autocast, worthwhile and not compiler)


def processor_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers in hardware (AVX512-BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile needs for a device and does not find: a C++ compiler, or Triton for CUDA."""
    if device.type == "cuda":
        return None if torch.utils._triton.has_triton() else "Triton"
    names = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")
    return None if any(shutil.which(name) for name in names) else "C++ compiler"


def prepare_network(
    network: nn.Module, computation: Computation, say: Callable[[str], None]
) -> Callable[[torch.Tensor], Outputs]:
    """Move the network to its device in its memory format; return the function that runs it in training."""
    network.to(device=computation.device, memory_format=computation.memory_format)  # type: ignore[call-overload]
    return CompiledNetwork(network, say) if computation.compiled else network


class CompiledNetwork:
    """A network through torch.compile, which falls back to the network itself if compiling fails."""

    def __init__(self, network: nn.Module, say: Callable[[str], None]) -> None:
        self.network = network
        self._say = say
        # It warns, on a processor, that there is no CUDA.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        self._compiled: Any = torch.compile(network)
        self._proven = False

    def __call__(self, data: torch.Tensor) -> Outputs:
        """Run it; the first call compiles."""
        try:
            outputs: Outputs = self._compiled(data)
        except Exception as error:
            if self._proven:
                raise
            self._say(
                f"the network cannot be compiled ({type(error).__name__}), so it runs uncompiled and slower"
            )
            self._compiled = self.network
            outputs = self.network(data)
        self._proven = True
        return outputs


def prepare_device(device: torch.device) -> None:
    """Set, for the life of this process, what makes training faster on a device.

    On CUDA cuDNN times its algorithms and takes the fastest, as in nnU-Net's own training.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next iteration, for the life of this process.

    It gives arrays of this size back to the system otherwise, and a fifth of a processor's time goes into
    getting them anew, page by page. Nothing happens without glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 1 << 28)


def _work(experiment: Experiment, plan: Json) -> float:
    patch = plan["configurations"][CONFIGURATION]["patch_size"]
    patches = experiment.epochs * experiment.iterations * experiment.batch_size
    return float(patches * math.prod(patch) * experiment.base_features)
