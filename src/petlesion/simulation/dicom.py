"""A simulated study as DICOM series: PET in Bq/mL, CT in HU, and the true lesions as a segmentation."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pydicom.valuerep import DSfloat

from petlesion._version import __version__
from petlesion.dicom.radionuclides import F18_HALF_LIFE_S
from petlesion.errors import UsageError
from petlesion.io.atomic import atomic_folder
from petlesion.simulation.body import Patient
from petlesion.simulation.study import Simulation, SimulationSettings, simulate_in_full, study_name
from petlesion.volume import Array, Volume

MANUFACTURER = "petlesion simulator"
_DOSE_BQ_PER_KG = 3.5e6
_INJECTED, _SCANNED, _WAIT_S = "100000.000", "110000.000", 3600.0
_DATE = "20230101"
_SEG_FILE = Path("SEG", "lesions.dcm")


def simulate_dicom(output: Path, settings: SimulationSettings, seed: int) -> None:
    """Simulate a study and write it as `write_dicom` does, into a folder of its name in `output`.

    Raises UsageError where there is anything already.
    """
    folder = output / study_name(seed)
    if folder.exists():
        raise UsageError(f"{folder}: there already; take it away to have the study made anew")
    write_dicom(folder, simulate_in_full(seed, settings))


def is_whole(folder: Path) -> bool:
    """Whether a folder holds all that `write_dicom` writes: every slice of PT and CT, and the SEG."""
    try:
        first = pydicom.dcmread(folder / "PT" / _slice_file(1), specific_tags=["NumberOfSlices"])
        numbers = range(1, int(first.NumberOfSlices) + 1)
    except (OSError, InvalidDicomError, AttributeError):
        return False
    slices = (folder / series / _slice_file(number) for series in ("PT", "CT") for number in numbers)
    return (folder / _SEG_FILE).is_file() and all(path.is_file() for path in slices)


def write_dicom(folder: Path, simulation: Simulation) -> None:
    """Write PT, CT and SEG below `folder`, whole or not at all; the same simulation gives the same bytes.

    PET slices have a rescale slope each, so that values are kept to 1/65,000 of the slice's highest; the CT
    is rounded to whole HU.
    """
    study = simulation.study
    assert study.ct is not None and study.reference is not None
    series = _Series(study.name, simulation.patient, _digest(study.pet, study.ct, study.reference))
    with atomic_folder(folder) as temporary:
        pet = [
            _save(temporary / "PT" / _slice_file(number), header)
            for number, header in enumerate(_pet_slices(series, study.pet), start=1)
        ]
        slices = _ct_slices(series, study.ct, contrast=simulation.scanner.contrast)
        for number, header in enumerate(slices, start=1):
            _save(temporary / "CT" / _slice_file(number), header)
        segmentation = _segmentation(series, study.reference, pet)
        _stamp(segmentation, series)
        (temporary / _SEG_FILE).parent.mkdir()
        segmentation.save_as(temporary / _SEG_FILE)


def _digest(*volumes: Volume) -> str:
    """The sha256 of images and their grids: what differs must not go by the same UIDs."""
    sha256 = hashlib.sha256()
    for volume in volumes:
        for array in (volume.affine, volume.array):
            sha256.update(f"{array.shape} {array.dtype}".encode())
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def _slice_file(number: int) -> str:
    return f"{number:04d}.dcm"


@dataclass(frozen=True)
class _Series:
    """Whose series are written, under UIDs that hang on the study's name and its images alone."""

    name: str
    patient: Patient
    images_sha256: str

    def uid(self, *parts: object) -> UID:
        text = "/".join(["petlesion simulator", self.name, self.images_sha256, *map(str, parts)])
        return UID(f"2.25.{uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4).int}")

    def header(self, modality: str, number: int) -> Dataset:
        """What all slices of all series share."""
        header = Dataset()
        header.Modality = modality
        header.PatientName = f"Simulated^{self.name}"
        header.PatientID = self.name
        header.PatientBirthDate = ""
        header.PatientSex = "F" if self.patient.female else "M"
        header.PatientSize = DSfloat(round(self.patient.height_mm / 1000, 3))
        header.PatientWeight = DSfloat(round(self.patient.weight_kg, 2))
        header.StudyInstanceUID = self.uid("study")
        header.FrameOfReferenceUID = self.uid("frame of reference")
        header.PositionReferenceIndicator = ""
        header.SeriesInstanceUID = self.uid("series", modality)
        header.SOPInstanceUID = self.uid("object", modality, number)
        header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "1", "", ""
        header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = _DATE
        header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = _SCANNED
        header.StudyDescription = "Simulated whole-body FDG PET/CT"
        header.Manufacturer, header.ManufacturerModelName = MANUFACTURER, __version__
        header.SeriesNumber = {"PT": 1, "CT": 2}[modality]
        header.SeriesDescription = f"Simulated {modality}"
        header.InstanceNumber = number
        header.BodyPartExamined = "WHOLEBODY"
        header.ImageComments = "Simulated; no patient"
        return header


def _pet_slices(series: _Series, pet: Volume) -> list[Dataset]:
    weight_kg = round(series.patient.weight_kg, 2)
    dose_bq = round(_DOSE_BQ_PER_KG * weight_kg)
    left_bq = dose_bq * 2 ** (-_WAIT_S / F18_HALF_LIFE_S)
    bq_per_ml = left_bq / (weight_kg * 1000)
    slices = []
    for number, plane in enumerate(pet.array, start=1):
        header = series.header("PT", number)
        header.SOPClassUID = PositronEmissionTomographyImageStorage
        header.ImageType = ["ORIGINAL", "PRIMARY"]
        header.SeriesType = ["WHOLE BODY", "IMAGE"]
        header.Units, header.CountsSource, header.DecayCorrection = "BQML", "EMISSION", "START"
        header.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
        header.RandomsCorrectionMethod, header.ScatterCorrectionMethod = "DLYD", "simulated"
        header.AttenuationCorrectionMethod, header.ReconstructionMethod = "simulated", "simulated"
        header.CollimatorType = "NONE"
        header.NumberOfSlices, header.ImageIndex = len(pet.array), number
        header.FrameReferenceTime, header.ActualFrameDuration = DSfloat(0.0), 120_000
        header.DecayFactor = DSfloat(1.0)
        header.RadiopharmaceuticalInformationSequence = [_injection(dose_bq)]
        supine = _code("102538003", "recumbent")
        supine.PatientOrientationModifierCodeSequence = [_code("40199007", "supine")]
        header.PatientOrientationCodeSequence = [supine]
        header.PatientGantryRelationshipCodeSequence = [_code("102540008", "headfirst")]
        _place(header, pet, number)
        _store(header, plane * np.float64(bq_per_ml), signed=False)
        slices.append(header)
    return slices


def _injection(dose_bq: float) -> Dataset:
    item = Dataset()
    item.Radiopharmaceutical = "FDG"
    item.RadiopharmaceuticalStartTime = _INJECTED
    item.RadiopharmaceuticalStartDateTime = f"{_DATE}{_INJECTED}"
    item.RadionuclideTotalDose = DSfloat(dose_bq)
    item.RadionuclideHalfLife = DSfloat(F18_HALF_LIFE_S)
    item.RadionuclidePositronFraction = DSfloat(0.967)
    item.RadionuclideCodeSequence = [_code("77004003", "^18^Fluorine")]
    item.RadiopharmaceuticalCodeSequence = [_code("35321007", "Fluorodeoxyglucose F^18^")]
    return item


def _code(value: str, meaning: str) -> Dataset:
    """A concept of SNOMED CT."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


def _ct_slices(series: _Series, ct: Volume, *, contrast: bool) -> list[Dataset]:
    slices = []
    for number, plane in enumerate(ct.array, start=1):
        header = series.header("CT", number)
        header.SOPClassUID = CTImageStorage
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.PatientPosition = "HFS"
        header.KVP, header.AcquisitionNumber = DSfloat(120.0), 1
        if contrast:
            header.ContrastBolusAgent, header.ContrastBolusIngredient = "simulated", "IODINE"
            header.ContrastBolusRoute = "intravenous"
        _place(header, ct, number)
        _store(header, np.round(plane), signed=True, slope=1.0)
        slices.append(header)
    return slices


def _place(header: Dataset, volume: Volume, number: int) -> None:
    """Where slice `number` (from 1) of a volume in LPS lies."""
    z, y, x = volume.spacing_mm
    corner = volume.affine @ (0, 0, number - 1, 1)
    header.ImagePositionPatient = [DSfloat(round(float(value), 6)) for value in corner[:3]]
    header.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    header.PixelSpacing = [DSfloat(round(y, 6)), DSfloat(round(x, 6))]
    header.SliceThickness = DSfloat(round(z, 6))
    header.SliceLocation = DSfloat(round(float(corner[2]), 6))


def _store(header: Dataset, plane: Array, *, signed: bool, slope: float | None = None) -> None:
    """Put pixels into a header as 16-bit whole numbers, as fine as the plane's highest value allows."""
    if slope is None:
        slope = max(float(plane.max()), 1e-3) / 65_535
        # A decimal string has 16 characters at most; round up so that the highest value still fits.
        slope = float(f"{slope * (1 + 1e-7):.9e}")
    header.Rows, header.Columns = plane.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, int(signed)
    header.RescaleIntercept, header.RescaleSlope = DSfloat(0.0), DSfloat(slope)
    if signed:
        header.RescaleType = "HU"
    header.PixelData = np.round(plane / slope).astype("<i2" if signed else "<u2").tobytes()


def _save(path: Path, header: Dataset) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(exist_ok=True)
    file = FileDataset(str(path), header, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(path, enforce_file_format=True)
    return file


def _segmentation(series: _Series, truth: Volume, pet: Sequence[Dataset]) -> highdicom.seg.Segmentation:
    """The true lesions as one segment on the PET's slices."""
    tumour = SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
    )
    # highdicom would measure the distance between slices, and write some with too many digits.
    pet[0].SpacingBetweenSlices = pet[0].SliceThickness
    return highdicom.seg.Segmentation(
        source_images=pet,
        pixel_array=truth.array.astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[tumour],
        series_instance_uid=series.uid("series", "SEG"),
        series_number=3,
        sop_instance_uid=series.uid("object", "SEG"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=__version__,
        software_versions=__version__,
        device_serial_number="none",
        content_label="TRUTH",
        series_description="Simulated lesions",
        omit_empty_frames=bool(truth.array.any()),
    )


def _stamp(segmentation: Dataset, series: _Series) -> None:
    """Put the study's date and a UID of its name where highdicom puts the present and a random one."""
    segmentation.InstanceCreationDate = segmentation.ContentDate = _DATE
    segmentation.InstanceCreationTime = segmentation.ContentTime = _SCANNED
    for equipment in segmentation.ContributingEquipmentSequence:
        equipment.ContributionDateTime = f"{_DATE}{_SCANNED}"
    organization = series.uid("dimensions", "SEG")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
