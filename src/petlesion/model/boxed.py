"""The models in the box: bundles that come inside the package. For research use only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from petlesion.errors import ModelError

KINDS: Mapping[str, str] = {"ct-pet": "PET/CT", "pet": "PET without CT"}
"""What the models in the box are for, by the folder of each."""

LIMITS = "finds sarcomas in cropped studies, but in whole bodies it marks heart, bowel and other organs too"
"""What a user of the models in the box must be told; their card has the figures. It goes with the bundles."""

_FOLDER = Path(__file__).parent / "boxed"
_CARD = "MODEL_CARD.md"


def kind_of(*, has_ct: bool) -> str:
    """What a study with or without a CT is, in words."""
    return KINDS[_folder_of(has_ct=has_ct)]


def boxed_bundle(*, has_ct: bool) -> Path:
    """The bundle that comes with petlesion for a study with or without a CT.

    Raises ModelError where this installation has none.
    """
    folder = _FOLDER / _folder_of(has_ct=has_ct)
    if not folder.is_dir():
        raise ModelError(
            f"this petlesion comes without a model for {kind_of(has_ct=has_ct)}; "
            "give petlesion segment the path of one with --model"
        )
    return folder


def boxed_bundles() -> dict[str, Path]:
    """All bundles that come with this installation, by what they are for."""
    return {kind: _FOLDER / name for name, kind in KINDS.items() if (_FOLDER / name).is_dir()}


def model_card() -> str:
    """What the models in the box learnt from, what they are for and how they score, in Markdown."""
    return (_FOLDER / _CARD).read_text(encoding="utf-8")


def _folder_of(*, has_ct: bool) -> str:
    return "ct-pet" if has_ct else "pet"
