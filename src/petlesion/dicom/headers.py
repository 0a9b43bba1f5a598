"""Typed reading of DICOM attributes, for headers that may hold anything.

A value that is absent or empty is None; one that cannot be what its attribute says is an error that names
the attribute and never the patient.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from petlesion.errors import FormatError, PetlesionError

_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(\.\d{1,6})?)?)?\s*$")
_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})\s*$")
_DATETIME = re.compile(r"(\d{8})(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)([+-]\d{4})?\s*$")


def describe(keyword: str) -> str:
    """An attribute's keyword and tag, such as "PatientWeight (0010,1030)"."""
    tag = tag_for_keyword(keyword)
    return keyword if tag is None else f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def text(dataset: Dataset, keyword: str) -> str | None:
    """A string attribute without padding, several values joined by a backslash."""
    return as_text(_value(dataset, keyword))


def as_text(value: Any) -> str | None:
    """Any attribute's value as a string without padding; None where it is empty."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    elif not isinstance(value, str) and hasattr(value, "__iter__"):
        value = "\\".join(str(part) for part in value)
    stripped = str(value).strip(" \0")
    return stripped or None


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a string attribute, in upper case."""
    joined = text(dataset, keyword)
    return tuple(part.strip().upper() for part in joined.split("\\")) if joined else ()


def number(dataset: Dataset, keyword: str, error: type[PetlesionError] = FormatError) -> float | None:
    """A finite number; raises `error` for a value that is none."""
    return as_number(_value(dataset, keyword), describe(keyword), error)


def as_number(value: Any, what: str, error: type[PetlesionError] = FormatError) -> float | None:
    """`value` as a finite number; None where it is empty, `error` naming `what` where it is no number."""
    string = as_text(value)
    if string is None:
        return None
    try:
        result = float(string)
    except ValueError:
        result = math.nan
    if not math.isfinite(result):
        raise error(f"{what} is {string[:40]!r}, which is no number; correct the header")
    return result


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """Exactly `count` finite numbers; raises FormatError otherwise."""
    joined = text(dataset, keyword)
    parts = joined.split("\\") if joined else []
    values = [as_number(part, describe(keyword)) for part in parts]
    if len(values) != count or None in values:
        raise FormatError(
            f"{describe(keyword)} holds {len(values)} numbers where {count} are needed; export the series "
            "again"
        )
    return tuple(value for value in values if value is not None)


def moment(dataset: Dataset, date_keyword: str, time_keyword: str) -> datetime | None:
    """The moment that a date and a time attribute give together; None where either is absent or no date."""
    date, time = text(dataset, date_keyword), text(dataset, time_keyword)
    if date is None or time is None:
        return None
    return combine(date, time)


def combine(date: str, time: str) -> datetime | None:
    """A moment from DICOM's DA and TM (PS3.5 6.2), also in ACR-NEMA's form with dots and colons."""
    date_match, time_match = _DATE.match(date), _TIME.match(time)
    if date_match is None or time_match is None:
        return None
    year, month, day = (int(part) for part in date_match.groups())
    hours, minutes, seconds, fraction = time_match.groups()
    try:
        midnight = datetime(year, month, day)
    except ValueError:
        return None
    clock = timedelta(
        hours=int(hours),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0) + float(fraction or 0),
    )
    return midnight + clock if clock <= timedelta(days=1) else None


def datetime_value(value: Any, dataset: Dataset) -> datetime | None:
    """A DICOM DT (PS3.5 6.2) in the clock of the dataset's DA and TM; None where it is absent or no moment.

    An offset from UTC counts where the dataset has a TimezoneOffsetFromUTC too; otherwise the clock time is
    taken as it is written.
    """
    string = as_text(value)
    match = _DATETIME.match(string) if string else None
    if match is None:
        return None
    date, time, offset = match.groups()
    clock = combine(date, time)
    dataset_offset = text(dataset, "TimezoneOffsetFromUTC")
    if clock is None or offset is None or dataset_offset is None:
        return clock
    here, there = _utc_offset(dataset_offset), _utc_offset(offset)
    if here is None or there is None:
        return clock
    return clock.replace(tzinfo=timezone(there)).astimezone(timezone(here)).replace(tzinfo=None)


def private_value(dataset: Dataset, group: int, creator: str, offset: int) -> Any:
    """A private attribute's value, from its creator's block or, where nobody claims it, block 0x10."""
    try:
        element = dataset.private_block(group, creator)[offset]
    except KeyError:
        claimed = dataset.get((group, 0x0010)) is not None
        element = None if claimed else dataset.get((group, 0x1000 | offset))
    return None if element is None else element.value


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except (
        ValueError,
        TypeError,
        OverflowError,
        ArithmeticError,
        AttributeError,
        NotImplementedError,
    ) as problem:
        raise FormatError(f"{describe(keyword)} cannot be read; export the series again") from problem


def _utc_offset(string: str) -> timedelta | None:
    match = re.match(r"([+-])(\d{2})(\d{2})$", string)
    if match is None:
        return None
    sign = -1 if match[1] == "-" else 1
    offset = sign * timedelta(hours=int(match[2]), minutes=int(match[3]))
    return offset if abs(offset) < timedelta(days=1) else None
