import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from petlesion.intake import find_studies, read_source, to_study
from petlesion.simulation import SimulationSettings
from petlesion.simulation.dicom import write_dicom
from petlesion.simulation.study import Simulation, simulate_in_full


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulation]:
    simulation = simulate_in_full(3, SimulationSettings((8.0, 6.0, 6.0), slices=60))
    folder = tmp_path_factory.mktemp("dicom") / "study"
    write_dicom(folder, simulation)
    return folder, simulation


def test_it_reads_back_to_the_same_study(written: tuple[Path, Simulation]) -> None:
    folder, simulation = written
    (source,) = find_studies([folder])
    images = read_source(source)
    study, original = to_study(images), simulation.study
    assert images.warnings == ()
    assert study.pet.grid.matches(original.pet.grid)
    assert study.ct is not None and original.ct is not None
    assert study.reference is not None and original.reference is not None
    assert original.reference.array.any()
    tolerance = original.pet.array.max() / 65_535
    np.testing.assert_allclose(study.pet.array, original.pet.array, atol=tolerance)
    np.testing.assert_allclose(study.ct.array, original.ct.array, atol=0.5)
    np.testing.assert_array_equal(study.reference.array, original.reference.array)


def test_headers_are_those_of_a_simulated_patient(written: tuple[Path, Simulation]) -> None:
    folder, simulation = written
    headers = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    assert {header.Modality for header in headers} == {"PT", "CT", "SEG"}
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert len({header.FrameOfReferenceUID for header in headers}) == 1
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    pet = next(header for header in headers if header.Modality == "PT")
    # SUV = activity × weight / dose left, by hand.
    item = pet.RadiopharmaceuticalInformationSequence[0]
    left = float(item.RadionuclideTotalDose) * 0.5 ** (3600 / 6586.2)
    suv = pet.pixel_array * float(pet.RescaleSlope) * float(pet.PatientWeight) * 1000 / left
    expected = simulation.study.pet.array[int(pet.InstanceNumber) - 1]
    np.testing.assert_allclose(suv, expected, atol=expected.max() / 60_000)
    assert pet.PatientID.startswith("simulated")


def test_the_same_simulation_gives_the_same_images(written: tuple[Path, Simulation], tmp_path: Path) -> None:
    folder, simulation = written
    time.sleep(1.1)  # so that a second of the clock would show
    write_dicom(tmp_path / "again", simulation)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.dcm"))
    assert {path.parts[0] for path in files} == {"PT", "CT", "SEG"}
    for path in files:
        assert (tmp_path / "again" / path).read_bytes() == (folder / path).read_bytes()


def test_a_study_without_lesions_reads_back_with_an_empty_reference(tmp_path: Path) -> None:
    simulation = simulate_in_full(3, SimulationSettings((12.0, 12.0, 12.0), slices=30))
    assert simulation.study.reference is not None
    empty = np.zeros_like(simulation.study.reference.array)
    healthy = replace(simulation.study, reference=simulation.study.reference.with_array(empty))
    write_dicom(tmp_path / "study", replace(simulation, study=healthy))
    (source,) = find_studies([tmp_path / "study"])
    study = to_study(read_source(source))
    assert study.reference is not None
    assert study.reference.grid.matches(study.pet.grid) and not study.reference.array.any()


def test_a_validator_finds_no_error_in_the_headers(written: tuple[Path, Simulation]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    folder, _ = written
    for path in (folder / "PT" / "0001.dcm", folder / "CT" / "0001.dcm", folder / "SEG" / "lesions.dcm"):
        result = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert [line for line in result.stderr.splitlines() if "Error" in line] == []
