"""nnU-Net's habits, kept in one place: folders lent through environment variables, and prints.

nnU-Net 2.8 looks up its three folders in environment variables each time it needs them, and prints to
standard output. Nobody outside this module sees either: the variables stand only while it works in a
`workplace`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGURATION = "3d_fullres"
LESION = 1  # the label, as a cohort's dataset.json numbers it
PLANS_NAME = "nnUNetPlans"

_HIDDEN_PREFIX = "nnUNet_"


@dataclass(frozen=True)
class Workplace:
    """The three folders of nnU-Net, with one dataset in them."""

    root: Path
    dataset_name: str

    @property
    def raw(self) -> Path:
        """Where nnU-Net looks for the dataset's dataset.json."""
        return self.root / "raw" / self.dataset_name

    @property
    def preprocessed(self) -> Path:
        """Where nnU-Net keeps the dataset's fingerprint and plan."""
        return self.root / "preprocessed" / self.dataset_name


@contextlib.contextmanager
def workplace(dataset_name: str, dataset_json: Mapping[str, Any]) -> Iterator[Workplace]:
    """Lend nnU-Net a scratch place that holds `dataset_json`; what it prints there is kept from the user."""
    with tempfile.TemporaryDirectory(prefix="petlesion-") as scratch:
        place = Workplace(Path(scratch), dataset_name)
        place.raw.mkdir(parents=True)
        place.preprocessed.mkdir(parents=True)
        (place.raw / "dataset.json").write_text(json.dumps(dataset_json), encoding="utf-8")
        folders = {f"nnUNet_{kind}": str(place.root / kind) for kind in ("raw", "preprocessed", "results")}
        with environment(folders), silence():
            yield place


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Hide the user's own nnU-Net variables, so that none of them changes a result, and set these instead."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_HIDDEN_PREFIX)}
    for name in hidden:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(hidden)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep prints from standard output, which belongs to data."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
