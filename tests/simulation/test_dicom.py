import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from petlesion.errors import UsageError
from petlesion.intake import find_studies, read_source, to_study
from petlesion.simulation import SimulationSettings
from petlesion.simulation.dicom import is_whole, simulate_dicom, write_dicom
from petlesion.simulation.study import Simulation, simulate_in_full
from petlesion.volume import Study, Volume


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulation]:
    simulation = simulate_in_full(3, SimulationSettings((8.0, 6.0, 6.0), slices=60))
    simulation = replace(simulation, scanner=replace(simulation.scanner, contrast=True))
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


def test_other_images_of_the_same_study_go_by_other_uids(
    written: tuple[Path, Simulation], tmp_path: Path
) -> None:
    folder, simulation = written
    pet = simulation.study.pet
    hotter = replace(simulation.study, pet=pet.with_array(pet.array * np.float32(1.5)))
    write_dicom(tmp_path / "hotter", replace(simulation, study=hotter))
    uids, others = (
        {pydicom.dcmread(path).SOPInstanceUID for path in place.rglob("*.dcm")}
        for place in (folder, tmp_path / "hotter")
    )
    assert len(uids) == len(others) and not uids & others


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


def small_study(spacing_mm: float, lowest_z_mm: float) -> Study:
    """Six slices that begin at a height."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = (-300.123456789, -200.987654321, lowest_z_mm)
    suv = np.random.default_rng(0).random((6, 8, 8), np.float32)
    volume = Volume(suv, affine)
    return Study("small", volume, ct=volume, reference=volume.with_array(suv > 0.5))


@pytest.mark.parametrize("contrast", [True, False])
def test_the_ct_tells_whether_an_agent_was_given(
    written: tuple[Path, Simulation], tmp_path: Path, contrast: bool
) -> None:
    _, simulation = written
    scanner = replace(simulation.scanner, contrast=contrast)
    write_dicom(tmp_path / "s", replace(simulation, study=small_study(4.0, 0.0), scanner=scanner))
    for path in (tmp_path / "s").rglob("*.dcm"):
        header = pydicom.dcmread(path)
        assert ("ContrastBolusAgent" in header) == (contrast and header.Modality == "CT")


@pytest.mark.parametrize("lowest_z_mm", [-123.4567891, 33.333333, 0.1])
@pytest.mark.parametrize("spacing_mm", [2.0364, 3.0, 10 / 3, 4.0, 7.1, 10.0, 11.7])
def test_decimals_fit_their_sixteen_characters(
    written: tuple[Path, Simulation], tmp_path: Path, spacing_mm: float, lowest_z_mm: float
) -> None:
    _, simulation = written
    write_dicom(tmp_path / "s", replace(simulation, study=small_study(spacing_mm, lowest_z_mm)))
    for path in (tmp_path / "s").rglob("*.dcm"):
        for element in pydicom.dcmread(path).iterall():
            if element.VR == "DS":
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(value)) <= 16 for value in values), element
    measures = pydicom.dcmread(tmp_path / "s" / "SEG" / "lesions.dcm").SharedFunctionalGroupsSequence[0]
    between = measures.PixelMeasuresSequence[0].SpacingBetweenSlices
    assert float(between) == pytest.approx(spacing_mm, abs=1e-6)


@pytest.mark.parametrize("lost", ["PT/0006.dcm", "PT/0001.dcm", "CT/0006.dcm", "SEG/lesions.dcm"])
def test_a_study_that_lacks_a_file_is_not_whole(
    written: tuple[Path, Simulation], tmp_path: Path, lost: str
) -> None:
    _, simulation = written
    folder = tmp_path / "simulated-0000003"
    write_dicom(folder, replace(simulation, study=small_study(4.0, 0.0)))
    assert is_whole(folder)
    (folder / lost).unlink()
    assert not is_whole(folder)
    with pytest.raises(UsageError, match="there already"):
        simulate_dicom(tmp_path, SimulationSettings(), 3)
