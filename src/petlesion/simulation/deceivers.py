"""What takes up FDG without being a tumour, and deceives readers and networks. None of it is ever a lesion.

The list follows Shreve, Anzai and Wahl, "Pitfalls in Oncologic Diagnosis with FDG PET Imaging", RadioGraphics
1999;19:61–77, and for brown fat and muscle Cohade, "Altered biodistribution on FDG-PET", Semin Nucl Med
2010;40:283–293 (DOI 10.1053/j.semnuclmed.2010.02.001). How often each occurs is set by judgement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from petlesion.simulation.body import Patient, Tissue, one_of
from petlesion.simulation.random_fields import smooth_field
from petlesion.simulation.shapes import Ellipsoid, Floats, Point, Shape, both_sides, mirrored, tube
from petlesion.simulation.skeleton import VERTEBRA_HEIGHTS, arm, spine_y
from petlesion.simulation.uptake import Phantom

_FATS = (Tissue.FAT, Tissue.VISCERAL_FAT)
_NODE_BEDS = (*_FATS, Tissue.MUSCLE, Tissue.MEDIASTINUM)
_BONES = (Tissue.BONE, Tissue.RED_MARROW, Tissue.YELLOW_MARROW, Tissue.DISC)

_NODES: dict[str, tuple[Point, Point]] = {
    # A benign node lies between two points, on either side.
    "hilum": ((34, 22, 462), (44, 22, 446)),
    "mediastinum": ((-8, -10, 500), (8, 22, 456)),
    "neck": ((40, -14, 690), (42, -2, 600)),
    "armpit": ((134, 12, 480), (144, 16, 446)),
    "groin": ((68, -64, 2), (76, -60, -46)),
}
_JOINTS: tuple[Point, ...] = (
    (150, 14, 512), (132, 0, 532), (20, -60, 526), (92, 4, 0), (122, 14, -30), (46, 62, 96), (10, -52, 0),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Scene:
    """The phantom that is changed in place, whose it is, and what is drawn from."""

    phantom: Phantom
    patient: Patient
    rng: np.random.Generator

    def heat(
        self,
        shape: Shape,
        suv: float,
        within: tuple[Tissue, ...] | None = None,
        hu: float | None = None,
        patchy: float = 0.15,
    ) -> None:
        """Raise what lies in a shape to `suv`, patchily; activity that is higher already stays."""
        canvas = self.phantom.canvas
        found = canvas.inside(shape)
        if found is None:
            return
        window, distance = found
        tissue = canvas.tissue[window]
        where = (distance < 0) & (tissue != Tissue.AIR)
        if within is not None:
            where &= one_of(tissue, within)
        texture = smooth_field(self.rng, distance.shape, canvas.spacing_mm, 9.0)
        hot: Floats = np.float32(suv) * np.exp(np.float32(patchy) * texture)
        block = self.phantom.suv[window]
        block[where] = np.maximum(block[where], hot[where])
        if hu is not None:
            self.phantom.hu[window][where] = np.float32(hu) + 8 * texture[where]

    def multiply(self, tissues: tuple[Tissue, ...], factor: float) -> None:
        """Scale the activity of some tissues."""
        self.phantom.suv[one_of(self.phantom.canvas.tissue, tissues)] *= np.float32(factor)

    def side(self, shape: Ellipsoid) -> Ellipsoid:
        """The shape on a side drawn at random."""
        if self.rng.random() < 0.5:
            return shape
        other = mirrored(shape)
        assert isinstance(other, Ellipsoid)
        return other

    def between(self, low: float, high: float) -> float:
        """A number drawn evenly."""
        return float(self.rng.uniform(low, high))


def add_deceivers(phantom: Phantom, patient: Patient, rng: np.random.Generator) -> None:
    """Draw which deceivers this patient has, and paint them into the phantom in place."""
    for deceiver, own_rng in zip(_DECEIVERS, rng.spawn(len(_DECEIVERS)), strict=True):
        if own_rng.random() < deceiver.chance:
            deceiver.apply(_Scene(phantom, patient, own_rng))


def _benign_nodes(scene: _Scene) -> None:
    places = list(_NODES.values())
    for _ in range(scene.rng.integers(1, 6)):
        start, end = places[int(scene.rng.integers(len(places)))]
        share = scene.rng.random()
        x, y, z = (s + share * (e - s) + scene.rng.normal(0, 4) for s, e in zip(start, end, strict=True))
        radius = scene.between(3.5, 7.5)
        node = Ellipsoid((x, y, z), (radius, radius, 1.4 * radius))
        scene.heat(scene.side(node), scene.between(1.6, 4.2), _NODE_BEDS, hu=40)


def _sarcoid_like_nodes(scene: _Scene) -> None:
    suv = scene.between(3, 8)
    for x, y, z in ((40, 22, 454), (-38, 22, 456), (-12, -8, 488), (2, 28, 446)):
        radius = scene.between(6, 11)
        scene.heat(Ellipsoid((x, y, z), (radius,) * 3), suv, (*_NODE_BEDS, Tissue.LUNG), hu=42)


def _brown_fat(scene: _Scene) -> None:
    suv = scene.between(3, 11)
    neck = tube((38, 4, 640, 12), (48, 6, 570, 16), (90, 4, 545, 15), (124, 14, 505, 12))
    spine = tube((30, 52, 540, 8), (34, 58, 400, 9), (36, 44, 290, 9))
    for shape in both_sides(neck, spine):
        scene.heat(shape, suv, _FATS, patchy=0.7)


def _worn_joints(scene: _Scene) -> None:
    for point in scene.rng.permutation(np.array(_JOINTS))[: scene.rng.integers(1, 5)].tolist():
        radius = scene.between(7, 15)
        joint = Ellipsoid((point[0], point[1], point[2]), (radius, radius, radius))
        scene.heat(scene.side(joint), scene.between(1.5, 3.8), (*_BONES, Tissue.MUSCLE), patchy=0.4)


def _worn_spine(scene: _Scene) -> None:
    for _ in range(scene.rng.integers(1, 4)):
        z = float(scene.rng.choice(VERTEBRA_HEIGHTS[:14])) + 16
        x = scene.between(-26, 26)
        spot = Ellipsoid((x, spine_y(z) + scene.between(-18, 26), z), (8, 8, 6))
        scene.heat(spot, scene.between(2, 4.5), (*_BONES, Tissue.MUSCLE, Tissue.VISCERAL_FAT))


def _healing_ribs(scene: _Scene) -> None:
    for _ in range(scene.rng.integers(1, 5)):
        z, y = scene.between(300, 500), scene.between(-50, 70)
        x = 141 * np.sqrt(max(0.0, 1 - (y / 96) ** 2))
        scene.heat(scene.side(Ellipsoid((float(x), y, z), (10, 10, 9))), scene.between(2, 5), _BONES)


def _scar(scene: _Scene) -> None:
    cuts = (
        tube((0, -98, 510, 6), (0, -108, 390, 6)),
        tube((0, -92, 300, 7), (3, -88, 90, 7)),
        tube((-118, -60, 250, 6), (-60, -95, 300, 6)),
        tube((60, -90, 470, 6), (110, -60, 440, 6)),
    )
    cut = cuts[int(scene.rng.integers(len(cuts)))]
    scene.heat(
        cut, scene.between(1.5, 4), (Tissue.FAT, Tissue.MUSCLE, Tissue.BREAST, Tissue.BONE), patchy=0.35
    )


def _tense_muscle(scene: _Scene) -> None:
    muscles = (
        tube((28, 36, 690, 12), (36, 50, 600, 15), (90, 50, 540, 14), (140, 34, 525, 10)),
        tube((24, -22, 690, 8), (34, -34, 620, 9), (22, -60, 540, 8)),
        tube((24, 34, 275, 7), (36, 34, 200, 14), (50, 30, 120, 18), (70, -12, 40, 15)),
        arm(scene.patient.arms_up),
    )
    suv = scene.between(1.5, 4)
    muscle = muscles[int(scene.rng.integers(len(muscles)))]
    for side in both_sides(muscle)[: scene.rng.integers(1, 3)]:
        scene.heat(side, suv, (Tissue.MUSCLE,), patchy=0.3)


def _fed_muscle(scene: _Scene) -> None:
    scene.multiply((Tissue.MUSCLE,), scene.between(1.8, 3.5))
    scene.multiply((Tissue.LIVER, Tissue.GREY_MATTER, Tissue.WHITE_MATTER), scene.between(0.6, 0.85))


def _vocal_cords(scene: _Scene) -> None:
    sides = (-1, 1) if scene.rng.random() < 0.7 else (1,)
    suv = scene.between(2.5, 6)
    for side in sides:
        scene.heat(Ellipsoid((side * 9.0, -6, 606), (6, 12, 5)), suv, (Tissue.MUSCLE, Tissue.FAT))


def _metformin(scene: _Scene) -> None:
    scene.multiply((Tissue.COLON,), scene.between(2, 5))
    scene.multiply((Tissue.SMALL_BOWEL,), scene.between(1.2, 3))


def _bowel_focus(scene: _Scene) -> None:
    places = ((-90, 0, 120), (98, 22, 180), (30, -10, 66), (0, 46, 40), (-20, -60, 205), (40, -40, 160))
    x, y, z = places[int(scene.rng.integers(len(places)))]
    suv = scene.between(3, 9)
    scene.heat(Ellipsoid((x, y, z), (22, 22, 22)), suv, (Tissue.COLON, Tissue.SMALL_BOWEL), patchy=0.3)


def _gastritis(scene: _Scene) -> None:
    scene.multiply((Tissue.STOMACH_WALL,), scene.between(1.4, 2.6))


def _reflux(scene: _Scene) -> None:
    scene.heat(tube((10, 32, 430, 8), (22, 14, 378, 8), (40, 2, 362, 9)), scene.between(2.5, 5),
               (Tissue.OESOPHAGUS, Tissue.STOMACH_WALL))  # fmt: skip


def _thyroiditis(scene: _Scene) -> None:
    scene.multiply((Tissue.THYROID,), scene.between(2, 6))


def _active_marrow(scene: _Scene) -> None:
    factor = scene.between(1.4, 3)
    scene.multiply((Tissue.RED_MARROW,), factor)
    scene.multiply((Tissue.SPLEEN,), 1 + 0.6 * (factor - 1))


def _pneumonia(scene: _Scene) -> None:
    for _ in range(scene.rng.integers(1, 4)):
        centre = (scene.between(40, 115), scene.between(-40, 70), scene.between(370, 540))
        size = scene.between(10, 32)
        patch = Ellipsoid(centre, (size, size, 0.8 * size))
        scene.heat(
            scene.side(patch), scene.between(1.2, 4.5), (Tissue.LUNG,), hu=scene.between(-450, 20), patchy=0.5
        )


def _dependent_lung(scene: _Scene) -> None:
    """Lung that collapses at the back of a patient on the back, or fluid there."""
    density = scene.between(-500, 15)
    for shape in (Ellipsoid((70, 78, 380), (46, 12, 60)), Ellipsoid((-70, 78, 380), (46, 12, 60))):
        scene.heat(shape, scene.between(0.7, 1.4), (Tissue.LUNG,), hu=density)


def _womb(scene: _Scene) -> None:
    if not scene.patient.female:
        return
    if scene.rng.random() < 0.5:
        scene.heat(Ellipsoid((0, 12, 58), (9, 9, 20), (40, 0, 0)), scene.between(3, 8), (Tissue.UTERUS,))
    else:
        scene.heat(scene.side(Ellipsoid((42, 14, 66), (10, 9, 10))), scene.between(3, 8), (Tissue.OVARY,))


def _hot_prostate(scene: _Scene) -> None:
    if not scene.patient.female:
        scene.heat(scene.side(Ellipsoid((9, 2, -6), (7, 7, 7))), scene.between(2.5, 6), (Tissue.PROSTATE,))


def _injection(scene: _Scene) -> None:
    """Activity left in the arm's vein."""
    elbow = arm(scene.patient.arms_up).points[2]
    scene.heat(scene.side(Ellipsoid(elbow, (7, 7, 18))), float(scene.rng.lognormal(2.3, 0.8)))


def _wet_skin(scene: _Scene) -> None:
    spot = Ellipsoid((scene.between(0, 40), -100, -60), (scene.between(8, 20), 14, 12))
    scene.heat(scene.side(spot), scene.between(3, 15), (Tissue.FAT, Tissue.MUSCLE, Tissue.TESTIS))


def _dental(scene: _Scene) -> None:
    scene.heat(
        scene.side(Ellipsoid((32, -84, 660), (9, 9, 7))), scene.between(2.5, 6), (*_BONES, Tissue.MUSCLE)
    )


@dataclass(frozen=True)
class _Deceiver:
    chance: float
    apply: Callable[[_Scene], None]


# What changes a whole tissue comes first: it must not multiply what was painted on top of it.
_DECEIVERS = (
    _Deceiver(0.04, _fed_muscle),
    _Deceiver(0.15, _metformin),
    _Deceiver(0.15, _gastritis),
    _Deceiver(0.05, _thyroiditis),
    _Deceiver(0.14, _active_marrow),
    _Deceiver(0.45, _benign_nodes),
    _Deceiver(0.04, _sarcoid_like_nodes),
    _Deceiver(0.06, _brown_fat),
    _Deceiver(0.40, _worn_joints),
    _Deceiver(0.35, _worn_spine),
    _Deceiver(0.08, _healing_ribs),
    _Deceiver(0.15, _scar),
    _Deceiver(0.15, _tense_muscle),
    _Deceiver(0.20, _vocal_cords),
    _Deceiver(0.20, _bowel_focus),
    _Deceiver(0.12, _reflux),
    _Deceiver(0.12, _pneumonia),
    _Deceiver(0.20, _dependent_lung),
    _Deceiver(0.15, _womb),
    _Deceiver(0.08, _hot_prostate),
    _Deceiver(0.10, _injection),
    _Deceiver(0.05, _wet_skin),
    _Deceiver(0.15, _dental),
)
