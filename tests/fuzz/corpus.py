"""Sound little studies of every kind that is read, to be spoilt."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import gdcm
import numpy as np

from petlesion.dicom.seg import Provenance, write_seg
from petlesion.intake import find_studies, read_source
from petlesion.io.nifti import write_volume
from petlesion.volume import Volume
from tests.conftest import make_phantom
from tests.dicom.builders import body_images, ct_spec, enhanced_dataset, pet_spec, structure_set, write_series
from tests.dicom.test_pixels import SYNTAXES, compress

SHAPE = (5, 9, 11)
KINDS = ("single", "structures", "segmented", "enhanced", "compressed", "zipped", "nifti", "mha", "nrrd")


def write_corpus(folder: Path) -> dict[str, Path]:
    """Write one study of each kind; returns their folders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            _WRITERS[kind](folder / kind)
    return {kind: folder / kind for kind in KINDS}


def _single(folder: Path) -> None:
    pet, ct = body_images(SHAPE)
    write_series(folder / "pet", pet, pet_spec())
    write_series(folder / "ct", ct, ct_spec())


def _structures(folder: Path) -> None:
    _single(folder)
    corners = np.array([(2.5, 2.5, 2), (7.5, 2.5, 2), (7.5, 6.5, 2), (2.5, 6.5, 2)]) * 4.0 + pet_spec().origin
    structure_set({"GTV": [corners]}, pet_spec()).save_as(folder / "rs.dcm", enforce_file_format=True)


def _segmented(folder: Path) -> None:
    _single(folder)
    (source,) = find_studies([folder])
    images = read_source(source)
    assert images.pet_stack is not None
    write_seg(
        folder / "seg.dcm", images.pet.with_array(images.pet.array > 1), images.pet_stack, Provenance("t")
    )


def _enhanced(folder: Path) -> None:
    folder.mkdir(parents=True)
    pet, ct = body_images(SHAPE)
    enhanced_dataset(pet, pet_spec(), units="g/ml{SUVbw}").save_as(
        folder / "pet.dcm", enforce_file_format=True
    )
    enhanced_dataset(ct, ct_spec()).save_as(folder / "ct.dcm", enforce_file_format=True)


def _compressed(folder: Path) -> None:
    _single(folder)
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        compress(path, list(SYNTAXES.values())[number % len(SYNTAXES)])


def _zipped(folder: Path) -> None:
    _structures(folder / "in")
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "in").rglob("*.dcm")):
            archive.write(path, str(path.relative_to(folder / "in")))
            path.unlink()


def _images(folder: Path, ending: str) -> None:
    folder.mkdir(parents=True)
    study = make_phantom((8, 10, 12), spacing_mm=8.0)
    for name, volume in (("PET", study.pet), ("CT", study.ct), ("SEG", study.reference)):
        assert isinstance(volume, Volume)
        write_volume(folder / f"{name}{ending}", volume)


_WRITERS = {
    "single": _single,
    "structures": _structures,
    "segmented": _segmented,
    "enhanced": _enhanced,
    "compressed": _compressed,
    "zipped": _zipped,
    "nifti": lambda folder: _images(folder, ".nii"),
    "mha": lambda folder: _images(folder, ".mha"),
    "nrrd": lambda folder: _images(folder, ".nrrd"),
}
