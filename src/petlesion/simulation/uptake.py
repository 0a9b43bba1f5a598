"""How much FDG each tissue takes up (SUV by body weight), and how dense it is in CT (HU).

docs/simulation.md names the published figure behind each tissue's uptake, and those tissues that have none:
they are set so that the order of organs is the usual one. CT densities are textbook values at 120 kV.

* Blood, liver and spleen rise and fall together (liver and blood by r = 0.82 in 1,018 patients), and all
  tissues do a little, with the dose's calibration and the uptake time.
* A heart is dark after a long fast, no hotter than the blood in it, as in 36 % of 302 patients (PMC7408629),
  and anything up to 16 otherwise.
* No more FDG is in a body than was given (`keep_to_dose`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from petlesion.simulation.body import Canvas, Tissue
from petlesion.simulation.random_fields import smooth_field
from petlesion.simulation.shapes import Floats

_FINE_MM = 11.0
_COARSE_MM = 34.0
_PLANE, _THREAD = 0.05, 0.22
# Log-normal standard deviation of what moves all tissues together, and of what moves blood, liver and spleen.
_OVERALL_SPREAD, _BLOOD_BORNE_SPREAD = 0.08, 0.18
_DARK_HEARTS = 0.35
_HOTTEST_HEART_SUV = 16.0
# Of the dose: some decays on the way, or stays in the syringe and the vein.
_MOST_OF_DOSE = 0.95
# What is not scanned are mostly muscle and fat.
_ELSEWHERE_SUV = 0.5
# However much tumour there is, healthy tissue keeps this share of its uptake.
_LEAST_OF_HEALTHY = 0.4


@dataclass(frozen=True)
class Normal:
    """A tissue in patients without disease there.

    `suv` is the median over patients, `spread` the log-normal standard deviation between patients of what is
    this tissue's alone, `texture` that inside one patient's organ. `hu` is the density without contrast
    agent, `enhancement` what the portal venous phase adds, `grain` the standard deviation of the tissue's own
    density.
    """

    suv: float
    spread: float
    texture: float
    hu: float
    enhancement: float = 0.0
    grain: float = 4.0


T = Tissue
NORMAL: dict[Tissue, Normal] = {
    T.AIR: Normal(0.005, 0.1, 0.0, -1000, grain=0),
    T.FAT: Normal(0.27, 0.2, 0.12, -105, grain=9),
    T.MUSCLE: Normal(0.65, 0.18, 0.10, 52, 12, grain=10),
    T.VISCERAL_FAT: Normal(0.30, 0.25, 0.15, -100, grain=10),
    T.MEDIASTINUM: Normal(0.95, 0.15, 0.15, -25, 12, grain=30),
    T.LUNG: Normal(0.48, 0.2, 0.16, -830, grain=35),
    T.AIRWAY: Normal(0.25, 0.2, 0.0, -990, grain=4),
    T.BONE: Normal(0.50, 0.2, 0.12, 620, grain=110),
    T.RED_MARROW: Normal(1.45, 0.22, 0.13, 190, 12, grain=45),
    T.YELLOW_MARROW: Normal(0.45, 0.2, 0.12, 20, grain=45),
    T.DISC: Normal(0.85, 0.15, 0.05, 80, grain=10),
    T.BLOOD: Normal(1.62, 0.06, 0.03, 42, 115),
    T.MYOCARDIUM: Normal(5.0, 0.55, 0.20, 48, 60),
    T.LIVER: Normal(2.20, 0.06, 0.04, 56, 50),
    T.GALLBLADDER: Normal(0.9, 0.5, 0.03, 8),
    T.SPLEEN: Normal(1.80, 0.12, 0.04, 48, 70),
    T.PANCREAS: Normal(1.25, 0.22, 0.08, 38, 55, grain=14),
    T.ADRENAL: Normal(1.6, 0.25, 0.05, 25, 45),
    T.KIDNEY: Normal(2.7, 0.25, 0.15, 34, 135),
    T.RENAL_PELVIS: Normal(9.0, 0.75, 0.25, 6, 5),
    T.URETER: Normal(2.8, 0.9, 0.75, 10),
    T.BLADDER: Normal(11.0, 0.7, 0.02, 6),
    T.OESOPHAGUS: Normal(1.7, 0.2, 0.12, 38, 15),
    T.STOMACH_WALL: Normal(2.0, 0.35, 0.20, 40, 35, grain=8),
    T.STOMACH_CONTENT: Normal(0.8, 0.25, 0.05, 18, grain=14),
    T.SMALL_BOWEL: Normal(1.5, 0.25, 0.32, 32, 28, grain=18),
    T.COLON: Normal(1.7, 0.35, 0.45, 34, 26, grain=12),
    T.COLON_CONTENT: Normal(1.2, 0.45, 0.40, 10, grain=60),
    T.BOWEL_GAS: Normal(0.35, 0.2, 0.0, -930, grain=30),
    T.GREY_MATTER: Normal(9.2, 0.22, 0.10, 38, 4),
    T.WHITE_MATTER: Normal(3.9, 0.22, 0.06, 29, 2),
    T.CEREBELLUM: Normal(8.2, 0.23, 0.06, 36, 4),
    T.BRAIN_FLUID: Normal(2.5, 0.2, 0.05, 12),
    T.EYE: Normal(1.0, 0.2, 0.05, 12),
    T.TONGUE: Normal(1.45, 0.3, 0.20, 50, 20),
    T.TONSIL: Normal(4.0, 0.38, 0.05, 45, 25),
    T.SALIVARY_GLAND: Normal(2.1, 0.32, 0.05, 22, 35, grain=12),
    T.THYROID: Normal(1.5, 0.25, 0.05, 95, 60),
    T.BREAST: Normal(0.65, 0.35, 0.15, 8, 12, grain=20),
    T.PROSTATE: Normal(1.8, 0.2, 0.10, 38, 30),
    T.UTERUS: Normal(1.9, 0.4, 0.15, 42, 50),
    T.OVARY: Normal(1.5, 0.3, 0.08, 28, 20),
    T.TESTIS: Normal(2.6, 0.25, 0.06, 35, 10),
}
_BLOOD_BORNE = (T.BLOOD, T.LIVER, T.SPLEEN)
del T


@dataclass(frozen=True, eq=False)
class Phantom:
    """A body before it is scanned: tissue, activity in SUV and density in HU of each voxel [z, y, x]."""

    canvas: Canvas
    suv: Floats
    hu: Floats


def draw_phantom(canvas: Canvas, rng: np.random.Generator, *, contrast: bool) -> Phantom:
    """Draw each organ's SUV and density, with or without contrast agent, and the texture inside."""
    organ_rng, texture_rng = rng.spawn(2)
    suv, texture, hu, grain = _draw_tables(organ_rng, contrast)
    tissue = canvas.tissue
    fine = smooth_field(texture_rng, tissue.shape, canvas.spacing_mm, _FINE_MM)
    coarse = smooth_field(texture_rng, tissue.shape, canvas.spacing_mm, _COARSE_MM)
    planes = np.abs(coarse) < _PLANE
    threads = planes & (np.abs(fine) < _THREAD)
    coarse *= np.float32(0.8)
    coarse += np.float32(0.6) * fine
    fine *= grain[tissue]
    fine += hu[tissue]
    # Thin planes of fat part the muscles; where two such planes cross in the lung runs a vessel.
    fine[planes & (tissue == Tissue.MUSCLE)] = hu[Tissue.FAT]
    fine[threads & (tissue == Tissue.LUNG)] = hu[Tissue.BLOOD]
    coarse *= texture[tissue]
    np.exp(coarse, out=coarse)
    coarse *= suv[tissue]
    return Phantom(canvas, coarse, fine)


def _draw_tables(rng: np.random.Generator, contrast: bool) -> tuple[npt.NDArray[np.float32], ...]:
    """Tables over tissues: SUV, its texture, HU, its grain."""
    suv, texture, hu, grain = (np.zeros(256, np.float32) for _ in range(4))
    phase = float(rng.uniform(0.6, 1.25)) if contrast else 0.0
    overall = rng.lognormal(0, _OVERALL_SPREAD)
    blood_borne = rng.lognormal(0, _BLOOD_BORNE_SPREAD)
    for tissue, normal in NORMAL.items():
        suv[tissue] = normal.suv * overall * rng.lognormal(0, normal.spread)
        if tissue in _BLOOD_BORNE:
            suv[tissue] *= blood_borne
        texture[tissue] = normal.texture
        hu[tissue] = normal.hu + rng.normal(0, 0.04 * abs(normal.hu) ** 0.9) + phase * normal.enhancement
        grain[tissue] = normal.grain
    dark = rng.random() < _DARK_HEARTS
    of_blood = suv[Tissue.BLOOD] * rng.uniform(0.7, 1.0)
    suv[Tissue.MYOCARDIUM] = of_blood if dark else min(suv[Tissue.MYOCARDIUM], _HOTTEST_HEART_SUV)
    hu[Tissue.AIR] = -1000
    return suv, texture, hu, grain


def keep_to_dose(phantom: Phantom, weight_kg: float, lesions: npt.NDArray[np.bool_]) -> None:
    """Lower what healthy tissue has taken up, in place, until the body holds no more FDG than was given.

    SUV by body weight is 1 everywhere if the dose spreads evenly over the body. What lies outside the scan is
    taken for as much as the patient weighs more than what is scanned. Lesions (bool [z, y, x]) keep their
    uptake unless healthy tissue has given up three fifths of its own.
    """
    litres = phantom.canvas.voxel_volume_ml / 1000
    body = phantom.canvas.tissue != Tissue.AIR
    density = np.maximum(1 + phantom.hu / 1000, 0)
    scanned_kg = float(density.sum(where=body, dtype=np.float64)) * litres
    elsewhere = _ELSEWHERE_SUV * max(0.0, weight_kg - scanned_kg)
    in_lesions = float(phantom.suv[lesions].sum(dtype=np.float64)) * litres
    healthy = float(phantom.suv.sum(where=body, dtype=np.float64)) * litres - in_lesions
    most = _MOST_OF_DOSE * weight_kg - elsewhere
    left = max(most - in_lesions, _LEAST_OF_HEALTHY * healthy)
    if healthy > left:
        phantom.suv[body & ~lesions] *= np.float32(left / healthy)
        if in_lesions > most - left:
            phantom.suv[lesions] *= np.float32(max(most - left, 0) / in_lesions)
