"""Real organ masks in a simulated body: the body is fitted around them, and they take the place of its own.

A mask holds 1 spleen, 2 kidneys, 3 liver, 4 bladder, 5 lungs, 6 brain, 7 heart, 8 stomach, 9 prostate and
10 head glands, as TotalSegmentator predicts them on autoPET studies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from petlesion.errors import InputError, StudyError, UsageError, ValueRangeError
from petlesion.io.nifti import is_image, read_volume
from petlesion.simulation.body import BodyMap, Canvas, Patient, Profile, Tissue, one_of
from petlesion.simulation.organ_parts import (
    BRAIN_TISSUES,
    MaskedOrgan,
    clear_heart,
    clear_ureters,
    join_great_vessels,
    move_bones_out,
    paint_brain,
    paint_collecting_systems,
    paint_gallbladder,
    paint_heart,
    surround_brain,
)
from petlesion.volume import Array, Volume

SPLEEN, KIDNEYS, LIVER, BLADDER, LUNGS, BRAIN, HEART, STOMACH, PROSTATE, GLANDS = range(1, 11)
_LEAST_ML = 3.0

# Where organs stand in the reference adult: a share of the organ's voxels lies below each height in mm.
_LANDMARKS = (
    (BLADDER, 0.5, 34.0),
    (KIDNEYS, 0.5, 255.0),
    (LIVER, 0.5, 320.0),
    (HEART, 0.5, 426.0),
    (LUNGS, 0.995, 562.0),
    (BRAIN, 0.005, 724.0),
)
_LUNG_HALF_WIDTH, _LUNG_HALF_DEPTH, _LUNG_MIDDLE_Y = 128.0, 80.0, 0.0
_BRAIN_MIDDLE_Y = -23.0
_OWN: Mapping[int, tuple[Tissue, ...]] = {
    SPLEEN: (Tissue.SPLEEN,),
    KIDNEYS: (Tissue.KIDNEY, Tissue.RENAL_PELVIS),
    LIVER: (Tissue.LIVER, Tissue.GALLBLADDER),
    BLADDER: (Tissue.BLADDER,),
    LUNGS: (Tissue.LUNG,),
    BRAIN: BRAIN_TISSUES,
    HEART: (Tissue.MYOCARDIUM,),
    STOMACH: (Tissue.STOMACH_WALL, Tissue.STOMACH_CONTENT),
    PROSTATE: (Tissue.PROSTATE,),
    GLANDS: (Tissue.SALIVARY_GLAND,),
}
_COVER_MM = 12.0
_MARGIN_MM = 16.0  # around an organ, for what hangs on it


@dataclass(frozen=True, eq=False)
class OrganMasks:
    """Organ masks of one study, in LPS."""

    volume: Volume

    @property
    def bounds_mm(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """LPS mm of the first and the last voxel's centre."""
        last = np.array([*self.volume.shape[::-1]]) - 1
        first_mm = self.volume.affine[:3, 3]
        return first_mm, first_mm + np.diag(self.volume.affine)[:3] * last

    def sampled(self, axes: list[npt.NDArray[np.floating]]) -> npt.NDArray[np.uint8]:
        """The masks [z, y, x] at LPS mm along the `axes` x, y and z by nearest neighbour, 0 outside."""
        indices = []
        for at, first, step, size in zip(
            axes,
            self.volume.affine[:3, 3],
            np.diag(self.volume.affine),
            self.volume.shape[::-1],
            strict=False,
        ):
            index = np.rint((at - first) / step).astype(np.intp)
            indices.append(np.where((index < 0) | (index >= size), size, index))
        padded = np.pad(self.volume.array, ((0, 1), (0, 1), (0, 1)))
        x, y, z = indices
        result: npt.NDArray[np.uint8] = padded[np.ix_(z, y, x)]
        return result


def find_masks(folder: Path) -> list[Path]:
    """The mask files of a folder by name. Raises UsageError if there is none."""
    paths = sorted(path for path in folder.glob("*") if is_image(path)) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"{folder}: holds no organ masks; give a folder of NIfTI files, one for each study")
    return paths


def masks_digest(folder: Path) -> str:
    """The sha256 of a folder's mask files in the order in which studies take them."""
    sha256 = hashlib.sha256()
    for path in find_masks(folder):
        sha256.update(hashlib.sha256(path.read_bytes()).digest())
    return sha256.hexdigest()


def read_masks(path: Path) -> OrganMasks:
    """Read a study's organ masks. Raises ValueRangeError for values that are no label."""
    volume = read_volume(path).reoriented()
    if not _are_labels(volume.array):
        raise ValueRangeError(
            f"{path}: holds values other than the labels 0 to {GLANDS}; give organ masks as documented"
        )
    off_axis = volume.affine[:3, :3] - np.diag(np.diag(volume.affine)[:3])
    if np.abs(off_axis).max() > 1e-3:
        raise InputError(f"{path}: its axes are not the patient's; resample the masks to LPS first")
    return OrganMasks(volume.with_array(volume.array.astype(np.uint8)))


def _are_labels(values: Array) -> bool:
    # No comparison holds for what is not a number.
    within = bool(values.min() >= 0 and values.max() <= GLANDS)
    return within and bool((values == np.rint(values)).all())


def fit_patient(masks: OrganMasks, patient: Patient) -> Patient:
    """The patient with the sex that the masks tell."""
    prostate_ml = np.count_nonzero(masks.volume.array == PROSTATE) * masks.volume.voxel_volume_ml
    return replace(patient, sex="male" if prostate_ml > _LEAST_ML else "female")


def fit_body(masks: OrganMasks, body: BodyMap, name: str) -> BodyMap:
    """A body whose organs stand where the masks are. Raises StudyError for masks with too few organs."""
    places = {organ: _coordinates(masks, organ) for organ in (*_OWN,)}
    knots = _heights(places)
    if len(knots) < 2 or not places[LUNGS].size:
        raise StudyError(
            f"{name}: needs lungs and one organ more, in their order; "
            "take the file away and simulate into another folder"
        )
    x, y, _ = places[LUNGS]
    (left, right), (front, back) = np.quantile(x, (0.005, 0.995)), np.quantile(y, (0.005, 0.995))
    wide, deep = (right - left) / (2 * _LUNG_HALF_WIDTH), (back - front) / (2 * _LUNG_HALF_DEPTH)
    middle_x, middle_y = (left + right) / 2, (front + back) / 2 - _LUNG_MIDDLE_Y
    head_x, head_y = middle_x, middle_y
    if places[BRAIN].size:
        head_x, head_y = places[BRAIN][0].mean(), places[BRAIN][1].mean() - _BRAIN_MIDDLE_Y
    chest = (200.0, 480.0)
    return BodyMap(
        patient_z_mm=tuple(z for z, _ in knots),
        reference_z_mm=tuple(height for _, height in knots),
        width=Profile((0.0, *chest, 640.0), (wide, wide, wide, body.width.values[-1])),
        depth=Profile((0.0, *chest, 640.0), (deep, deep, deep, body.depth.values[-1])),
        middle_x_mm=Profile((*chest, 760.0), (middle_x, middle_x, float(head_x))),
        middle_y_mm=Profile((*chest, 760.0), (middle_y, middle_y, float(head_y))),
    )


def _heights(places: Mapping[int, npt.NDArray[np.float64]]) -> list[tuple[float, float]]:
    """How high landmarks lie in the patient and in the body as it is drawn, from the feet up, in mm.

    One that is not above those below it is left out: kidneys may reach as high as the liver.
    """
    knots: list[tuple[float, float]] = []
    for organ, share, height in _LANDMARKS:
        if places[organ].size:
            z_mm = float(np.quantile(places[organ][2], share))
            if not knots or z_mm > knots[-1][0] + 1:
                knots.append((z_mm, height))
    return knots


def place_organs(canvas: Canvas, masks: npt.NDArray[np.uint8], fat_mm: float) -> None:
    """Take the body's own organs out, put the masked ones in and wrap body around what stands out of it.

    `masks` [z, y, x] has the canvas's voxels; `fat_mm` is the thickness of the fat around what stands out.
    """
    masked = {
        organ: MaskedOrgan.within(canvas, masks == organ, _MARGIN_MM)
        for organ in _OWN
        if np.any(masks == organ)
    }
    _cover(canvas, masks, fat_mm)
    before = canvas.tissue.copy()
    _clear(canvas, masked)
    for organ, placed in masked.items():
        _fill_organ(organ, placed)
    in_organ = masks > 0
    for placed in masked.values():
        move_bones_out(placed, before, in_organ)
    _join(masked, before)


def _join(masked: Mapping[int, MaskedOrgan], before: npt.NDArray[np.uint8]) -> None:
    """Paint what lies between masked organs and the rest of the body, which was `before` without them."""
    if BRAIN in masked:
        surround_brain(masked[BRAIN], before)
    if HEART in masked:
        join_great_vessels(masked[HEART])
    if LIVER in masked:
        paint_gallbladder(masked[LIVER])
    if KIDNEYS in masked:
        paint_collecting_systems(masked[KIDNEYS], masked.get(BLADDER))


def _coordinates(masks: OrganMasks, organ: int) -> npt.NDArray[np.float64]:
    """LPS mm (x, y, z) of an organ's voxels, [3, n]; empty where there is too little of it."""
    every = 2  # voxels are many enough
    z, y, x = np.nonzero(masks.volume.array[::every, ::every, ::every] == organ)
    if z.size * every**3 * masks.volume.voxel_volume_ml < _LEAST_ML:
        return np.zeros((3, 0))
    step, first = np.diag(masks.volume.affine)[:3, None], masks.volume.affine[:3, 3:]
    result: npt.NDArray[np.float64] = np.stack([x, y, z]) * every * step + first
    return result


def _cover(canvas: Canvas, masks: npt.NDArray[np.uint8], fat_mm: float) -> None:
    """Muscle around every organ and fat around that, where the body left air."""
    away = ndimage.distance_transform_edt(masks == 0, sampling=canvas.spacing_mm)
    outside = canvas.tissue == Tissue.AIR
    canvas.tissue[outside & (away < _COVER_MM + fat_mm)] = Tissue.FAT
    canvas.tissue[(outside | (canvas.tissue == Tissue.FAT)) & (away < _COVER_MM)] = Tissue.MUSCLE


def _clear(canvas: Canvas, masked: Mapping[int, MaskedOrgan]) -> None:
    """Fill the body's own organs with what lies around them."""
    if KIDNEYS in masked:
        clear_ureters(canvas)
    if HEART in masked:
        clear_heart(canvas)
    own = tuple(tissue for organ in masked for tissue in _OWN[organ])
    where = one_of(canvas.tissue, own)
    height = canvas.z[where]
    around = np.select(
        [height > 640, height > 400], [Tissue.MUSCLE, Tissue.MEDIASTINUM], default=Tissue.VISCERAL_FAT
    )
    canvas.tissue[where] = around.astype(np.uint8)


def _fill_organ(organ: int, placed: MaskedOrgan) -> None:
    if organ == BRAIN:
        paint_brain(placed)
    elif organ == HEART:
        paint_heart(placed)
    else:
        placed.fill(placed.where, _OWN[organ][0])
    if organ == STOMACH:
        placed.fill(placed.where & (placed.depth_mm > 6), Tissue.STOMACH_CONTENT)
