"""Importer of an nnU-Net raw dataset with a CT and a PET channel and one foreground label, or of a cohort.

A cohort's cases keep their patients and sources. In any other dataset each case is a patient, except that
autoPET's case names (`fdg_<patient>_<date>`) tell the patient, under the name that the collection
FDG-PET-CT-Lesions has for it (`PETCT_<patient>`), so that both copies of a study stay together.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from petlesion.cohort.layout import Cohort
from petlesion.cohort.sources import Entry, as_case_id, read_images, require_image
from petlesion.errors import CohortError
from petlesion.io.jsonfile import load_json
from petlesion.io.nifti import read_mask
from petlesion.volume import Study

_CT_NAMES = ("ct", "ctres")
_PET_NAMES = ("pet", "pt", "suv")
_AUTOPET_PATIENT = re.compile(r"(fdg|psma|PETCT)(_[0-9a-zA-Z]+)_.+")
_NAME_IN_COLLECTION = {"fdg": "PETCT"}


def find_entries(root: Path) -> list[Entry]:
    """List the dataset's training cases. Raises CohortError for a dataset.json that does not fit."""
    if (root / "cases.csv").is_file():
        cohort = Cohort.open(root)
        return [
            Entry(case.case_id, case.patient_id, partial(cohort.read_study, case.case_id), case.source)
            for case in cohort.cases
        ]
    ct_channel, pet_channel = _channels(root / "dataset.json")
    names = [path.name for path in (root / "imagesTr").glob("*") if path.is_file()]
    found = (re.fullmatch(r"(.+)_\d{4}\.[a-z.]+", name) for name in names)
    cases = sorted({match[1] for match in found if match})
    return [
        Entry(as_case_id(case), _patient(case), partial(_read, root, case, ct_channel, pet_channel))
        for case in cases
    ]


def _read(root: Path, case: str, ct_channel: int, pet_channel: int) -> Study:
    images = root / "imagesTr"
    pet = require_image(images, (f"{case}_{pet_channel:04d}",), "PET")
    ct = require_image(images, (f"{case}_{ct_channel:04d}",), "CT")
    reference = read_mask(require_image(root / "labelsTr", (case,), "label"))
    return read_images(as_case_id(case), pet, ct, reference)


def _patient(case: str) -> str:
    match = _AUTOPET_PATIENT.fullmatch(case)
    return _NAME_IN_COLLECTION.get(match[1], match[1]) + match[2] if match else case


def _channels(path: Path) -> tuple[int, int]:
    """Which channels are the CT and the PET."""
    try:
        dataset = load_json(path)
        channels = {str(name).lower(): int(number) for number, name in dataset["channel_names"].items()}
        foreground = [value for name, value in dataset["labels"].items() if name != "background"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CohortError(f"{path}: missing or not nnU-Net v2's; give the folder of a raw dataset") from error
    if foreground != [1]:
        raise CohortError(f"{path}: needs one foreground label with the value 1; merge the labels first")
    return _channel(path, channels, _CT_NAMES), _channel(path, channels, _PET_NAMES)


def _channel(path: Path, channels: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if name in channels:
            return int(channels[name])
    raise CohortError(f"{path}: none of the channels is named {' or '.join(n.upper() for n in names)}")
