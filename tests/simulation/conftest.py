"""Reference adults that several test modules look into."""

from dataclasses import dataclass

import numpy as np
import pytest

from petlesion.simulation.anatomy import build_anatomy
from petlesion.simulation.body import BodyMap, Canvas, Patient, Profile, Tissue, make_canvas


@dataclass(frozen=True)
class Body:
    """Whose body it is, and the tissues; no test changes them."""

    patient: Patient
    canvas: Canvas

    def at(self, x: float, y: float, z: float) -> Tissue:
        """The tissue at a place in reference mm."""
        canvas = self.canvas
        away = (canvas.x - x) ** 2 + (canvas.y - y) ** 2 + (canvas.z - z) ** 2
        return Tissue(int(canvas.tissue.flat[int(away.argmin())]))

    def ml(self, *tissues: Tissue) -> float:
        """The volume of some tissues together."""
        return float(np.isin(self.canvas.tissue, tissues).sum() * self.canvas.voxel_volume_ml)


def reference_body() -> BodyMap:
    """The map of a patient who is the reference adult."""
    one, zero = Profile((0.0, 1.0), (1.0, 1.0)), Profile((0.0, 1.0), (0.0, 0.0))
    return BodyMap((-900.0, 900.0), (-900.0, 900.0), one, one, zero, zero)


def build(patient: Patient) -> Body:
    """Such a body on a grid of 5 mm, from above the head to the thighs."""
    rng = np.random.default_rng(2)
    axes = [np.arange(-310, 310, 5.0), np.arange(-180, 190, 5.0), np.arange(-110, 900, 5.0)]
    canvas = make_canvas(reference_body(), axes, rng)
    return Body(patient, build_anatomy(canvas, patient, rng))


@pytest.fixture(scope="session")
def woman() -> Body:
    return build(Patient("female", 1700.0, 24.0, 15.0, arms_up=True))


@pytest.fixture(scope="session")
def man() -> Body:
    return build(Patient("male", 1740.0, 33.0, 35.0, arms_up=False))
