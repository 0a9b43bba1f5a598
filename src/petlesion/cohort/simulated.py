"""What the simulated studies of a folder were made with: simulation.json, by the seed of the cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petlesion.errors import CohortError, UsageError
from petlesion.io.atomic import write_text
from petlesion.io.jsonfile import load_json

RECORD = "simulation.json"

Facts = Mapping[str, Any]


def keep_record(folder: Path, seed: int, made_with: Facts, *, begun: bool) -> None:
    """Record what a seed's studies are made with, or compare it where some are there (`begun`).

    Studies that are older than the record go without one, as nobody knows what they were made with. Raises
    UsageError for anything else than the record tells, and CohortError for a record that cannot be read.
    """
    path = folder / RECORD
    records = _read(path)
    former = records.get(str(seed), made_with)
    if begun and former != made_with:
        raise UsageError(
            f"{path}: studies of seed {seed} are there that were made with {_difference(former, made_with)}; "
            "give the same, another seed or another folder"
        )
    if not begun:
        write_text(path, json.dumps({**records, str(seed): made_with}, indent=2) + "\n")


def _difference(former: Facts, now: Facts) -> str:
    different = (name for name in now if former.get(name) != now[name])
    return ", ".join(f"{name} {former.get(name)}, not {now[name]}" for name in different)


def _read(path: Path) -> dict[str, Facts]:
    if not path.exists():
        return {}
    try:
        records = load_json(path)
        sound = all(isinstance(facts, dict) for facts in records.values())
    except (OSError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise CohortError(f"{path}: not as petlesion writes it; take it away if its studies are to be kept")
    return dict(records)
