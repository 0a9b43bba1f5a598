"""The demonstration, with a small model in the box and a phantom in the place of the simulated body."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from petlesion import simulation
from petlesion.cli import demo
from petlesion.errors import UsageError
from petlesion.io.nifti import read_mask
from petlesion.simulation.burden import draw_burden
from petlesion.training.export import ExportRequest, export_model
from tests.cohort.trees import small_study, write_study
from tests.conftest import REPOSITORY

# Neither torch nor nnU-Net may be asked for, as the base install has neither.
_DEMO = """
import sys
from pathlib import Path
from petlesion import simulation
from petlesion.cli.main import main
from petlesion.model import boxed
from tests.conftest import make_phantom
boxed._FOLDER = Path(sys.argv.pop(1))
simulation.simulate = lambda seed: make_phantom(seed=seed)
try:
    main()
finally:
    assert not {"torch", "nnunetv2"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def box(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box")
    export_model(ExportRequest([model_folder], name="small one"), folder / "ct-pet")
    return folder


def run_demo(box: Path, output: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _DEMO, str(box), "demo", "-o", str(output)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_it_shows_the_whole_path_without_torch(box: Path, tmp_path: Path) -> None:
    result = run_demo(box, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "the model in the box, small one. For research use only." in result.stderr
    for step in ("simulating a whole-body study: 4 of 4", "segmenting: ", "scoring: 1 of 1"):
        assert step in result.stderr
    found = tmp_path / "out" / "segmented" / "study"
    assert (found / "projections.png").is_file() and (found / "report.html").is_file()
    mask = read_mask(found / "lesions.nii.gz").array
    truth = read_mask(tmp_path / "out" / "study" / "SEG.nii.gz").array
    dice = 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))
    assert dice > 0.2
    printed = [line.split() for line in result.stdout.splitlines()]
    assert ["Dice", f"{dice:.3f}"] in printed
    assert ["volume", "of", "the", "lesions,", "mL", f"{np.count_nonzero(truth) * 0.064:.1f}"] in printed
    with (found / "lesions.csv").open(newline="") as file:
        lesions = list(csv.DictReader(file))
    for lesion in lesions[:10]:
        assert [lesion["lesion"], f"{float(lesion['volume_ml']):.1f}"] in [words[:2] for words in printed]
    again = run_demo(box, tmp_path / "out")
    assert again.returncode == 0 and "done before" in again.stderr
    assert again.stdout == result.stdout


def test_an_installation_without_a_model_is_told_so_at_once(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "no-box", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: this petlesion comes without a model for PET/CT; ")
    assert not (tmp_path / "out").exists()


def test_a_study_that_it_did_not_make_is_not_scored(tmp_path: Path) -> None:
    write_study(tmp_path / "study", small_study())
    with pytest.raises(UsageError, match="study: not the study that petlesion demo"):
        demo._simulate(tmp_path / "study")


def test_its_study_is_taken_again_only_as_this_version_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "simulate", lambda seed: small_study(seed))
    folder = tmp_path / "study"
    demo._simulate(folder)
    monkeypatch.setattr(simulation, "simulate", None)
    demo._simulate(folder)
    record = folder / "demo.json"
    written = record.read_text()
    record.write_text(json.dumps({**json.loads(written), "petlesion": "0.0.1"}))
    with pytest.raises(UsageError):
        demo._simulate(folder)
    record.write_text(written)
    write_study(folder, small_study(5))
    with pytest.raises(UsageError):
        demo._simulate(folder)


def test_its_study_has_lesions() -> None:
    burden = draw_burden(demo._SEED, np.random.default_rng(demo._SEED).spawn(6)[4])
    assert len(burden.volumes_ml) == 7
    assert burden.volumes_ml[0] > 100 > 1 > burden.volumes_ml[-1]
