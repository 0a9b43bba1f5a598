"""The files that tell of a segmented study.

lesions.nii.gz, lesions.csv, report.html, run.json            always
probability.nii.gz, uncertainty.nii.gz (predictive entropy
in bits), lesions.dcm, measurements.dcm, projections.png,
projections.gif                                               on request
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from petlesion._version import __version__
from petlesion.calibration.stored import Calibration, calibration_of, settings_unlike
from petlesion.dicom.seg import Provenance, write_seg
from petlesion.dicom.sr import write_report as write_measurement_report
from petlesion.errors import UsageError
from petlesion.inference.predict import Model
from petlesion.intake import SourceImages
from petlesion.io.atomic import write_text
from petlesion.io.nifti import write_volume
from petlesion.lesions import label_components, lesions_as_json, write_lesions_csv
from petlesion.pipeline import Segmentation, SegmentationSettings, check_confidence
from petlesion.records import SourceMark
from petlesion.report.facts import conversion_in_words, model_in_words
from petlesion.report.html import ReportFacts, write_report
from petlesion.report.projections import Projections, write_gif, write_png
from petlesion.volume import Volume

RECORD = "run.json"
SEGMENTS = ("one", "per-lesion", "fractional")


@dataclass(frozen=True)
class OutputSettings:
    """Which files are written on request.

    `dicom_seg`: None for no DICOM objects, or how the SEG holds the lesions: in "one" segment, one
    "per-lesion", or as "fractional" probabilities. Raises UsageError for another.
    """

    probability: bool = False
    uncertainty: bool = False
    png: bool = False
    gif: bool = False
    dicom_seg: str | None = None

    def __post_init__(self) -> None:
        if self.dicom_seg not in (None, *SEGMENTS):
            raise UsageError(f"a DICOM SEG cannot hold {self.dicom_seg!r}; choose {', '.join(SEGMENTS)}")


@dataclass(frozen=True)
class RunFacts:
    """What decides a study's files beside the study itself."""

    model: Model
    settings: SegmentationSettings
    outputs: OutputSettings = OutputSettings()

    def __post_init__(self) -> None:
        check_confidence(self.settings, self.calibration)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The model's calibration, None where it has none."""
        return calibration_of(self.model)

    @property
    def with_uncertainty(self) -> bool:
        """Whether uncertainty is to be written, or the lesions' confidence needs it."""
        return self.outputs.uncertainty or (
            self.calibration is not None and self.calibration.needs_uncertainty
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of a result should know of how the model was used."""
        if self.calibration is None:
            return ()
        unlike = settings_unlike(self.calibration, self.model, self.settings.prediction)
        return (unlike,) if unlike else ()

    def as_json(self) -> dict[str, Any]:
        """The facts as JSON can hold them."""
        model = self.model
        return {
            "petlesion": __version__,
            "model": {"name": model.name, "sha256": model.fingerprint, "precision": model.precision},
            "calibration_sha256": None if model.calibration is None else _digest(model.calibration),
            "settings": asdict(self.settings),
            "outputs": asdict(self.outputs),
        }


def write_outputs(
    folder: Path, segmentation: Segmentation, images: SourceImages, facts: RunFacts, mark: SourceMark
) -> dict[str, Any]:
    """Write the files of a study into a folder and return what run.json holds.

    Raises UsageError if DICOM objects are asked for and the study did not come from DICOM.
    """
    outputs = facts.outputs
    write_volume(folder / "lesions.nii.gz", segmentation.mask)
    write_lesions_csv(folder / "lesions.csv", segmentation.table)
    if outputs.probability:
        write_volume(folder / "probability.nii.gz", segmentation.probability)
    if outputs.uncertainty and segmentation.uncertainty is not None:
        write_volume(folder / "uncertainty.nii.gz", segmentation.uncertainty.entropy)
    if outputs.dicom_seg is not None:
        _write_dicom(folder, segmentation, images, facts)
    record = {
        "run": facts.as_json(),
        "source": asdict(mark),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "warnings": [*segmentation.study.warnings, *facts.warnings],
        "conversion": dict(images.conversion.facts) if images.conversion is not None else {},
        "lesions": lesions_as_json(segmentation.table),
        "expected_dice": segmentation.expected_dice,
        "doubts": list(segmentation.doubts),
    }
    projections = _write_page(folder, segmentation, record, shows_uncertainty=outputs.uncertainty)
    if outputs.png:
        write_png(folder / "projections.png", projections)
    if outputs.gif:
        write_gif(folder / "projections.gif", projections)
    record["files"] = sorted(path.name for path in folder.iterdir())
    write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record


def _write_dicom(folder: Path, segmentation: Segmentation, images: SourceImages, facts: RunFacts) -> None:
    if images.pet_stack is None:
        raise UsageError(
            f"{images.origin} is no DICOM study, which a DICOM SEG has to refer to; give the series"
        )
    provenance = _provenance(facts)
    lesions = _segments(segmentation, str(facts.outputs.dicom_seg))
    seg = write_seg(folder / "lesions.dcm", lesions, images.pet_stack, provenance)
    report = folder / "measurements.dcm"
    write_measurement_report(report, segmentation.table.lesions, seg, images.pet_stack, provenance)


def _segments(segmentation: Segmentation, kind: str) -> Volume:
    mask = segmentation.mask
    if kind == "fractional":
        return segmentation.probability
    if kind == "per-lesion":
        return mask.with_array(label_components(mask.array > 0)[0])
    return mask.with_array(mask.array > 0)


def _provenance(facts: RunFacts) -> Provenance:
    settings = {**asdict(facts.settings.prediction), "dicom_seg": facts.outputs.dicom_seg}
    for name in ("min_voxels", "min_volume_ml", "min_confidence"):
        settings[name] = getattr(facts.settings, name)
    described = {name: str(value) for name, value in settings.items()}
    return Provenance(facts.model.name, identity=facts.model.fingerprint, settings=described)


def flag_of(doubts: Sequence[str]) -> str | None:
    """One sentence for the reader of a study that looks unlike the training data; None of any other."""
    if not doubts:
        return None
    return f"The study looks unlike those that the model was trained on: {'; '.join(doubts)}."


def _digest(calibration: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest()


def _write_page(
    folder: Path, segmentation: Segmentation, record: Mapping[str, Any], *, shows_uncertainty: bool
) -> Projections:
    uncertainty = segmentation.uncertainty
    facts = ReportFacts(
        created=record["created"],
        model=model_in_words(record["run"]["model"]),
        conversion=conversion_in_words(record["conversion"]),
        warnings=tuple(record["warnings"]),
        flag=flag_of(segmentation.doubts),
        expected_dice=segmentation.expected_dice,
        uncertainty=uncertainty.entropy if shows_uncertainty and uncertainty is not None else None,
    )
    study, mask, table = segmentation.study, segmentation.mask, segmentation.table
    return write_report(folder / "report.html", study, mask, table, facts)
