"""What a report says of the conversion to SUV and of the model, in the words and units of the clinic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LABELS = {
    "units": "Units",
    "suv_type": "SUV type",
    "derived_from": "Derived from",
    "radionuclide": "Radionuclide",
    "dose_bq": "Injected dose",
    "weight_kg": "Body weight",
    "height_cm": "Body height",
    "sex": "Sex",
    "decay_correction": "Decay correction",
    "decay_reference": "Decay reference",
    "decay_seconds": "Decay of the dose",
    "half_life_s": "Half-life",
}
_MODEL_LABELS = {"name": "Name", "sha256": "SHA-256", "precision": "Precision"}
_UNITS = {
    "dose_bq": (1e-6, "MBq"),
    "weight_kg": (1.0, "kg"),
    "height_cm": (1.0, "cm"),
    "decay_seconds": (1 / 60, "min"),
    "half_life_s": (1 / 60, "min"),
}


def conversion_in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of an `SuvConversion` by readable names, in a fixed order, numbers with their units.

    What is not known by name comes last, as it is; what is None is left out. A list of numbers, such as each
    bed's decay, is shown by its ends.
    """
    order = [*(name for name in _LABELS if name in facts), *(name for name in facts if name not in _LABELS)]
    return {_LABELS.get(name, name): _shown(name, facts[name]) for name in order if facts[name] is not None}


def model_in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a model by readable names; what is not known by name stays as it is."""
    return {_MODEL_LABELS.get(name, name): str(value) for name, value in facts.items()}


def _shown(name: str, value: Any) -> str:
    if name not in _UNITS:
        return str(value)
    scale, unit = _UNITS[name]
    numbers = value if isinstance(value, list | tuple) else [value]
    ends = dict.fromkeys(
        f"{scale * number:.1f}".removesuffix(".0") for number in (min(numbers), max(numbers))
    )
    return f"{' to '.join(ends)} {unit}"
