"""Checkpoints: whole or not at all, data only, and random states that come back."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from petlesion.errors import CohortError
from petlesion.training.checkpoint import (
    duplicate,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float, float]:
    return (
        random.random(),
        float(np.random.random()),  # noqa: NPY002
        float(np.random.normal()),  # noqa: NPY002
        float(torch.rand(())),
    )


def test_random_states_go_on_after_a_round_trip(tmp_path: Path) -> None:
    draw()
    save_checkpoint(tmp_path / "c.pth", {"records": [], "states": random_states(CPU)})
    expected = [draw() for _ in range(3)]
    restore_random_states(load_checkpoint(tmp_path / "c.pth", CPU)["states"], CPU)
    assert [draw() for _ in range(3)] == expected


def test_a_failed_write_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", {"records": [1]})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(tmp_path / "c.pth", {"records": lambda: 2})
    assert load_checkpoint(tmp_path / "c.pth", CPU) == {"records": [1]}
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"records": Malicious()}, tmp_path / "c.pth")
    with pytest.raises(CohortError, match="holds more than data"):
        load_checkpoint(tmp_path / "c.pth", CPU)
    assert not Path("owned").exists()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    write_half(tmp_path / "c.pth")
    with pytest.raises(CohortError, match=r"c\.pth: this checkpoint is broken, .*; remove it to train"):
        load_checkpoint(tmp_path / "c.pth", CPU)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError(), PermissionError("no")])
def test_what_says_nothing_about_the_file_is_not_taken_for_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save_checkpoint(tmp_path / "c.pth", {"records": []})

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        load_checkpoint(tmp_path / "c.pth", CPU)


def write_half(path: Path) -> None:
    save_checkpoint(path, {"records": [], "weights": torch.zeros(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def test_a_best_checkpoint_is_offered_in_place_of_a_broken_one(tmp_path: Path) -> None:
    best = tmp_path / "checkpoint_best.pth"
    write_half(tmp_path / "c.pth")
    write_half(best)
    with pytest.raises(CohortError, match="; remove it to train"):
        load_checkpoint(tmp_path / "c.pth", CPU)
    save_checkpoint(best, {"records": []})
    with pytest.raises(CohortError, match=r"; copy checkpoint_best\.pth in its place"):
        load_checkpoint(tmp_path / "c.pth", CPU)


def test_stock_nnunets_checkpoint_is_no_training_to_go_on_with(tmp_path: Path) -> None:
    torch.save({"network_weights": {}, "logging": {}}, tmp_path / "c.pth")
    with pytest.raises(CohortError, match="not one of petlesion train"):
        load_checkpoint(tmp_path / "c.pth", CPU)


def test_a_duplicate_stays_when_its_source_is_written_anew(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "latest.pth", {"records": [1]})
    duplicate(tmp_path / "latest.pth", tmp_path / "best.pth")
    save_checkpoint(tmp_path / "latest.pth", {"records": [1, 2]})
    assert load_checkpoint(tmp_path / "best.pth", CPU) == {"records": [1]}
    assert load_checkpoint(tmp_path / "latest.pth", CPU) == {"records": [1, 2]}
