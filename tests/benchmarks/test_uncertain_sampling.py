"""What the two arms of uncertain sampling are trained as."""

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest

from petlesion.evaluation.compare import EXPERIMENT_NAME
from petlesion.experiments import find_experiment


@pytest.mark.parametrize("preset", ["b", "box"])
def test_the_arms_differ_in_sampling_alone(preset: str, tmp_path: Path) -> None:
    """`box` oversamples cases with lesions, which cannot be where sampling=uncertain chooses the cases."""
    from uncertain_sampling import experiment_of

    stored = {"experiment": find_experiment(preset).as_dict()}
    (tmp_path / EXPERIMENT_NAME).write_text(json.dumps(stored))
    options = Namespace(earlier_run=tmp_path, changes=["epochs=3"])
    plain, uncertain = (asdict(experiment_of(arm, 2, options)) for arm in ("cases", "uncertain"))
    changed = {setting for setting in plain if plain[setting] != uncertain[setting]}
    assert changed == {"sampling", "earlier_run"}
    assert (plain["epochs"], plain["seed"], plain["sampling"]) == (3, 2, "cases")
