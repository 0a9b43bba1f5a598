"""What a network was trained on: kept by name in a run, by digest in a bundle."""

import json
from pathlib import Path

import pytest

from petlesion.cohort.layout import Fold
from petlesion.errors import ModelError
from petlesion.model.training_cases import (
    SPLIT_FILE,
    TRAINING_CASES_FILE,
    case_digests,
    read_split,
    read_training_cases,
    seen_cases,
    trained_on,
    write_split,
    write_training_cases,
)

# printf abc | sha256sum
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_digest_begins_the_sha256_of_the_case_id() -> None:
    assert case_digests(["abc"]) == {ABC[:16]}


def test_a_fold_keeps_its_split(tmp_path: Path) -> None:
    fold = Fold(("abc", "b"), ("c",))
    write_split(tmp_path / "fold_1", fold)
    assert read_split(tmp_path / "fold_1") == fold
    stored = json.loads((tmp_path / "fold_1" / SPLIT_FILE).read_text())
    assert stored == {"train": ["abc", "b"], "validation": ["c"]}
    assert trained_on(tmp_path, ["0", "1"]) == {"1": case_digests(["abc", "b"])}


def test_what_the_initial_weights_have_seen_counts(tmp_path: Path) -> None:
    write_split(tmp_path / "fold_0", Fold(("abc",), ("c",)), earlier=case_digests(["patient-e", "patient-d"]))
    assert seen_cases(tmp_path / "fold_0") == case_digests(["abc", "patient-d", "patient-e"])
    assert read_split(tmp_path / "fold_0") == Fold(("abc",), ("c",))
    assert trained_on(tmp_path, ["0"]) == {"0": case_digests(["abc", "patient-d", "patient-e"])}
    assert "patient" not in (tmp_path / "fold_0" / SPLIT_FILE).read_text()
    assert seen_cases(tmp_path / "fold_1") is None


def test_names_of_before_count_as_seen_too(tmp_path: Path) -> None:
    (tmp_path / SPLIT_FILE).write_text('{"train": ["abc"], "validation": [], "earlier": ["d"]}')
    assert seen_cases(tmp_path) == case_digests(["abc", "d"])


def test_weights_of_unknown_history_leave_it_unknown(tmp_path: Path) -> None:
    write_split(tmp_path / "fold_0", Fold(("abc",), ("c",)), earlier=None)
    assert seen_cases(tmp_path / "fold_0") is None
    assert read_split(tmp_path / "fold_0") == Fold(("abc",), ("c",))
    assert trained_on(tmp_path, ["0"]) == {}


def test_a_bundle_keeps_digests_alone(tmp_path: Path) -> None:
    write_training_cases(tmp_path, {"fold.onnx": case_digests(["abc"])})
    assert read_training_cases(tmp_path) == {"fold.onnx": {ABC[:16]}}
    assert "abc" not in (tmp_path / TRAINING_CASES_FILE).read_text()


def test_digests_of_all_digits_are_the_same_ones(tmp_path: Path) -> None:
    (tmp_path / TRAINING_CASES_FILE).write_text(json.dumps({"fold.onnx": [ABC]}))
    assert read_training_cases(tmp_path) == {"fold.onnx": case_digests(["abc"])}


def test_what_was_not_kept_is_not_known(tmp_path: Path) -> None:
    assert read_split(tmp_path) is None
    assert read_training_cases(tmp_path) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"train": null, "validation": []}'])
def test_a_broken_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / SPLIT_FILE).write_text(content)
    with pytest.raises(ModelError, match=r"split\.json is broken"):
        read_split(tmp_path)
    (tmp_path / TRAINING_CASES_FILE).write_text(content)
    with pytest.raises(ModelError, match=r"training_cases\.json is broken"):
        read_training_cases(tmp_path)
