"""Organ masks of simulated studies."""

import numpy as np

from petlesion.simulation.body import Tissue
from petlesion.simulation.organ_labels import ORGANS, label_organs
from petlesion.volume import Volume


def test_every_tissue_is_of_one_organ_at_most() -> None:
    tissues = [tissue for group in ORGANS.values() for tissue in group]
    assert len(set(tissues)) == len(tissues)
    assert not {Tissue.AIR, Tissue.FAT, Tissue.MUSCLE, Tissue.LUNG} & set(tissues)


def test_organs_are_numbered_in_their_order() -> None:
    tissue = np.arange(len(Tissue), dtype=np.uint8).reshape(1, 1, -1)
    organs = label_organs(Volume(tissue, np.eye(4))).array[0, 0]
    assert organs.dtype == np.uint8
    for number, tissues in enumerate(ORGANS.values(), 1):
        assert set(np.flatnonzero(organs == number)) == set(tissues)
