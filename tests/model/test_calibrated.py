"""A calibration travels with its model, and neither can be changed unseen."""

import json
from pathlib import Path

import pytest

from petlesion.errors import ModelError
from petlesion.model.bundle import BUNDLE_FILE, Bundle, BundleMember, ModelCard, write_bundle_file
from petlesion.model.calibrated import CALIBRATION_FILE, read_calibration, write_calibration
from petlesion.model.plan import plan_from_nnunet
from tests.inference.nnunet import Recipe, dataset_of, plans_of

CALIBRATION = {"temperature": 1.25, "sources": {"cohort": "Größe"}}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle whose network is a few bytes that nobody runs."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "network.onnx").write_bytes(b"network")
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres", mirror_axes=())
    card = ModelCard("a model", "nothing", "CC0", {"dice": 0.5})
    write_bundle_file(path, (BundleMember(plan, {"0": "network.onnx"}),), card)
    return Bundle.open(path)


def test_a_bundle_takes_a_calibration_and_keeps_its_fingerprint(bundle: Bundle) -> None:
    assert bundle.calibration is None and bundle.fingerprint == bundle.own_sha256
    write_calibration(bundle.path, CALIBRATION, bundle.fingerprint)
    calibrated = Bundle.open(bundle.path)
    assert calibrated.calibration == CALIBRATION
    assert (calibrated.card, calibrated.members, calibrated.sha256) == (
        bundle.card,
        bundle.members,
        bundle.sha256,
    )
    assert calibrated.own_sha256 != bundle.own_sha256
    assert calibrated.fingerprint == bundle.fingerprint
    assert sorted(path.name for path in bundle.path.iterdir()) == [BUNDLE_FILE, "network.onnx"]


def test_a_calibration_is_replaced_as_a_whole(bundle: Bundle) -> None:
    write_calibration(bundle.path, {**CALIBRATION, "more": 1}, bundle.fingerprint)
    write_calibration(bundle.path, CALIBRATION, bundle.fingerprint)
    again = Bundle.open(bundle.path)
    assert again.calibration == CALIBRATION and again.fingerprint == bundle.fingerprint


def test_a_changed_calibration_is_refused(bundle: Bundle) -> None:
    write_calibration(bundle.path, CALIBRATION, bundle.fingerprint)
    file = bundle.path / BUNDLE_FILE
    content = file.read_text(encoding="utf-8")
    assert '"temperature": 1.25' in content
    file.write_text(content.replace('"temperature": 1.25', '"temperature": 1.75'), encoding="utf-8")
    with pytest.raises(ModelError, match="was changed after the export"):
        Bundle.open(bundle.path)


def test_a_bundle_that_was_changed_is_not_signed_anew(bundle: Bundle) -> None:
    (bundle.path / "network.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match="was changed after the export"):
        write_calibration(bundle.path, CALIBRATION, bundle.fingerprint)


def test_a_runs_calibration_holds_for_its_weights_alone(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, "abc") is None
    write_calibration(tmp_path, CALIBRATION, "abc")
    assert read_calibration(tmp_path, "abc") == CALIBRATION
    assert read_calibration(tmp_path, "def") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"weights": "abc"})])
def test_a_runs_broken_calibration_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(ModelError, match=r"calibration\.json is broken"):
        read_calibration(tmp_path, "abc")
