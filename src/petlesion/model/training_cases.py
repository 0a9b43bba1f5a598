"""Which studies a network was trained on, so that none of them passes for one that it has not seen.

A fold of a run keeps its split by case ids. Of what its initial weights were trained on it keeps the
beginning of their sha256 alone, and so does a bundle, so that no name travels with it: 64 bits, by which no
two of a million cases are likely to be taken for each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petlesion.cohort.layout import Fold
from petlesion.errors import ModelError
from petlesion.io.atomic import write_text
from petlesion.io.jsonfile import load_json

SPLIT_FILE = "split.json"
TRAINING_CASES_FILE = "training_cases.json"

Digests = frozenset[str]
_DIGITS = 16
_EARLIER = "earlier_sha256"
_NAMED_EARLIER = "earlier"  # as folds kept it before: names


def case_digests(case_ids: Iterable[str]) -> Digests:
    """The first 16 hexadecimal digits of the sha256 of each case id."""
    return frozenset(hashlib.sha256(case_id.encode()).hexdigest()[:_DIGITS] for case_id in case_ids)


def write_split(fold_folder: Path, fold: Fold, earlier: Digests | None = frozenset()) -> None:
    """Keep what a fold is trained and validated on, whole or not at all.

    `earlier` are digests of the cases that its initial weights were trained on, None where nobody knows them.
    """
    content: dict[str, Any] = {"train": fold.train, "validation": fold.validation}
    if earlier is None or earlier:
        content[_EARLIER] = None if earlier is None else sorted(earlier)
    write_text(fold_folder / SPLIT_FILE, json.dumps(content, indent=1) + "\n")


def read_split(fold_folder: Path) -> Fold | None:
    """What a fold was trained and validated on; None where that was not kept. Raises ModelError."""
    stored = _read_split(fold_folder)
    return stored.fold if stored else None


def seen_cases(fold_folder: Path) -> Digests | None:
    """Digests of the cases that a fold's weights have been trained on, the initial ones' among them.

    None where that was not kept, of the fold or of its initial weights. Raises ModelError.
    """
    stored = _read_split(fold_folder)
    if stored is None or stored.earlier is None:
        return None
    return case_digests(stored.fold.train) | stored.earlier


def trained_on(folder: Path, folds: Iterable[str]) -> dict[str, Digests]:
    """Digests of the training cases of a model folder's folds, as far as they were kept."""
    seen = {fold: seen_cases(folder / f"fold_{fold}") for fold in folds}
    return {fold: cases for fold, cases in seen.items() if cases is not None}


def write_training_cases(bundle: Path, cases: Mapping[str, Digests]) -> None:
    """Keep, for each network of a bundle by its file name, the digests of its training cases."""
    content = {name: sorted(digests) for name, digests in cases.items()}
    write_text(bundle / TRAINING_CASES_FILE, json.dumps(content) + "\n")


def read_training_cases(bundle: Path) -> dict[str, Digests]:
    """What `write_training_cases` kept; nothing for a bundle that was exported without. Raises ModelError.

    Bundles of before hold all digits.
    """
    path = bundle / TRAINING_CASES_FILE
    if not path.is_file():
        return {}
    try:
        return {
            str(name): frozenset(digest[:_DIGITS] for digest in digests)
            for name, digests in _read_json(path).items()
        }
    except (AttributeError, TypeError):
        raise _broken(path) from None


@dataclass(frozen=True)
class _Split:
    """What split.json holds; `earlier` is None where nobody knows what the initial weights have seen."""

    fold: Fold
    earlier: Digests | None


def _read_split(fold_folder: Path) -> _Split | None:
    path = fold_folder / SPLIT_FILE
    if not path.is_file():
        return None
    try:
        stored = _read_json(path)
        fold = Fold(tuple(stored["train"]), tuple(stored["validation"]))
        digests = stored.get(_EARLIER, ())
        named = case_digests(stored.get(_NAMED_EARLIER, ()))
        return _Split(fold, None if digests is None else named | frozenset(digests))
    except (KeyError, TypeError, AttributeError):
        raise _broken(path) from None


def _read_json(path: Path) -> Any:
    try:
        return load_json(path)
    except (OSError, ValueError):
        raise _broken(path) from None


def _broken(path: Path) -> ModelError:
    return ModelError(
        f"{path} is broken, so that it cannot be told what the model was trained on; "
        "restore it, or remove it if you know"
    )
