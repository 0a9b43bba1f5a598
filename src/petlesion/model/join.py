"""Several bundles as one, whose members' probabilities are averaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from petlesion.io.atomic import atomic_folder
from petlesion.model.bundle import BUNDLE_FILE, Bundle, BundleMember, ModelCard, write_bundle_file
from petlesion.model.probe import PROBE_FILE, read_samples
from petlesion.model.training_cases import Digests, read_training_cases, write_training_cases
from petlesion.records import check_replaceable


def join_bundles(
    bundles: Sequence[Bundle], path: Path, *, name: str | None = None, licence: str | None = None
) -> Bundle:
    """Write a bundle that has the members of all; what each was trained on goes with it, scores do not.

    Name and licence are those of all unless given. Raises ModelError for a bundle without its probe, and what
    `check_replaceable` raises before anything is written.
    """
    check_replaceable(path, BUNDLE_FILE, [bundle.path for bundle in bundles])
    with atomic_folder(path) as target:
        samples: dict[str, np.ndarray] = {}
        cases: dict[str, Digests] = {}
        members: list[BundleMember] = []
        for bundle in bundles:
            known, probe = read_training_cases(bundle.path), read_samples(bundle)
            for member in bundle.members:
                names = {fold: f"member_{len(members)}_fold_{fold}.onnx" for fold in member.networks}
                for fold, former in member.networks.items():
                    shutil.copyfile(bundle.path / former, target / names[fold])
                    samples[Path(names[fold]).stem] = probe[Path(former).stem]
                    if former in known:
                        cases[names[fold]] = known[former]
                members.append(replace(member, networks=names))
        np.savez_compressed(target / PROBE_FILE, **samples)  # type: ignore[arg-type]
        write_training_cases(target, cases)
        write_bundle_file(target, tuple(members), _joint_card(bundles, name, licence))
    return Bundle.open(path)


def _joint_card(bundles: Sequence[Bundle], name: str | None, licence: str | None) -> ModelCard:
    def all_of(facts: Iterable[str], separator: str) -> str:
        return separator.join(dict.fromkeys(facts))

    cards = [bundle.card for bundle in bundles]
    return ModelCard(
        name=name or all_of((card.name for card in cards), " + "),
        training_data=all_of((card.training_data for card in cards), "; "),
        licence=licence or all_of((card.licence for card in cards), "; "),
    )
