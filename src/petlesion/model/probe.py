"""A made-up patch that a model is checked on: soft tissue, bone and air with hot spots of several sizes."""

from __future__ import annotations

import math
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from petlesion.errors import ModelError
from petlesion.model.bundle import Bundle
from petlesion.model.plan import CT, PET, Plan

PROBE_FILE = "probe.npz"

_SEED = 1
_SAMPLES = 10_000
# Centre (z, y, x) and radius in parts of the patch, SUV.
_BALLS = ((0.3, 0.4, 0.4, 0.05, 12.0), (0.5, 0.6, 0.5, 0.10, 6.0), (0.7, 0.45, 0.65, 0.03, 20.0))


def probe_images(plan: Plan) -> list[npt.NDArray[np.float32]]:
    """CT (HU) and PET (SUV) as the plan orders them, one patch large; the same on every machine.

    The balls lie in a cylinder of soft tissue with a rod of bone, in air.
    """
    random = np.random.RandomState(_SEED)  # whose stream NumPy promises to keep
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in plan.patch_size), indexing="ij")
    body = ((y - 0.5) / 0.4) ** 2 + ((x - 0.5) / 0.45) ** 2 <= 1
    bone = (y - 0.75) ** 2 + (x - 0.5) ** 2 <= 0.05**2
    ct = np.where(body, 40.0, -1000.0) + np.where(bone, 400.0, 0.0)
    ct += 15 * random.standard_normal(plan.patch_size)
    pet = np.where(body, 1.5 + 0.5 * np.sin(9 * z), 0.02)
    for ball_z, ball_y, ball_x, radius, suv in _BALLS:
        distance = np.sqrt((z - ball_z) ** 2 + (y - ball_y) ** 2 + (x - ball_x) ** 2)
        pet += suv / (1 + np.exp((distance - radius) / 0.01))
    pet *= np.exp(0.15 * random.standard_normal(plan.patch_size))
    images = {CT: ct.astype(np.float32), PET: pet.astype(np.float32)}
    return [images[channel] for channel in plan.channels]


def probe_sample(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The values at some 10,000 fixed places, which stand for all of them.

    They lie a number of voxels apart that shares no factor with the size, so that no column is left out.
    """
    stride = max(1, values.size // _SAMPLES)
    while math.gcd(stride, values.size) > 1:
        stride -= 1
    return values.ravel()[::stride].copy()


def read_samples(bundle: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    """Torch's answers to the probe in a bundle, by network. Raises ModelError where one is missing."""
    path = bundle.path / PROBE_FILE
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            samples = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile):
        raise ModelError(f"{path} is missing or unreadable; export the model again") from None
    missing = {network.stem for _, _, network in bundle.network_paths()} - set(samples)
    if missing:
        raise ModelError(f"{path} lacks the answer of {min(missing)}; export the model again")
    return samples
