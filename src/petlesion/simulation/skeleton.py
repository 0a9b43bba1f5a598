"""The skeleton of the reference adult: each bone has a hard shell, and marrow inside."""

from __future__ import annotations

import numpy as np

from petlesion.simulation.body import Canvas, Patient, Tissue
from petlesion.simulation.outline import cavity_distance
from petlesion.simulation.shapes import Box, Ellipsoid, Shape, Tube, both_sides, tube

# Heights of the middles of the vertebral bodies from L5 to C2, and where they stand from front to back.
VERTEBRA_HEIGHTS = (
    *(101.0, 138, 175, 212, 248),  # L5 to L1
    *(281.0, 307, 332, 356, 380, 404, 428, 452, 476, 500, 523, 545),  # T12 to T1
    *(568.0, 586, 603, 620, 637, 655),  # C7 to C2
)
_SPINE_Z = (60.0, 101, 175, 250, 330, 420, 500, 560, 620, 690)
_SPINE_Y = (52.0, 42, 34, 40, 52, 60, 54, 36, 12, -4)
_BODY_RADIUS_Z = (101.0, 250, 400, 545, 600, 660)
_BODY_RADIUS = (26.0, 23, 19, 15, 11, 10)
_HARD_MM = 2.6
_RIB_PITCH_MM = 27.0
_RIB_TOP, _RIB_BOTTOM = 548.0, 268.0
_RIB_DEPTH_MM = (1.0, 9.0)


def spine_y(z: float) -> float:
    """How far back the middle of the vertebral body stands at a height."""
    return float(np.interp(z, _SPINE_Z, _SPINE_Y))


def arm(up: bool) -> Tube:
    """The left arm's muscles from shoulder to wrist, beside the body or raised beside the head."""
    if up:
        return tube((160, 14, 500, 44), (158, 0, 640, 40), (140, -20, 790, 36), (40, -40, 950, 28))
    return tube((160, 14, 500, 44), (205, 20, 360, 40), (222, 24, 190, 34), (218, -10, -60, 26))


def paint_skeleton(canvas: Canvas, patient: Patient) -> None:
    """Paint all bones."""
    _paint_ribs(canvas)
    _paint_spine(canvas)
    for shape in _limb_bones(patient):
        _paint_bone(canvas, shape, Tissue.YELLOW_MARROW)
    for shape in _red_bones():
        _paint_bone(canvas, shape, Tissue.RED_MARROW)
    _paint_skull(canvas)


def _paint_bone(canvas: Canvas, shape: Shape, marrow: Tissue, hard_mm: float = _HARD_MM) -> None:
    found = canvas.inside(shape)
    if found is None:
        return
    window, distance = found
    # A lean patient's skin lies close: no bone stands out of it.
    body = canvas.tissue[window] != Tissue.AIR
    canvas.fill(window, body & (distance < 0), Tissue.BONE)
    canvas.fill(window, body & (distance < -hard_mm), marrow)


def _paint_ribs(canvas: Canvas) -> None:
    """Ribs lie on the chest's wall at a pitch, falling to the front, where they end in cartilage."""

    window = canvas.window(Box((-190, -140, _RIB_BOTTOM - 60), (190, 140, _RIB_TOP + 20)))
    if window is None:
        return
    x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
    depth = cavity_distance(canvas, window)
    near, far = _RIB_DEPTH_MM
    wall = (depth > near) & (depth < far)
    fall = np.where(y > 60, np.float32(0), (60 - y) * np.float32(0.42))
    height = z + fall
    phase = np.mod((height - np.float32(_RIB_BOTTOM)) / np.float32(_RIB_PITCH_MM), 1)
    band = (phase < 0.42) & (height > _RIB_BOTTOM) & (height < _RIB_TOP)
    bony = (np.abs(x) > 34) | (y > 0)
    canvas.fill(window, wall & band & bony, Tissue.BONE)
    core = (phase > 0.12) & (phase < 0.3) & (depth > near + 2.2) & (depth < far - 2.2)
    canvas.fill(window, wall & band & bony & core, Tissue.RED_MARROW)


def _paint_spine(canvas: Canvas) -> None:
    heights = np.array(VERTEBRA_HEIGHTS)
    gaps = np.gradient(heights)
    for z, gap in zip(heights, gaps, strict=True):
        radius = float(np.interp(z, _BODY_RADIUS_Z, _BODY_RADIUS))
        y = spine_y(z)
        body = Ellipsoid((0, y, z), (radius * 1.12, radius * 0.92, gap * 0.62))
        disc = Ellipsoid((0, y, z + gap / 2), (radius, radius * 0.85, gap * 0.26))
        canvas.paint(disc, Tissue.DISC)
        lower, upper = z - gap * 0.39, z + gap * 0.39
        found = canvas.inside(body)
        if found is not None:
            window, distance = found
            level = (canvas.z[window] > lower) & (canvas.z[window] < upper)
            canvas.fill(window, level & (distance < 0), Tissue.BONE)
            canvas.fill(window, level & (distance < -1.6), Tissue.RED_MARROW)
        back = y + radius
        arch = tube((0, back + 16, z - 4, 5), (0, back + 34, z - gap * 0.35, 4))
        wings = tube(
            (-radius * 1.5, back + 8, z, 4.5), (0, back + 17, z, 5), (radius * 1.5, back + 8, z, 4.5)
        )
        for shape in (arch, wings):
            _paint_bone(canvas, shape, Tissue.RED_MARROW)


def _red_bones() -> list[Shape]:
    """Bones of the trunk, full of red marrow."""
    sacrum = Ellipsoid((0, 70, 62), (48, 22, 46), (-25, 0, 0))
    breastbone = [Ellipsoid((0, -82, 512), (26, 9, 26), (-20, 0, 0)), Ellipsoid((0, -100, 440), (17, 8, 66))]
    return [sacrum, *breastbone, *both_sides(*_hip_bone(), *_shoulder_blade(), _COLLAR_BONE)]


_COLLAR_BONE = tube((18, -72, 528, 8), (70, -50, 538, 6.5), (130, -8, 532, 7))


def _hip_bone() -> list[Tube]:
    """Fans of tubes from the hip socket to the crest, and the two rami."""
    crest = ((50, 72, 110), (72, 62, 142), (98, 36, 154), (116, 4, 150), (122, -28, 134), (118, -46, 112))
    blade = [tube((84, 12, 24, 13), (*point, 7.5)) for point in crest]
    rim = Tube(tuple(crest), (8.0,) * len(crest))
    socket = tube((88, 14, 30, 17), (92, 20, 4, 15), (80, 34, -20, 14), (64, 44, -58, 15))
    pubis = tube((84, -6, 14, 13), (40, -44, 6, 9), (10, -54, 0, 10))
    ramus = tube((12, -52, -8, 9), (38, -12, -40, 8), (62, 38, -58, 10))
    return [*blade, rim, socket, pubis, ramus]


def _shoulder_blade() -> list[Tube]:
    corners = ((72, 98, 530), (70, 112, 480), (84, 118, 420))
    blade = [tube((142, 40, 508, 10), (*point, 5)) for point in corners]
    return [*blade, Tube(corners, (5.0, 5.0, 5.0)), tube((75, 108, 518, 6), (150, 50, 528, 8))]


def _limb_bones(patient: Patient) -> list[Shape]:
    arm_points = arm(patient.arms_up).points
    humerus = Tube(arm_points[:3], (21.0, 11.0, 14.0))
    forearm = Tube(arm_points[2:4], (13.0, 10.0))
    femur = tube(
        (92, 4, 0, 23), (110, 12, -14, 17), (124, 14, -36, 18), (112, 8, -110, 15), (84, 6, -430, 14)
    )
    shin = tube((82, 10, -440, 24), (80, 16, -900, 14))
    return both_sides(humerus, forearm, femur, shin)


def _paint_skull(canvas: Canvas) -> None:
    vault = Ellipsoid((0, -24, 786), (70, 90, 86))
    found = canvas.inside(vault)
    if found is not None:
        window, distance = found
        above_face = canvas.z[window] > 722 + 0.25 * canvas.y[window]
        shell = (distance < 0) & (distance > -6.5) & above_face
        canvas.fill(window, shell, Tissue.BONE)
        canvas.fill(window, shell & (distance < -2.4) & (distance > -4.4), Tissue.RED_MARROW)
    base = [
        tube((-48, 0, 722, 7), (0, -4, 712, 9), (48, 0, 722, 7)),
        tube((-45, -70, 742, 5), (0, -64, 730, 7), (45, -70, 742, 5)),
    ]
    jaw = tube((52, -20, 712, 7), (46, -32, 662, 8), (30, -85, 645, 8), (0, -104, 642, 9))
    upper_jaw = tube((30, -88, 684, 7), (0, -106, 684, 8))
    cheek = tube((58, -50, 722, 5), (42, -92, 712, 6))
    for shape in [*base, *both_sides(jaw, upper_jaw, cheek)]:
        _paint_bone(canvas, shape, Tissue.RED_MARROW, hard_mm=3.5)
