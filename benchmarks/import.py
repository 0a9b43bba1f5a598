"""One full-size study as TCIA has it to a case of a cohort, beside dicom2nifti and nilearn.

    pip install dicom2nifti nilearn
    python benchmarks/import.py [--repeats 1] [--slices 326]

The study is simulated: a 512 × 512 CT, a 400 × 400 PET and a segmentation as DICOM. Both ways write what
training needs, each in a process of its own: the CT on the PET's grid, the SUV and the mask as .nii.gz. The
peer converts CT and PET with dicom2nifti, multiplies by an SUV factor, resamples the CT with nilearn and
reads the mask with highdicom, as the public conversion script of the collection does with the libraries of
its time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from machine import describe, peak_memory_gb
from pydicom.valuerep import DSfloat

CT_SIDE, CT_PIXEL_MM = 512, 0.9765625
AIR_HU = -1024.0


def make_study(folder: Path, slices: int) -> None:
    """Simulate a study and give it a CT of 512 × 512 pixels."""
    from petlesion.resample import resample_to_grid
    from petlesion.simulation import SimulationSettings
    from petlesion.simulation.dicom import write_dicom
    from petlesion.simulation.study import simulate_in_full
    from petlesion.volume import Grid

    simulation = simulate_in_full(1, SimulationSettings(slices=slices))
    write_dicom(folder, simulation)
    ct = simulation.study.ct
    assert ct is not None
    affine = np.array(ct.affine)
    affine[[0, 1], [0, 1]] = CT_PIXEL_MM
    affine[:2, 3] = ct.affine[:2, 3] + 0.5 * (ct.affine[0, 0] * 399 - CT_PIXEL_MM * (CT_SIDE - 1))
    fine = resample_to_grid(ct, Grid((ct.shape[0], CT_SIDE, CT_SIDE), affine), fill=AIR_HU, order=1)
    for path in sorted((folder / "CT").iterdir()):
        header = pydicom.dcmread(path)
        z = round((float(header.ImagePositionPatient[2]) - affine[2, 3]) / affine[2, 2])
        header.Rows = header.Columns = CT_SIDE
        header.PixelSpacing = [str(CT_PIXEL_MM)] * 2
        header.ImagePositionPatient[0] = DSfloat(affine[0, 3], auto_format=True)
        header.ImagePositionPatient[1] = DSfloat(affine[1, 3], auto_format=True)
        stored = (fine.array[z] - float(header.RescaleIntercept)) / float(header.RescaleSlope)
        dtype = np.int16 if header.PixelRepresentation else np.uint16
        header.PixelData = np.round(stored).astype(dtype).tobytes()
        header.save_as(path)


def ours(study: Path, out: Path) -> None:
    from petlesion.cohort.layout import create_cohort
    from petlesion.cohort.parallel import add_in_parallel
    from petlesion.cohort.tcia import find_entries

    cohort = create_cohort(out / "Dataset001_Ours")
    for outcome in add_in_parallel(cohort, find_entries(study), workers=1):
        if outcome.problem is not None:
            raise outcome.problem


def peers(study: Path, out: Path) -> None:
    import dicom2nifti
    import highdicom
    import nibabel
    from nilearn.image import resample_to_img

    out.mkdir(parents=True, exist_ok=True)
    for kind in ("CT", "PT"):
        target = str(out / f"{kind}.nii.gz")
        dicom2nifti.dicom_series_to_nifti(str(study / kind), target, reorient_nifti=True)
    pet = nibabel.load(out / "PT.nii.gz")
    suv = nibabel.Nifti1Image(pet.get_fdata(dtype=np.float32) * np.float32(2.5e-4), pet.affine)
    nibabel.save(suv, out / "SUV.nii.gz")
    ct = resample_to_img(nibabel.load(out / "CT.nii.gz"), suv, fill_value=AIR_HU)
    nibabel.save(ct, out / "CTres.nii.gz")
    mask = highdicom.seg.segread(next((study / "SEG").iterdir())).get_volume(combine_segments=True)
    label = nibabel.Nifti1Image(np.asarray(mask.array, np.uint8), mask.affine)
    nibabel.save(label, out / "SEG.nii.gz")


WAYS = {"petlesion": ours, "dicom2nifti + nilearn": peers}


def measure(name: str, study: Path, repeats: int) -> tuple[float, float]:
    """Seconds of the fastest run, and the process's highest memory in GB."""
    import warnings

    warnings.simplefilter("ignore")
    best = float("inf")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            WAYS[name](study, Path(out) / "case")
            best = min(best, time.perf_counter() - start)
    return best, peak_memory_gb()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--slices", type=int, default=326)
    arguments = parser.parse_args()
    if find_spec("dicom2nifti") is None:
        parser.error("the peer is missing; run pip install dicom2nifti nilearn")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        make_study(study, arguments.slices)
        found = {}
        for name in WAYS:
            with ProcessPoolExecutor(1, mp_context=context) as process:
                found[name] = process.submit(measure, name, study, arguments.repeats).result()
    print(f"one study of {arguments.slices} slices to a case of a cohort; {describe()}\n")
    print(f"{'':24}{'seconds':>10}{'GB':>8}{'ratio':>8}")
    fastest = found["petlesion"][0]
    for name, (seconds, gb) in found.items():
        print(f"{name:24}{seconds:>10.1f}{gb:>8.2f}{seconds / fastest:>8.1f}")


if __name__ == "__main__":
    main()
