"""How long the injected dose had decayed at the moment that the pixel values of a PET image refer to.

Order of the rules: docs/suv.md. Sources: DICOM PS3.3 C.8.9.1 and C.8.9.4, QIBA's vendor-neutral pseudo-code
for SUV, and the IBSI's SUV reference manual. All times are in the scanner's own clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pydicom.dataset import Dataset

from petlesion.dicom.headers import combine, datetime_value, describe, moment, number, private_value, text
from petlesion.errors import SuvError

LONG_LIVED_S = 41_400.0
_SHORT_LIVED_S = 1800.0
_LONGEST_UPTAKE = timedelta(hours=12)
_SHORTEST_UPTAKE = timedelta(minutes=5)
_HALF_A_DAY = timedelta(hours=12)
_SAME_CLOCK = timedelta(minutes=1)
_DECAY_FACTOR_TOLERANCE = 0.03
_GE_CREATOR = "GEMS_PETD_01"
_GE_SCAN_MOMENT = 0x0D
_SIEMENS_CREATOR = "SIEMENS MED PT"
_SIEMENS_DECAY_MOMENT = 0x22


@dataclass(frozen=True)
class Decay:
    """Seconds from injection to each dataset's reference time, and how that time was found."""

    seconds: tuple[float, ...]
    reference: str


@dataclass(frozen=True)
class _Frame:
    """The timing attributes of one dataset; `duration_s` and `reference_s` in seconds."""

    acquisition: datetime | None
    reference_s: float | None
    duration_s: float | None
    decay_factor: float | None


def decay_to_reference(
    datasets: Sequence[Dataset], decay_correction: str, half_life_s: float, warnings: list[str]
) -> Decay:
    """Find the decay of the dose for DecayCorrection START or NONE.

    Appends to `warnings` what was repaired or contradicts. Raises SuvError where a time is missing or where
    the injection's date cannot be right.
    """
    frames = _frame_starts([_read_frame(dataset) for dataset in datasets])
    if decay_correction == "NONE":
        references = [_average_count_time(frame, half_life_s) for frame in frames]
        rule = "AcquisitionTime + average count rate"
    else:
        references, rule = _start_references(datasets, frames, half_life_s, warnings)
    injection = injection_moment(datasets[0], min(references), half_life_s, warnings)
    _note_short_uptake(frames, injection, half_life_s, warnings)
    if decay_correction == "NONE":
        expected: list[float | None] = [1.0] * len(frames)
    else:
        expected = _expected_factors(frames, references, half_life_s)
    _cross_check(frames, expected, warnings)
    return Decay(tuple((reference - injection).total_seconds() for reference in references), rule)


def check_admin_decay_factor(datasets: Sequence[Dataset], half_life_s: float, warnings: list[str]) -> None:
    """Compare DecayFactor with the decay since the injection, which DecayCorrection ADMIN says it holds."""
    frames = _frame_starts([_read_frame(dataset) for dataset in datasets])
    if any(frame.acquisition is None for frame in frames) or all(f.decay_factor is None for f in frames):
        return
    scan = min(frame.acquisition for frame in frames if frame.acquisition is not None)
    injection = injection_moment(datasets[0], scan, half_life_s, [])
    _cross_check(frames, _expected_factors(frames, [injection] * len(frames), half_life_s), warnings)


def scan_moment(datasets: Sequence[Dataset]) -> datetime | None:
    """When the scan began: its earliest acquisition, else the series' time."""
    acquisitions = [_read_frame(dataset).acquisition for dataset in datasets]
    known = [acquisition for acquisition in acquisitions if acquisition is not None]
    return min(known) if known else _series_moment(datasets)


def average_count_rate_s(duration_s: float, half_life_s: float) -> float:
    """When within a frame the decaying count rate equals its average, in seconds (PS3.3 C.8.9.4.1.5)."""
    decayed = math.log(2) * duration_s / half_life_s
    return half_life_s / math.log(2) * math.log(decayed / -math.expm1(-decayed))


def injection_moment(dataset: Dataset, scan: datetime, half_life_s: float, warnings: list[str]) -> datetime:
    """When the dose was given: RadiopharmaceuticalStartDateTime, else StartTime on the series' date.

    An injection after the scan, or long before it, has a wrong date; its clock time (StartTime's, if its own
    is a blank midnight) then counts on the scan's day or the evening before. Raises SuvError where that makes
    no sense either.
    """
    item = dataset.RadiopharmaceuticalInformationSequence[0]
    keyword = "RadiopharmaceuticalStartDateTime"
    injection = datetime_value(item.get(keyword), dataset)
    if injection is None:
        keyword = "RadiopharmaceuticalStartTime"
        date = _first_text(dataset, ("SeriesDate", "AcquisitionDate", "StudyDate"))
        injection = _moment_of(date, text(item, keyword))
        if half_life_s > LONG_LIVED_S:
            warnings.append(
                f"{describe(keyword)} has no date and the radionuclide lives long: the injection is taken "
                "to be on the day of the scan; enter RadiopharmaceuticalStartDateTime (0018,1078)"
            )
    if injection is None:
        raise SuvError(
            "neither RadiopharmaceuticalStartDateTime (0018,1078) nor RadiopharmaceuticalStartTime "
            "(0018,1072) holds a time; enter when the dose was injected"
        )
    timed = _moment_of(f"{injection:%Y%m%d}", text(item, "RadiopharmaceuticalStartTime")) or injection
    plausible = timedelta(0) <= scan - injection <= _longest_uptake(half_life_s)
    if not plausible and injection.time() == time.min:
        injection = timed
    _note_other_clock(injection, timed, warnings)
    return injection if plausible else _redated(injection, scan, half_life_s, keyword, warnings)


def _note_other_clock(injection: datetime, timed: datetime, warnings: list[str]) -> None:
    """Tell where the two attributes name different times of the day."""
    apart = abs(injection - timed)
    if apart > _SAME_CLOCK:
        warnings.append(
            "RadiopharmaceuticalStartDateTime (0018,1078) and RadiopharmaceuticalStartTime (0018,1072) are "
            f"{apart.total_seconds() / 60:.0f} min apart and the first was taken; check when the dose was "
            "injected"
        )


def _note_short_uptake(
    frames: Sequence[_Frame], injection: datetime, half_life_s: float, warnings: list[str]
) -> None:
    """Tell of an acquisition that begins with the injection, as it seems where all times were blanked."""
    acquisitions = [frame.acquisition for frame in frames if frame.acquisition is not None]
    if half_life_s < _SHORT_LIVED_S or not acquisitions:
        return
    uptake = min(acquisitions) - injection
    if uptake < _SHORTEST_UPTAKE:
        warnings.append(
            f"the acquisition begins {uptake.total_seconds() / 60:.0f} min after the injection, which is too "
            "short for an uptake; check the times"
        )


def _redated(
    injection: datetime, scan: datetime, half_life_s: float, keyword: str, warnings: list[str]
) -> datetime:
    """The injection at its time of the day, on the day of the scan or the evening before."""
    hours = (injection - scan).total_seconds() / 3600
    fault = f"{describe(keyword)} lies {abs(hours):.1f} h {'after' if hours > 0 else 'before'} the scan"
    candidate = datetime.combine(scan.date(), injection.time())
    if candidate > scan:
        candidate -= timedelta(days=1)
    if half_life_s > LONG_LIVED_S or scan - candidate > _LONGEST_UPTAKE:
        raise SuvError(f"{fault}, which cannot be; correct the date and time of the injection")
    minutes = (scan - candidate).total_seconds() / 60
    warnings.append(
        f"{fault}; its date was taken from the series, which gives an uptake of {minutes:.0f} min: check it"
    )
    return candidate


def _longest_uptake(half_life_s: float) -> timedelta:
    return _LONGEST_UPTAKE if half_life_s <= LONG_LIVED_S else timedelta(seconds=10 * half_life_s)


def _moment_of(date: str | None, clock: str | None) -> datetime | None:
    return combine(date, clock) if date and clock else None


def _read_frame(dataset: Dataset) -> _Frame:
    acquisition = moment(dataset, "AcquisitionDate", "AcquisitionTime")
    if acquisition is None:
        acquisition = datetime_value(dataset.get("AcquisitionDateTime"), dataset)
    if acquisition is None:
        acquisition = _acquisition_on_series_date(dataset)
    reference_ms = number(dataset, "FrameReferenceTime", SuvError)
    duration_ms = number(dataset, "ActualFrameDuration", SuvError)
    return _Frame(
        acquisition=acquisition,
        reference_s=None if reference_ms is None else reference_ms / 1000,
        duration_s=duration_ms / 1000 if duration_ms is not None and duration_ms > 0 else None,
        decay_factor=number(dataset, "DecayFactor", SuvError),
    )


def _acquisition_on_series_date(dataset: Dataset) -> datetime | None:
    """AcquisitionTime without a date of its own; a bed that comes after midnight is of the next day."""
    acquisition = moment(dataset, "SeriesDate", "AcquisitionTime")
    series = moment(dataset, "SeriesDate", "SeriesTime")
    if acquisition is None or series is None or series - acquisition < _HALF_A_DAY:
        return acquisition
    return acquisition + timedelta(days=1)


def _frame_starts(frames: Sequence[_Frame]) -> list[_Frame]:
    """Give each bed its own start where one AcquisitionTime stands for all and FrameReferenceTime runs on."""
    offsets = [frame.reference_s for frame in frames]
    starts = {frame.acquisition for frame in frames}
    if len(starts) != 1 or None in starts or None in offsets or len(set(offsets)) == 1:
        return list(frames)
    first = min(offset for offset in offsets if offset is not None)
    return [
        _Frame(
            acquisition=frame.acquisition and frame.acquisition + timedelta(seconds=offset - first),
            reference_s=offset,
            duration_s=frame.duration_s,
            decay_factor=frame.decay_factor,
        )
        for frame, offset in zip(frames, offsets, strict=True)
        if offset is not None
    ]


def _start_references(
    datasets: Sequence[Dataset], frames: Sequence[_Frame], half_life_s: float, warnings: list[str]
) -> tuple[list[datetime], str]:
    """The moment to which DecayCorrection START corrected each dataset, and the rule that found it."""
    stated = datetime_value(datasets[0].get("DecayCorrectionDateTime"), datasets[0])
    if stated is not None:
        return [stated] * len(frames), "DecayCorrectionDateTime (0018,9701)"
    series = _series_moment(datasets)
    acquisitions = [frame.acquisition for frame in frames if frame.acquisition is not None]
    if series is not None and _series_is_the_start(series, acquisitions, warnings):
        return [series] * len(frames), "SeriesDate and SeriesTime"
    private = _private_start(datasets[0])
    if private is not None:
        return [private[0]] * len(frames), private[1]
    if len(acquisitions) < len(frames):
        raise SuvError(
            "neither SeriesDate and SeriesTime (0008,0031) nor AcquisitionDate and AcquisitionTime "
            "(0008,0032) tell the decay reference; enter when the acquisition began"
        )
    if not _reference_times_are_usable(frames):
        if len(set(acquisitions)) > 1:
            warnings.append(
                "SeriesTime (0008,0031) and FrameReferenceTime (0054,1300) are no decay reference, and each "
                "bed's AcquisitionTime was taken; check that the scanner corrects each bed to its own start"
            )
        return acquisitions, "AcquisitionDate and AcquisitionTime"
    if _is_ge(datasets[0]) and _counts_from_frame_start(frames, half_life_s):
        return [_shifted(frame, -(frame.reference_s or 0.0)) for frame in frames], (
            "AcquisitionTime - FrameReferenceTime"
        )
    references = []
    for frame in frames:
        average = _average_count_time(frame, half_life_s)
        references.append(average - timedelta(seconds=frame.reference_s or 0.0))
    return references, "AcquisitionTime - FrameReferenceTime + average count rate"


def _series_is_the_start(series: datetime, acquisitions: Sequence[datetime], warnings: list[str]) -> bool:
    """Whether SeriesTime can be the decay reference: not after the earliest acquisition nor long before."""
    if not acquisitions:
        return True
    ahead = min(acquisitions) - series
    if ahead > _HALF_A_DAY:
        warnings.append(
            f"SeriesDate (0008,0021) and SeriesTime (0008,0031) lie {ahead.total_seconds() / 3600:.1f} h "
            "before the acquisition and were not taken as the decay reference; check the dates"
        )
    return timedelta(0) <= ahead <= _HALF_A_DAY


def _private_start(dataset: Dataset) -> tuple[datetime, str] | None:
    """The decay reference that GE or Siemens keep in an attribute of their own, and its name."""
    if _is_ge(dataset):
        scan = private_value(dataset, 0x0009, _GE_CREATOR, _GE_SCAN_MOMENT)
        name = "GE scan date and time (0009,100D)"
    else:
        scan = private_value(dataset, 0x0071, _SIEMENS_CREATOR, _SIEMENS_DECAY_MOMENT)
        name = "Siemens decay correction date and time (0071,1022)"
    start = datetime_value(scan, dataset)
    return None if start is None else (start, name)


def _reference_times_are_usable(frames: Sequence[_Frame]) -> bool:
    """FrameReferenceTime says something where every bed has one, none is negative and not all are 0."""
    offsets = [frame.reference_s for frame in frames]
    return all(offset is not None and offset >= 0 for offset in offsets) and any(offsets)


def _counts_from_frame_start(frames: Sequence[_Frame], half_life_s: float) -> bool:
    """Whether FrameReferenceTime is the start of the frame rather than the moment of its average count rate.

    GE writes the start; DecayFactor, where it is present, shows it.
    """
    if any(frame.duration_s is None for frame in frames):
        return True
    votes = []
    for frame in frames:
        if frame.decay_factor is None or frame.decay_factor <= 0 or frame.reference_s is None:
            return False
        corrected_s = math.log(frame.decay_factor) * half_life_s / math.log(2)
        average_s = average_count_rate_s(frame.duration_s or 0.0, half_life_s)
        offset_s = corrected_s - frame.reference_s
        votes.append(abs(offset_s - average_s) < abs(offset_s))
    return all(votes)


def _average_count_time(frame: _Frame, half_life_s: float) -> datetime:
    if frame.duration_s is None:
        raise SuvError(
            "ActualFrameDuration (0018,1242) is absent or 0, but the decay of the dose depends on it; "
            "enter the frame's duration in milliseconds"
        )
    return _shifted(frame, average_count_rate_s(frame.duration_s, half_life_s))


def _shifted(frame: _Frame, seconds: float) -> datetime:
    if frame.acquisition is None:
        raise SuvError(
            "AcquisitionDate (0008,0022) or AcquisitionTime (0008,0032) is absent, but the decay of the "
            "dose depends on it; enter when the acquisition began"
        )
    return frame.acquisition + timedelta(seconds=seconds)


def _expected_factors(
    frames: Sequence[_Frame], references: Sequence[datetime], half_life_s: float
) -> list[float | None]:
    """What DecayFactor has to be, if each frame was corrected from its average to its reference."""
    factors: list[float | None] = []
    for frame, reference in zip(frames, references, strict=True):
        if frame.acquisition is None:
            factors.append(None)
            continue
        average_s = average_count_rate_s(frame.duration_s, half_life_s) if frame.duration_s else 0.0
        elapsed_s = (frame.acquisition - reference).total_seconds() + average_s
        factors.append(2.0 ** min(elapsed_s / half_life_s, 1000.0))
    return factors


def _cross_check(frames: Sequence[_Frame], expected: Sequence[float | None], warnings: list[str]) -> None:
    worst: tuple[float, float, float] | None = None
    for frame, factor in zip(frames, expected, strict=True):
        if frame.decay_factor is None or frame.decay_factor <= 0 or factor is None or factor <= 0:
            continue
        off = abs(math.log(frame.decay_factor / factor))
        if off > math.log(1 + _DECAY_FACTOR_TOLERANCE) and (worst is None or off > worst[0]):
            worst = (off, frame.decay_factor, factor)
    if worst is not None:
        warnings.append(
            f"DecayFactor (0054,1321) is {worst[1]:.5g}, but DecayCorrection and the header's times give "
            f"{worst[2]:.5g}; check them before trusting the SUV"
        )


def _series_moment(datasets: Sequence[Dataset]) -> datetime | None:
    moments = [moment(dataset, "SeriesDate", "SeriesTime") for dataset in datasets]
    known = [series for series in moments if series is not None]
    return min(known) if known else None


def _is_ge(dataset: Dataset) -> bool:
    """Whether GE made the scanner; without a manufacturer its private attributes tell."""
    manufacturer = (text(dataset, "Manufacturer") or "").upper()
    if not manufacturer:
        return private_value(dataset, 0x0009, _GE_CREATOR, _GE_SCAN_MOMENT) is not None
    return manufacturer.startswith(("GE ", "GEMS", "GENERAL ELECTRIC")) or manufacturer == "GE"


def _first_text(dataset: Dataset, keywords: Sequence[str]) -> str | None:
    return next((value for value in (text(dataset, keyword) for keyword in keywords) if value), None)
