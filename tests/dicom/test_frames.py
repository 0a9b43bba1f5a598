import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedPETImage
from pydicom.dataset import FileDataset

from petlesion.dicom.files import find_dicom, read_header
from petlesion.dicom.series import Stack, group_series, read_volume, stack
from petlesion.dicom.suv import suv_conversion
from petlesion.errors import SeriesError
from petlesion.intake import find_studies, read_source, to_study
from tests.dicom.builders import (
    ROOT,
    SeriesSpec,
    body_images,
    ct_spec,
    enhanced_dataset,
    pet_spec,
    write_series,
)
from tests.dicom.test_suv import average, decayed


def save(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def stacked(path: Path) -> Stack:
    files = find_dicom(path)
    (series,) = group_series(files, [read_header(file) for file in files])
    return stack(series)


def test_enhanced_ct_is_the_single_slices(tmp_path: Path) -> None:
    stored = body_images()[1]
    save(enhanced_dataset(stored, ct_spec()), tmp_path / "enhanced" / "ct.dcm")
    write_series(tmp_path / "single", stored, ct_spec())
    enhanced, single = stacked(tmp_path / "enhanced"), stacked(tmp_path / "single")
    assert enhanced.grid.matches(single.grid)
    np.testing.assert_array_equal(read_volume(enhanced).array, read_volume(single).array)


def test_enhanced_pet_in_activity(tmp_path: Path) -> None:
    stored = body_images()[0]
    save(enhanced_dataset(stored, SeriesSpec(slope=2.0)), tmp_path / "pet.dcm")
    found = stacked(tmp_path)
    conversion = suv_conversion(found.headers)
    assert conversion.factors == pytest.approx([decayed(3600)] * len(stored))
    expected = stored * (2.0 * np.arange(1, len(stored) + 1))[:, None, None] * decayed(3600)
    np.testing.assert_allclose(read_volume(found, conversion.factors).array, expected, rtol=1e-5)


@pytest.mark.parametrize(("units", "factor"), [("{SUVbw}g/ml", 1.0), ("g/ml{SUVibw}", 70 / (48 + 1.06 * 23))])
def test_enhanced_pet_in_suv(tmp_path: Path, units: str, factor: float) -> None:
    save(enhanced_dataset(body_images()[0], SeriesSpec(slope=0.01), units=units), tmp_path / "pet.dcm")
    assert suv_conversion(stacked(tmp_path).headers).factors[0] == pytest.approx(factor)


def test_enhanced_pet_without_decay_correction(tmp_path: Path) -> None:
    dataset = enhanced_dataset(body_images()[0], SeriesSpec(slope=2.0))
    dataset.DecayCorrected = "NO"
    save(dataset, tmp_path / "pet.dcm")
    factors = suv_conversion(stacked(tmp_path).headers).factors
    expected = [decayed(3600 + 60 * z + average(180)) for z in range(len(factors))]
    assert factors == pytest.approx(expected)


def test_the_decay_reference_of_an_enhanced_pet_is_stated(tmp_path: Path) -> None:
    dataset = enhanced_dataset(body_images()[0], SeriesSpec(slope=2.0))
    dataset.SeriesTime = "160000"
    dataset.DecayCorrectionDateTime = "20240305103000.00"
    save(dataset, tmp_path / "pet.dcm")
    assert suv_conversion(stacked(tmp_path).headers).factors[0] == pytest.approx(decayed(1800))


def test_suv_of_an_enhanced_object_given_whole() -> None:
    dataset = enhanced_dataset(body_images()[0], SeriesSpec(slope=2.0))
    assert suv_conversion([dataset]).factors == pytest.approx([decayed(3600)])


@pytest.mark.parametrize(
    "spec",
    [
        pet_spec(),
        SeriesSpec(
            slope=30.0,
            header={
                "RescaleSlope": [str(10 + z) for z in range(12)],
                "AcquisitionTime": [f"11{z:02d}00" for z in range(12)],
                "FrameReferenceTime": [str(60_000 * z) for z in range(12)],
                "SeriesTime": "150000",
            },
        ),
    ],
)
def test_a_legacy_converted_pet_is_its_single_slices(tmp_path: Path, spec: SeriesSpec) -> None:
    paths = write_series(tmp_path / "single", body_images()[0], spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = [pydicom.dcmread(path) for path in paths]
        converted = LegacyConvertedEnhancedPETImage(slices, f"{ROOT}.51", 1, f"{ROOT}.52", 1)
        save(converted, tmp_path / "converted" / "pet.dcm")
    single, legacy = stacked(tmp_path / "single"), stacked(tmp_path / "converted")
    expected, found = suv_conversion(single.headers), suv_conversion(legacy.headers)
    assert found == expected
    volumes = [read_volume(one, two.factors) for one, two in ((single, expected), (legacy, found))]
    np.testing.assert_array_equal(volumes[0].array, volumes[1].array)


def test_an_enhanced_study(tmp_path: Path) -> None:
    pet, ct = body_images()
    save(enhanced_dataset(pet, pet_spec(), units="g/ml{SUVbw}"), tmp_path / "pet.dcm")
    save(enhanced_dataset(ct, ct_spec()), tmp_path / "ct.dcm")
    (source,) = find_studies([tmp_path])
    study = to_study(read_source(source))
    assert study.ct is not None and study.ct.shape == pet.shape


def test_frames_that_do_not_add_up(tmp_path: Path) -> None:
    dataset = enhanced_dataset(body_images()[1], ct_spec())
    dataset.NumberOfFrames = "1000000000"
    save(dataset, tmp_path / "ct.dcm")
    with pytest.raises(SeriesError, match="states 1000000000 frames and describes 12"):
        stacked(tmp_path)
    del dataset.PerFrameFunctionalGroupsSequence
    save(dataset, tmp_path / "ct.dcm")
    with pytest.raises(SeriesError, match="functional groups"):
        stacked(tmp_path)
