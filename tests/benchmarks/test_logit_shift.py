from dataclasses import replace

import numpy as np
import pytest

from petlesion.inference.predict import Prediction
from petlesion.overlap import StudyMetrics
from petlesion.volume import Study

ROW = StudyMetrics("a", 1.0, 1.0, 0.5, 0.0, 0.0, 1, 1)


def rows(**dice: float) -> list[StudyMetrics]:
    return [replace(ROW, case_id=name.replace("_", "-"), dice=value) for name, value in dice.items()]


def test_a_fold_s_shift_is_the_best_of_the_other_folds() -> None:
    from logit_shift import by_chosen, choose

    # Patient a alone fares better with −2; as it must not choose for itself, it alone is scored without.
    scores = {0.0: rows(a=0.1, b=0.8, c=0.8), -2.0: rows(a=0.9, b=0.6, c=0.7)}
    fold_of = {"a": "0", "b": "1", "c": "2"}
    chosen = choose(scores, fold_of)
    assert chosen == {"0": 0.0, "1": -2.0, "2": -2.0}
    assert {row.case_id: row.dice for row in by_chosen(scores, chosen, fold_of)} == {
        "a": 0.1,
        "b": 0.6,
        "c": 0.7,
    }


def test_a_case_cut_anew_is_its_patient_s() -> None:
    from logit_shift import by_chosen

    scores = {0.0: rows(a_recut_101=0.3), -2.0: rows(a_recut_101=0.4)}
    (row,) = by_chosen(scores, {"0": -2.0}, {"a": "0"})
    assert row.dice == 0.4


def test_the_bundle_s_own_shift_is_undone(phantom: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    import logit_shift

    assert phantom.reference is not None
    # Logits of 1 in the reference and of −1 in one voxel more; the bundle has lowered both by 1.5.
    logits = np.full(phantom.pet.shape, -9.0)
    logits[phantom.reference.array] = 1.0
    probability = phantom.pet.with_array((1 / (1 + np.exp(-(logits - 1.5)))).astype(np.float32))
    monkeypatch.setattr(logit_shift, "predict", lambda study, model: Prediction(probability))

    class Uncalibrated:
        min_volume_ml = None

    scores = logit_shift.score(phantom, Uncalibrated(), {0.0: 1.5, -0.5: 1.0, -1.5: 0.0})
    assert [scores[shift].dice for shift in (0.0, -0.5, -1.5)] == [1.0, 1.0, 0.0]
