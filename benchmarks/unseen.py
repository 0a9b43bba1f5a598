"""A bundle's networks, those that did not train on a case at a time."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from petlesion.cohort.recut import recut_id
from petlesion.inference.predict import Model, load_model
from petlesion.model.bundle import Bundle
from petlesion.model.training_cases import case_digests, read_training_cases

MOST_COPIES = 32  # of one study, cut anew, in any cohort that is trained on


class UnseenNetworks:
    """The networks of a bundle, of which each is asked about cases alone that it had not seen in any cut."""

    def __init__(self, bundle: Path) -> None:
        known = read_training_cases(bundle)
        self._seen: dict[str, set[str]] = {}
        for _, fold, network in Bundle.open(bundle).network_paths():
            if network.name not in known:
                raise SystemExit(
                    f"{network} does not tell what it was trained on; export it from a run of petlesion"
                )
            self._seen.setdefault(fold, set()).update(known[network.name])
        self._load = cache(lambda folds: load_model(bundle, folds))

    def folds(self, case_id: str) -> tuple[str, ...]:
        """The folds that have trained neither on a case nor on a copy of it that was cut anew."""
        copies = (recut_id(case_id, copy) for copy in range(MOST_COPIES))
        digests = case_digests([case_id, *copies])
        return tuple(fold for fold, seen in self._seen.items() if digests.isdisjoint(seen))

    def model(self, case_id: str) -> Model:
        """The average of the folds that have not trained on a case; ends the program if there is none."""
        folds = self.folds(case_id)
        if not folds:
            raise SystemExit(f"every network has trained on {case_id}; leave it out")
        return self._load(folds)
