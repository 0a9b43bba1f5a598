"""A simulated whole-body PET/CT study from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petlesion._version import __version__
from petlesion.errors import UsageError
from petlesion.simulation.anatomy import build_anatomy
from petlesion.simulation.body import Canvas, Patient, draw_body_map, draw_patient, make_canvas
from petlesion.simulation.burden import draw_burden
from petlesion.simulation.deceivers import add_deceivers
from petlesion.simulation.field_of_view import FieldOfView, field_of_masks, place_field
from petlesion.simulation.masks import (
    find_masks,
    fit_body,
    fit_patient,
    masks_digest,
    place_organs,
    read_masks,
)
from petlesion.simulation.metal import add_metal
from petlesion.simulation.scanner import (
    Scanner,
    ct_surroundings,
    draw_scanner,
    pet_surroundings,
    scan_ct,
    scan_pet,
)
from petlesion.simulation.tumours import add_lesions
from petlesion.simulation.uptake import draw_phantom, keep_to_dose
from petlesion.volume import Study, Volume

# To be raised when a seed no longer gives the bytes that it gave.
REVISION = 2
AUTOPET_SPACING_MM = (3.0, 2.0364, 2.0364)
_FIELD_OF_VIEW_MM = 400 * 2.0364
_STUDIES_PER_COHORT = 1_000_000
_PREFIX = "simulated-"
_LONGEST_SCAN_MM = 1731.0
_BYTES_PER_VOXEL, _MOST_GB = 35, 8.0  # as measured: 1.8 GB for 400 × 400 × 326 voxels


@dataclass(frozen=True)
class SimulationSettings:
    """What of a simulated study is fixed; everything else hangs on the seed.

    `spacing_mm` is (z, y, x). `slices` are drawn unless given; `field_of_view_mm` is that in the plane. With
    `organs`, a folder of organ masks (see masks.py), each study has the organs of one of them.
    Raises UsageError for values that cannot be, for more voxels than memory holds and for a folder without
    masks.
    """

    spacing_mm: tuple[float, float, float] = AUTOPET_SPACING_MM
    slices: int | None = None
    field_of_view_mm: float = _FIELD_OF_VIEW_MM
    organs: Path | None = None

    def __post_init__(self) -> None:
        if not all(1.0 <= step <= 12.0 for step in self.spacing_mm):
            raise UsageError(f"a spacing of {self.spacing_mm} mm cannot be simulated; give 1 to 12 mm")
        if self.slices is not None and not 8 <= self.slices <= 1200:
            raise UsageError(f"{self.slices} slices cannot be simulated; give 8 to 1200")
        if not 300 <= self.field_of_view_mm <= 1000:
            raise UsageError(f"a field of view of {self.field_of_view_mm} mm cannot be; give 300 to 1000 mm")
        if self.memory_gb > _MOST_GB:
            raise UsageError(
                f"a spacing of {self.spacing_mm} mm would need about {self.memory_gb:.0f} GB of memory; "
                "give larger voxels or a smaller field of view"
            )
        if self.organs is not None:
            find_masks(self.organs)

    @property
    def memory_gb(self) -> float:
        """About what it takes to simulate the longest study."""
        z, y, x = self.spacing_mm
        slices = self.slices or _LONGEST_SCAN_MM / z
        return slices * self.field_of_view_mm**2 / (y * x) * _BYTES_PER_VOXEL / 1e9

    def as_json(self) -> dict[str, Any]:
        """What a study's bytes hang on beside its seed, as JSON can hold it."""
        return {
            "petlesion": __version__,
            "simulator": REVISION,
            "spacing_mm": list(self.spacing_mm),
            "slices": self.slices,
            "field_of_view_mm": self.field_of_view_mm,
            "organs_sha256": None if self.organs is None else masks_digest(self.organs),
        }


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
    # A generator for each part, so that a change in one leaves the others as they were.
    body_rng, field_rng, uptake_rng, deceiver_rng, lesion_rng, scan_rng = np.random.default_rng(seed).spawn(6)
    scanner = draw_scanner(scan_rng)
    patient, field, canvas = _make_body(seed, settings, body_rng, field_rng)
    phantom = draw_phantom(canvas, uptake_rng, contrast=scanner.contrast)
    add_deceivers(phantom, patient, deceiver_rng)
    truth = add_lesions(phantom, draw_burden(seed, lesion_rng), scanner, lesion_rng)
    keep_to_dose(phantom, patient.weight_kg, truth)
    add_metal(phantom, patient, scan_rng)
    pet = scan_pet(phantom, scanner, scan_rng)
    ct = scan_ct(phantom, scanner, scan_rng)
    tissue = field.whole(canvas.tissue, np.zeros(field.shape, dtype=np.uint8))
    study = Study(
        name=study_name(seed),
        pet=field.whole(pet, pet_surroundings(field.shape, scan_rng)),
        ct=ct_surroundings(
            field.whole(ct, np.full(field.shape, -1000, np.float32)), tissue, scanner, scan_rng
        ),
        reference=field.whole(truth, np.zeros(field.shape, dtype=bool)),
    )
    return Simulation(study, tissue, patient, scanner)


def study_seed(cohort_seed: int, number: int) -> int:
    """The seed of a cohort's study; cohorts of different seeds share no study."""
    return cohort_seed * _STUDIES_PER_COHORT + number


def study_name(seed: int) -> str:
    """The name of the study of a seed."""
    return f"{_PREFIX}{seed:07d}"


def is_of_cohort(name: str, cohort_seed: int) -> bool:
    """Whether a name is that of a study of a cohort's seed."""
    number = name.removeprefix(_PREFIX)
    return number != name and number.isdecimal() and int(number) // _STUDIES_PER_COHORT == cohort_seed


def _make_body(
    seed: int, settings: SimulationSettings, body_rng: np.random.Generator, field_rng: np.random.Generator
) -> tuple[Patient, FieldOfView, Canvas]:
    """A patient, what of it is scanned, and the tissues there."""
    patient = draw_patient(body_rng)
    body = draw_body_map(patient, body_rng)
    frame = (settings.spacing_mm, settings.field_of_view_mm, settings.slices)
    if settings.organs is None:
        field = place_field(patient, body, *frame, field_rng)
        return (
            patient,
            field,
            build_anatomy(make_canvas(body, field.block_axes(), body_rng), patient, body_rng),
        )
    paths = find_masks(settings.organs)
    path = paths[seed % len(paths)]
    masks = read_masks(path)
    patient = fit_patient(masks, patient)
    body = fit_body(masks, body, str(path))
    field = field_of_masks(masks, patient, body, *frame)
    canvas = build_anatomy(make_canvas(body, field.block_axes(), body_rng), patient, body_rng)
    place_organs(canvas, masks.sampled(field.block_axes()), patient.fat_mm)
    return patient, field, canvas
