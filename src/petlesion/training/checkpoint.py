"""Checkpoints that stock nnU-Net reads, with what is needed to go on as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from petlesion.errors import CohortError
from petlesion.io.atomic import atomic_file

LATEST_NAME = "checkpoint_latest.pth"
BEST_NAME = "checkpoint_best.pth"
FINAL_NAME = "checkpoint_final.pth"

Checkpoint = dict[str, Any]

# What each epoch brought: the entry that tells our checkpoints from stock nnU-Net's.
RECORDS = "records"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_file(path) as temporary:
        torch.save(checkpoint, temporary)


def load_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """Read a checkpoint of our own; nothing in it is executed.

    Raises CohortError for a file that is broken, holds more than data or is another program's, and OSError or
    an error of memory where that says nothing about the file.
    """
    checkpoint = _read(path, device)
    if checkpoint is None:
        raise CohortError(
            f"{path}: this checkpoint is broken, holds more than data or is not one of petlesion train; "
            f"{_remedy(path.with_name(BEST_NAME))}"
        )
    return checkpoint


def _read(path: Path, device: torch.device) -> Checkpoint | None:
    """A checkpoint, or None for a file that holds none from which a training can go on."""
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:
        return None
    return checkpoint if isinstance(checkpoint, dict) and RECORDS in checkpoint else None


def _remedy(best: Path) -> str:
    anew = "remove it to train this fold anew"
    if not best.exists() or _read(best, torch.device("cpu")) is None:
        return anew
    return f"copy {best.name} in its place to go on from there, or {anew}"


def duplicate(source: Path, target: Path) -> None:
    """Give a finished file a second name, without a second copy where the file system allows it."""
    with atomic_file(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def random_states(device: torch.device) -> dict[str, Any]:
    """The global random states of Python, NumPy and torch, as plain data."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    name, keys, position, has_gauss, cached = numpy
    return {
        "python": random.getstate(),
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the global random states to what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
