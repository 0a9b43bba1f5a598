"""Every DICOM object of the real data, against what its README says of it."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from petlesion.dicom.files import find_dicom, read_header
from petlesion.dicom.rtstruct import Structure, rasterise, structures
from petlesion.dicom.series import group_series, read_volume, stack
from petlesion.dicom.suv import suv_conversion
from petlesion.intake import find_studies, read_source, to_study
from petlesion.io import nifti

DRO = ["0_0", "1_0", "2_0", "2_4", "3_0", "3_1", "3_3", "4_0", "4_2"]


@pytest.mark.parametrize("number", DRO)
def test_suv_reference_objects(real_data: Path, tmp_path: Path, number: str) -> None:
    archive = real_data / "suv_dro" / f"DRO_{number}.zip"
    (source,) = find_studies([archive])
    images = read_source(source)
    with zipfile.ZipFile(archive) as packed:
        mask_file = packed.extract(f"DRO_{number}/mask/DRO_mask.nii.gz", tmp_path)
    inside = images.pet.array[nifti.read_volume(mask_file).array > 0]
    found = [f"{value:.2f}" for value in (inside.min(), np.median(inside), inside.max())]
    assert found == ["0.20", "1.00", "4.00"]


def test_whole_body_series_as_the_scanner_wrote_it(real_data: Path) -> None:
    files = find_dicom(real_data / "wholebody_pet" / "STS_001_FDG_PET.zip")
    series = {one.modality: one for one in group_series(files, [read_header(file) for file in files])}
    stacked = stack(series["PT"])
    assert "3.190 to 3.290 mm" in stacked.warnings[0]
    conversion = suv_conversion(stacked.headers)
    assert conversion.factors == pytest.approx([2.429029766e-4] * 267, rel=1e-9)
    assert conversion.warnings == ()
    pet = read_volume(stacked, conversion.factors)
    assert float(pet.array.max()) == pytest.approx(66.5215, abs=5e-5)
    crop = nifti.read_volume(real_data / "sts" / "STS_001" / "PET.nii.gz")
    assert np.abs(pet.array[0:59, 45:88, 59:100] - crop.array).max() <= 7.8e-4
    contours = series["RTSTRUCT"].header
    assert [one.name for one in structures(contours)] == ["GTV_Mass", "GTV_Edema"]
    inside = pet.array[rasterise(contours, [Structure(1, "GTV_Mass")], pet.grid).array]
    assert 7.9 <= inside.max() <= 8.0 and 0.15 <= inside.min() <= 0.20


@pytest.mark.parametrize("name", ["STS_001", "STS_009", "STS_013"])
def test_structure_sets_against_the_masks_of_others(real_data: Path, name: str) -> None:
    (source,) = find_studies([real_data / "sts_dicom" / f"{name}.zip"])
    study = to_study(read_source(source))
    (source,) = find_studies([real_data / "sts" / name])
    expected = to_study(read_source(source))
    assert study.pet.grid.matches(expected.pet.grid)
    np.testing.assert_allclose(study.pet.array, expected.pet.array, atol=1e-5)
    assert study.reference is not None and expected.reference is not None
    overlap = np.count_nonzero(study.reference.array & expected.reference.array)
    sizes = np.count_nonzero(study.reference.array) + np.count_nonzero(expected.reference.array)
    assert 2 * overlap / sizes >= 0.95
    assert study.ct is not None and expected.ct is not None
    np.testing.assert_allclose(study.ct.array, expected.ct.array, atol=0.05)
    told = any("RadiopharmaceuticalStartDateTime" in warning for warning in study.warnings)
    assert told == (name == "STS_009")
