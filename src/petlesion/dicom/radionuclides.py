"""The radionuclides that PET is made with: how headers name them, and their half-lives.

Half-lives in seconds: Laboratoire National Henri Becquerel, Table of Radionuclides (F-18 109.77 min, and so
on). Codes: DICOM PS3.16 CID 4020 (SNOMED CT) and its predecessors (SRT, SNM3, 99SDM).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from petlesion.dicom.headers import text


@dataclass(frozen=True)
class Radionuclide:
    """A radionuclide; `half_life_s` is None for those that no PET scanner can image."""

    name: str
    element: str
    codes: tuple[str, ...]
    half_life_s: float | None


F18_HALF_LIFE_S = 6586.2
PET_RADIONUCLIDES = (
    Radionuclide("C-11", "carbon", ("40565003", "C-105A1"), 1221.8),
    Radionuclide("N-13", "nitrogen", ("21576001", "C-107A1"), 597.9),
    Radionuclide("O-15", "oxygen", ("129504001", "C-B1038"), 122.24),
    Radionuclide("F-18", "fluorine", ("77004003", "C-111A1"), F18_HALF_LIFE_S),
    Radionuclide("Cu-64", "copper", ("3932008", "C-127A2"), 45_722.0),
    Radionuclide("Ga-68", "gallium", ("35337001", "C-131A3"), 4070.0),
    Radionuclide("Rb-82", "rubidium", ("79197006", "C-159A2"), 76.4),
    Radionuclide("Zr-89", "zirconium", ("63360001", "C-168A4"), 282_280.0),
    Radionuclide("I-124", "iodine", ("40937006", "C-114A5"), 360_800.0),
)
SINGLE_PHOTON_RADIONUCLIDES = (
    Radionuclide("Ga-67", "gallium", ("79477007", "2008008", "C-131A2"), None),
    Radionuclide("Tc-99m", "technetium", ("72454006", "C-163A8"), None),
    Radionuclide("In-111", "indium", ("56609000", "C-145A4"), None),
    Radionuclide("I-123", "iodine", ("21572004", "C-114A4"), None),
    Radionuclide("I-131", "iodine", ("1368003", "C-114B1"), None),
    Radionuclide("Xe-133", "xenon", ("80751004", "C-172A8"), None),
    Radionuclide("Lu-177", "lutetium", ("447553000",), None),
    Radionuclide("Tl-201", "thallium", ("60057003", "C-138A9"), None),
)
_ALL = PET_RADIONUCLIDES + SINGLE_PHOTON_RADIONUCLIDES
_FLUORINATED = re.compile(r"\bFDG\b|fluoro?-?deoxy-?glucose", re.IGNORECASE)


def named_radionuclide(radiopharmaceutical: Dataset) -> Radionuclide | None:
    """The radionuclide that an item of RadiopharmaceuticalInformationSequence names by code or in words."""
    for item in radiopharmaceutical.get("RadionuclideCodeSequence") or ():
        code = text(item, "CodeValue")
        for radionuclide in _ALL:
            if code in radionuclide.codes:
                return radionuclide
        found = _in_words(text(item, "CodeMeaning"))
        if found is not None:
            return found
    pharmaceutical = text(radiopharmaceutical, "Radiopharmaceutical") or ""
    if _FLUORINATED.search(pharmaceutical):
        return next(nuclide for nuclide in _ALL if nuclide.name == "F-18")
    return _in_words(pharmaceutical)


def _in_words(words: str | None) -> Radionuclide | None:
    """Find a radionuclide written as F-18, 18F, ^18^Fluorine, Fluorine F^18^ or fluorine 18."""
    if not words:
        return None
    plain = words.replace("^", "").replace("[", "").replace("]", "")
    for radionuclide in _ALL:
        symbol, mass = radionuclide.name.split("-")
        name = rf"(?:{symbol}|{radionuclide.element})"
        if re.search(rf"(?<![a-z0-9]){name}[\s-]*{mass}(?![a-z0-9])", plain, re.IGNORECASE):
            return radionuclide
        if re.search(rf"(?<![0-9]){mass}[\s-]*{name}(?![a-z])", plain, re.IGNORECASE):
            return radionuclide
    return None
