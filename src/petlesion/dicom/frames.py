"""Frames: one header per image plane, whether it was stored alone or as part of a multi-frame object.

Enhanced objects (PS3.3 C.7.6.16) keep what differs between frames in functional groups. Here each of their
frames gets the header that a single-slice image would have, so that all that follows knows one kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from petlesion.dicom.files import DicomFile
from petlesion.dicom.headers import as_text, text
from petlesion.errors import SeriesError

_MOST_FRAMES = 20_000
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_UNITS = {
    "bq/ml": ("BQML", None),
    "g/ml": ("GML", None),
    "g/ml{suvbw}": ("GML", "BW"),
    "g/ml{suvlbm}": ("GML", "LBM"),
    "g/ml{suvlbm(james128)}": ("GML", "LBMJAMES128"),
    "g/ml{suvlbm(janma)}": ("GML", "LBMJANMA"),
    "g/ml{suvibw}": ("GML", "IBW"),
    "cm2/ml": ("CM2ML", "BSA"),
    "cm2/ml{suvbsa}": ("CM2ML", "BSA"),
    "{counts}": ("CNTS", None),
}
_CORRECTIONS = {
    "AttenuationCorrected": "ATTN",
    "DecayCorrected": "DECY",
    "ScatterCorrected": "SCAT",
    "RandomsCorrected": "RAN",
    "DeadTimeCorrected": "DTIM",
    "DetectorNormalizationCorrection": "NORM",
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One image plane: its file, its number (from 0) among the file's `count`, a single slice's header."""

    file: DicomFile
    number: int
    header: Dataset
    count: int = 1

    @property
    def name(self) -> str:
        """What to call this slice in a message."""
        return f"{self.file.name} frame {self.number + 1}" if self.count > 1 else self.file.name


def frames_of(file: DicomFile, header: Dataset) -> list[Frame]:
    """The frames of an image object; raises SeriesError if the frames and their groups do not add up."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        stated = text(header, "NumberOfFrames")
        if stated not in (None, "1"):
            raise SeriesError(
                f"{file} holds {stated} frames without functional groups to say where they lie; export it "
                "as enhanced multi-frame or single slices"
            )
        return [Frame(file, 0, header)]
    planes = frame_headers(header, str(file))
    return [Frame(file, number, plane, len(planes)) for number, plane in enumerate(planes)]


def frame_headers(header: Dataset, what: str = "the object") -> list[Dataset]:
    """A single-slice header for each frame of an enhanced multi-frame object."""
    per_frame = header.PerFrameFunctionalGroupsSequence or ()
    stated = text(header, "NumberOfFrames")
    if not per_frame or stated != str(len(per_frame)) or len(per_frame) > _MOST_FRAMES:
        raise SeriesError(
            f"{what} states {stated or 'no'} frames and describes {len(per_frame)}; export the series again"
        )
    base = shallow_copy(header)
    for keyword in (*_GROUPS, "PixelData"):
        if keyword in base:
            del base[keyword]
    for shared in header.get("SharedFunctionalGroupsSequence") or ():
        _flatten(shared, base)
    planes = []
    for groups in per_frame:
        plane = shallow_copy(base)
        _flatten(groups, plane)
        _add_single_slice_terms(plane)
        planes.append(plane)
    return planes


def single_slice_header(header: Dataset) -> Dataset:
    """The header itself, or the first frame's of an enhanced multi-frame object."""
    return frame_headers(header)[0] if "PerFrameFunctionalGroupsSequence" in header else header


def shallow_copy(dataset: Dataset) -> Dataset:
    """Another data set of the same elements, whose own may be set without a change to the first."""
    copy = Dataset()
    copy.update(dataset)
    return copy


def _flatten(groups: Dataset, into: Dataset) -> None:
    for element in groups:
        if element.keyword == "RealWorldValueMappingSequence":
            into.add(element)
        elif element.VR == "SQ" and element.value:
            into.update(element.value[0])


def _add_single_slice_terms(plane: Dataset) -> None:
    """Say in the terms of single-slice PET what the enhanced object says in its own."""
    _use_real_world_values(plane)
    acquired = as_text(plane.get("FrameAcquisitionDateTime"))
    if acquired is not None and "AcquisitionTime" not in plane:
        plane.AcquisitionDate, plane.AcquisitionTime = acquired[:8], acquired[8:].split("+")[0].split("-")[0]
    if "FrameAcquisitionDuration" in plane and "ActualFrameDuration" not in plane:
        plane.ActualFrameDuration = str(round(plane.FrameAcquisitionDuration))
    if "DecayCorrection" not in plane and "DecayCorrected" in plane:
        plane.DecayCorrection = "START" if text(plane, "DecayCorrected") == "YES" else "NONE"
    if "CorrectedImage" not in plane:
        done = [term for keyword, term in _CORRECTIONS.items() if text(plane, keyword) == "YES"]
        if any(keyword in plane for keyword in _CORRECTIONS):
            plane.CorrectedImage = done or ["NONE"]


def _use_real_world_values(plane: Dataset) -> None:
    """Take slope, intercept and units from the real-world value map, where it has a linear one."""
    for mapping in _linear(plane.get("RealWorldValueMappingSequence") or ()):
        codes = mapping.get("MeasurementUnitsCodeSequence") or ()
        unit = _UNITS.get(_plain_unit(text(codes[0], "CodeValue"))) if codes else None
        if unit is None or "Units" in plane:
            continue
        plane.Units = unit[0]
        if unit[1] is not None:
            plane.SUVType = unit[1]
        plane.RescaleSlope = DSfloat(float(mapping.RealWorldValueSlope), auto_format=True)
        plane.RescaleIntercept = DSfloat(float(mapping.RealWorldValueIntercept), auto_format=True)
    rescale_type = (text(plane, "RescaleType") or "").upper()
    if "Units" not in plane and rescale_type in ("BQML", "GML", "CM2ML", "CNTS"):
        plane.Units = rescale_type


def _linear(mappings: Iterable[Dataset]) -> list[Dataset]:
    return [item for item in mappings if "RealWorldValueSlope" in item and "RealWorldValueIntercept" in item]


def _plain_unit(code: str | None) -> str:
    """UCUM writes annotations before or after the unit; bring them behind it."""
    code = (code or "").lower().replace(" ", "")
    if code.startswith("{suv"):
        annotation, _, unit = code.partition("}")
        return f"{unit}{annotation}}}"
    return code
