"""The presets against the paper's tables as printed there, and what may be changed in them."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlesion.errors import ExperimentError, UsageError
from petlesion.experiments import (
    EXPERIMENTS,
    PUBLISHED,
    Experiment,
    PublishedScores,
    find_experiment,
    sources_of,
    with_settings,
)

# Table 2 with the released learning rates and features, typed a second time:
# epochs, patch, most features, learning rate, oversampling, kind, mirroring.
PRESETS = {
    "baseline": (1000, 128, 320, 0.0001, 0.50, "last", True),
    "a": (1500, 128, 320, 0.0001, 0.50, "last", True),
    "b": (1500, 128, 320, 0.0001, 0.50, "last", False),
    "c": (1500, 128, 320, 0.01, 0.50, "last", True),
    "d": (1500, 192, 512, 0.01, 0.50, "last", True),
    "e": (1000, 192, 512, 0.0001, 0.50, "last", True),
    "f": (1000, 128, 320, 0.0001, 0.33, "probabilistic", True),
    "g": (1000, 128, 320, 0.0001, 0.10, "probabilistic", True),
    "b-hecktor": (1000, 128, 320, 0.0001, 0.50, "last", True),
    "baseline-table2": (1000, 128, 320, 0.001, 0.50, "last", True),
    "a-table2": (1500, 128, 320, 0.001, 0.50, "last", True),
    "b-table2": (1500, 128, 320, 0.001, 0.50, "last", False),
    "e-table2": (1000, 192, 512, 0.001, 0.50, "last", True),
    "f-table2": (1000, 128, 320, 0.001, 0.33, "probabilistic", True),
    "g-table2": (1000, 128, 320, 0.001, 0.10, "probabilistic", True),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_row_of_the_paper(name: str) -> None:
    epochs, patch, features, rate, oversampling, kind, mirroring = PRESETS[name]
    experiment = find_experiment(name)
    assert experiment == Experiment(
        name=name,
        epochs=epochs,
        iterations=250,
        batch_size=2,
        patch_size=(patch, patch, patch),
        base_features=32,
        max_features=features,
        learning_rate=rate,
        oversampling=oversampling,
        oversampling_kind=kind,
        mirroring=mirroring,
        loss="dice_ce",
        input="ct-pet",
        pet_normalization="study",
        precision="auto",
    )
    assert experiment.validation_iterations == 50


def test_there_is_nothing_else_but_a_quick_one_and_the_box() -> None:
    assert set(EXPERIMENTS) == {*PRESETS, "quick", "box", "box-pet"}


# Table 2 as it is printed, typed a second time.
PRINTED = """
baseline | 1000 | 128 | 256 | 0.001 | 50 | yes | 0.716 /  8.345 / 11.916 | 0.664 /  7.651 / 11.883
a        | 1500 | 128 | 256 | 0.001 | 50 | yes | 0.734 /  7.430 / 10.258 | 0.680 /  7.376 /  8.043
b        | 1500 | 128 | 256 | 0.001 | 50 | no  | 0.732 /  8.265 /  8.577 | 0.685 /  6.270 /  5.778
c        | 1500 | 128 | 256 | 0.01  | 50 | yes | 0.670 /  9.926 / 22.255 | 0.611 / 14.878 / 13.408
d        | 1500 | 192 | 512 | 0.01  | 50 | yes | 0.743 / 13.960 /  6.746 | 0.673 / 13.807 /  3.788
e        | 1000 | 192 | 512 | 0.001 | 50 | yes | misprint                | 0.682 /  8.923 /  3.239
f        | 1000 | 128 | 256 | 0.001 | 33 | yes | 0.714 /  7.930 / 13.200 | 0.660 /  8.190 / 12.412
g        | 1000 | 128 | 256 | 0.001 | 10 | yes | 0.722 /  7.227 / 23.790 | not run
"""


def scores(cell: str) -> PublishedScores | None:
    return PublishedScores(*map(float, cell.split("/"))) if "/" in cell else None


def test_the_published_rows_are_as_printed_without_the_misprint_and_what_was_not_run() -> None:
    printed = [[cell.strip() for cell in line.split("|")] for line in PRINTED.strip().splitlines()]
    assert list(PUBLISHED) == [line[0] for line in printed]
    for name, epochs, patch, features, rate, share, mirroring, cross_validation, test in printed:
        row = PUBLISHED[name]
        assert (row.epochs, row.patch_size, row.max_features) == (int(epochs), int(patch), int(features))
        assert (row.learning_rate, row.oversampling) == (float(rate), int(share) / 100)
        assert row.mirroring == (mirroring == "yes")
        assert (row.cross_validation, row.test) == (scores(cross_validation), scores(test))
    assert "misprint" in PUBLISHED["e"].note
    assert "was not run" in PUBLISHED["g"].note


def test_every_value_has_a_source() -> None:
    for experiment in EXPERIMENTS.values():
        sources = sources_of(experiment)
        assert set(sources) == set(experiment.as_dict()) - {"name"}
        assert all(sources.values())
    assert "released" in sources_of(find_experiment("b"))["learning_rate"]
    assert sources_of(find_experiment("c"))["learning_rate"] == "Table 2"
    assert sources_of(find_experiment("b-table2"))["learning_rate"] == "Table 2"
    hecktor = sources_of(find_experiment("b-hecktor"))
    assert "Table 2" not in hecktor["patch_size"]
    assert "112×160×128" in hecktor["patch_size"]
    assert hecktor["oversampling"] == "as in b: Table 2"
    changed = sources_of(with_settings(find_experiment("b"), ["epochs=20"]))
    assert (changed["epochs"], changed["mirroring"]) == ("set for this run", "Table 2")


def test_settings_change_values_for_one_run() -> None:
    changed = with_settings(
        find_experiment("b"),
        [
            "epochs=20",
            "patch_size=64x96x96",
            "max_features=64",
            "base_features=8",
            "learning_rate=1e-3",
            "oversampling=0.33",
            "oversampling_kind=probabilistic",
            "mirroring=true",
            "loss=generalised_dice_ce",
            "input=pet",
            "pet_normalization=cohort",
            "precision=float32",
            "seed=7",
            "iterations=10",
            "batch_size=4",
        ],
    )
    assert changed.patch_size == (64, 96, 96)
    assert (changed.epochs, changed.iterations, changed.batch_size, changed.seed) == (20, 10, 4, 7)
    assert (changed.loss, changed.input, changed.pet_normalization) == (
        "generalised_dice_ce",
        "pet",
        "cohort",
    )
    assert changed.mirroring is True
    assert find_experiment("b").epochs == 1500


@pytest.mark.parametrize(
    ("text", "patch"), [("64", (64, 64, 64)), ("40,64,72", (40, 64, 72)), ("planned", None)]
)
def test_a_patch_is_a_cube_three_sizes_or_planned(text: str, patch: tuple[int, int, int] | None) -> None:
    assert with_settings(find_experiment("b"), [f"patch_size={text}"]).patch_size == patch


@pytest.mark.parametrize(
    "setting",
    [
        "epochs",
        "epoch=20",
        "name=x",
        "epochs=0",
        "epochs=1.5",
        "epochs=many",
        "batch_size=0",
        "patch_size=64x64",
        "patch_size=4",
        "patch_size=33",
        "patch_size=33x35x65",
        "patch_size=big",
        "max_features=0",
        "max_features=8",
        "learning_rate=0",
        "learning_rate=nan",
        "learning_rate=inf",
        "oversampling=33",
        "oversampling=-0.1",
        "oversampling=nan",
        "oversampling_kind=first",
        "mirroring=perhaps",
        "loss=dice",
        "input=pet-ct",
        "pet_normalization=none",
        "precision=float16",
        "seed=-1",
    ],
)
def test_a_setting_that_cannot_be_is_a_typed_error(setting: str) -> None:
    with pytest.raises(ExperimentError, match=setting.split("=")[0]):
        with_settings(find_experiment("b"), [setting])


def test_uncertain_sampling_and_an_earlier_run_need_each_other() -> None:
    changed = with_settings(find_experiment("b"), ["earlier_run=runs/b", "sampling=uncertain"])
    assert (changed.sampling, changed.earlier_run) == ("uncertain", "runs/b")
    with pytest.raises(ExperimentError, match=r"earlier_run=None cannot be: .* since sampling=uncertain"):
        with_settings(find_experiment("b"), ["sampling=uncertain"])
    with pytest.raises(ExperimentError, match=r"earlier_run=runs/b .* left out, since sampling=cases"):
        with_settings(find_experiment("b"), ["earlier_run=runs/b"])


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ExperimentError, match=r"no experiment 'B'; choose one of baseline, a, b"):
        find_experiment("B")
    assert issubclass(ExperimentError, UsageError)


@given(
    epochs=st.integers(1, 10**6),
    patch=st.none() | st.tuples(st.integers(4, 256).map(lambda n: 2 * n), *[st.integers(8, 512)] * 2),
    rate=st.floats(1e-9, 1.0),
    mirroring=st.booleans(),
)
def test_an_experiment_survives_json(
    epochs: int, patch: tuple[int, int, int] | None, rate: float, mirroring: bool
) -> None:
    experiment = Experiment("x", epochs=epochs, patch_size=patch, learning_rate=rate, mirroring=mirroring)
    assert Experiment.from_dict(json.loads(json.dumps(experiment.as_dict()))) == experiment


def test_a_stored_experiment_of_another_version_is_refused() -> None:
    with pytest.raises(ExperimentError, match="warmup"):
        Experiment.from_dict({"name": "b", "warmup": 5})


def test_the_tables_need_no_torch() -> None:
    code = "import sys, petlesion.experiments; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
