"""postprocess, evaluate, summarize, sweep, and experiment compare and figure, as a user calls them."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from petlesion.cli.main import main
from petlesion.cohort.layout import Case, Cohort, Fold, add_study, create_cohort, write_folds, write_index
from petlesion.evaluation.metrics import read_metrics
from petlesion.experiments import find_experiment
from petlesion.io.nifti import image_stem, read_mask, write_volume
from petlesion.lesions import label_components
from petlesion.volume import Volume
from tests.conftest import make_phantom
from tests.evaluation.paper import DRAWN, ON_PAPER, VOXEL_AFFINE, masks_of


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def petlesion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["petlesion", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
            sys.exit(0)
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def masks(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of the predictions and references that were worked out on paper."""
    for case in DRAWN:
        for folder, mask in zip(("prediction", "reference"), masks_of(case), strict=True):
            write_volume(tmp_path / folder / f"{case}.nii.gz", mask)
    return tmp_path / "prediction", tmp_path / "reference"


def write_random(folder: Path, names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        write_volume(folder / f"{name}.nii.gz", Volume(rng.random((8, 9, 10)) < 0.12, VOXEL_AFFINE))


def make_cohort(folder: Path, names: list[str], test: list[str]) -> Cohort:
    write_random(folder / "labelsTr", names, seed=1)
    (folder / "imagesTr").mkdir()
    cases = tuple(
        Case(name, f"patient{i // 2}", "AB"[i % 2], "test" if name in test else "train", 1.0)
        for i, name in enumerate(names)
    )
    cohort = Cohort(folder, "Dataset001_Tiny", cases)
    write_index(cohort)
    train = [name for name in names if name not in test]
    folds = [Fold(tuple(train[1:]), tuple(train[:1])), Fold(tuple(train[:1]), tuple(train[1:]))]
    write_folds(cohort, folds)
    return cohort


def test_two_folders_are_scored_as_on_paper(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    result = petlesion("evaluate", *masks, "-o", tmp_path / "metrics.csv", "--json")
    assert result.status == 0
    rows = read_metrics(tmp_path / "metrics.csv")
    assert {row.case_id for row in rows} == set(DRAWN)
    for row in rows:
        assert row.dice == pytest.approx(ON_PAPER[row.case_id].dice)
    assert {row["case_id"]: row["dice"] for row in json.loads(result.out)}["nothing"] is None


def test_two_files_are_scored(petlesion: Command, masks: tuple[Path, Path], tmp_path: Path) -> None:
    files = [folder / "half.nii.gz" for folder in masks]
    assert petlesion("evaluate", *files, "-o", tmp_path / "metrics.csv").status == 0
    assert [row.case_id for row in read_metrics(tmp_path / "metrics.csv")] == ["half"]


def spoil_value(reference: Path) -> None:
    mask = read_mask(reference)
    write_volume(reference, mask.with_array(mask.array.astype(np.uint8) * 3))


def spoil_grid(reference: Path) -> None:
    write_volume(reference, Volume(read_mask(reference).array, np.eye(4)))


def spoil_length(reference: Path) -> None:
    reference.write_bytes(reference.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (Path.unlink, "no reference of the same name"),
        (spoil_value, "has the value 3"),
        (spoil_grid, "grid"),
        (spoil_length, "truncated"),
    ],
)
def test_a_study_that_fails_does_not_stop_the_others(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path, spoil, word: str
) -> None:
    spoil(masks[1] / "half.nii.gz")
    result = petlesion("evaluate", *masks, "-o", tmp_path / "metrics.csv")
    assert result.status == 1
    assert "1 of 4 failed" in result.err
    assert "half" in result.err and word in result.err
    assert "Traceback" not in result.err
    assert {row.case_id for row in read_metrics(tmp_path / "metrics.csv")} == set(DRAWN) - {"half"}


def test_where_all_fail_nothing_is_written(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    files = [folder / "half.nii.gz" for folder in masks]
    spoil_value(files[1])
    result = petlesion("evaluate", *files, "-o", tmp_path / "metrics.csv")
    assert result.status == 2
    assert "half.nii.gz has the value 3" in result.err
    assert not (tmp_path / "metrics.csv").exists()


def test_a_missing_prediction_is_named(petlesion: Command, masks: tuple[Path, Path], tmp_path: Path) -> None:
    (masks[0] / "missed.nii.gz").unlink()
    result = petlesion("evaluate", *masks, "-o", tmp_path / "metrics.csv")
    assert result.status == 1
    assert "missed.nii.gz has no prediction" in result.err


def test_paths_that_cannot_be_compared_are_refused(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    twice = tmp_path / "twice"
    shutil.copytree(masks[0], twice)
    write_volume(twice / "half.mha", read_mask(twice / "half.nii.gz"))
    for prediction, word in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "empty", "holds no image"),
        (masks[0] / "half.nii.gz", "a file and a folder"),
        (twice, "one name"),
    ):
        result = petlesion("evaluate", prediction, masks[1], "-o", tmp_path / "metrics.csv")
        assert (result.status, len(result.err.splitlines())) == (2, 1)
        assert word in result.err


def test_against_a_cohort_a_fold_must_be_whole(petlesion: Command, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    cohort = make_cohort(tmp_path / "cohort", names, test=["e"])
    folds = [("a", 0, 1), ("b c d", 0, 3), ("b d", 1, 2), ("e", 0, 1), ("a e", 0, 2), ("a x", 1, 1)]
    for number, (predicted, status, scored) in enumerate(folds):
        folder = tmp_path / f"predictions{number}"
        write_random(folder, predicted.split(), seed=2)
        result = petlesion("evaluate", folder, cohort.folder, "-o", tmp_path / f"{number}.csv")
        assert result.status == status, result.err
        assert len(read_metrics(tmp_path / f"{number}.csv")) == scored
        labels = petlesion("evaluate", folder, cohort.folder / "labelsTr", "-o", tmp_path / "same.csv")
        assert labels.status == status


def test_against_a_cohort_without_folds_the_training_cases_must_be_whole(
    petlesion: Command, tmp_path: Path
) -> None:
    cohort = make_cohort(tmp_path / "cohort", ["a", "b", "c"], test=["c"])
    (cohort.folder / "splits_final.json").unlink()
    write_random(tmp_path / "prediction", ["a"], seed=2)
    result = petlesion("evaluate", tmp_path / "prediction", cohort.folder, "-o", tmp_path / "metrics.csv")
    assert result.status == 1
    assert "predict b too" in result.err


def test_the_page_of_an_evaluation_links_to_the_reports_of_a_cohorts_studies(
    petlesion: Command, tmp_path: Path
) -> None:
    cohort = create_cohort(tmp_path / "cohort")
    study = make_phantom((12, 16, 20), spacing_mm=8.0)
    for name in ("a", "b"):
        cohort = add_study(cohort, replace(study, name=name), case_id=name, patient_id=name, source="")
        write_volume(tmp_path / "prediction" / f"{name}.nii.gz", study.reference)
    page, report = tmp_path / "pages" / "cohort.html", tmp_path / "pages" / "cohort_reports" / "a.html"
    command = ("evaluate", tmp_path / "prediction", cohort.folder, "-o", tmp_path / "m.csv", "--report", page)
    assert petlesion(*command).status == 0
    told, first = page.read_text(), report.stat().st_mtime_ns
    assert 'href="./cohort_reports/a.html"' in told and told.count("data:image/png;base64,") == 2
    assert petlesion(*command).status == 0 and report.stat().st_mtime_ns == first
    cohort.image_path("b", 1).unlink()
    (tmp_path / "prediction" / "b.nii.gz").touch()
    result = petlesion(*command)
    assert result.status == 1 and "b_0001.nii.gz" in result.err and "b_0001.nii.gz" in page.read_text()


def test_what_segment_wrote_is_scored_with_its_reports(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    for mask in masks[0].iterdir():
        folder = tmp_path / "out" / image_stem(mask)
        folder.mkdir(parents=True)
        mask.rename(folder / "lesions.nii.gz")
        (folder / "report.html").touch()
    page = tmp_path / "cohort.html"
    result = petlesion("evaluate", tmp_path / "out", masks[1], "-o", tmp_path / "m.csv", "--report", page)
    assert result.status == 0, result.err
    assert {row.case_id for row in read_metrics(tmp_path / "m.csv")} == set(DRAWN)
    assert 'href="./out/half/report.html"' in page.read_text()


def test_a_sweep_and_a_figure_of_the_rest_come_with_exit_status_1(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    spoil_value(masks[1] / "half.nii.gz")
    swept = petlesion("sweep", *masks, "--min-size", "0", "--json")
    assert swept.status == 1
    assert json.loads(swept.out)[0]["studies"] == 3
    assert petlesion("experiment", "figure", *masks, "-o", tmp_path / "figure1.png").status == 1
    assert (tmp_path / "figure1.png").exists()


def test_small_components_are_removed_from_a_folder_and_from_a_file(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    assert petlesion("postprocess", masks[0], "-o", tmp_path / "out", "--min-size", 2).status == 0
    half = read_mask(tmp_path / "out" / "half.nii.gz").array.ravel()
    assert "".join(".#"[voxel] for voxel in half.astype(int)) == ".....##.##"
    one = petlesion(
        "postprocess", masks[0] / "half.nii.gz", "-o", tmp_path / "one.nii.gz", "--min-volume", 1.0
    )
    assert one.status == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "one.nii.gz").array.ravel(), half)


def test_postprocess_needs_one_size_and_another_place(petlesion: Command, masks: tuple[Path, Path]) -> None:
    for arguments, word in (
        (["-o", masks[1]], "either"),
        (["-o", masks[1], "--min-size", 2, "--min-volume", 1], "either"),
        (["-o", masks[0], "--min-size", 2], "over itself"),
        (["-o", masks[1], "--min-volume", -1], "cannot be"),
    ):
        result = petlesion("postprocess", masks[0], *arguments)
        assert result.status == 2
        assert word in result.err


def test_the_sweep_is_postprocess_and_evaluate_for_each_size(petlesion: Command, tmp_path: Path) -> None:
    prediction, reference = tmp_path / "prediction", tmp_path / "reference"
    write_random(prediction, list("abcdef"), seed=3)
    write_random(reference, list("abcdef"), seed=4)
    sizes = [0, 2, 5, 10, 1000]
    swept = petlesion("sweep", prediction, reference, "--min-size", ",".join(map(str, sizes)), "--json")
    for size, row in zip(sizes, json.loads(swept.out), strict=True):
        kept, metrics = tmp_path / f"kept{size}", tmp_path / f"metrics{size}.csv"
        petlesion("postprocess", prediction, "-o", kept, "--min-size", size)
        petlesion("evaluate", kept, reference, "-o", metrics)
        summary = json.loads(petlesion("summarize", metrics, "--json").out)
        assert row.pop("min_size") == size
        for key, value in summary.items():
            assert row[key] == pytest.approx(value, rel=1e-6)


def test_the_sweep_labels_each_mask_once_whatever_the_number_of_sizes(
    petlesion: Command, masks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = []

    def count(mask: np.ndarray) -> tuple[np.ndarray, int]:
        labelled.append(mask)
        return label_components(mask)

    monkeypatch.setattr("petlesion.overlap.label_components", count)
    swept = petlesion("sweep", *masks, "--min-size", ",".join(map(str, range(50))), "--json")
    assert len(json.loads(swept.out)) == 50
    assert len(labelled) == 2 * len(DRAWN)


def test_a_format_that_is_none_is_refused_before_anything_is_read(petlesion: Command, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for command in (("sweep", absent, absent), ("summarize", absent), ("experiment", "compare", absent)):
        result = petlesion(*command, "--format", "pdf")
        assert (result.status, len(result.err.splitlines())) == (2, 1)
        assert "no table format 'pdf'; choose one of terminal, csv, markdown, latex" in result.err


def test_the_sweep_refuses_what_are_no_sizes(petlesion: Command, masks: tuple[Path, Path]) -> None:
    for sizes in ("a", "1,,2", "-1,3", "5,5"):
        result = petlesion("sweep", *masks, f"--min-size={sizes}")
        assert result.status == 2
        assert "sizes" in result.err


def test_the_summary_is_the_average_on_paper(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    petlesion("evaluate", *masks, "-o", tmp_path / "metrics.csv")
    summary = json.loads(petlesion("summarize", tmp_path / "metrics.csv", "--json").out)
    assert summary["studies"] == 4
    assert summary["dice"] == pytest.approx(3 / 11)
    assert summary["false_positive_volume_ml"] == pytest.approx(0.75)
    assert summary["false_negative_volume_ml"] == pytest.approx(1.25)
    assert "0.273 [" in petlesion("summarize", tmp_path / "metrics.csv").out
    for style, start in (("csv", "studies_of,"), ("markdown", "| studies of"), ("latex", r"\begin{tabular}")):
        assert petlesion("summarize", tmp_path / "metrics.csv", "--format", style).out.startswith(start)


def test_folds_are_averaged_together_but_no_study_twice(
    petlesion: Command, masks: tuple[Path, Path], tmp_path: Path
) -> None:
    for case in ("half", "missed"):
        files = [folder / f"{case}.nii.gz" for folder in masks]
        petlesion("evaluate", *files, "-o", tmp_path / f"{case}.csv")
    both = petlesion("summarize", tmp_path / "half.csv", tmp_path / "missed.csv", "--json")
    assert json.loads(both.out)["studies"] == 2
    twice = petlesion("summarize", tmp_path / "half.csv", tmp_path / "half.csv")
    assert twice.status == 2
    assert "half twice" in twice.err


def test_averages_by_source_need_the_cohorts_cases(petlesion: Command, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    cohort = make_cohort(tmp_path / "cohort", names, test=names)
    write_random(tmp_path / "prediction", names, seed=5)
    metrics = tmp_path / "metrics.csv"
    petlesion("evaluate", tmp_path / "prediction", cohort.folder, "-o", metrics)
    cases = cohort.folder / "cases.csv"
    summary = json.loads(petlesion("summarize", metrics, "--by", "source", "--cases", cases, "--json").out)
    rows = {row.case_id: row for row in read_metrics(metrics)}
    assert summary["by_source"]["A"]["dice"] == pytest.approx((rows["a"].dice + rows["c"].dice) / 2)
    assert summary["by_source"]["B"]["studies"] == 2
    table = petlesion("summarize", metrics, "--by", "source", "--cases", cohort.folder, "--format", "csv").out
    assert [row["source"] for row in csv.DictReader(table.splitlines())] == ["A", "B", "all"]
    for arguments in (["--by", "source"], ["--by", "hospital", "--cases", cases], ["--cases", metrics]):
        assert petlesion("summarize", metrics, *arguments).status == 2


def test_runs_are_compared_with_the_first_and_with_the_paper(petlesion: Command, tmp_path: Path) -> None:
    runs = []
    for seed, name in enumerate(("b", "d")):
        run = tmp_path / f"{name}__nnUNetPlans__3d_fullres"
        write_random(run / "test" / "predictions", list("abcdef"), seed=seed)
        write_random(tmp_path / "reference", list("abcdef"), seed=9)
        (run / "experiment.json").write_text(
            json.dumps({"experiment": find_experiment(name).as_dict()}), encoding="utf-8"
        )
        predictions = run / "test" / "predictions"
        petlesion("evaluate", predictions, tmp_path / "reference", "-o", run / "test" / "metrics.csv")
        runs.append(run)
    text = petlesion("experiment", "compare", *runs).out
    assert "b (paper)" in text and "d − b" in text
    data = json.loads(petlesion("experiment", "compare", *runs, "--json").out)
    assert [run["name"] for run in data["runs"]] == ["b", "d"]
    assert data["runs"][0]["paper"]["test"]["dice"] == 0.685
    assert data["differences"][0]["scoring"] == "test"
    table = list(
        csv.DictReader(petlesion("experiment", "compare", *runs, "--format", "csv").out.splitlines())
    )
    assert [row["model"] for row in table] == ["b", "b (paper)", "d", "d (paper)"]
    assert float(table[2]["test_dice_difference"]) == data["differences"][0]["mean"]
    assert float(table[2]["test_dice_p"]) == data["differences"][0]["p_value"]
    assert table[0]["test_dice_difference"] == ""
    assert petlesion("experiment", "compare", tmp_path).status == 2


def test_figure_1_is_drawn(petlesion: Command, masks: tuple[Path, Path], tmp_path: Path) -> None:
    result = petlesion("experiment", "figure", *masks, "-o", tmp_path / "figure1.svg")
    assert result.status == 0
    assert (tmp_path / "figure1.svg").read_bytes().startswith(b"<?xml")
    refused = petlesion("experiment", "figure", *masks, "-o", tmp_path / "figure1.pdf")
    assert refused.status == 2
    assert not (tmp_path / "figure1.pdf").exists()
