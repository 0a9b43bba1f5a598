"""nnU-Net v2's model folders, and networks run by torch on a CPU, CUDA or MPS device.

Nothing else outside training imports torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from petlesion.errors import ModelError, UsageError
from petlesion.inference.resampling import Float
from petlesion.model.bundle import file_sha256
from petlesion.model.plan import Plan, plan_from_nnunet, resolve_configuration

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_POLL_S = 0.1
_NETWORK_HOME = "dynamic_network_architectures."
_OPERATION_HOME = "torch.nn."


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """An nnU-Net v2 model folder: its plan, its networks by fold, and its JSON files as they are."""

    path: Path
    plan: Plan
    networks: dict[str, torch.nn.Module]
    weights_sha256: str
    plans: dict[str, Any]
    dataset: dict[str, Any]
    trainer: str
    configuration: str


class LogitDifference(torch.nn.Module):
    """A segmentation network whose output is each label's logit less the background's."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[batch, channel, z, y, x] -> [batch, label - 1, z, y, x]."""
        logits = self.network(image)
        return cast(torch.Tensor, logits[:, 1:] - logits[:, :1])


class TorchNetwork:
    """A network on a device: float32 arrays in and out."""

    def __init__(self, network: torch.nn.Module, device: str, precision: str) -> None:
        self._device = torch.device(device)
        self._network = LogitDifference(network).eval().to(self._device)
        self._bfloat16 = precision == "bfloat16"
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, patches: Float) -> Float:
        """[batch, channel, z, y, x] -> logits against the background's, [batch, label - 1, z, y, x]."""
        # In a thread of its own, so that Ctrl-C need not wait for the end of a patch.
        answer = self._thread.submit(self._run, patches)
        while not answer.done():
            wait([answer], timeout=_POLL_S)
        return answer.result()

    def _run(self, patches: Float) -> Float:
        with torch.inference_mode(), self._autocast():
            output = self._network(torch.from_numpy(patches).to(self._device))
        return cast(Float, output.float().cpu().numpy())

    def release(self) -> None:
        """Give back the memory that torch keeps for a GPU's next call."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._bfloat16:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def choose_device(device: str) -> str:
    """`auto` is CUDA or MPS where there is one, else the CPU. Raises UsageError for one that is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(device, False):
        there = ", ".join(name for name in available if available[name])
        raise UsageError(f"device {device!r} is not available here; choose auto or one of {there}")
    return device


def open_model_folder(
    path: Path, folds: Sequence[str] | None = None, orientation: str | None = None
) -> ModelFolder:
    """Load an nnU-Net v2 model folder: plans.json, dataset.json, fold_*/checkpoint_*.pth.

    `folds`: their names ("0", "all"); None takes all that have a final (else best, else latest) checkpoint.
    Raises ModelError for a folder that is incomplete or whose weights do not fit its plans.
    """
    plans, dataset = _read_json(path / "plans.json"), _read_json(path / "dataset.json")
    files = _checkpoint_files(path, folds)
    checkpoints = {fold: load_checkpoint(file) for fold, file in files.items()}
    first = next(iter(checkpoints.values()))
    try:
        configuration = str(first["init_args"]["configuration"])
        trainer = str(first["trainer_name"])
        mirror_axes = tuple(int(axis) for axis in first.get("inference_allowed_mirroring_axes") or ())
    except (KeyError, TypeError) as error:
        raise ModelError(f"the checkpoints in {path} are not nnU-Net v2's: they lack {error}") from None
    plan = plan_from_nnunet(plans, dataset, configuration, mirror_axes=mirror_axes, orientation=orientation)
    settings = resolve_configuration(plans, configuration)
    networks = {
        fold: _with_weights(build_network(settings, plan), checkpoint, path / f"fold_{fold}")
        for fold, checkpoint in checkpoints.items()
    }
    weights_sha256 = _sha256_of_all(files.values())
    return ModelFolder(path, plan, networks, weights_sha256, plans, dataset, trainer, configuration)


def weights_sha256(path: Path, folds: Sequence[str]) -> str:
    """The digest that `open_model_folder` gives of these folds. Raises ModelError where one is missing."""
    return _sha256_of_all(_checkpoint_files(path, folds).values())


def _sha256_of_all(files: Iterable[Path]) -> str:
    digests = "".join(file_sha256(file) for file in files)
    return hashlib.sha256(digests.encode()).hexdigest()


def available_folds(path: Path) -> list[str]:
    """Names of the folds of a model folder that have a checkpoint."""
    folders = [f for f in sorted(path.glob("fold_*")) if any((f / name).is_file() for name in _CHECKPOINTS)]
    return [folder.name.removeprefix("fold_") for folder in folders]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code that it brings along. Raises ModelError."""
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ModelError(
            f"{path} is no checkpoint, or holds more than weights and plain values and might run code; "
            "take it from a source that you trust"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is no readable checkpoint ({reason}); copy it again") from None
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        raise ModelError(f"{path} holds no nnU-Net v2 checkpoint: network_weights is missing")
    return checkpoint


def build_network(settings: dict[str, Any], plan: Plan) -> torch.nn.Module:
    """Build the network that a configuration of nnU-Net's plans (of 2023 or later) describes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected old nnU-Net plans format")
        configuration = ConfigurationManager(json.loads(json.dumps(settings)))
    imports = configuration.network_arch_init_kwargs_req_import
    _check_origin(configuration, imports)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        imports,
        input_channels=len(plan.channels),
        output_channels=len(plan.labels),
        allow_init=False,
        deep_supervision=False,
    )
    return cast(torch.nn.Module, network)


def _check_origin(configuration: Any, imports: Sequence[str]) -> None:
    """Refuse plans that name anything to be imported but networks and their layers."""
    name = configuration.network_arch_class_name
    if not name.startswith(_NETWORK_HOME):
        raise ModelError(f"plans.json names the network {name!r}, which is not one of nnU-Net's")
    for key in imports:
        value = configuration.network_arch_init_kwargs.get(key)
        if value is not None and not value.startswith(_OPERATION_HOME):
            raise ModelError(
                f"plans.json names {value!r} as the network's {key}, which is not one of torch's layers"
            )


def _with_weights(network: torch.nn.Module, checkpoint: dict[str, Any], fold: Path) -> torch.nn.Module:
    weights = checkpoint["network_weights"]
    plain = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in weights.items()}
    try:
        network.load_state_dict(plain)
    except RuntimeError:
        raise ModelError(f"the weights in {fold} do not fit the network that plans.json describes") from None
    return network.eval()


def _checkpoint_files(path: Path, folds: Sequence[str] | None) -> dict[str, Path]:
    names = list(folds) if folds is not None else available_folds(path)
    if not names:
        raise ModelError(f"{path} has no fold with a checkpoint; train one first")
    files = {}
    for name in names:
        candidates = [path / f"fold_{name}" / checkpoint for checkpoint in _CHECKPOINTS]
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise ModelError(
                f"{path} has no checkpoint of fold {name}; there are folds {available_folds(path)}"
            )
        files[str(name)] = found
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(
            f"{path} is missing or no JSON file, so that the folder is no nnU-Net v2 model"
        ) from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return data


def _allowed_globals() -> list[Any]:
    """NumPy's scalar, dtype and array reconstructors, by the names that NumPy 1 and 2 wrote; nothing else."""
    from numpy._core import multiarray

    reconstruct, scalar = multiarray._reconstruct, multiarray.scalar
    return [
        reconstruct,
        scalar,
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in np.typecodes["All"] if code not in "OV"},
    ]
