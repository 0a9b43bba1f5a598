"""The models in the box: bundles that come inside the package. For research use only."""

from __future__ import annotations

from pathlib import Path

from petlesion.errors import ModelError

_FOLDER = Path(__file__).parent / "boxed"


def boxed_bundle(*, has_ct: bool) -> Path:
    """The bundle that comes with petlesion for a study with or without a CT.

    Raises ModelError where this installation has none.
    """
    folder = _FOLDER / ("ct-pet" if has_ct else "pet")
    if not folder.is_dir():
        kind = "PET/CT" if has_ct else "PET without CT"
        raise ModelError(f"this petlesion comes without a model for {kind}; give the path of one")
    return folder
