"""Segmenting without a model of one's own: the one in the box that fits is taken, and it is said."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.errors import ModelError
from petlesion.io.nifti import write_volume
from petlesion.model import boxed
from petlesion.pipeline import segment
from petlesion.volume import Study
from tests.inference.nnunet import Recipe, write_model_folder


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, one of which needs no CT, in the place of those that come with petlesion."""
    folder = tmp_path / "box"
    write_model_folder(folder / "ct-pet", Recipe(), bias=-1000.0)
    write_model_folder(
        folder / "pet", Recipe(channels=("PET",), schemes=("ZScoreNormalization",)), bias=-1000.0
    )
    monkeypatch.setattr(boxed, "_FOLDER", folder)
    return folder


def write_studies(folder: Path, study: Study) -> Path:
    assert study.ct is not None
    for name in ("both", "lone"):
        write_volume(folder / name / "PET.nii.gz", study.pet)
    write_volume(folder / "both" / "CT.nii.gz", study.ct)
    return folder


def test_each_study_goes_to_the_model_that_fits_it(box: Path, tmp_path: Path, phantom: Study) -> None:
    studies = write_studies(tmp_path / "in", phantom)
    command = ["segment", str(studies), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    assert "PET/CT go to the model in the box, ct-pet. For research use only." in result.stderr
    assert "PET without CT go to the model in the box, pet. For research use only." in result.stderr
    records = {
        name: json.loads((tmp_path / "out" / name / "run.json").read_text()) for name in ("both", "lone")
    }
    digests = {name: record["run"]["model"]["sha256"] for name, record in records.items()}
    assert digests["both"] != digests["lone"]
    again = CliRunner().invoke(app, command)
    assert again.stderr.count("done before") == 2


def test_from_python_too(box: Path, phantom: Study) -> None:
    assert segment(phantom).table.count == 0
    without_ct = Study(phantom.name, phantom.pet)
    assert segment(without_ct).table.count == 0


def test_an_installation_without_a_model_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantom: Study
) -> None:
    monkeypatch.setattr(boxed, "_FOLDER", tmp_path / "nothing")
    with pytest.raises(
        ModelError, match="without a model for PET/CT; give petlesion segment the path of one"
    ):
        segment(phantom)
    studies = write_studies(tmp_path / "in", phantom)
    result = CliRunner().invoke(app, ["segment", str(studies / "lone"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_info_without_a_bundle_prints_the_card_of_the_box() -> None:
    result = CliRunner().invoke(app, ["model", "info"])
    assert result.exit_code == 0
    assert result.stdout.startswith("# The models in the box\n\n**For research use only.**")
    listed = json.loads(CliRunner().invoke(app, ["model", "info", "--json"]).stdout)
    assert set(listed) == set(boxed.boxed_bundles())
