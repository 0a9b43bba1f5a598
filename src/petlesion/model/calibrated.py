"""Where a model keeps its calibration: a bundle in bundle.json, a run in calibration.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petlesion.errors import ModelError
from petlesion.io.atomic import write_text
from petlesion.io.jsonfile import load_json
from petlesion.model.bundle import BUNDLE_FILE, Bundle, store_calibration

CALIBRATION_FILE = "calibration.json"
_WEIGHTS = "weights_sha256"


def write_calibration(model: Path, calibration: Mapping[str, Any], fingerprint: str) -> None:
    """Store the calibration of a bundle, or of a model folder whose weights have this fingerprint."""
    if (model / BUNDLE_FILE).is_file():
        store_calibration(Bundle.open(model), calibration)
    else:
        content = {_WEIGHTS: fingerprint, **calibration}
        write_text(model / CALIBRATION_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_calibration(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """A model folder's calibration; None where there is none, or where it is that of other weights.

    Raises ModelError for a file that is broken.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        content = load_json(path)
        weights = content.pop(_WEIGHTS)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{path} is broken; calibrate the model again, or remove the file") from None
    return dict(content) if weights == fingerprint else None
