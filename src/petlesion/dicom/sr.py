"""Measurements out as a DICOM structured report: TID 1500 (PS3.16), one group per lesion, UNVERIFIED."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from petlesion._version import __version__
from petlesion.dicom.files import without_remarks
from petlesion.dicom.seg import (
    MANUFACTURER,
    MODEL_NAME,
    Provenance,
    derived_uid,
    lesion_uid,
    source_images,
)
from petlesion.dicom.series import Stack
from petlesion.io.atomic import atomic_file

SERIES_NUMBER = 901

_SUV = Code("126401", "DCM", "SUVbw")
_PER_MILLILITRE = Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight")
_MILLILITRE = Code("ml", "UCUM", "milliliter")
_GRAM = Code("g", "UCUM", "gram")


class LesionMeasures(Protocol):
    """What a lesion is reported with; `petlesion.lesions.Lesion` has it all."""

    @property
    def number(self) -> int:
        """Label of the lesion's voxels, from 1."""

    @property
    def volume_ml(self) -> float:
        """Volume in mL."""

    @property
    def suv_max(self) -> float:
        """Highest SUV by body weight."""

    @property
    def suv_mean(self) -> float:
        """Mean SUV."""

    @property
    def suv_peak(self) -> float:
        """Highest mean SUV in a sphere of 1 mL."""

    @property
    def tlg(self) -> float:
        """Total lesion glycolysis in g: mean SUV × mL."""


def write_report(
    path: str | Path,
    lesions: Sequence[LesionMeasures],
    segmentation: Dataset,
    pet: Stack,
    provenance: Provenance,
) -> Dataset | None:
    """Write the lesions' measures as a Comprehensive 3D SR that refers to the SEG; return it.

    `segmentation` is what `write_seg` returned: with a segment per lesion each group refers to its own,
    otherwise all refer to the one segment. The template knows no report without a measurement: without
    lesions nothing is written, and None returned.
    """
    if not lesions:
        return None
    with without_remarks():
        groups = [_group(lesion, segmentation, pet, provenance) for lesion in lesions]
        report = sr.Comprehensive3DSR(
            evidence=[*source_images(pet), segmentation],
            content=_content(groups, pet, provenance),
            series_instance_uid=derived_uid("report series", pet, provenance, len(lesions)),
            series_number=SERIES_NUMBER,
            sop_instance_uid=derived_uid("report", pet, provenance, len(lesions)),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=__version__,
            device_serial_number=provenance.identity[:16] or "none",
            is_complete=True,
            is_verified=False,
            series_description="petlesion: measurements (research)",
        )
        with atomic_file(path) as temporary:
            report.save_as(temporary)
    return report


def _content(
    groups: Sequence[sr.VolumetricROIMeasurementsAndQualitativeEvaluations],
    pet: Stack,
    provenance: Provenance,
) -> Dataset:
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", pet, provenance),
            name=f"petlesion {provenance.model}"[:64],
            manufacturer_name=MANUFACTURER,
            model_name=f"{MODEL_NAME} {__version__}",
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.PETCTFDGImagingOfWholeBody,
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=source_images(pet),
    )
    content: Dataset = report[0]
    return content


def _group(
    lesion: LesionMeasures, segmentation: Dataset, pet: Stack, provenance: Provenance
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=lesion_uid(pet, provenance, lesion.number), identifier=f"Lesion {lesion.number}"
        ),
        referenced_segment=_referenced_segment(lesion.number, segmentation, pet),
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_type=codes.SCT.Neoplasm,
        algorithm_id=sr.AlgorithmIdentification(
            name=f"petlesion {provenance.model}"[:64], version=f"{__version__} / {provenance.version}"[:64]
        ),
        measurements=[
            _suv(lesion.suv_max, codes.SCT.Maximum),
            _suv(lesion.suv_mean, codes.SCT.Mean),
            _suv(lesion.suv_peak, codes.DCM.PeakValueWithinROI),
            sr.Measurement(name=codes.SCT.Volume, value=_short(lesion.volume_ml), unit=_MILLILITRE),
            sr.Measurement(name=codes.DCM.TotalLesionGlycolysis, value=_short(lesion.tlg), unit=_GRAM),
        ],
    )


def _suv(value: float, derivation: Code) -> sr.Measurement:
    return sr.Measurement(
        name=_SUV,
        value=_short(value),
        unit=_PER_MILLILITRE,
        derivation=derivation,
        method=codes.DCM.SUVBodyWeightCalculationMethod,
    )


def _short(value: float) -> float:
    """A value that a decimal string of 16 characters holds."""
    return float(f"{value:.6g}")


def _referenced_segment(number: int, segmentation: Dataset, pet: Stack) -> sr.ReferencedSegment:
    """The lesion's own segment, or the one segment that holds all lesions."""
    own_segment = len(segmentation.SegmentSequence) > 1
    return sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number if own_segment else 1,
        source_series=sr.SourceSeriesForSegmentation(str(pet.headers[0].SeriesInstanceUID)),
    )
