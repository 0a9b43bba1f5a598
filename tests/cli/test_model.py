import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.errors import FormatError, ModelError
from tests.inference.nnunet import Recipe, write_model_folder

RUNNER = CliRunner()
SCORES = {"studies": 3, "held out": {"dice": 0.71, "dice_ci95": [0.6, 0.8]}}


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle written by the command itself."""
    folder = tmp_path_factory.mktemp("model")
    run = write_model_folder(folder / "run", Recipe(mirror_axes=(0, 1)))
    (folder / "scores.json").write_text(json.dumps(SCORES))
    command = ["model", "export", str(run), "-o", str(folder / "bundle"), "--name", "small one"]
    command += ["--licence", "CC BY 4.0", "--training-data", "three phantoms", "--orientation", "RAS"]
    result = RUNNER.invoke(app, [*command, "--scores", str(folder / "scores.json")])
    assert result.exit_code == 0, result.output
    return folder / "bundle"


def test_info_says_what_a_user_must_know(bundle_path: Path) -> None:
    text = RUNNER.invoke(app, ["model", "info", str(bundle_path)]).stdout
    for fact in (
        "small one",
        "three phantoms",
        "CC BY 4.0",
        "score, held out: dice",
        "0.710",
        "0.600 to 0.800",
        "RAS",
        "CT, PET",
        "0, 1",
        "32 × 32 × 32",
    ):
        assert fact in text
    facts = json.loads(RUNNER.invoke(app, ["model", "info", str(bundle_path), "--json"]).stdout)
    assert facts["scores"] == SCORES
    assert facts["members"][0]["plan"]["mirror_axes"] == [0, 1]
    assert {"member_0_fold_0.onnx", "probe.npz"} <= set(facts["sha256"])


def test_verify_compares_both_precisions_with_torch(bundle_path: Path) -> None:
    result = RUNNER.invoke(app, ["model", "verify", str(bundle_path)])
    assert result.exit_code == 0
    assert "member_0_fold_0.onnx" in result.stdout
    (check,) = json.loads(RUNNER.invoke(app, ["model", "verify", str(bundle_path), "--json"]).stdout)
    assert check["float32_difference"] <= 1e-3


def test_a_changed_byte_is_refused(bundle_path: Path) -> None:
    network = bundle_path / "member_0_fold_0.onnx"
    content = network.read_bytes()
    network.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for command in ("info", "verify"):
        result = RUNNER.invoke(app, ["model", command, str(bundle_path)])
        assert isinstance(result.exception, ModelError)
        assert "was changed" in str(result.exception)
    network.write_bytes(content)


def test_scores_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("[1, 2")
    command = ["model", "export", str(tmp_path), "-o", str(tmp_path / "out"), "--scores"]
    result = RUNNER.invoke(app, [*command, str(tmp_path / "scores.json")])
    assert isinstance(result.exception, FormatError)
