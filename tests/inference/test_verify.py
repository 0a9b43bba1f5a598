import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from petlesion.errors import ModelError
from petlesion.inference.backends.openvino import computes_bfloat16
from petlesion.inference.verify import verify_bundle
from petlesion.model.bundle import Bundle, write_bundle_file
from petlesion.model.probe import PROBE_FILE


def test_every_network_is_checked_in_both_precisions(bundle: Bundle) -> None:
    checks = verify_bundle(bundle)
    assert [check.network for check in checks] == ["member_0_fold_0.onnx", "member_0_fold_1.onnx"]
    for check in checks:
        assert check.float32_difference <= 1e-3
        if computes_bfloat16():
            assert check.float32_difference <= check.bfloat16_difference < 0.5
            assert check.bfloat16_dice is None or check.bfloat16_dice > 0.9


def test_an_answer_that_is_no_number_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.full((32, 32, 32), np.nan, dtype=np.float32)
    monkeypatch.setattr("petlesion.inference.verify.probe_probability", lambda network, plan: nothing)
    with pytest.raises(ModelError, match="off in probability"):
        verify_bundle(bundle)


def test_nothing_is_said_of_bfloat16_where_there_is_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petlesion.inference.verify.computes_bfloat16", lambda: False)
    for check in verify_bundle(bundle):
        assert check.bfloat16_difference is None and check.bfloat16_dice is None


def resigned(bundle: Bundle, path: Path, samples: dict[str, np.ndarray]) -> Bundle:
    """A copy of the bundle with another expected answer, its sha256 in order."""
    shutil.copytree(bundle.path, path)
    np.savez_compressed(path / PROBE_FILE, **samples)
    write_bundle_file(path, bundle.members, bundle.card)
    return Bundle.open(path)


def test_another_answer_than_torchs_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    with np.load(bundle.path / PROBE_FILE) as file:
        samples = {name: file[name] + np.float32(0.01) for name in file.files}
    with pytest.raises(ModelError, match="off in probability"):
        verify_bundle(resigned(bundle, tmp_path / "other", samples))
    del samples["member_0_fold_1"]
    with pytest.raises(ModelError, match="lacks the answer of member_0_fold_1"):
        verify_bundle(resigned(bundle, tmp_path / "fewer", samples))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"PK\x05\x06"])
def test_a_probe_that_is_no_archive_is_an_error(bundle: Bundle, tmp_path: Path, content: bytes) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (path / PROBE_FILE).write_bytes(content)
    write_bundle_file(path, bundle.members, bundle.card)
    with pytest.raises(ModelError, match=r"probe\.npz is missing or unreadable"):
        verify_bundle(Bundle.open(path))


def test_a_bundle_without_probe_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (path / PROBE_FILE).unlink()
    write_bundle_file(path, bundle.members, bundle.card)
    assert PROBE_FILE not in json.loads((path / "bundle.json").read_text())["sha256"]
    with pytest.raises(ModelError, match=r"probe\.npz is missing"):
        verify_bundle(Bundle.open(path))
