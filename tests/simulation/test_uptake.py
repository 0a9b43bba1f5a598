"""Uptake and density of organs over many patients, against the figures that the module cites."""

import numpy as np
import pytest

from petlesion.simulation.body import Canvas, Tissue
from petlesion.simulation.uptake import NORMAL, Phantom, draw_phantom, keep_to_dose

PATIENTS = 300


def canvas_of(tissue: np.ndarray) -> Canvas:
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) * 4 for n in tissue.shape), indexing="ij")
    return Canvas(tissue.astype(np.uint8), x, y, z, (4.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Median SUV and HU of each tissue, [patient, tissue], without contrast agent."""
    canvas = canvas_of(np.broadcast_to(np.arange(len(Tissue))[:, None, None], (len(Tissue), 6, 6)))
    phantoms = [draw_phantom(canvas, np.random.default_rng(seed), contrast=False) for seed in range(PATIENTS)]
    suv, hu = (
        np.array([np.median(image, axis=(1, 2)) for image in images])
        for images in ([phantom.suv for phantom in phantoms], [phantom.hu for phantom in phantoms])
    )
    return suv, hu


def test_every_tissue_has_its_uptake() -> None:
    assert set(NORMAL) == set(Tissue)


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        (Tissue.CEREBELLUM, 7.0, 9.0),  # Wang 2007: 8.0 ± 2.2
        (Tissue.GREY_MATTER, 7.5, 10.0),
        (Tissue.LIVER, 2.0, 2.5),
        (Tissue.BLOOD, 1.5, 2.0),
        (Tissue.TONSIL, 3.0, 4.5),  # Wang 2007: 3.45 ± 1.4
        (Tissue.TESTIS, 2.2, 3.0),  # Wang 2007: 2.57 ± 0.56
    ],
)
def test_the_typical_patient_is_the_published_one(
    drawn: tuple[np.ndarray, np.ndarray], tissue: Tissue, low: float, high: float
) -> None:
    assert low < np.median(drawn[0][:, tissue]) < high


def test_the_heart_may_be_cold_or_hot(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    heart = drawn[0][:, Tissue.MYOCARDIUM]
    dark = heart <= drawn[0][:, Tissue.BLOOD]
    assert np.mean(dark) == pytest.approx(0.36, abs=0.07)  # PMC7408629: 36 % of 302 patients
    assert np.quantile(heart, 0.9) > 7


def test_liver_and_blood_go_together_over_patients(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    liver, blood = (np.log(drawn[0][:, tissue]) for tissue in (Tissue.LIVER, Tissue.BLOOD))
    assert np.corrcoef(liver, blood)[0, 1] == pytest.approx(0.82, abs=0.1)
    # Boktor 2013: 2.17 ± 0.44 and 1.55 ± 0.38
    assert liver.std() == pytest.approx(0.20, abs=0.04) and blood.std() == pytest.approx(0.24, abs=0.05)


def test_a_body_holds_no_more_than_the_dose() -> None:
    tissue = np.full((20, 20, 20), Tissue.MUSCLE)
    tissue[:, :, :5] = Tissue.AIR
    suv = np.where(tissue == Tissue.AIR, 0.0, 3.0).astype(np.float32)
    suv[:2, :2, 10:12] = 50.0
    lesions = suv == 50
    phantom = Phantom(canvas_of(tissue), suv, np.where(tissue == Tissue.AIR, -1000, 0).astype(np.float32))
    litres = suv.size * 4**3 / 1e6
    weight_kg = 2 * 0.75 * litres  # half of the patient is scanned
    keep_to_dose(phantom, weight_kg, lesions)
    held = float(phantom.suv.sum()) * 4**3 / 1e6
    assert held == pytest.approx(0.95 * weight_kg - 0.5 * 0.75 * litres, rel=1e-4)
    assert (phantom.suv[lesions] == 50).all() and (phantom.suv[tissue == Tissue.AIR] == 0).all()


@pytest.mark.parametrize("share_in_lesions", [0.7, 0.93, 0.96, 2.0])
def test_no_burden_of_tumour_blackens_healthy_tissue(share_in_lesions: float) -> None:
    tissue = np.full((8, 8, 8), Tissue.LIVER)
    lesions = np.zeros(tissue.shape, bool)
    lesions[0] = True
    weight_kg = tissue.size * 4**3 / 1e6
    suv = np.where(lesions, share_in_lesions * 8, 1.0).astype(np.float32)
    phantom = Phantom(canvas_of(tissue), suv.copy(), np.zeros_like(suv))
    keep_to_dose(phantom, weight_kg, lesions)
    assert phantom.suv.sum() * 4**3 / 1e6 == pytest.approx(0.95 * weight_kg, rel=1e-4)
    np.testing.assert_allclose(phantom.suv[~lesions], 0.4, rtol=1e-4)


def test_a_body_that_holds_less_than_the_dose_is_left_as_it_is() -> None:
    suv = np.full((8, 8, 8), 0.7, np.float32)
    phantom = Phantom(canvas_of(np.full(suv.shape, Tissue.LIVER)), suv.copy(), np.zeros_like(suv))
    keep_to_dose(phantom, suv.size * 4**3 / 1e6, np.zeros(suv.shape, bool))
    np.testing.assert_array_equal(phantom.suv, suv)


def test_urine_is_hotter_than_what_makes_it(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    kidney, pelvis, ureter, bladder = (
        np.median(drawn[0][:, tissue])
        for tissue in (Tissue.KIDNEY, Tissue.RENAL_PELVIS, Tissue.URETER, Tissue.BLADDER)
    )
    assert bladder > pelvis > kidney > np.median(drawn[0][:, Tissue.LIVER])
    assert ureter > np.median(drawn[0][:, Tissue.BLOOD])
    assert np.quantile(drawn[0][:, Tissue.BLADDER], 0.95) > 25


def test_densities_are_those_of_a_textbook(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    hu = dict(zip(Tissue, np.median(drawn[1], axis=0), strict=True))
    assert hu[Tissue.AIR] == -1000
    assert -900 < hu[Tissue.LUNG] < -700
    assert -120 < hu[Tissue.FAT] < -80
    assert 35 < hu[Tissue.MUSCLE] < 70 and 40 < hu[Tissue.LIVER] < 70
    assert hu[Tissue.BONE] > 300


def test_bowel_is_patchy_and_liver_is_not() -> None:
    spread = {}
    for tissue in (Tissue.COLON, Tissue.SMALL_BOWEL, Tissue.LIVER):
        phantom = draw_phantom(
            canvas_of(np.full((40, 40, 40), tissue)), np.random.default_rng(1), contrast=False
        )
        spread[tissue] = phantom.suv.std() / phantom.suv.mean()
    assert spread[Tissue.COLON] > spread[Tissue.SMALL_BOWEL] > 3 * spread[Tissue.LIVER]


def test_contrast_agent_brightens_blood_and_leaves_activity() -> None:
    canvas = canvas_of(np.full((12, 12, 12), Tissue.BLOOD))
    plain, bright = (
        draw_phantom(canvas, np.random.default_rng(3), contrast=given) for given in (False, True)
    )
    assert 60 < np.median(bright.hu) - np.median(plain.hu) < 160
