"""One PET/CT study out of the DICOM series that a folder holds: which PET, which CT, which reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from petlesion.dicom import rtstruct
from petlesion.dicom.frames import frames_of
from petlesion.dicom.headers import number, text, texts
from petlesion.dicom.seg_reader import read_seg, segments
from petlesion.dicom.series import Series, Stack, read_volume, stack
from petlesion.dicom.suv import PET_CLASSES, SuvConversion, suv_conversion
from petlesion.errors import GeometryError, PetlesionError, SeriesError, StudyError, SuvError
from petlesion.volume import Grid, Volume

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
_DERIVED_VIEWS = {"MIP", "PROJECTION IMAGE", "REPROJECTION", "LOCALIZER", "SCREEN SAVE", "SCREENSHOT"}


@dataclass(frozen=True)
class Choice:
    """What the user chose: a PET series by its SeriesInstanceUID, a structure or segment by its name."""

    pet_series: str | None = None
    roi: str | None = None


@dataclass(frozen=True, eq=False)
class DicomImages:
    """A study's images as DICOM gives them: the CT on its own grid, the reference on the PET's.

    `pet_stack` keeps the PET's headers in the order of the array's slices.
    """

    pet: Volume
    pet_stack: Stack
    conversion: SuvConversion
    ct: Volume | None = None
    reference: Volume | None = None
    warnings: tuple[str, ...] = field(default=())


def holds_pet(series: Sequence[Series]) -> bool:
    """Whether there is a PET image among the series."""
    return any(one.modality == "PT" for one in series)


def read_images(series: Sequence[Series], choice: Choice, origin: object) -> DicomImages:
    """Read PET, CT and reference of one study; `origin` names it in messages.

    Raises StudyError for no PET, several of them, or series of different patients or frames of reference, and
    what stacking, SUV conversion and decoding raise.
    """
    pet_series = choose_pet(series, choice.pet_series, origin)
    pet_stack = stack(pet_series)
    try:
        conversion = suv_conversion(pet_stack.headers)
    except SuvError as problem:
        raise SuvError(f"{origin}: {problem}") from None
    ct_series, warnings = choose_ct(series, pet_series, pet_stack.grid, origin)
    ct_stack = stack(ct_series) if ct_series is not None else None
    reference, remarks = _read_reference(series, pet_series, pet_stack.grid, choice.roi)
    notes = [*pet_stack.warnings, *conversion.warnings, *warnings, *remarks]
    if ct_stack is not None:
        notes += [f"CT: {warning}" for warning in ct_stack.warnings]
    return DicomImages(
        pet=read_volume(pet_stack, conversion.factors),
        pet_stack=pet_stack,
        conversion=conversion,
        ct=read_volume(ct_stack) if ct_stack is not None else None,
        reference=reference,
        warnings=tuple(notes),
    )


def choose_pet(series: Sequence[Series], wanted: str | None, origin: object) -> Series:
    """The one PET series to use: the one wanted, the only one, or the only attenuation-corrected one."""
    candidates = [one for one in series if one.modality == "PT" and _is_image(one, PET_CLASSES)]
    if wanted is not None:
        chosen = [one for one in candidates if one.uid == wanted]
        if not chosen:
            raise StudyError(f"{origin} has no PET series {wanted}; {_listed(candidates)}")
        return chosen[0]
    if not candidates:
        posing = next((one for one in series if one.modality == "PT"), None)
        if posing is not None:
            return posing
        raise StudyError(f"{origin} holds no PET series; give the folder of a PET/CT study")
    if len(candidates) > 1:
        corrected = [one for one in candidates if _is_attenuation_corrected(one)]
        candidates = corrected or candidates
    if len(candidates) > 1:
        raise StudyError(
            f"{origin} holds {len(candidates)} PET series; choose one with --pet-series: "
            f"{_listed(candidates)}"
        )
    return candidates[0]


def choose_ct(
    series: Sequence[Series], pet: Series, grid: Grid, origin: object
) -> tuple[Series | None, list[str]]:
    """The CT that covers most of the PET, of the same patient and frame of reference; None without a CT.

    Raises StudyError if there are CTs and all are of another patient or frame of reference.
    """
    candidates = ct_series_of(series)
    if not candidates:
        return None, []
    matching = [one for one in candidates if _mismatch(pet, one) is None]
    if not matching:
        raise StudyError(
            f"{origin}: PET and CT differ in {_mismatch(pet, candidates[0])}, so that they may be of "
            "different patients or positions; give a PET and a CT that were taken together"
        )
    warnings = [
        f"PET or CT has no {keyword}; check that both were taken together"
        for keyword in _untold(pet, matching[0])
    ]
    if len(matching) == 1:
        return matching[0], warnings
    ranked = sorted(matching, key=lambda one: _fitness(one, grid), reverse=True)
    if _fitness(ranked[0], grid)[0] < 0:
        stack(ranked[0])
    warnings.append(
        f"of {len(ranked)} CT series the one that covers the PET best was taken: {ranked[0].label}"
    )
    return ranked[0], warnings


def ct_series_of(series: Sequence[Series]) -> list[Series]:
    """The CTs among a study's series: no localizers, projections or captured screens."""
    return [one for one in series if one.modality == "CT" and _is_image(one, CT_CLASSES)]


def _is_image(series: Series, classes: Sequence[str]) -> bool:
    """Whether a series is of cross-sections, not of projections or captured screens."""
    sop_class = text(series.header, "SOPClassUID")
    kinds = {*texts(series.header, "ImageType"), *texts(series.header, "SeriesType")}
    views = _DERIVED_VIEWS & kinds
    return (sop_class is None or sop_class in classes) and not views


def _is_attenuation_corrected(series: Series) -> bool:
    header = frames_of(series.files[0], series.header)[0].header
    return "ATTN" in texts(header, "CorrectedImage")


def _mismatch(one: Series, other: Series) -> str | None:
    for keyword in ("PatientID", "FrameOfReferenceUID"):
        first, second = text(one.header, keyword), text(other.header, keyword)
        if first is not None and second is not None and first != second:
            return keyword
    return None


def _untold(pet: Series, ct: Series) -> list[str]:
    """Which attributes are missing where they would tell whether PET and CT belong together.

    Anonymised images have no PatientID on either side, which says nothing.
    """
    patients = {text(one.header, "PatientID") is None for one in (pet, ct)}
    frames = {one.frame_of_reference is None for one in (pet, ct)}
    return ["PatientID"] * (len(patients) > 1) + ["FrameOfReferenceUID"] * (True in frames)


def _fitness(series: Series, grid: Grid) -> tuple[float, float, float]:
    """How well a CT fits: share of the PET's slices within it, area of a slice, earliness; −1 if unusable."""
    try:
        ct = stack(series).grid
    except PetlesionError:
        return -1.0, 0.0, 0.0
    z = np.arange(grid.shape[0])
    centres = np.stack(
        [np.full(len(z), (grid.shape[2] - 1) / 2), np.full(len(z), (grid.shape[1] - 1) / 2), z]
    )
    world = grid.affine[:3, :3] @ centres + grid.affine[:3, 3:]
    index = np.linalg.inv(ct.affine[:3, :3]) @ (world - ct.affine[:3, 3:])
    inside = (index[2] >= -0.5) & (index[2] <= ct.shape[0] - 0.5)
    _, y_mm, x_mm = ct.spacing_mm
    earliness = -(number(series.header, "SeriesNumber", SeriesError) or 0.0)
    return round(float(inside.mean()), 3), round(y_mm * x_mm * ct.shape[1] * ct.shape[2]), earliness


def _listed(series: Sequence[Series]) -> str:
    return "; ".join(f"{one.uid} ({_described(one)})" for one in series) or "there is none"


def _described(series: Series) -> str:
    corrected = "attenuation-corrected" if _is_attenuation_corrected(series) else "not attenuation-corrected"
    return (
        f"{text(series.header, 'SeriesDescription') or 'no description'}, {len(series.files)} files, "
        f"{corrected}"
    )


def _read_reference(
    series: Sequence[Series], pet: Series, grid: Grid, roi: str | None
) -> tuple[Volume | None, list[str]]:
    """The lesions that a segmentation or structure set marks, and what the reader of the result should know.

    A segmentation is taken before a structure set, and what was drawn on this PET before what was not.
    """
    drawn = [one for one in series if one.modality in ("SEG", "RTSTRUCT")]
    fitting = [one for one in drawn if _lies_elsewhere(pet, one) is None]
    if drawn and not fitting:
        return None, [f"no reference was read, since {drawn[0].label} {_lies_elsewhere(pet, drawn[0])}"]
    candidates = [one for one in fitting if one.modality == "SEG"] or fitting
    candidates = [one for one in candidates if pet.uid in _referenced_series(one)] or candidates
    if not candidates:
        return None, []
    if len(candidates) > 1:
        listed = "; ".join(one.label for one in candidates)
        return None, [f"no reference was read, since {len(candidates)} series could be it: {listed}"]
    if len(candidates[0].files) > 1:
        return None, [f"no reference was read, since {candidates[0].label} holds several objects"]
    try:
        return _marked(candidates[0], grid, roi)
    except GeometryError as problem:
        if roi is not None:
            raise
        return None, [f"no reference was read: {problem}"]


def _lies_elsewhere(pet: Series, drawn: Series) -> str | None:
    """Why a segmentation or structure set is not of this PET; None where nothing says so."""
    mismatch = _mismatch(pet, drawn)
    if mismatch is not None:
        return f"has another {mismatch} than the PET"
    frames = rtstruct.frames_of_reference(drawn.header) if drawn.modality == "RTSTRUCT" else set()
    if pet.frame_of_reference is not None and frames and pet.frame_of_reference not in frames:
        return "was drawn in another frame of reference than the PET's"
    return None


def _marked(drawn: Series, grid: Grid, roi: str | None) -> tuple[Volume | None, list[str]]:
    is_seg = drawn.modality == "SEG"
    found = segments(drawn.header) if is_seg else rtstruct.structures(drawn.header)
    chosen = rtstruct.tumour_structures(found, roi)
    names = ", ".join(structure.name for structure in found) or "none"
    if not chosen:
        if roi is not None:
            raise StudyError(f"{drawn} has no structure {roi!r}; it has {names}")
        return None, [f"no reference was read, since no structure is called a tumour; there are {names}"]
    notes = []
    if len(chosen) > 1:
        notes = [f"the reference merges {', '.join(structure.name for structure in chosen)}"]
    reference = (
        read_seg(drawn.files[0], grid, chosen) if is_seg else rtstruct.rasterise(drawn.header, chosen, grid)
    )
    # A SEG without a voxel is how a study without lesions is written; contours are drawn around something.
    if not is_seg and not reference.array.any():
        notes.append("the reference marks no voxel of the PET; check that there is no lesion")
    return reference, notes


def _referenced_series(drawn: Series) -> set[str]:
    if drawn.modality == "RTSTRUCT":
        return rtstruct.referenced_series(drawn.header)
    listed = drawn.header.get("ReferencedSeriesSequence") or ()
    return {uid for uid in (text(item, "SeriesInstanceUID") for item in listed) if uid}
