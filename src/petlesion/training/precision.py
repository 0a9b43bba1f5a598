"""How a network is computed on this machine: number format, memory layout, compiled or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from petlesion.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Computation:
    """Device and number format of a training; `compiled` networks go through torch.compile."""

    device: torch.device
    autocast: torch.dtype | None
    compiled: bool

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients need nnU-Net's loss scaling: float16 has too few exponents for them."""
        return self.autocast is torch.float16

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


def choose_computation(device: torch.device, precision: str) -> Computation:
    """How to compute with `precision` (auto, float32, bfloat16) on a device.

    auto is nnU-Net's mixed precision on CUDA, and on a processor bfloat16 if it has instructions for it.
    """
    autocast: torch.dtype | None = None
    if precision == "bfloat16":
        autocast = torch.bfloat16
    elif precision == "auto" and device.type == "cuda":
        autocast = torch.float16
    elif precision == "auto" and processor_has_bfloat16():
        autocast = torch.bfloat16
    return Computation(device, autocast, device.type == "cuda" and can_compile(device))


def processor_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: a C++ compiler for processors, Triton for CUDA."""
    if device.type == "cuda":
        return bool(torch.utils._triton.has_triton())
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "c++"))


def prepare_network(
    network: nn.Module, computation: Computation
) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """Lay the network's weights out channels-last in place; return the function that runs it."""
    network.to(device=computation.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return torch.compile(network) if computation.compiled else network
