"""DICOM segmentations out, on the PET series' own geometry and in its frame of reference.

Written with highdicom. Segments are coded as PS3.3 C.8.20.2 asks; nothing written here is for clinical use,
and says so (ContentQualification RESEARCH).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from petlesion._version import __version__
from petlesion.dicom.files import read_header, without_remarks
from petlesion.dicom.frames import shallow_copy
from petlesion.dicom.headers import numbers, text
from petlesion.dicom.series import Stack
from petlesion.errors import GeometryError
from petlesion.io.atomic import atomic_file
from petlesion.volume import Array, Volume

MANUFACTURER = "petlesion"
MODEL_NAME = "petlesion"
SERIES_NUMBER = 900

_BINARY = SegmentationTypeValues.BINARY
_FRACTIONAL = SegmentationTypeValues.FRACTIONAL
_DECIMALS = 9
_LONGEST_SHORT_STRING = 16


@dataclass(frozen=True)
class Provenance:
    """What made a result: the model's name, version and identity (a sha256), and the settings that count."""

    model: str
    version: str = "unknown"
    identity: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> tuple[str, ...]:
        """All of it as strings in a fixed order."""
        options = [f"{key}={value}" for key, value in sorted(self.settings.items())]
        return (__version__, self.model, self.version, self.identity, *options)


def write_seg(path: str | Path, lesions: Volume, pet: Stack, provenance: Provenance) -> Dataset:
    """Write lesions as a DICOM SEG that references the PET's slices, whole or not at all; return it.

    `lesions` lies on the PET's grid: bool (or 0/1) for one segment of all lesions; whole numbers 1 … n for a
    segment per lesion; float from 0 to 1 for one fractional segment of probabilities. An empty mask makes a
    segment without a frame's worth of voxels. Raises GeometryError for another grid.
    """
    if not lesions.grid.matches(pet.grid):
        raise GeometryError(
            "the lesions do not lie on the PET's grid; give the mask that was made of this PET"
        )
    fractional = lesions.array.dtype.kind == "f"
    count = 1 if fractional else max(int(lesions.array.max()), 1)
    with without_remarks():
        segmentation = highdicom.seg.Segmentation(
            source_images=source_images(pet),
            pixel_array=_pixels(lesions.array, fractional),
            segmentation_type=_FRACTIONAL if fractional else _BINARY,
            segment_descriptions=[_description(n, count, pet, provenance) for n in range(1, count + 1)],
            series_instance_uid=derived_uid("series", pet, provenance, fractional, count),
            series_number=SERIES_NUMBER,
            sop_instance_uid=derived_uid("object", pet, provenance, fractional, count),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=__version__,
            device_serial_number=provenance.identity[:16] or "none",
            content_label="LESIONS",
            content_description="Lesions found by petlesion; for research use only",
            series_description="petlesion: lesions (research)",
            plane_positions=_plane_positions(pet),
            omit_empty_frames=bool(np.any(lesions.array)),
        )
        segmentation.ContentQualification = "RESEARCH"
        _round_slice_distance(segmentation)
        with atomic_file(path) as temporary:
            segmentation.save_as(temporary)
    return segmentation


def _round_slice_distance(segmentation: Dataset) -> None:
    """Give the distance between slices, which highdicom measures, no more than DICOM's sixteen characters."""
    (groups,) = segmentation.SharedFunctionalGroupsSequence
    (measures,) = groups.PixelMeasuresSequence
    if "SpacingBetweenSlices" in measures:
        measures.SpacingBetweenSlices = round(float(measures.SpacingBetweenSlices), _DECIMALS)


def derived_uid(kind: str, pet: Stack, provenance: Provenance, *facts: object) -> UID:
    """A UID that the source's UIDs, the model and the settings alone decide (PS3.5 B.2)."""
    sources = sorted({text(header, "SOPInstanceUID") or "" for header in pet.headers})
    entropy = "\n".join([kind, *sources, *provenance.facts, *(str(fact) for fact in facts)])
    digest = hashlib.sha256(entropy.encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def lesion_uid(pet: Stack, provenance: Provenance, number: int) -> UID:
    """The tracking UID of a lesion, the same in the segmentation and in the report."""
    return derived_uid("lesion", pet, provenance, number)


def _description(number: int, count: int, pet: Stack, provenance: Provenance) -> SegmentDescription:
    label = "Lesions" if count == 1 else f"Lesion {number}"
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=f"petlesion {provenance.model}"[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=f"{__version__} / {provenance.version}"[:64],
            parameters=dict(provenance.settings) or None,
        ),
        tracking_id=label,
        tracking_uid=lesion_uid(pet, provenance, number),
    )


def source_images(pet: Stack) -> list[Dataset]:
    """The PET's objects in the order of the slices: its slices, or its one multi-frame object.

    Identifiers that are longer than DICOM allows are cut, so that what is written from them is legal.
    """
    frames = pet.frames[:: pet.gates]
    headers = [read_header(frames[0].file)] if frames[0].count > 1 else [frame.header for frame in frames]
    legal = []
    for header in headers:
        image = shallow_copy(header)
        for keyword in ("StudyID", "AccessionNumber"):
            setattr(image, keyword, (text(header, keyword) or "")[:_LONGEST_SHORT_STRING])
        legal.append(image)
    return legal


def _plane_positions(pet: Stack) -> list[highdicom.PlanePositionSequence]:
    """Where each slice of the array lies; the frames of a multi-frame PET may be stored in another order."""
    return [
        highdicom.PlanePositionSequence("PATIENT", numbers(frame.header, "ImagePositionPatient", 3))
        for frame in pet.frames[:: pet.gates]
    ]


def _pixels(array: Array, fractional: bool) -> Array:
    if fractional:
        return np.clip(array, 0.0, 1.0).astype(np.float32)
    whole: Array = array.astype(np.uint8 if int(np.max(array)) < 2**8 else np.uint16)
    return whole
