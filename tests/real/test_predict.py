"""The prediction of a real held-out study, beside stock nnU-Net's with the same weights."""

from pathlib import Path

from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort
from petlesion.io.nifti import read_mask
from tests.inference.nnunet import stock_prediction
from tests.real.conftest import KilledTraining


def test_real_held_out_studies_get_stock_nnunets_labels(
    killed_training: KilledTraining, sarcomas: Cohort, tmp_path: Path
) -> None:
    run = killed_training.fold_folder.parent
    arguments = ["predict", str(run), str(sarcomas.folder), "-o", str(tmp_path), "--held-out"]
    result = CliRunner().invoke(app, [*arguments, "--tiles", "full", "--precision", "float32"])
    assert result.exit_code == 0, result.output
    held_out = sarcomas.folds[0].validation
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == [
        f"{c}.nii.gz" for c in sorted(held_out)
    ]
    for case_id in held_out:
        study = sarcomas.read_study(case_id)
        ours = read_mask(tmp_path / f"{case_id}.nii.gz").array
        stock, _ = stock_prediction(run, study)
        assert (ours == stock).mean() >= 0.9999
        assert 0 < stock.mean() < 1
