"""A simulated whole-body PET/CT study from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from petlesion.errors import UsageError
from petlesion.simulate.anatomy import build_anatomy
from petlesion.simulate.body import BodyMap, Patient, draw_body_map, draw_patient, make_canvas
from petlesion.simulate.burden import draw_burden
from petlesion.simulate.deceivers import add_deceivers
from petlesion.simulate.scanner import Scanner, draw_scanner, scan_ct, scan_pet
from petlesion.simulate.shapes import Floats
from petlesion.simulate.tumours import add_lesions
from petlesion.simulate.uptake import draw_phantom
from petlesion.volume import Array, Study, Volume

AUTOPET_SPACING_MM = (3.0, 2.0364, 2.0364)
_FIELD_OF_VIEW_MM = 400 * 2.0364
_MARGIN_MM = 16.0
_STUDIES_PER_COHORT = 1_000_000
_OUTSIDE_CT_HU = -1024.0
# Lengths of autoPET's scans in mm and how often each occurs (shapes in the released fingerprint of 919).
_SCAN_LENGTHS_MM = (726.0, 852.0, 903.0, 978.0, 1104.0, 1731.0)
_SCAN_SHARES = (0.06, 0.26, 0.06, 0.44, 0.06, 0.12)


@dataclass(frozen=True)
class SimulationSettings:
    """What of a simulated study is fixed; everything else hangs on the seed.

    `spacing_mm` is (z, y, x). `slices` are drawn unless given; `field_of_view_mm` is that in the plane.
    Raises UsageError for values that cannot be.
    """

    spacing_mm: tuple[float, float, float] = AUTOPET_SPACING_MM
    slices: int | None = None
    field_of_view_mm: float = _FIELD_OF_VIEW_MM

    def __post_init__(self) -> None:
        if not all(1.0 <= step <= 12.0 for step in self.spacing_mm):
            raise UsageError(f"a spacing of {self.spacing_mm} mm cannot be simulated; give 1 to 12 mm")
        if self.slices is not None and not 8 <= self.slices <= 1200:
            raise UsageError(f"{self.slices} slices cannot be simulated; give 8 to 1200")
        if not 300 <= self.field_of_view_mm <= 1000:
            raise UsageError(f"a field of view of {self.field_of_view_mm} mm cannot be; give 300 to 1000 mm")


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated study, and what it was made from: `tissue` holds each voxel's Tissue without lesions."""

    study: Study
    tissue: Volume
    patient: Patient
    scanner: Scanner


def simulate(seed: int, settings: SimulationSettings | None = None) -> Study:
    """Simulate a study: PET in SUV, CT in HU and the true lesions (bool), in LPS on one grid.

    The same seed and settings give the same bytes. Raises UsageError for a negative seed.
    """
    return simulate_in_full(seed, settings).study


def simulate_in_full(seed: int, settings: SimulationSettings | None = None) -> Simulation:
    """Simulate a study as `simulate` does, and return what it was made from too."""
    if seed < 0:
        raise UsageError(f"the seed {seed} cannot be; give a whole number from 0")
    settings = settings or SimulationSettings()
    rngs = np.random.default_rng(seed).spawn(7)
    patient_rng, shape_rng, organ_rng, uptake_rng, deceiver_rng, lesion_rng, scan_rng = rngs
    patient = draw_patient(patient_rng)
    body = draw_body_map(patient, patient_rng)
    scanner = draw_scanner(scan_rng)
    field = _place_field(patient, body, settings, patient_rng)
    canvas = make_canvas(body, field.block_axes(), shape_rng)
    build_anatomy(canvas, patient, organ_rng)
    phantom = draw_phantom(canvas, uptake_rng, contrast=scanner.contrast)
    add_deceivers(phantom, patient, deceiver_rng)
    burden = draw_burden(seed, lesion_rng)
    truth = add_lesions(phantom, burden, scanner, lesion_rng)
    pet = scan_pet(phantom, scanner, scan_rng)
    ct = scan_ct(phantom, scanner, scan_rng)
    study = Study(
        name=study_name(seed),
        pet=field.whole(pet, _pet_background(field, scan_rng)),
        ct=_ct_volume(field, ct, scanner, scan_rng),
        reference=field.whole(truth, np.zeros(field.shape, dtype=bool)),
    )
    tissue = field.whole(canvas.tissue, np.zeros(field.shape, dtype=np.uint8))
    return Simulation(study, tissue, patient, scanner)


def study_seed(cohort_seed: int, number: int) -> int:
    """The seed of a cohort's study; cohorts of different seeds share no study."""
    return cohort_seed * _STUDIES_PER_COHORT + number


def study_name(seed: int) -> str:
    """The name of the study of a seed."""
    return f"simulated-{seed:07d}"


@dataclass(frozen=True)
class _Field:
    """The field of view, and the block of it (slices of y and x) in which the body lies."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    block: tuple[slice, slice]

    def axes(self) -> list[npt.NDArray[np.floating]]:
        """Patient mm of all voxels along x, y and z."""
        steps = self.spacing_mm[::-1]
        return [
            o + step * np.arange(n)
            for o, step, n in zip(self.origin_mm, steps, self.shape[::-1], strict=True)
        ]

    def block_axes(self) -> list[npt.NDArray[np.floating]]:
        """Patient mm along x, y and z of the voxels of the block."""
        x, y, z = self.axes()
        return [x[self.block[1]], y[self.block[0]], z]

    def whole(self, block: Array, background: Array) -> Volume:
        """The block's image put into the field's background."""
        background[:, self.block[0], self.block[1]] = block
        affine = np.diag([*self.spacing_mm[::-1], 1.0])
        affine[:3, 3] = self.origin_mm
        return Volume(background, affine)


def _place_field(
    patient: Patient, body: BodyMap, settings: SimulationSettings, rng: np.random.Generator
) -> _Field:
    """Choose which part of the patient is scanned, and the block that holds the body."""
    step_z, step_y, step_x = settings.spacing_mm
    length = float(rng.choice(_SCAN_LENGTHS_MM, p=_SCAN_SHARES))
    slices = settings.slices if settings.slices is not None else round(length / step_z)
    top = float(body.patient_z(np.array([rng.normal(815, 40)]))[0])
    if length > 1500:
        top = float(body.patient_z(np.array([rng.uniform(880, 930)]))[0])
    rows, columns = (round(settings.field_of_view_mm / step) for step in (step_y, step_x))
    shift_x, shift_y = rng.normal(0, 8), rng.normal(15, 20)
    origin = (
        -(columns - 1) / 2 * step_x + shift_x,
        -(rows - 1) / 2 * step_y + shift_y,
        top - slices * step_z,
    )
    grown = patient.fat_mm + _MARGIN_MM
    half_width = (215 + grown) if patient.arms_up else (275 + grown)
    widest = 1.1 * max(body.width.values)
    deepest = 1.1 * max(body.depth.values)
    y = _between(origin[1], step_y, rows, -(140 + grown) * deepest, (130 + grown) * deepest)
    x = _between(origin[0], step_x, columns, -half_width * widest, half_width * widest)
    return _Field((slices, rows, columns), settings.spacing_mm, origin, (y, x))


def _between(origin: float, step: float, count: int, low: float, high: float) -> slice:
    first = int(np.clip(np.ceil((low - origin) / step), 0, count - 2))
    last = int(np.clip(np.floor((high - origin) / step), first + 1, count - 1))
    return slice(first, last + 1)


def _pet_background(field: _Field, rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(field.shape, dtype=np.float32)
    np.abs(noise, out=noise)
    noise *= np.float32(0.008)
    return noise


def _ct_volume(field: _Field, block: Floats, scanner: Scanner, rng: np.random.Generator) -> Volume:
    """The CT in the field: air and the table around the body, nothing outside the CT's own field."""
    air = rng.standard_normal(field.shape, dtype=np.float32)
    air *= np.float32(6)
    air -= np.float32(1000)
    volume = field.whole(block, air)
    x, y, _ = field.axes()
    outside = x[None, :] ** 2 + (y[:, None] - y.mean()) ** 2 > (scanner.ct_field_mm / 2) ** 2
    volume.array[:, outside] = _OUTSIDE_CT_HU
    return volume
