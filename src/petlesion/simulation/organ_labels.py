"""The organs of a simulated study whose uptake may pass for a lesion, as one mask."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from petlesion.simulation.body import Tissue
from petlesion.volume import Volume

ORGANS: Mapping[str, tuple[Tissue, ...]] = MappingProxyType(
    {
        "brain": (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM, Tissue.BRAIN_FLUID),
        "glands of head and neck": (
            Tissue.TONSIL,
            Tissue.SALIVARY_GLAND,
            Tissue.THYROID,
            Tissue.TONGUE,
            Tissue.EYE,
        ),
        "heart and vessels": (Tissue.MYOCARDIUM, Tissue.BLOOD),
        "liver and spleen": (Tissue.LIVER, Tissue.SPLEEN, Tissue.GALLBLADDER),
        "urinary tract": (Tissue.KIDNEY, Tissue.RENAL_PELVIS, Tissue.URETER, Tissue.BLADDER),
        "digestive tract": (
            Tissue.OESOPHAGUS,
            Tissue.STOMACH_WALL,
            Tissue.STOMACH_CONTENT,
            Tissue.SMALL_BOWEL,
            Tissue.COLON,
            Tissue.COLON_CONTENT,
            Tissue.BOWEL_GAS,
        ),
        "sexual organs": (Tissue.BREAST, Tissue.PROSTATE, Tissue.UTERUS, Tissue.OVARY, Tissue.TESTIS),
        "bones": (Tissue.BONE, Tissue.RED_MARROW, Tissue.YELLOW_MARROW),
    }
)
"""Tissues by organ; a mask numbers the organs from 1 in this order."""


def label_organs(tissue: Volume) -> Volume:
    """The organ of each voxel (uint8, 0 for none of them) from a simulation's tissues."""
    numbers = np.zeros(max(Tissue) + 1, dtype=np.uint8)
    for number, tissues in enumerate(ORGANS.values(), 1):
        numbers[list(tissues)] = number
    return tissue.with_array(numbers[tissue.array])
