"""nnU-Net v2's model folders, and networks run by torch on a CPU, CUDA or MPS device.

Nothing else outside training imports torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import pydoc
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
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
from petlesion.io.jsonfile import load_json
from petlesion.model.bundle import file_sha256
from petlesion.model.plan import Plan, plan_from_nnunet, resolve_configuration

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_POLL_S = 0.1
_NETWORK_HOME = "dynamic_network_architectures."
_OPERATION_HOME = "torch.nn."
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # Apple's GPU, the processor
_FROM_NNUNET = "take it from the folder that nnU-Net trained into"


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
    """A network on a device: float32 arrays in and out.

    Raises MemoryError where the device has too little memory, ModelError where torch cannot go on.
    """

    def __init__(self, network: torch.nn.Module, device: str, precision: str) -> None:
        self._device = torch.device(device)
        with _in_one_sentence(self._device):
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
        with _in_one_sentence(self._device), torch.inference_mode(), self._arithmetic():
            # In the layout that convolutions are computed in, which spares torch to change it in each.
            patch = torch.from_numpy(patches).to(self._device, memory_format=torch.channels_last_3d)
            output = self._network(patch)
            return cast(Float, output.float().cpu().numpy())

    def release(self) -> None:
        """Give back the memory that torch keeps for a GPU's next call."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if not self._bfloat16:
            return _no_tf32()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Keep cuDNN from rounding float32 to ten bits of mantissa, which it does in convolutions by default."""
    former = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = former


@contextmanager
def _in_one_sentence(device: torch.device) -> Iterator[None]:
    """Turn what torch fails of on a device into MemoryError or ModelError."""
    try:
        yield
    except RuntimeError as error:
        full = isinstance(error, torch.cuda.OutOfMemoryError)
        if full or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise MemoryError(_reason(error)) from None
        raise ModelError(
            f"torch cannot run the network on {device} ({_reason(error)}); "
            "take another --device, or export the model and run the bundle"
        ) from None


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

    `folds`: their names ("0", "all"), of which each gives its final, else best, else latest checkpoint; None
    takes those that are no longer in training, or all where none is, and `all` only where it stands alone.
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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{next(iter(files.values()))} lacks or garbles {error}, which nnU-Net v2's checkpoints hold; "
            f"{_FROM_NNUNET}"
        ) from None
    try:
        plan = plan_from_nnunet(
            plans, dataset, configuration, mirror_axes=mirror_axes, orientation=orientation
        )
        settings = resolve_configuration(plans, configuration)
        networks = {fold: build_network(settings, plan) for fold in checkpoints}
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    for fold, network in networks.items():
        _load_weights(network, checkpoints[fold], files[fold])
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
        raise ModelError(f"{path} is no readable checkpoint ({_reason(error)}); copy it again") from None
    weights = checkpoint.get("network_weights") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise ModelError(
            f"{path} is no nnU-Net v2 checkpoint, as its network_weights are missing or not named; "
            f"{_FROM_NNUNET}"
        )
    return cast(dict[str, Any], checkpoint)


def build_network(settings: dict[str, Any], plan: Plan) -> torch.nn.Module:
    """Build the network that a configuration of nnU-Net's plans (of 2023 or later) describes.

    Raises ModelError for one that cannot be built.
    """
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # nnU-Net's of older plans, and of what it imports
            return _build_network(settings, plan)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # Networks fail in ways of their own of arguments that are none of theirs.
        raise ModelError(
            f"the network that plans.json describes cannot be built ({_reason(error)}); take plans.json from "
            "the folder that nnU-Net trained into, or a model with one of nnU-Net's own networks"
        ) from None


def _build_network(settings: dict[str, Any], plan: Plan) -> torch.nn.Module:
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
    if not str(name).startswith(_NETWORK_HOME):
        raise ModelError(
            f"plans.json names the network {name!r}, which is not one of nnU-Net's; "
            "take a model with one of nnU-Net's own networks"
        )
    for key in imports:
        value = configuration.network_arch_init_kwargs.get(key)
        if value is not None and not str(value).startswith(_OPERATION_HOME):
            raise ModelError(
                f"plans.json names {value!r} as the network's {key}, which is not one of torch's layers; "
                "take a model with one of nnU-Net's own networks"
            )
        if value is not None and not isinstance(pydoc.locate(value), type):  # nnU-Net would leave it out.
            raise ModelError(
                f"plans.json names {value!r} as the network's {key}, which torch does not have here; "
                "install the version of torch that trained the model"
            )


def _load_weights(network: torch.nn.Module, checkpoint: dict[str, Any], file: Path) -> None:
    weights = checkpoint["network_weights"]
    plain = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in weights.items()}
    try:
        network.load_state_dict(plain)
    except RuntimeError:
        raise ModelError(
            f"the weights in {file} do not fit the network that plans.json describes; "
            "take both from one folder that nnU-Net trained into"
        ) from None
    network.eval()


def _checkpoint_files(path: Path, folds: Sequence[str] | None) -> dict[str, Path]:
    names = list(folds) if folds is not None else _default_folds(path)
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


def _default_folds(path: Path) -> list[str]:
    there = available_folds(path)
    trained = [name for name in there if not _is_in_training(path / f"fold_{name}")] or there
    return [name for name in trained if name != "all"] or trained  # as stock nnU-Net, which leaves `all` out


def _is_in_training(fold: Path) -> bool:
    final, _, latest = ((fold / name).is_file() for name in _CHECKPOINTS)
    return latest and not final


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = load_json(path)
    except (OSError, ValueError):
        raise ModelError(
            f"{path} is missing or no JSON file, so that the folder is no nnU-Net v2 model; {_FROM_NNUNET}"
        ) from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} does not hold a JSON object; {_FROM_NNUNET}")
    return data


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).strip().partition("\n")[0] or type(error).__name__


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
