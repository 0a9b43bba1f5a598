"""nnU-Net's JSON files: plans, fingerprints, descriptions of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from petlesion.errors import FormatError
from petlesion.io.atomic import write_text
from petlesion.io.jsonfile import load_json

Json = dict[str, Any]


def read_json(path: Path) -> Json:
    """Read a JSON object. Raises FormatError for what is not one."""
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: missing or not JSON; give the file as nnU-Net wrote it") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a JSON object; give the file as nnU-Net wrote it")
    return content


def write_json(path: Path, content: Json) -> None:
    """Write a JSON object, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")
