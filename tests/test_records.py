import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from petlesion.errors import OutputError, UsageError
from petlesion.intake import StudySource, find_studies
from petlesion.io.nifti import write_volume
from petlesion.records import check_replaceable, earlier_record, is_finished, mark_of
from petlesion.volume import Study
from tests.dicom.builders import ROOT, body_images, pet_spec, write_series

RECORD = "run.json"


def write_pair(folder: Path, study: Study) -> StudySource:
    assert study.ct is not None
    write_volume(folder / "PET.nii.gz", study.pet)
    write_volume(folder / "CT.nii.gz", study.ct)
    return find_studies([folder])[0]


def write_results(folder: Path, source: StudySource) -> None:
    folder.mkdir(parents=True)
    (folder / "lesions.csv").touch()
    record = {"run": 1, "source": asdict(mark_of(source)), "files": ["lesions.csv"]}
    (folder / RECORD).write_text(json.dumps(record))


def write_pet(folder: Path, number: int) -> StudySource:
    write_series(folder, body_images()[0], pet_spec(series_uid=f"{ROOT}.3{number}"))
    return find_studies([folder])[0]


def test_a_free_folder_has_no_record(tmp_path: Path, phantom: Study) -> None:
    source = write_pair(tmp_path / "in" / "p1", phantom)
    assert earlier_record(tmp_path / "out" / "p1", RECORD, source) is None
    (tmp_path / "out" / "p1").mkdir(parents=True)
    assert earlier_record(tmp_path / "out" / "p1", RECORD, source) is None


def test_a_record_is_finished_for_the_same_files_facts_and_content(tmp_path: Path, phantom: Study) -> None:
    source = write_pair(tmp_path / "in" / "p1", phantom)
    folder = tmp_path / "out" / "p1"
    write_results(folder, source)
    record = earlier_record(folder, RECORD, source)
    assert record is not None
    assert is_finished(record, folder, mark_of(source), run=1)
    assert not is_finished(record, folder, mark_of(source), run=2)
    assert not is_finished(record, folder, replace(mark_of(source), content="changed"), run=1)
    (folder / "lesions.csv").unlink()
    assert not is_finished(record, folder, mark_of(source), run=1)


def test_changed_content_keeps_the_identity(tmp_path: Path, phantom: Study) -> None:
    before = mark_of(write_pair(tmp_path / "p1", phantom))
    after = mark_of(write_pair(tmp_path / "p1", replace(phantom, ct=phantom.pet)))
    assert after.identity == before.identity and after.content != before.content


def test_the_same_name_from_another_place_is_refused(tmp_path: Path, phantom: Study) -> None:
    write_results(tmp_path / "out" / "p1", write_pair(tmp_path / "a" / "p1", phantom))
    with pytest.raises(UsageError, match="another study of the same name; give another -o"):
        earlier_record(tmp_path / "out" / "p1", RECORD, write_pair(tmp_path / "b" / "p1", phantom))


def test_dicom_is_known_by_its_pet_wherever_it_lies(tmp_path: Path) -> None:
    here, copied, other = (write_pet(tmp_path / name, n) for name, n in (("a", 1), ("b", 1), ("c", 2)))
    write_results(tmp_path / "out" / here.name, here)
    assert here.name == copied.name == other.name
    assert earlier_record(tmp_path / "out" / here.name, RECORD, copied) is not None
    with pytest.raises(UsageError, match="another study"):
        earlier_record(tmp_path / "out" / here.name, RECORD, other)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": [], "source": "abc"}'])
def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, phantom: Study, text: str) -> None:
    source = write_pair(tmp_path / "in" / "p1", phantom)
    folder = tmp_path / "out" / "p1"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(text)
    with pytest.raises(UsageError, match=r"out/p1 holds no run\.json"):
        earlier_record(folder, RECORD, source)


@pytest.mark.parametrize("target", ["in/p1", "in", ".", "in/p1/out/p1", "link", "out/../in/p1"])
def test_a_folder_with_input_is_refused_even_with_a_record(
    tmp_path: Path, phantom: Study, target: str
) -> None:
    source = write_pair(tmp_path / "in" / "p1", phantom)
    (tmp_path / "link").symlink_to(tmp_path / "in" / "p1")
    (tmp_path / "in" / "p1" / RECORD).write_text(json.dumps({"source": asdict(mark_of(source)), "files": []}))
    with pytest.raises(UsageError, match="where the input lies"):
        earlier_record(tmp_path / target, RECORD, source)


def test_a_folder_that_linked_input_lies_in_is_refused(tmp_path: Path, phantom: Study) -> None:
    write_pair(tmp_path / "store", phantom)
    (tmp_path / "in").mkdir()
    for name in ("PET.nii.gz", "CT.nii.gz"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "store" / name)
    (source,) = find_studies([tmp_path / "in"])
    with pytest.raises(UsageError, match="where the input lies"):
        earlier_record(tmp_path / "store", RECORD, source)


def test_results_may_lie_beside_a_pair_of_files(tmp_path: Path, phantom: Study) -> None:
    write_pair(tmp_path, phantom)
    (source,) = find_studies([tmp_path / "PET.nii.gz", tmp_path / "CT.nii.gz"])
    assert earlier_record(tmp_path / "out" / source.name, RECORD, source) is None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An input with a link to it, and beside it results, and what is none."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "other").mkdir()
    for name in ("results", "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "results" / RECORD).touch()
    (tmp_path / "foreign" / "thesis.tex").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    return folder


@pytest.mark.parametrize("target", ["new", "new/deep", "other", "results", "runs/run-2", "runs/run/new"])
def test_a_free_folder_and_results_may_be_replaced(tmp_path: Path, run: Path, target: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    check_replaceable(tmp_path / target, RECORD, [run])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["runs/run", "runs", ".", "link"])
@pytest.mark.parametrize("with_record", [False, True])
def test_input_is_not_replaced(tmp_path: Path, run: Path, target: str, with_record: bool) -> None:
    if with_record:
        (run / RECORD).touch()
    with pytest.raises(UsageError, match=r"where the input lies, .*runs/run; give another -o"):
        check_replaceable(tmp_path / target, RECORD, [run, run.parent / "another"])


@pytest.mark.parametrize("target", ["foreign", "foreign/thesis.tex", "dangling"])
def test_what_is_no_result_is_not_replaced(tmp_path: Path, run: Path, target: str) -> None:
    with pytest.raises(UsageError, match=rf"{target} holds no run\.json .*; give another -o"):
        check_replaceable(tmp_path / target, RECORD, [run])


@pytest.mark.parametrize("target", ["foreign/thesis.tex/new", "/proc/nope/new"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, run: Path, target: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        check_replaceable(tmp_path / target, RECORD, [run])
