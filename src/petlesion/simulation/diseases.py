"""Where lymphoma, melanoma, lung cancer and soft-tissue sarcoma grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from petlesion.simulation.body import Tissue
from petlesion.simulation.shapes import Tube, tube

_SOFT = (Tissue.FAT, Tissue.VISCERAL_FAT, Tissue.MUSCLE, Tissue.MEDIASTINUM)


@dataclass(frozen=True)
class Site:
    """A place where lesions grow: within `tissues`, near `path` (reference mm, on both sides) if given."""

    tissues: tuple[Tissue, ...]
    path: Tube | None = None


SITES: Mapping[str, Site] = {
    "cervical nodes": Site(_SOFT, tube((38, -10, 700, 12), (40, -8, 640, 14), (44, 8, 575, 14))),
    "supraclavicular nodes": Site(_SOFT, tube((40, -8, 556, 14), (75, 0, 545, 12))),
    "axillary nodes": Site(_SOFT, tube((132, 10, 480, 16), (146, 16, 440, 16))),
    "mediastinal nodes": Site(_SOFT, tube((0, -14, 530, 20), (4, 0, 470, 28), (8, 24, 440, 16))),
    "hilar nodes": Site((*_SOFT, Tissue.LUNG), tube((36, 22, 462, 11), (48, 22, 446, 10))),
    "retroperitoneal nodes": Site(_SOFT, tube((16, 16, 290, 12), (22, 18, 210, 16), (18, 20, 140, 14))),
    "mesenteric nodes": Site(_SOFT, tube((10, -34, 200, 26), (0, -30, 130, 26))),
    "iliac nodes": Site(_SOFT, tube((38, 16, 105, 12), (60, -12, 50, 12), (66, -40, 16, 10))),
    "inguinal nodes": Site(_SOFT, tube((70, -62, -2, 13), (76, -58, -50, 13))),
    "liver": Site((Tissue.LIVER,)),
    "spleen": Site((Tissue.SPLEEN,)),
    "lung": Site((Tissue.LUNG,)),
    "bone": Site((Tissue.RED_MARROW, Tissue.BONE)),
    "skin": Site((Tissue.FAT,)),
    "muscle": Site((Tissue.MUSCLE,)),
    "adrenal": Site((Tissue.ADRENAL, Tissue.VISCERAL_FAT), tube((34, 28, 284, 9), (42, 32, 310, 9))),
    "brain": Site((Tissue.WHITE_MATTER, Tissue.GREY_MATTER)),
    "bowel": Site((Tissue.SMALL_BOWEL, Tissue.COLON)),
    "peritoneum": Site((Tissue.VISCERAL_FAT,)),
    "thigh": Site((Tissue.MUSCLE, Tissue.FAT), tube((90, -10, -60, 45), (90, 0, -250, 40))),
}


@dataclass(frozen=True)
class Disease:
    """How often a disease occurs, where its largest lesion lies and where the others do, by weight.

    `necrosis` is the chance that a lesion of more than 12 mL is dead inside.
    """

    share: float
    largest: Mapping[str, float]
    others: Mapping[str, float]
    necrosis: float


# Shares after Gatidis et al., Scientific Data 2022 (DOI 10.1038/s41597-022-01718-3): 188 studies of melanoma,
# 168 of lung cancer, 145 of lymphoma; a few sarcomas beside them.
DISEASES: Mapping[str, Disease] = {
    "melanoma": Disease(
        share=0.35,
        largest={
            "axillary nodes": 3, "inguinal nodes": 3, "liver": 3, "lung": 3, "skin": 2, "iliac nodes": 1.5,
            "cervical nodes": 1.5, "bone": 1, "muscle": 1, "bowel": 0.7, "adrenal": 0.5,
        },
        others={
            "lung": 4, "liver": 3, "bone": 3, "skin": 3, "muscle": 2, "axillary nodes": 1.5,
            "inguinal nodes": 1.5, "iliac nodes": 1, "mediastinal nodes": 1, "peritoneum": 0.7, "bowel": 0.5,
            "spleen": 0.4, "brain": 0.3, "adrenal": 0.3,
        },
        necrosis=0.3,
    ),
    "lung cancer": Disease(
        share=0.32,
        largest={"lung": 8, "hilar nodes": 2, "mediastinal nodes": 1},
        others={
            "mediastinal nodes": 6, "lung": 5, "hilar nodes": 4, "bone": 4, "supraclavicular nodes": 2,
            "liver": 2, "adrenal": 1, "retroperitoneal nodes": 0.5, "brain": 0.4, "muscle": 0.4, "skin": 0.2,
        },
        necrosis=0.4,
    ),
    "lymphoma": Disease(
        share=0.28,
        largest={
            "mediastinal nodes": 4, "retroperitoneal nodes": 3, "cervical nodes": 2.5, "mesenteric nodes": 2,
            "axillary nodes": 1.5, "iliac nodes": 1.5, "inguinal nodes": 1, "spleen": 1, "bone": 0.7,
            "liver": 0.4,
        },
        others={
            "mediastinal nodes": 4, "cervical nodes": 4, "retroperitoneal nodes": 4, "axillary nodes": 3,
            "supraclavicular nodes": 3, "iliac nodes": 3, "bone": 3, "mesenteric nodes": 2.5,
            "inguinal nodes": 2, "spleen": 1.2, "hilar nodes": 1, "liver": 0.7, "lung": 0.6, "bowel": 0.4,
            "muscle": 0.3,
        },
        necrosis=0.12,
    ),
    "sarcoma": Disease(
        share=0.05,
        largest={"thigh": 5, "muscle": 4, "peritoneum": 2},
        others={"lung": 5, "muscle": 2, "bone": 1, "liver": 0.7, "inguinal nodes": 0.7, "skin": 0.7},
        necrosis=0.6,
    ),
}  # fmt: skip
