import json
import re
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion import intake, outputs
from petlesion.cli import segment_job
from petlesion.cli.main import app
from petlesion.inference import predict as inference
from petlesion.inference.predict import Prediction, load_model, predict_prepared
from petlesion.io.nifti import read_volume, write_volume
from petlesion.model import boxed
from petlesion.volume import Study
from tests.conftest import make_phantom
from tests.dicom.builders import body_images, ct_spec, pet_spec, write_series
from tests.inference.nnunet import Recipe, write_model_folder

RUNNER = CliRunner()


def write_pair(folder: Path, study: Study) -> Path:
    assert study.ct is not None
    write_volume(folder / "PET.nii.gz", study.pet)
    write_volume(folder / "CT.nii.gz", study.ct)
    return folder


def segment(model_folder: Path, out: Path, *arguments: object) -> tuple[int, str, str]:
    command = ["segment", *map(str, arguments), "-m", str(model_folder), "-o", str(out)]
    result = RUNNER.invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, result.stdout, f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.stdout, result.stderr


def test_a_pair_of_nifti_files_gives_a_folder(model_folder: Path, tmp_path: Path, phantom: Study) -> None:
    study = write_pair(tmp_path / "case7", phantom)
    status, stdout, _ = segment(model_folder, tmp_path / "out", study, "--json", "--probability")
    assert status == 0
    folder = tmp_path / "out" / "case7"
    names = {"lesions.nii.gz", "lesions.csv", "report.html", "run.json", "probability.nii.gz"}
    assert {path.name for path in folder.iterdir()} == names
    mask = read_volume(folder / "lesions.nii.gz")
    assert mask.grid.matches(phantom.pet.grid)
    assert set(np.unique(mask.array)) == {0, 1}
    (record,) = json.loads(stdout)
    assert record["study"] == "case7" and record["lesions"]["count"] == 3


def test_a_study_alone_shows_each_step(
    model_folder: Path, tmp_path: Path, phantom: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(segment_job, "step", lambda what: nullcontext(shown.append(what)))
    studies = [write_pair(tmp_path / name, phantom) for name in ("one", "two", "three")]
    assert segment(model_folder, tmp_path / "alone", studies[0])[0] == 0
    assert shown == ["reading", "resampling", "measuring", "writing"]
    assert segment(model_folder, tmp_path / "batch", *studies[1:])[0] == 0
    assert len(shown) == 4


def test_a_dicom_folder_is_named_by_a_hash(model_folder: Path, tmp_path: Path) -> None:
    pet, ct = body_images()
    write_series(tmp_path / "in" / "pet", pet, pet_spec())
    write_series(tmp_path / "in" / "ct", ct, ct_spec())
    status, _, stderr = segment(model_folder, tmp_path / "out", tmp_path / "in")
    assert status == 0, stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.startswith("study-")
    written = "".join(path.read_text(errors="ignore") for path in folder.glob("*.[jhc]*"))
    assert "secret-patient" not in written and "Doe" not in written


def test_a_second_run_skips_what_is_there_and_another_setting_does_not(
    model_folder: Path, tmp_path: Path, phantom: Study
) -> None:
    study = write_pair(tmp_path / "case7", phantom)
    mask = tmp_path / "out" / "case7" / "lesions.nii.gz"
    segment(model_folder, tmp_path / "out", study)
    first = mask.stat().st_mtime_ns
    status, _, stderr = segment(model_folder, tmp_path / "out", study)
    assert mask.stat().st_mtime_ns == first
    assert status == 0 and re.fullmatch(r"case7: done before, 3 lesions, \d+\.\d mL, .* \d+\n", stderr)
    segment(model_folder, tmp_path / "out", study, "--min-size", 200)
    assert mask.stat().st_mtime_ns > first
    assert not read_volume(mask).array.any()


def test_in_a_batch_the_good_ones_finish(model_folder: Path, tmp_path: Path, phantom: Study) -> None:
    write_pair(tmp_path / "in" / "good", phantom)
    broken = write_pair(tmp_path / "in" / "broken", phantom) / "CT.nii.gz"
    broken.write_bytes(broken.read_bytes()[:3000])
    status, _, stderr = segment(model_folder, tmp_path / "out", tmp_path / "in")
    assert status == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cohort.html", "good"]
    assert "1 of 2 failed" in stderr and str(broken) in stderr
    page = (tmp_path / "out" / "cohort.html").read_text()
    assert "good/report.html" in page and "broken" in page


def test_a_batch_loads_its_model_once_and_gives_what_each_study_gives_alone(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [
        write_pair(tmp_path / "in" / f"s{seed}", make_phantom((40, 48 - seed, 56), seed=seed))
        for seed in (1, 2)
    ]
    for study in studies:
        segment(model_folder, tmp_path / "alone", study, "--probability")
    loaded = []
    monkeypatch.setattr(inference, "load_model", lambda *given: loaded.append(given) or load_model(*given))
    segment(model_folder, tmp_path / "batch", *studies, "--probability")
    assert len(loaded) == 1
    for study in studies:
        for name in ("lesions.nii.gz", "probability.nii.gz"):
            alone, beside = (read_volume(tmp_path / way / study.name / name) for way in ("alone", "batch"))
            np.testing.assert_array_equal(beside.array, alone.array)


def test_a_path_without_a_study_fails_alone(model_folder: Path, tmp_path: Path, phantom: Study) -> None:
    good = write_pair(tmp_path / "good", phantom)
    (tmp_path / "empty").mkdir()
    paths = (tmp_path / "empty", good, tmp_path / "absent")
    status, _, stderr = segment(model_folder, tmp_path / "out", *paths)
    assert status == 1
    assert "2 of 3 failed" in stderr and "absent does not exist" in stderr
    assert (tmp_path / "out" / "good" / "lesions.nii.gz").is_file()


def test_input_is_never_replaced(model_folder: Path, tmp_path: Path, phantom: Study) -> None:
    first, second = (write_pair(tmp_path / "in" / name, phantom) for name in ("s1", "s2"))
    (tmp_path / "out" / "s2").mkdir(parents=True)
    (tmp_path / "out" / "s2" / "notes.txt").touch()
    status, _, stderr = segment(model_folder, tmp_path / "in", first)
    assert status == 2 and "where the input lies" in stderr
    status, _, stderr = segment(model_folder, tmp_path / "out", first, second)
    assert status == 1 and "1 of 2 failed" in stderr and "s2 holds no run.json" in stderr
    assert {path.name for path in first.iterdir()} == {"PET.nii.gz", "CT.nii.gz"}
    assert [path.name for path in (tmp_path / "out" / "s2").iterdir()] == ["notes.txt"]


def test_a_study_that_needs_too_much_memory_fails_alone(
    model_folder: Path, tmp_path: Path, phantom: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(source: intake.StudySource) -> intake.SourceImages:
        if source.name == "large":
            raise MemoryError
        return read_source(source)

    read_source = intake.read_source
    monkeypatch.setattr(intake, "read_source", read)
    paths = [write_pair(tmp_path / "in" / name, phantom) for name in ("large", "small")]
    status, _, stderr = segment(model_folder, tmp_path / "out", *paths)
    assert status == 1 and "  large: there is too little memory" in stderr
    assert (tmp_path / "out" / "small" / "run.json").is_file()


def phantom_as_dicom(folder: Path, study: Study) -> Path:
    """Write the phantom as DICOM, with the patient's name, ID and birth date in its headers."""
    assert study.ct is not None
    header = {"PatientName": "ROEHAMPTON^RICARDA", "PatientBirthDate": "19610203"}
    whose = {"patient_id": "MRN-471147", "header": header}
    pet = np.round(study.pet.array * 100).astype(np.uint16)
    write_series(folder / "pet", pet, pet_spec(**whose))
    write_series(folder / "ct", np.round(study.ct.array + 1024).clip(0).astype(np.uint16), ct_spec(**whose))
    return folder


def test_nothing_tells_who_a_dicom_patient_is(model_folder: Path, tmp_path: Path, phantom: Study) -> None:
    study = phantom_as_dicom(tmp_path / "in" / "ROEHAMPTON-MRN-471147", phantom)
    shutil.make_archive(str(tmp_path / "in" / "ROEHAMPTON^RICARDA"), "zip", study)
    archive = tmp_path / "in" / "ROEHAMPTON^RICARDA.zip"
    archive.write_bytes(archive.read_bytes()[:5000])
    status, _, stderr = segment(model_folder, tmp_path / "out", tmp_path / "in", "--png")
    assert status == 1 and str(archive) in stderr
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert json.loads((folder / "run.json").read_text())["lesions"]["count"] == 3
    page = (tmp_path / "out" / "cohort.html").read_text()
    assert "1 failed" in page and "unreadable, truncated or of an unknown kind" in page
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    told = " ".join(str(path.relative_to(tmp_path)) + path.read_text(errors="ignore") for path in written)
    words = ("roehampton", "ricarda", "471147", "19610203", "1961-02-03", str(tmp_path))
    assert [word for word in words if word.lower() in told.lower()] == []


def without_ct(folder: Path, study: Study) -> str:
    (folder / "CT.nii.gz").unlink()
    return "no CT"


def with_two_pets(folder: Path, study: Study) -> str:
    write_volume(folder / "PT.nii.gz", study.pet)
    return "PT.nii.gz"


def with_activity_for_suv(folder: Path, study: Study) -> str:
    write_volume(folder / "PET.nii.gz", study.pet.with_array(study.pet.array * 5000))
    return "PET.nii.gz"


def truncated(folder: Path, study: Study) -> str:
    path = folder / "PET.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "PET.nii.gz"


def with_another_label(folder: Path, study: Study) -> str:
    assert study.reference is not None
    write_volume(folder / "SEG.nii.gz", study.reference.with_array(study.reference.array * np.uint8(3)))
    return "SEG.nii.gz"


def with_a_short_ct(folder: Path, study: Study) -> str:
    assert study.ct is not None
    half = study.ct.array[: study.ct.shape[0] // 2]
    write_volume(folder / "CT.nii.gz", type(study.ct)(half, study.ct.affine))
    return "misses"


def with_one_slice(folder: Path, study: Study) -> str:
    assert study.ct is not None
    for name, volume in (("PET", study.pet), ("CT", study.ct)):
        write_volume(folder / f"{name}.nii.gz", type(volume)(volume.array[:1], volume.affine))
    return "single slice"


def emptied(folder: Path, study: Study) -> str:
    for path in folder.iterdir():
        path.unlink()
    return str(folder)


SPOILERS = [
    without_ct,
    with_two_pets,
    with_activity_for_suv,
    truncated,
    with_another_label,
    with_a_short_ct,
    with_one_slice,
    emptied,
]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_bad_images_end_in_one_sentence_and_no_output(
    model_folder: Path, tmp_path: Path, phantom: Study, spoil
) -> None:
    study = write_pair(tmp_path / "case7", phantom)
    word = spoil(study, phantom)
    status, _, stderr = segment(model_folder, tmp_path / "out", study)
    assert status == 2
    assert word in stderr and len(stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("pet", "ct", "word"),
    [
        ({"header": {"Units": "BQML", "PatientWeight": None}}, {}, "PatientWeight"),
        ({}, {"patient_id": "somebody-else"}, "PatientID"),
        ({}, {"frame_of_reference": "1.2.3"}, "FrameOfReferenceUID"),
    ],
)
def test_bad_dicom_ends_in_one_sentence_and_no_output(
    model_folder: Path, tmp_path: Path, pet: dict[str, object], ct: dict[str, object], word: str
) -> None:
    pet_stored, ct_stored = body_images()
    write_series(tmp_path / "in" / "pet", pet_stored, pet_spec(**pet))
    write_series(tmp_path / "in" / "ct", ct_stored, ct_spec(**ct))
    status, _, stderr = segment(model_folder, tmp_path / "out", tmp_path / "in")
    assert status == 2 and word in stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_slice_is_named(model_folder: Path, tmp_path: Path) -> None:
    pet, ct = body_images()
    paths = write_series(tmp_path / "in" / "pet", pet, pet_spec())
    write_series(tmp_path / "in" / "ct", ct, ct_spec())
    paths[5].unlink()
    status, _, stderr = segment(model_folder, tmp_path / "out", tmp_path / "in")
    assert status == 2 and "slice" in stderr
    assert not (tmp_path / "out").exists()


def test_two_smallest_sizes_are_one_too_many(model_folder: Path, tmp_path: Path, phantom: Study) -> None:
    study = write_pair(tmp_path / "case7", phantom)
    status, _, stderr = segment(model_folder, tmp_path / "out", study, "--min-size", 3, "--min-volume", 1)
    assert status == 2 and "give one of them" in stderr


def test_ctrl_c_leaves_no_half_folder(
    model_folder: Path, tmp_path: Path, phantom: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first study is being written when the second one's network is interrupted."""
    begun, go_on = threading.Event(), threading.Event()

    def write_slowly(folder: Path, *_: object) -> dict[str, object]:
        (folder / "lesions.nii.gz").touch()
        begun.set()
        go_on.wait(30)
        return {}

    def interrupt(*arguments: Any, **options: Any) -> Prediction:
        if computes.pop():
            return predict_prepared(*arguments, **options)
        assert begun.wait(30)
        raise KeyboardInterrupt

    computes = [False, True]
    monkeypatch.setattr(outputs, "write_outputs", write_slowly)
    monkeypatch.setattr(inference, "predict_prepared", interrupt)
    studies = [write_pair(tmp_path / "in" / name, phantom) for name in ("s1", "s2")]
    status, _, _ = segment(model_folder, tmp_path / "out", *studies)
    left = list((tmp_path / "out").iterdir())
    go_on.set()
    assert status != 0 and left == []


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that find nothing, in the place of those that come with petlesion."""
    alone = Recipe(channels=("PET",), schemes=("ZScoreNormalization",))
    for name, recipe in {"ct-pet": Recipe(), "pet": alone}.items():
        write_model_folder(tmp_path / "box" / name, recipe, bias=-1000.0)
    monkeypatch.setattr(boxed, "_FOLDER", tmp_path / "box")


def write_dicom(folder: Path, *, with_ct: bool) -> None:
    pet, ct = body_images()
    write_series(folder / "pet", pet, pet_spec())
    if with_ct:
        write_series(folder / "ct", ct, ct_spec())


def write_files(folder: Path, *, with_ct: bool) -> None:
    write_pair(folder, make_phantom())
    if not with_ct:
        (folder / "CT.nii.gz").unlink()


@pytest.mark.parametrize("with_ct", [True, False])
@pytest.mark.parametrize("write", [write_dicom, write_files])
@pytest.mark.usefixtures("box")
def test_of_the_box_only_what_a_study_needs_is_loaded_and_told(tmp_path: Path, write, with_ct: bool) -> None:
    write(tmp_path / "in", with_ct=with_ct)
    needed = "PET/CT" if with_ct else "PET without CT"
    command = ["segment", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    for more in ([], ["--min-size", "7"], ["--min-size", "7"]):
        said = RUNNER.invoke(app, [*command, *more]).stderr
        assert said.count("go to the model in the box") == said.count(f"studies of {needed} go") == 1
    assert "done before" in said


@pytest.mark.usefixtures("box")
def test_a_localizer_makes_no_study_with_a_ct(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in", with_ct=False)
    localizer = ct_spec(header={"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")})
    write_series(tmp_path / "in" / "ct", body_images()[1][:2], localizer)
    command = ["segment", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    first, again = (RUNNER.invoke(app, command).stderr for _ in range(2))
    assert "studies of PET without CT go" in first
    assert "done before" in again


@pytest.mark.usefixtures("box")
def test_a_study_that_has_changed_needs_no_model_to_tell(tmp_path: Path, phantom: Study) -> None:
    study = write_pair(tmp_path / "in", phantom)
    command = ["segment", str(study), "-o", str(tmp_path / "out")]
    assert RUNNER.invoke(app, command).exit_code == 0
    truncated(study, phantom)
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 2 and "the model in the box" not in result.stderr
