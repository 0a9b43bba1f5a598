"""The soft organs of the reference adult."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from petlesion.simulation.body import Canvas, Patient, Tissue
from petlesion.simulation.random_fields import smooth_field
from petlesion.simulation.shapes import Ellipsoid, Point, Shape, Tube, both_sides, tube

BELLY = (Tissue.VISCERAL_FAT, Tissue.SMALL_BOWEL)
"""What gives way to the organs of the belly."""
_CHEST = (Tissue.LUNG, Tissue.MEDIASTINUM)
_LOOP_MM = 22.0
_SKIN_MM = 6.0


@dataclass(frozen=True)
class _Jitter:
    """Draws where and how large an organ is in this patient, apart from the texture of its inside.

    How much is drawn for a texture hangs on the voxels' size, so it comes from a generator of its own.
    """

    rng: np.random.Generator
    texture: np.random.Generator

    def ellipsoid(
        self,
        centre: Point,
        radii: Point,
        turn_deg: Point = (0, 0, 0),
        *,
        move_mm: float = 4,
        size: float = 0.07,
    ) -> Ellipsoid:
        """An ellipsoid moved by some mm and grown or shrunk by a share of its size."""
        x, y, z = np.array(centre) + self.rng.normal(0, move_mm, 3)
        growth = self.rng.lognormal(0, size) * self.rng.lognormal(0, size / 2, 3)
        rx, ry, rz = np.array(radii) * growth
        turn_x, turn_y, turn_z = np.array(turn_deg) + self.rng.normal(0, 5, 3)
        return Ellipsoid(
            (float(x), float(y), float(z)),
            (float(rx), float(ry), float(rz)),
            (float(turn_x), float(turn_y), float(turn_z)),
        )

    def tube(self, *knots: tuple[float, float, float, float], move_mm: float = 4) -> Tube:
        """A tube whose knots (x, y, z, radius) are moved by some mm."""
        table = np.array(knots, dtype=np.float64)
        table[:, :3] += self.rng.normal(0, move_mm, (len(knots), 3))
        table[:, 3] *= self.rng.lognormal(0, 0.08)
        return Tube(tuple((x, y, z) for x, y, z, _ in table.tolist()), tuple(table[:, 3].tolist()))


def paint_organs(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint all soft organs, from the belly to the head."""
    jitter = _Jitter(*rng.spawn(2))
    _paint_bowel(canvas, jitter)
    _paint_upper_belly(canvas, jitter)
    _paint_urinary_tract(canvas, jitter)
    _paint_pelvis(canvas, patient, jitter)
    _paint_vessels(canvas, jitter)
    _paint_heart(canvas, patient, jitter)
    _paint_neck(canvas, jitter)
    _paint_head(canvas, jitter)


def paint_back_muscles(canvas: Canvas) -> None:
    """Muscles beside the spine, and the psoas down to the hip."""
    erector = tube((36, 84, 560, 18), (36, 96, 420, 20), (36, 84, 250, 27), (34, 80, 120, 26))
    psoas = tube((24, 34, 275, 7), (36, 34, 200, 16), (50, 30, 120, 22), (70, -12, 40, 20), (96, 8, -40, 14))
    quadratus = tube((52, 62, 260, 12), (66, 62, 150, 15))
    for shape in both_sides(erector, psoas, quadratus):
        canvas.paint(shape, Tissue.MUSCLE, over=(Tissue.VISCERAL_FAT, Tissue.LUNG))


def paint_airways(canvas: Canvas) -> None:
    """Windpipe, main bronchi, throat, mouth and nose: what stays open."""
    trachea = tube((0, 8, 602, 8), (0, -2, 560, 9), (2, 22, 485, 9))
    bronchi = [tube((2, 22, 485, 8), (-34, 26, 462, 6)), tube((2, 22, 485, 8), (38, 28, 456, 6))]
    throat = tube((0, 6, 602, 7), (0, -14, 650, 9), (0, -22, 712, 9))
    nose = tube((0, -24, 712, 9), (0, -60, 716, 9), (0, -112, 712, 8))
    sinuses = both_sides(Ellipsoid((28, -84, 712), (14, 14, 16)), Ellipsoid((10, -100, 768), (10, 6, 10)))
    for shape in (trachea, *bronchi, throat, nose, *sinuses):
        canvas.paint(shape, Tissue.AIRWAY)


def _paint_bowel(canvas: Canvas, jitter: _Jitter) -> None:
    _paint_loops(canvas, jitter)
    colon: list[Tube] = [
        jitter.tube((-88, -4, 92, 25), (-94, 10, 140, 22), (-94, 16, 200, 20), (-84, -24, 232, 20)),
        jitter.tube(
            (-84, -24, 232, 19), (-30, -64, 205, 18), (40, -66, 205, 18), (94, -6, 280, 18), move_mm=8
        ),
        jitter.tube((94, -6, 280, 17), (102, 26, 230, 15), (98, 22, 130, 15), (76, 2, 84, 15)),
        jitter.tube((76, 2, 84, 14), (38, -14, 62, 15), (10, 18, 76, 14), (2, 44, 62, 15), move_mm=7),
        jitter.tube((2, 44, 62, 16), (0, 50, 30, 19), (0, 42, -20, 13), move_mm=2),
    ]
    for part in colon:
        canvas.paint(part, Tissue.COLON, over=BELLY)
    for part in colon:
        found = canvas.inside(part)
        if found is None:
            continue
        window, distance = found
        filling = smooth_field(jitter.texture, distance.shape, canvas.spacing_mm, 30)
        lumen = (distance < -4.5) & (filling > -0.6)
        canvas.fill(window, lumen, Tissue.COLON_CONTENT, over=(Tissue.COLON,))
        front = canvas.y[window] < np.median(canvas.y[window])
        canvas.fill(window, lumen & (filling > 0.7) & front, Tissue.BOWEL_GAS, over=(Tissue.COLON_CONTENT,))


def _paint_loops(canvas: Canvas, jitter: _Jitter) -> None:
    """Loops of small bowel in the middle of the belly."""
    regions = (
        jitter.ellipsoid((0, -30, 140), (86, 46, 78)),
        jitter.ellipsoid((30, -28, 205), (62, 34, 40)),
        jitter.ellipsoid((0, -8, 82), (55, 44, 36)),
    )
    for region in regions:
        found = canvas.inside(region)
        if found is None:
            continue
        window, distance = found
        loops = smooth_field(jitter.texture, distance.shape, canvas.spacing_mm, _LOOP_MM)
        canvas.fill(window, (distance < 0) & (loops > -0.15), Tissue.SMALL_BOWEL, over=(Tissue.VISCERAL_FAT,))


def _paint_upper_belly(canvas: Canvas, jitter: _Jitter) -> None:
    stomach: list[Shape] = [
        jitter.ellipsoid((66, 8, 346), (42, 40, 40)),
        jitter.tube((66, -10, 340, 34), (58, -44, 296, 27), (18, -54, 262, 21), (-18, -40, 258, 14)),
    ]
    for part in stomach:
        canvas.paint(part, Tissue.STOMACH_WALL, over=(*BELLY, Tissue.COLON))
    for part in stomach:
        found = canvas.inside(part)
        if found is not None:
            window, distance = found
            canvas.fill(window, distance < -7, Tissue.STOMACH_CONTENT, over=(Tissue.STOMACH_WALL,))
            gas = (distance < -9) & (canvas.y[window] < -28)
            canvas.fill(window, gas, Tissue.BOWEL_GAS, over=(Tissue.STOMACH_CONTENT,))
    duodenum = jitter.tube((-18, -40, 258, 12), (-40, -18, 240, 12), (-34, 0, 200, 12), (20, 2, 198, 11))
    canvas.paint(duodenum, Tissue.SMALL_BOWEL, over=BELLY)
    pancreas = jitter.tube((-28, -14, 226, 13), (4, -26, 244, 10), (44, -4, 262, 10), (84, 18, 296, 8))
    canvas.paint(pancreas, Tissue.PANCREAS, over=BELLY)
    liver = [
        jitter.ellipsoid((-76, -2, 318), (63, 78, 88)),
        jitter.ellipsoid((-68, -8, 272), (52, 56, 46)),
        jitter.ellipsoid((-4, -42, 344), (70, 34, 40), (0, -12, 0)),
    ]
    for part in liver:
        canvas.paint(
            part, Tissue.LIVER, over=(*BELLY, Tissue.STOMACH_WALL, Tissue.COLON, Tissue.COLON_CONTENT)
        )
    canvas.paint(
        jitter.ellipsoid((-48, -52, 246), (14, 17, 32)), Tissue.GALLBLADDER, over=(*BELLY, Tissue.LIVER)
    )
    spleen = jitter.ellipsoid((102, 40, 332), (26, 38, 50), (15, 12, 0), size=0.12)
    canvas.paint(spleen, Tissue.SPLEEN, over=(*BELLY, Tissue.COLON, Tissue.COLON_CONTENT))
    for shape in (tube((36, 24, 292, 5), (42, 32, 308, 5)), tube((-32, 28, 292, 5), (-38, 34, 308, 5))):
        canvas.paint(shape, Tissue.ADRENAL, over=(*BELLY, Tissue.LIVER))


def _paint_urinary_tract(canvas: Canvas, jitter: _Jitter) -> None:
    for side, height in ((-1, 248), (1, 262)):
        kidney = jitter.ellipsoid((side * 72, 34, height), (28, 27, 54), (8, side * -8, 0))
        canvas.paint(kidney, Tissue.KIDNEY, over=(*BELLY, Tissue.LIVER, Tissue.SPLEEN, Tissue.MUSCLE))
        x, y, z = kidney.centre
        pelvis = jitter.ellipsoid((x - side * 12, y - 4, z), (9, 8, 18), move_mm=1, size=0.2)
        canvas.paint(pelvis, Tissue.RENAL_PELVIS, over=(Tissue.KIDNEY, *BELLY))
        ureter = jitter.tube(
            (x - side * 18, y - 6, z - 10, 3),
            (side * 42, 22, 180, 3),
            (side * 48, 20, 100, 3),
            (side * 22, 26, 38, 3),
        )
        canvas.paint(ureter, Tissue.URETER, over=(*BELLY, Tissue.MUSCLE))


def _paint_pelvis(canvas: Canvas, patient: Patient, jitter: _Jitter) -> None:
    free = (*BELLY, Tissue.COLON, Tissue.COLON_CONTENT, Tissue.BOWEL_GAS, Tissue.MUSCLE)
    if patient.female:
        canvas.paint(jitter.ellipsoid((0, 12, 58), (25, 24, 34), (40, 0, 0)), Tissue.UTERUS, over=free)
        for side in (-1, 1):
            canvas.paint(jitter.ellipsoid((side * 42, 14, 66), (13, 11, 14)), Tissue.OVARY, over=free)
    else:
        canvas.paint(jitter.ellipsoid((0, 0, -4), (22, 17, 18), size=0.15), Tissue.PROSTATE, over=free)
        for side in (-1, 1):
            canvas.paint(Ellipsoid((side * 17, -66, -86), (24, 26, 32)), Tissue.FAT, over=(Tissue.AIR,))
            canvas.paint(Ellipsoid((side * 16, -66, -86), (13, 14, 19)), Tissue.TESTIS)
    filling = float(jitter.rng.lognormal(0, 0.2))
    bladder = jitter.ellipsoid((0, -18, 34), (36 * filling, 31 * filling, 27 * filling), move_mm=3)
    canvas.paint(bladder, Tissue.BLADDER, over=(*free, Tissue.UTERUS, Tissue.OVARY))


def _paint_vessels(canvas: Canvas, jitter: _Jitter) -> None:
    aorta = jitter.tube(
        (2, -20, 450, 15), (-6, -22, 486, 15), (4, 0, 508, 14), (20, 24, 500, 13), (22, 30, 450, 12),
        (16, 26, 350, 11), (8, 16, 300, 10), (6, 8, 200, 9), (2, 12, 145, 8), move_mm=2,
    )  # fmt: skip
    cava = jitter.tube(
        (-18, 10, 145, 10), (-20, 10, 250, 11), (-24, 6, 350, 12), (-24, -2, 410, 12), move_mm=2
    )
    upper_cava = jitter.tube((-26, -8, 440, 9), (-26, -16, 515, 9), (-22, -8, 548, 7), move_mm=2)
    trunk = jitter.tube((24, -24, 458, 14), (18, 2, 470, 13), move_mm=2)
    branches = [tube((18, 2, 470, 11), (52, 22, 462, 8)), tube((18, 2, 470, 11), (-46, 20, 464, 8))]
    for shape in (aorta, cava, upper_cava, trunk, *branches):
        canvas.paint(shape, Tissue.BLOOD, over=(*BELLY, *_CHEST, Tissue.LIVER, Tissue.MUSCLE))
    iliac = tube((2, 12, 145, 7), (40, 18, 95, 6), (62, -26, 40, 6), (72, -54, -10, 6), (76, -40, -200, 5))
    carotid = tube((12, -8, 508, 5), (22, -2, 560, 5), (26, 4, 640, 4.5), (26, -4, 705, 4))
    arm_artery = tube((16, 0, 510, 6), (60, 6, 545, 5), (120, 10, 520, 5))
    for side in both_sides(iliac, carotid, arm_artery):
        canvas.paint(side, Tissue.BLOOD, over=(*BELLY, *_CHEST, Tissue.MUSCLE, Tissue.FAT))


def _paint_heart(canvas: Canvas, patient: Patient, jitter: _Jitter) -> None:
    size = (0.92 if patient.female else 1.0) * float(jitter.rng.lognormal(0, 0.06))
    room = (*_CHEST, Tissue.BLOOD, Tissue.VISCERAL_FAT, Tissue.MUSCLE)
    fat = Ellipsoid((27, -28, 424), (62 * size, 56 * size, 58 * size), (25, 25, 0))
    canvas.paint(fat, Tissue.MEDIASTINUM, over=_CHEST)
    heart = Ellipsoid((26, -27, 425), (55 * size, 48 * size, 51 * size), (25, 25, 0))
    canvas.paint(heart, Tissue.BLOOD, over=room)
    axis = (20.0, 42.0, -28.0)  # turns an upright ellipsoid to point left, forward and down
    left = Ellipsoid((46, -34, 408), (32 * size, 32 * size, 47 * size), axis)
    chamber = Ellipsoid((44, -31, 413), (21 * size, 21 * size, 38 * size), axis)
    canvas.paint(left, Tissue.MYOCARDIUM, over=room)
    canvas.paint(chamber, Tissue.BLOOD, over=(Tissue.MYOCARDIUM,))


def _paint_neck(canvas: Canvas, jitter: _Jitter) -> None:
    oesophagus = tube((0, 24, 600, 7), (4, 30, 520, 7), (10, 32, 430, 7), (22, 14, 378, 7), (40, 2, 362, 8))
    canvas.paint(oesophagus, Tissue.OESOPHAGUS, over=(*_CHEST, Tissue.MUSCLE, Tissue.VISCERAL_FAT))
    for side in (-1, 1):
        canvas.paint(jitter.ellipsoid((side * 17, -8, 572), (9, 9, 21), move_mm=1), Tissue.THYROID)
        canvas.paint(jitter.ellipsoid((side * 28, -58, 648), (11, 15, 12), move_mm=1), Tissue.SALIVARY_GLAND)
        parotid = jitter.ellipsoid((side * 51, -20, 694), (9, 17, 24), move_mm=1)
        rx, ry, rz = parotid.radii
        skin = replace(parotid, radii=(rx + _SKIN_MM, ry + _SKIN_MM, rz + _SKIN_MM))
        canvas.paint(skin, Tissue.FAT, over=(Tissue.AIR,))
        canvas.paint(parotid, Tissue.SALIVARY_GLAND)


def _paint_head(canvas: Canvas, jitter: _Jitter) -> None:
    canvas.paint(jitter.ellipsoid((0, -66, 672), (22, 32, 20), move_mm=1), Tissue.TONGUE)
    lingual_tonsil = jitter.ellipsoid((0, -36, 660), (11, 5, 9), move_mm=1)
    canvas.paint(lingual_tonsil, Tissue.TONSIL)
    for side in (-1, 1):
        canvas.paint(jitter.ellipsoid((side * 17, -26, 670), (6, 8, 11), move_mm=1), Tissue.TONSIL)
        canvas.paint(Ellipsoid((side * 31, -92, 742), (12, 12, 12)), Tissue.EYE)
    brain = Ellipsoid((0, -24, 789), (62, 81, 75))
    found = canvas.inside(brain)
    if found is None:
        return
    window, distance = found
    x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
    inside = (distance < 0) & (z > 728 + 0.22 * y)
    folds = smooth_field(jitter.texture, distance.shape, canvas.spacing_mm, 9.0)
    canvas.fill(window, inside, Tissue.WHITE_MATTER)
    cortex = inside & (distance > -17 - 6 * folds)
    canvas.fill(window, cortex, Tissue.GREY_MATTER)
    canvas.fill(window, inside & ((distance > -1.5) | (np.abs(x) < 1.5)), Tissue.BRAIN_FLUID)
    for side in (-1, 1):
        canvas.paint(
            Ellipsoid((side * 17, -24, 778), (12, 24, 15)), Tissue.GREY_MATTER, over=(Tissue.WHITE_MATTER,)
        )
        canvas.paint(Ellipsoid((side * 8, -22, 796), (5, 26, 8)), Tissue.BRAIN_FLUID, over=_BRAIN)
        canvas.paint(
            Ellipsoid((side * 22, 23, 752), (30, 31, 24)), Tissue.CEREBELLUM, over=(*_BRAIN, Tissue.MUSCLE)
        )
    canvas.paint(tube((0, -12, 756, 12), (0, 2, 700, 7)), Tissue.WHITE_MATTER, over=(*_BRAIN, Tissue.MUSCLE))
    canvas.fill(window, (distance < 0) & (distance > -2), Tissue.BRAIN_FLUID, over=_BRAIN)


_BRAIN = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.BRAIN_FLUID)
