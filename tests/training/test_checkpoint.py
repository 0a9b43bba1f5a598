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
    save_checkpoint(tmp_path / "c.pth", {"states": random_states(CPU)})
    expected = [draw() for _ in range(3)]
    restore_random_states(load_checkpoint(tmp_path / "c.pth", CPU)["states"], CPU)
    assert [draw() for _ in range(3)] == expected


def test_a_failed_write_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", {"epoch": 1})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(tmp_path / "c.pth", {"epoch": lambda: 2})
    assert load_checkpoint(tmp_path / "c.pth", CPU) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": Malicious()}, tmp_path / "c.pth")
    with pytest.raises(CohortError, match="holds more than data"):
        load_checkpoint(tmp_path / "c.pth", CPU)
    assert not Path("owned").exists()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", {"weights": torch.zeros(1000)})
    whole = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "c.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CohortError, match=r"c\.pth: this checkpoint is broken"):
        load_checkpoint(tmp_path / "c.pth", CPU)


def test_a_duplicate_stays_when_its_source_is_written_anew(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "latest.pth", {"epoch": 1})
    duplicate(tmp_path / "latest.pth", tmp_path / "best.pth")
    save_checkpoint(tmp_path / "latest.pth", {"epoch": 2})
    assert load_checkpoint(tmp_path / "best.pth", CPU) == {"epoch": 1}
    assert load_checkpoint(tmp_path / "latest.pth", CPU) == {"epoch": 2}
