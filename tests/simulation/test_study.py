import hashlib
import subprocess
import sys

import cc3d
import numpy as np
import pytest

from petlesion.cohort.check import require_sound
from petlesion.errors import UsageError
from petlesion.simulation import SimulationSettings, simulate
from petlesion.simulation.body import Tissue
from petlesion.simulation.burden import draw_burden
from petlesion.simulation.study import Simulation, is_of_cohort, simulate_in_full, study_name, study_seed

COARSE = SimulationSettings((5.0, 5.0, 5.0))
WITH_LESIONS = [seed for seed in range(30) if draw_burden(seed, np.random.default_rng(0)).volumes_ml][:4]
WITHOUT = [seed for seed in range(30) if seed not in WITH_LESIONS and seed < 8][:2]

# Volumes in mL of the organs of adults, from ICRP Publication 89 with room for sex, size and illness.
ORGAN_ML = {
    Tissue.LIVER: (900, 2900),
    Tissue.SPLEEN: (50, 500),
    Tissue.KIDNEY: (150, 550),
    Tissue.LUNG: (2000, 6500),
    Tissue.MYOCARDIUM: (60, 260),
    Tissue.PANCREAS: (15, 160),
    Tissue.BLADDER: (20, 900),
    Tissue.THYROID: (4, 40),
    Tissue.SALIVARY_GLAND: (15, 110),
}


OF_EVERY_TRUNK = set(Tissue) - {
    *(Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM, Tissue.BRAIN_FLUID, Tissue.EYE),
    *(Tissue.BREAST, Tissue.UTERUS, Tissue.OVARY, Tissue.PROSTATE, Tissue.TESTIS, Tissue.BLADDER),
}


@pytest.fixture(scope="module")
def simulations() -> list[Simulation]:
    return [simulate_in_full(seed, COARSE) for seed in (*WITH_LESIONS, *WITHOUT)]


def test_the_same_seed_gives_the_same_bytes() -> None:
    digests = set()
    code = (
        "import hashlib; from petlesion.simulation import *;"
        "s = simulate(3, SimulationSettings((8.0, 8.0, 8.0)));"
        "print(hashlib.sha256(b''.join(v.array.tobytes() for v in (s.pet, s.ct, s.reference))).hexdigest())"
    )
    for threads in ("1", "3"):
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(result.stdout.strip())
    study = simulate(3, SimulationSettings((8.0, 8.0, 8.0)))
    assert study.ct is not None and study.reference is not None
    arrays = (study.pet.array, study.ct.array, study.reference.array)
    digests.add(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
    assert len(digests) == 1
    other = simulate(4, SimulationSettings((8.0, 8.0, 8.0)))
    assert other.pet.shape != study.pet.shape or not np.array_equal(other.pet.array, study.pet.array)


def test_grids_and_types(simulations: list[Simulation]) -> None:
    for simulation in simulations:
        study = simulation.study
        assert study.ct is not None and study.reference is not None
        assert (study.pet.array.dtype, study.ct.array.dtype) == (np.float32, np.float32)
        assert study.reference.array.dtype == bool
        assert study.pet.orientation == "LPS"
        assert study.pet.spacing_mm == pytest.approx((5, 5, 5))
        require_sound(study)


def test_a_full_size_study_has_autopet_s_grid() -> None:
    from petlesion.simulation.body import draw_body_map, draw_patient
    from petlesion.simulation.field_of_view import place_field

    settings = SimulationSettings(slices=326)
    rng = np.random.default_rng(0)
    patient = draw_patient(rng)
    body = draw_body_map(patient, rng)
    field = place_field(patient, body, settings.spacing_mm, settings.field_of_view_mm, settings.slices, rng)
    assert field.shape == (326, 400, 400)
    assert field.spacing_mm == (3.0, 2.0364, 2.0364)


def test_truth_lies_in_the_body_and_away_from_gas(simulations: list[Simulation]) -> None:
    for simulation in simulations:
        assert simulation.study.reference is not None
        tissue = simulation.tissue.array[simulation.study.reference.array]
        assert not np.isin(tissue, (Tissue.AIR, Tissue.AIRWAY, Tissue.BOWEL_GAS)).any()


def test_no_organ_is_swallowed_by_another(simulations: list[Simulation]) -> None:
    # A voxel has one tissue, so that organs cannot overlap; but one could be painted over whole.
    for simulation in simulations:
        shown = set(np.unique(simulation.tissue.array).tolist())
        assert shown <= set(Tissue)
        assert not [kind.name for kind in OF_EVERY_TRUNK if kind not in shown]


def test_a_scan_holds_no_more_activity_than_the_dose(simulations: list[Simulation]) -> None:
    for simulation in simulations:
        pet = simulation.study.pet
        held = float(pet.array.sum(dtype=np.float64)) * pet.voxel_volume_ml / 1000
        # Noise that is cut off at zero adds a little.
        assert 0.3 * simulation.patient.weight_kg < held < 0.97 * simulation.patient.weight_kg


def test_lesions_are_those_that_were_planned(simulations: list[Simulation]) -> None:
    for seed, simulation in zip(WITH_LESIONS, simulations, strict=False):
        lesion_rng = np.random.default_rng(seed).spawn(6)[4]
        planned = draw_burden(seed, lesion_rng).volumes_ml
        assert simulation.study.reference is not None
        labels = cc3d.connected_components(simulation.study.reference.array, connectivity=18)
        sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
        assert 0.9 * len(planned) - 1 <= len(sizes) <= len(planned)
        voxel_ml = simulation.study.pet.voxel_volume_ml
        expected = np.maximum(1, np.array(planned) / voxel_ml)
        np.testing.assert_allclose(sizes[0], expected[0], rtol=0.15, atol=1.5)
        assert sizes.sum() == pytest.approx(expected.sum(), rel=0.15)


def test_studies_without_lesions_have_an_empty_truth(simulations: list[Simulation]) -> None:
    for simulation in simulations[len(WITH_LESIONS) :]:
        assert simulation.study.reference is not None
        assert not simulation.study.reference.array.any()


def test_organs_have_the_volumes_of_organs(simulations: list[Simulation]) -> None:
    for simulation in simulations:
        counts = np.bincount(simulation.tissue.array.ravel(), minlength=len(Tissue))
        voxel_ml = simulation.study.pet.voxel_volume_ml
        for tissue, (low, high) in ORGAN_ML.items():
            if tissue == Tissue.BLADDER and counts[tissue] == 0:
                continue
            assert low <= counts[tissue] * voxel_ml <= high, tissue.name
        # A trunk with head weighs as much as the patient, less the legs and arms outside.
        litres = counts[1:].sum() * voxel_ml / 1000
        assert 0.5 * simulation.patient.weight_kg < litres < 1.35 * simulation.patient.weight_kg


def test_organs_have_the_activity_and_density_of_organs(simulations: list[Simulation]) -> None:
    for simulation in simulations:
        study = simulation.study
        assert study.ct is not None and study.reference is not None
        healthy = ~study.reference.array

        def median(image: np.ndarray, tissue: Tissue, healthy: np.ndarray = healthy) -> float:
            return float(np.median(image[(simulation.tissue.array == tissue) & healthy]))  # noqa: B023

        pet, ct = study.pet.array, study.ct.array
        assert 1.0 < median(pet, Tissue.LIVER) < 4.0
        assert median(pet, Tissue.FAT) < median(pet, Tissue.MUSCLE) < median(pet, Tissue.LIVER)
        assert median(ct, Tissue.LUNG) < -500 < median(ct, Tissue.FAT) < -50 < 0 < median(ct, Tissue.LIVER)
        assert median(ct, Tissue.BONE) > 150
        assert pet.min() >= 0


def test_both_arms_and_sexes_occur() -> None:
    from petlesion.simulation.body import draw_patient

    patients = [draw_patient(np.random.default_rng(seed)) for seed in range(100)]
    assert {patient.sex for patient in patients} == {"female", "male"}
    assert {patient.arms_up for patient in patients} == {True, False}
    assert all(40 < patient.weight_kg < 170 for patient in patients)


@pytest.mark.parametrize(
    "bad",
    [{"spacing_mm": (0.5, 4.0, 4.0)}, {"slices": 2}, {"field_of_view_mm": 100.0}],
)
def test_settings_that_cannot_be(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SimulationSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seed"):
        simulate(-1)


def test_voxels_too_many_for_memory_are_refused() -> None:
    with pytest.raises(UsageError, match="about 40 GB of memory"):
        SimulationSettings((1.0, 1.0, 1.0))
    SimulationSettings((1.0, 1.0, 1.0), slices=200)
    SimulationSettings((2.0, 2.0, 2.0))


def test_cohorts_share_no_study() -> None:
    assert study_seed(3, 999_999) < study_seed(4, 0)
    for seed, number in ((0, 0), (3, 999_999), (40, 7)):
        name = study_name(study_seed(seed, number))
        assert [other for other in range(50) if is_of_cohort(name, other)] == [seed]
    assert not is_of_cohort("patient-3000000", 3) and not is_of_cohort("simulated-other", 0)
