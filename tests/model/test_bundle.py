import json
import random
import shutil
from pathlib import Path

import pytest

from petlesion.errors import ModelError
from petlesion.model.bundle import BUNDLE_FILE, Bundle, BundleMember, ModelCard, write_bundle_file
from petlesion.model.plan import Plan, plan_from_nnunet
from tests.inference.nnunet import Recipe, dataset_of, plans_of

CARD = ModelCard("a model", "nothing", "CC0", {"dice": 0.5})


@pytest.fixture
def plan() -> Plan:
    return plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres", mirror_axes=(1,))


@pytest.fixture
def folder(tmp_path: Path, plan: Plan) -> Path:
    """A bundle whose network is a few bytes that nobody runs."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "network.onnx").write_bytes(bytes(range(256)))
    write_bundle_file(path, (BundleMember(plan, {"0": "network.onnx"}, {"trainer": "b"}),), CARD)
    return path


def test_what_was_written_is_read(folder: Path, plan: Plan) -> None:
    bundle = Bundle.open(folder)
    assert bundle.card == CARD
    assert bundle.members == (BundleMember(plan, {"0": "network.onnx"}, {"trainer": "b"}),)
    assert list(bundle.network_paths()) == [(0, "0", folder / "network.onnx")]
    assert bundle.size_bytes == 256
    assert len(bundle.own_sha256) == 64


def test_a_weight_that_cannot_be_is_refused(folder: Path, plan: Plan) -> None:
    write_bundle_file(folder, (BundleMember(plan, {"0": "network.onnx"}, weight=2.5),), CARD)
    assert Bundle.open(folder).members[0].weight == 2.5
    for weight in (0.0, -1.0, float("inf")):
        write_bundle_file(folder, (BundleMember(plan, {"0": "network.onnx"}, weight=weight),), CARD)
        with pytest.raises(ModelError, match="weight"):
            Bundle.open(folder)


def test_any_changed_byte_is_refused(folder: Path) -> None:
    chance = random.Random(0)
    for name in ("network.onnx", BUNDLE_FILE):
        content = (folder / name).read_bytes()
        for position in chance.sample(range(len(content)), 60):
            changed = bytearray(content)
            changed[position] ^= 1 << chance.randrange(8)
            (folder / name).write_bytes(changed)
            with pytest.raises(ModelError):
                Bundle.open(folder)
        (folder / name).write_bytes(content)
        Bundle.open(folder)


def test_missing_and_cut_files_are_refused(folder: Path) -> None:
    content = (folder / "network.onnx").read_bytes()
    (folder / "network.onnx").write_bytes(content[:-1])
    with pytest.raises(ModelError, match="was changed after the export"):
        Bundle.open(folder)
    (folder / "network.onnx").unlink()
    with pytest.raises(ModelError, match="is missing"):
        Bundle.open(folder)
    (folder / BUNDLE_FILE).unlink()
    with pytest.raises(ModelError, match=r"bundle\.json is missing"):
        Bundle.open(folder)


def test_a_bundle_cannot_reach_out_of_its_folder(folder: Path, plan: Plan) -> None:
    outside = folder.parent / "outside.onnx"
    shutil.copy(folder / "network.onnx", outside)
    text = (folder / BUNDLE_FILE).read_text().replace("network.onnx", "../outside.onnx")
    resign(folder, json.loads(text))
    with pytest.raises(ModelError, match="does not lie in the bundle"):
        Bundle.open(folder)


def test_another_version_and_a_forgotten_network_are_refused(folder: Path) -> None:
    data = json.loads((folder / BUNDLE_FILE).read_text())
    resign(folder, {**data, "format_version": 2})
    with pytest.raises(ModelError, match="format version 2"):
        Bundle.open(folder)
    resign(folder, {**data, "sha256": {}})
    with pytest.raises(ModelError, match="does not list all its networks"):
        Bundle.open(folder)
    resign(folder, {key: value for key, value in data.items() if key != "members"})
    with pytest.raises(ModelError, match="members"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ["MR", "PET"]}, "'MR'"),
        ({"normalization": [{"scheme": "Percentile"}] * 2}, "'Percentile'"),
        ({"spacing_mm": [float("nan"), 1.0, 1.0]}, "nan"),
        ({"patch_size": [float("inf"), 1, 1]}, "not in order"),
    ],
)
def test_a_garbled_plan_is_told_with_its_file(folder: Path, changes: dict[str, object], message: str) -> None:
    data = json.loads((folder / BUNDLE_FILE).read_text())
    data["members"][0]["plan"].update(changes)
    resign(folder, data)
    with pytest.raises(ModelError, match=rf"^{folder / BUNDLE_FILE}: .*{message}.*; "):
        Bundle.open(folder)


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000, b"[1]", b"null"])
def test_json_of_something_else_is_refused(folder: Path, content: bytes) -> None:
    (folder / BUNDLE_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"bundle\.json is missing or no bundle's; take"):
        Bundle.open(folder)


def test_a_weight_beyond_all_numbers_is_refused(folder: Path) -> None:
    data = json.loads((folder / BUNDLE_FILE).read_text())
    data["members"][0]["weight"] = 7**500
    resign(folder, data)
    with pytest.raises(ModelError, match=r"bundle\.json lacks or garbles"):
        Bundle.open(folder)


def resign(folder: Path, data: dict[str, object]) -> None:
    """Write a changed bundle.json whose own sha256 is right."""
    import hashlib

    unsigned = json.dumps({**data, "bundle_sha256": "0" * 64}).encode()
    digest = hashlib.sha256(unsigned).hexdigest()
    (folder / BUNDLE_FILE).write_bytes(unsigned.replace(b"0" * 64, digest.encode()))
