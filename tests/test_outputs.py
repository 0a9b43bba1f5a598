import json
from pathlib import Path

import highdicom
import numpy as np
import pytest
from PIL import Image

from petlesion.errors import UsageError
from petlesion.inference.predict import load_model
from petlesion.intake import SourceImages, find_studies, read_source, to_study
from petlesion.io.nifti import read_volume
from petlesion.lesions import measure_lesions
from petlesion.outputs import OutputSettings, RunFacts, write_outputs
from petlesion.pipeline import Segmentation, SegmentationSettings, segment
from petlesion.records import SourceMark
from petlesion.volume import Study
from tests.dicom.builders import body_images, ct_spec, pet_spec, write_series

MARK = SourceMark(identity="abc", content="def")


@pytest.fixture
def found(model_folder: Path, phantom: Study) -> Segmentation:
    return segment(phantom, model_folder)


@pytest.fixture
def images(phantom: Study, tmp_path: Path) -> SourceImages:
    return SourceImages(phantom.name, tmp_path, phantom.pet, phantom.ct)


def facts_of(model_folder: Path, **outputs: object) -> RunFacts:
    return RunFacts(load_model(model_folder), SegmentationSettings(), OutputSettings(**outputs))


def test_files_tell_of_the_segmentation(
    model_folder: Path, tmp_path: Path, found: Segmentation, images: SourceImages
) -> None:
    facts = facts_of(model_folder, probability=True, png=True, gif=True)
    folder = tmp_path / "out"
    folder.mkdir()
    record = write_outputs(folder, found, images, facts, MARK)
    mask = read_volume(folder / "lesions.nii.gz")
    np.testing.assert_array_equal(mask.array, found.mask.array)
    assert mask.grid.matches(found.study.pet.grid)
    probability = read_volume(folder / "probability.nii.gz").array
    np.testing.assert_allclose(probability, found.probability.array, atol=1e-6)
    assert json.loads((folder / "run.json").read_text()) == json.loads(json.dumps(record))
    always = {"lesions.csv", "lesions.nii.gz", "report.html"}
    assert set(record["files"]) == always | {"probability.nii.gz", "projections.png", "projections.gif"}
    assert record["lesions"]["count"] == found.table.count == 3
    rows = (folder / "lesions.csv").read_text().splitlines()
    assert len(rows) == found.table.count + 2 and rows[-1].startswith("total,")
    with Image.open(folder / "projections.gif") as movie:
        assert movie.n_frames > 1


@pytest.mark.parametrize("kind", ["one", "per-lesion", "fractional"])
def test_dicom_objects_hold_the_lesions(model_folder: Path, tmp_path: Path, kind: str) -> None:
    pet, ct = body_images()
    write_series(tmp_path / "in" / "pet", pet, pet_spec())
    write_series(tmp_path / "in" / "ct", ct, ct_spec())
    (source,) = find_studies([tmp_path / "in"])
    images = read_source(source)
    study = to_study(images)
    lesions = study.pet.with_array((study.pet.array > 0.5 * study.pet.array.max()).astype(np.uint8))
    probability = lesions.with_array(lesions.array.astype(np.float32))
    found = Segmentation(study, probability, lesions, measure_lesions(lesions, study.pet))
    out = tmp_path / "out"
    out.mkdir()
    write_outputs(out, found, images, facts_of(model_folder, dicom_seg=kind), MARK)
    seg = highdicom.seg.segread(out / "lesions.dcm")
    assert seg.number_of_segments == (found.table.count if kind == "per-lesion" else 1)
    assert seg.ContentQualification == "RESEARCH"
    assert (out / "measurements.dcm").is_file()


def test_dicom_objects_need_a_dicom_study(
    model_folder: Path, tmp_path: Path, found: Segmentation, images: SourceImages
) -> None:
    with pytest.raises(UsageError, match="no DICOM study"):
        write_outputs(tmp_path, found, images, facts_of(model_folder, dicom_seg="one"), MARK)
    with pytest.raises(UsageError, match="choose one"):
        OutputSettings(dicom_seg="several")
