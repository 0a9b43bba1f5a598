"""petlesion finds and measures tumour lesions in whole-body FDG PET/CT.

    import petlesion

    study = petlesion.read_study("folder-of-a-study")
    found = petlesion.segment(study, model="folder-of-a-model")
    print(found.table.metabolic_tumour_volume_ml)

Each name is imported when it is first used, so that `import petlesion` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from petlesion._version import __version__

if TYPE_CHECKING:
    from petlesion.errors import PetlesionError
    from petlesion.inference.predict import Model, PredictionSettings, load_model
    from petlesion.pipeline import Segmentation, SegmentationSettings, read_study, segment
    from petlesion.simulation import SimulationSettings, simulate
    from petlesion.volume import Grid, Study, Volume

__all__ = [
    "Grid",
    "Model",
    "PetlesionError",
    "PredictionSettings",
    "Segmentation",
    "SegmentationSettings",
    "SimulationSettings",
    "Study",
    "Volume",
    "__version__",
    "load_model",
    "read_study",
    "segment",
    "simulate",
]

_HOMES = {
    "Grid": "volume",
    "Model": "inference.predict",
    "PetlesionError": "errors",
    "PredictionSettings": "inference.predict",
    "Segmentation": "pipeline",
    "SegmentationSettings": "pipeline",
    "SimulationSettings": "simulation",
    "Study": "volume",
    "Volume": "volume",
    "load_model": "inference.predict",
    "read_study": "pipeline",
    "segment": "pipeline",
    "simulate": "simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'petlesion' has no attribute {name!r}")
    return getattr(import_module(f"petlesion.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
