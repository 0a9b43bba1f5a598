"""How computing is chosen, and that it falls back where compiling cannot be."""

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from petlesion.errors import UsageError
from petlesion.experiments import find_experiment, with_settings
from petlesion.training import precision
from petlesion.training.precision import (
    CompiledNetwork,
    Computation,
    choose_computation,
    choose_device,
    keep_freed_memory,
    prepare_network,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
LARGE = {"configurations": {"3d_fullres": {"patch_size": [128, 128, 128]}}}
SMALL = {"configurations": {"3d_fullres": {"patch_size": [16, 16, 16]}}}


def choose(device: torch.device, wanted: str, plan: Any = LARGE) -> tuple[Computation, list[str]]:
    said: list[str] = []
    experiment = with_settings(find_experiment("b"), [f"precision={wanted}", "iterations=10"])
    return choose_computation(device, experiment, plan, said.append), said


@pytest.fixture(autouse=True)
def _a_modern_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "missing_compiler", lambda device: None)


def test_a_processor_with_bfloat16_uses_it_and_compiles_a_long_training() -> None:
    assert choose(CPU, "auto") == (Computation(CPU, torch.bfloat16, compiled=True), [])
    assert choose(CPU, "auto", SMALL)[0] == Computation(CPU, torch.bfloat16, compiled=False)


def test_a_processor_without_bfloat16_computes_as_nnunet_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    assert choose(CPU, "auto")[0] == Computation(CPU, None, compiled=False)
    assert choose(CPU, "bfloat16")[0].autocast is torch.bfloat16


def test_float32_is_float32() -> None:
    assert choose(CPU, "float32")[0] == Computation(CPU, None, compiled=False)
    assert choose(CUDA, "float32")[0].autocast is None


def test_cuda_has_nnunets_mixed_precision_with_scaled_gradients() -> None:
    chosen = choose(CUDA, "auto", SMALL)[0]
    assert chosen == Computation(CUDA, torch.float16, compiled=True)
    assert chosen.scales_gradients
    assert not choose(CUDA, "bfloat16")[0].scales_gradients


def test_without_a_compiler_it_runs_uncompiled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "missing_compiler", lambda device: "C++ compiler")
    chosen, said = choose(CPU, "auto")
    assert not chosen.compiled
    assert said == ["there is no C++ compiler, so the network runs uncompiled and slower"]
    assert choose(CPU, "auto", SMALL)[1] == []


def test_a_compiler_is_looked_for_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert precision.missing_compiler(CPU) == "C++ compiler"


def test_the_layout_follows_what_computes() -> None:
    network = nn.Conv3d(2, 4, 3)
    prepare_network(network, Computation(CPU, torch.bfloat16, compiled=False), print)
    assert network.weight.is_contiguous()
    run = prepare_network(network, Computation(CPU, torch.bfloat16, compiled=True), print)
    assert network.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert isinstance(run, CompiledNetwork)


def test_a_network_that_cannot_be_compiled_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: nn.Module) -> Any:
        def run(data: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("the compiler crashed")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    said: list[str] = []
    network = nn.Conv3d(1, 1, 1)
    data = torch.ones(1, 1, 2, 2, 2)
    compiled = CompiledNetwork(network, said.append)
    for _ in range(2):
        assert torch.equal(torch.as_tensor(compiled(data)), network(data))
    assert said == ["the network cannot be compiled (RuntimeError), so it runs uncompiled and slower"]


def test_an_error_of_the_network_itself_is_not_hidden() -> None:
    compiled = CompiledNetwork(nn.Conv3d(1, 1, 1), lambda sentence: None)
    compiled._compiled = compiled.network
    with pytest.raises(RuntimeError):
        compiled(torch.ones(1, 3, 2, 2, 2))


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    with pytest.raises(UsageError, match="choose auto, cpu, cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(UsageError, match="no CUDA device"):
            choose_device("cuda")


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_glibc_is_told_to_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=told.__setitem__))
    keep_freed_memory()
    # M_TRIM_THRESHOLD never, M_TOP_PAD 256 MiB, M_MMAP_MAX none: man 3 mallopt.
    assert told == {-1: -1, -2: 1 << 28, -4: 0}


def test_without_glibc_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
