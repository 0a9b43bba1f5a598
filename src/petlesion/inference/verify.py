"""Does a bundle still compute here what torch computed where it was made?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petlesion.errors import ModelError
from petlesion.inference.backends.openvino import computes_bfloat16, open_network
from petlesion.inference.predict import lesion_probability
from petlesion.inference.preprocessing import prepare
from petlesion.inference.resampling import Float
from petlesion.inference.tiling import Network
from petlesion.model.bundle import Bundle
from petlesion.model.plan import Plan
from petlesion.model.probe import probe_images, probe_sample, read_samples
from petlesion.volume import Mask

PROBABILITY_TOLERANCE = 1e-3
"""How far a bundle's probabilities may lie from torch's, in float32."""


@dataclass(frozen=True)
class NetworkCheck:
    """One network's answer to the probe, compared with torch's float32: largest difference in probability.

    What is said of bfloat16 compares it with float32 here, in all voxels of the probe (`bfloat16_dice` is
    None where both masks are empty); None on a processor without it.
    """

    network: str
    float32_difference: float
    bfloat16_difference: float | None
    bfloat16_dice: float | None


def probe_probability(network: Network, plan: Plan) -> Float:
    """Probability of a lesion in every voxel of the probe, as one network sees it, [z, y, x]."""
    data = prepare(probe_images(plan), plan.spacing_mm, plan).data
    return lesion_probability(network(data[None])[0], plan.lesion_channel)


def verify_bundle(bundle: Bundle) -> list[NetworkCheck]:
    """Run every network of a bundle on its probe. Raises ModelError where float32 is 1e-3 off or more."""
    samples = read_samples(bundle)
    return [
        _check(bundle.members[index].plan, path, samples[path.stem])
        for index, _, path in bundle.network_paths()
    ]


def _check(plan: Plan, path: Path, expected: Float) -> NetworkCheck:
    exact = probe_probability(open_network(path, plan, "float32"), plan)
    sample = probe_sample(exact)
    if sample.shape != expected.shape:
        raise ModelError(f"{path} was exported by another version of petlesion; export it again")
    difference = float(np.abs(sample - expected).max())
    if not difference <= PROBABILITY_TOLERANCE:  # nor is what is no number
        raise ModelError(
            f"{path} is {difference:.2g} off in probability from what it computed when it was exported; "
            "export it again with this version of OpenVINO"
        )
    if not computes_bfloat16():
        return NetworkCheck(path.name, difference, None, None)
    short = probe_probability(open_network(path, plan, "bfloat16"), plan)
    return NetworkCheck(
        network=path.name,
        float32_difference=difference,
        bfloat16_difference=float(np.abs(short - exact).max()),
        bfloat16_dice=_dice(exact > 0.5, short > 0.5),
    )


def _dice(first: Mask, second: Mask) -> float | None:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None
