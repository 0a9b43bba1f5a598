"""The models in the box: what must hold of them wherever there are any."""

import shutil
import subprocess
from pathlib import Path

import pytest

from petlesion.calibration.stored import calibration_of
from petlesion.inference.predict import load_model
from petlesion.inference.verify import verify_bundle
from petlesion.model.boxed import KINDS, boxed_bundles, model_card
from petlesion.model.bundle import Bundle
from petlesion.model.plan import CT
from petlesion.model.training_cases import read_training_cases
from tests.conftest import REPOSITORY

_MOST_BYTES, _MOST_BYTES_TOGETHER = 12e6, 20e6
_CUT_ANEW = {
    "ct-pet": "real studies held out, cut anew, threshold chosen on other patients",
    "pet": "real studies held out, cut anew",
}


@pytest.fixture(params=KINDS.values())
def bundle(request: pytest.FixtureRequest) -> Bundle:
    kind = request.param
    if kind not in boxed_bundles():
        pytest.skip(f"no model for {kind} is in the box")
    return Bundle.open(boxed_bundles()[kind])


def test_a_bundle_is_small_and_fits_its_studies(bundle: Bundle) -> None:
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) <= _MOST_BYTES
    needs_ct = any(CT in member.plan.channels for member in bundle.members)
    assert needs_ct == (bundle.path.name == "ct-pet")


def test_all_bundles_together_are_small() -> None:
    sizes = [file.stat().st_size for folder in boxed_bundles().values() for file in folder.iterdir()]
    assert sum(sizes) <= _MOST_BYTES_TOGETHER


def test_a_bundle_names_its_sources_and_knows_what_it_saw(bundle: Bundle) -> None:
    for source in ("10.7937/K9/TCIA.2015.7GO2GSKS", "CC BY 3.0", "simulated"):
        assert source in bundle.card.training_data
    assert bundle.card.licence != "not stated"
    networks = {path.name for _, _, path in bundle.network_paths()}
    assert set(read_training_cases(bundle.path)) == networks


def test_a_bundle_tells_how_it_scored_and_is_calibrated(bundle: Bundle) -> None:
    assert 0 < bundle.card.scores[_CUT_ANEW[bundle.path.name]]["dice"] < 1
    calibration = calibration_of(load_model(bundle.path))
    assert calibration is not None and not calibration.needs_uncertainty
    assert set(calibration.ranges) == {"real", "simulated"}


def test_a_bundle_answers_as_torch_did(bundle: Bundle) -> None:
    assert all(check.float32_difference <= 1e-3 for check in verify_bundle(bundle))


def test_no_figure_of_the_card_is_left_open() -> None:
    if not boxed_bundles():
        pytest.skip("no model is in the box")
    assert "TODO" not in model_card()


def test_the_card_has_sources_and_warning() -> None:
    card = model_card()
    for words in ("research use only", "10.7937/K9/TCIA.2015.7GO2GSKS", "CC BY 3.0", "In-domain"):
        assert words in card


@pytest.mark.parametrize("name", ["bundle.json", "member_0_fold_0.onnx", "probe.npz", "training_cases.json"])
@pytest.mark.parametrize("folder", KINDS)
def test_the_wheel_will_hold_a_bundle(folder: str, name: str) -> None:
    """Hatch packs every file of the package that git does not ignore."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("this is no git checkout")
    path = Path("src", "petlesion", "model", "boxed", folder, name)
    command = ["git", "check-ignore", "--no-index", "--quiet", str(path)]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 1
