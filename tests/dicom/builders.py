"""DICOM objects made for tests: PET and CT series, structure sets, single-slice and enhanced."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pydicom.valuerep import DSfloat

ROOT = "1.2.826.0.1.3680043.8.498.77"
STUDY = f"{ROOT}.1"
FRAME_OF_REFERENCE = f"{ROOT}.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def pet_header(**changes: object) -> Dataset:
    """The header of an F-18 PET slice in BQML, injected an hour before SeriesTime; None removes a value."""
    header = Dataset()
    header.SOPClassUID = PositronEmissionTomographyImageStorage
    header.Modality = "PT"
    header.Manufacturer = "Maker of scanners"
    header.Units = "BQML"
    header.DecayCorrection = "START"
    header.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    header.SeriesDate = header.AcquisitionDate = "20240305"
    header.SeriesTime = header.AcquisitionTime = "110000"
    header.FrameReferenceTime = "0"
    header.ActualFrameDuration = "180000"
    header.PatientWeight = "70"
    header.PatientSize = "1.75"
    header.PatientSex = "M"
    nuclide = Dataset()
    nuclide.CodeValue, nuclide.CodingSchemeDesignator, nuclide.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"
    item = Dataset()
    item.RadionuclideTotalDose = "350000000"
    item.RadionuclideHalfLife = "6586.2"
    item.RadiopharmaceuticalStartTime = "100000"
    item.RadionuclideCodeSequence = Sequence([nuclide])
    header.RadiopharmaceuticalInformationSequence = Sequence([item])
    for keyword, value in changes.items():
        target = item if keyword in _ITEM_KEYWORDS else header
        if value is None:
            if keyword in target:
                delattr(target, keyword)
        else:
            setattr(target, keyword, value)
    return header


_ITEM_KEYWORDS = {
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
    "RadionuclideCodeSequence",
    "Radiopharmaceutical",
}


def nuclide_code(code: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", meaning
    return Sequence([item])


@dataclass
class SeriesSpec:
    """Where a series lies and whose it is; `spacing` is (z, y, x) in mm, `origin` in LPS mm.

    A list in `header` holds one value per slice, a tuple the values of one attribute.
    """

    modality: str = "PT"
    spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)
    origin: tuple[float, float, float] = (-30.0, -20.0, -100.0)
    orientation: tuple[float, ...] = AXIAL
    series_uid: str = f"{ROOT}.3"
    study_uid: str = STUDY
    frame_of_reference: str = FRAME_OF_REFERENCE
    patient_id: str = "secret-patient"
    slope: float = 1.0
    intercept: float = 0.0
    positions_mm: tuple[float, ...] | None = None
    header: dict[str, object] = field(default_factory=dict)


def write_series(folder: Path, stored: np.ndarray, spec: SeriesSpec, *, seed: int = 0) -> list[Path]:
    """Write stored values [z, y, x] as single slices, with file names in random order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(stored))
    paths = []
    for z, plane in enumerate(stored):
        dataset = slice_dataset(plane, spec, z)
        path = folder / f"slice-{names[z]:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def slice_dataset(plane: np.ndarray, spec: SeriesSpec, z: int) -> FileDataset:
    meta = FileMetaDataset()
    sop_class = PositronEmissionTomographyImageStorage if spec.modality == "PT" else CTImageStorage
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = f"{spec.series_uid}.{z + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    if spec.modality == "PT":
        dataset.update(pet_header())
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = spec.modality
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", spec.patient_id, "19600101"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = spec.study_uid, spec.series_uid
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = (
        "20240305",
        "093000",
        "1",
        "",
    )
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber, dataset.InstanceNumber = "1", str(z + 1)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = spec.frame_of_reference, ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    row, column = np.array(spec.orientation[:3]), np.array(spec.orientation[3:])
    height = spec.positions_mm[z] if spec.positions_mm is not None else z * spec.spacing[0]
    position = np.array(spec.origin) + height * np.cross(row, column)
    dataset.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in position]
    dataset.ImageOrientationPatient = [DSfloat(float(v), auto_format=True) for v in spec.orientation]
    dataset.PixelSpacing = [str(spec.spacing[1]), str(spec.spacing[2])]
    dataset.SliceThickness = str(spec.spacing[0])
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(plane.dtype.kind == "i")
    dataset.RescaleSlope = DSfloat(spec.slope, auto_format=True)
    dataset.RescaleIntercept = DSfloat(spec.intercept, auto_format=True)
    for keyword, value in spec.header.items():
        chosen = value[z] if isinstance(value, list) else value
        setattr(dataset, keyword, list(chosen) if isinstance(chosen, tuple) else chosen)
    dataset.PixelData = plane.astype(f"<{plane.dtype.kind}2").tobytes()
    return dataset


def structure_set(
    contours: dict[str, list[np.ndarray]], spec: SeriesSpec, *, series_uid: str = f"{ROOT}.9"
) -> FileDataset:
    """A structure set; `contours` holds LPS points (n, 3) by name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID = f"{series_uid}.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Modality, dataset.PatientID, dataset.StudyInstanceUID = (
        "RTSTRUCT",
        spec.patient_id,
        spec.study_uid,
    )
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series_uid, spec.frame_of_reference
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(), Sequence()
    for number, (name, planes) in enumerate(contours.items(), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName = str(number), name
        dataset.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = str(number), Sequence()
        for points in planes:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", str(len(points))
            contour.ContourData = [DSfloat(float(v), auto_format=True) for v in points.ravel()]
            drawn.ContourSequence.append(contour)
        dataset.ROIContourSequence.append(drawn)
    return dataset


def write_study(
    folder: Path, pet: np.ndarray, ct: np.ndarray | None, *, pet_spec: SeriesSpec, ct_spec: SeriesSpec
) -> None:
    """Write a PET/CT study below a folder; `pet` and `ct` hold stored values [z, y, x]."""
    write_series(folder / "a", pet, pet_spec, seed=1)
    if ct is not None:
        write_series(folder / "b", ct, ct_spec, seed=2)


def pet_spec(**changes: object) -> SeriesSpec:
    """A PET series in SUV (GML), stored in hundredths."""
    header = {"Units": "GML", "SUVType": "BW", **changes.pop("header", {})}  # type: ignore[dict-item]
    return SeriesSpec(slope=0.01, header=header, **changes)  # type: ignore[arg-type]


def ct_spec(**changes: object) -> SeriesSpec:
    """A CT series in HU + 1024."""
    values: dict[str, object] = {"modality": "CT", "series_uid": f"{ROOT}.4", "intercept": -1024.0}
    return SeriesSpec(**{**values, **changes})  # type: ignore[arg-type]


def body_images(shape: tuple[int, int, int] = (12, 20, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Stored values of a PET with a body of SUV 1 and a hot spot of SUV 8, and of the CT of it."""
    rng = np.random.default_rng(5)
    _, y, x = np.indices(shape)
    body = ((y - shape[1] / 2) / (0.42 * shape[1])) ** 2 + ((x - shape[2] / 2) / (0.42 * shape[2])) ** 2 < 1
    pet = np.where(body, 100, 2) + rng.integers(0, 20, shape)
    pet[shape[0] // 2, shape[1] // 2, shape[2] // 2] = 800
    ct = np.where(body, 1064, 24) + rng.integers(0, 20, shape)
    return pet.astype(np.uint16), ct.astype(np.uint16)


def enhanced_dataset(stored: np.ndarray, spec: SeriesSpec, *, units: str | None = "Bq/ml") -> FileDataset:
    """An enhanced multi-frame object of stored values [z, y, x], its frames in reverse order of position."""
    pet = spec.modality == "PT"
    dataset = slice_dataset(stored[0], spec, 0)
    sop_class = "1.2.840.10008.5.1.4.1.1.130" if pet else "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    moved = {}
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        moved[keyword] = dataset[keyword].value
        delattr(dataset, keyword)
    for keyword in (
        "RescaleSlope",
        "RescaleIntercept",
        "Units",
        "DecayCorrection",
        "CorrectedImage",
        "ActualFrameDuration",
        "FrameReferenceTime",
        "AcquisitionDate",
        "AcquisitionTime",
        "SUVType",
    ):
        if keyword in dataset:
            delattr(dataset, keyword)
    if pet:
        dataset.AttenuationCorrected = dataset.DecayCorrected = "YES"
        dataset.DecayCorrectionDateTime = "20240305110000"
    dataset.NumberOfFrames = str(len(stored))
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = moved["PixelSpacing"], moved["SliceThickness"]
    orientation = Dataset()
    orientation.ImageOrientationPatient = moved["ImageOrientationPatient"]
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence()
    for z in reversed(range(len(stored))):
        dataset.PerFrameFunctionalGroupsSequence.append(_frame_groups(spec, z, units if pet else None))
    dataset.PixelData = stored[::-1].astype(f"<{stored.dtype.kind}2").tobytes()
    return dataset


def _frame_groups(spec: SeriesSpec, z: int, units: str | None) -> Dataset:
    position = Dataset()
    position.ImagePositionPatient = slice_dataset(np.zeros((1, 1), np.uint16), spec, z).ImagePositionPatient
    content = Dataset()
    content.FrameAcquisitionDateTime = f"2024030511{z % 60:02d}00"
    content.FrameAcquisitionDuration = 180_000.0
    groups = Dataset()
    groups.PlanePositionSequence, groups.FrameContentSequence = Sequence([position]), Sequence([content])
    if units is None:
        rescale = Dataset()
        rescale.RescaleSlope = DSfloat(spec.slope, auto_format=True)
        rescale.RescaleIntercept = DSfloat(spec.intercept, auto_format=True)
        groups.PixelValueTransformationSequence = Sequence([rescale])
        return groups
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = units, "UCUM", units
    mapping = Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = spec.slope * (z + 1), spec.intercept
    mapping.MeasurementUnitsCodeSequence = Sequence([unit])
    groups.RealWorldValueMappingSequence = Sequence([mapping])
    return groups
