"""A network of a bundle, taken back to where training can go on from it."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from petlesion.cohort.layout import Cohort
from petlesion.errors import CohortError, ModelError
from petlesion.inference.backends.torch import open_model_folder
from petlesion.model.bundle import Bundle, write_bundle_file
from petlesion.model.join import join_bundles
from petlesion.model.training_cases import (
    Digests,
    case_digests,
    read_training_cases,
    seen_cases,
    trained_on,
    write_training_cases,
)
from petlesion.training.bundle_weights import bundled_checkpoint
from petlesion.training.export import ExportRequest, export_model
from petlesion.training.planning import build_network
from petlesion.training.trainer import TrainingOptions, train
from tests.inference.nnunet import Recipe, write_model_folder
from tests.training.conftest import tiny

ONCE = ("epochs=1", "iterations=1")

pytestmark = pytest.mark.usefixtures("draw_in_this_process")


@pytest.fixture(scope="module")
def bundle(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That fold as a bundle whose logits are shifted and whose weights are halved."""
    request = ExportRequest([finished.parent], folds=["0"], logit_shift=-1.5, halved=True)
    return export_model(request, tmp_path_factory.mktemp("bundle") / "bundle").path


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(features=(4, 6, 6), transpose=(1, 0, 2), schemes=("CTNormalization", "CTNormalization")),
        Recipe(
            channels=("PET",), schemes=("ZScoreNormalization",), patch=(16, 24, 32), spacing=(3.0, 2.0, 2.0)
        ),
    ],
)
def test_a_bundle_gives_back_the_network_and_its_plan(recipe: Recipe, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", recipe)
    exported = export_model(ExportRequest([folder], logit_shift=-2.0), tmp_path / "bundle")
    path, checkpoint = bundled_checkpoint(exported.path, "0")
    assert path == exported.path / "member_0_fold_0.onnx"
    plans, dataset_json = (checkpoint["init_args"][name] for name in ("plans", "dataset_json"))
    original = open_model_folder(folder, None, None)
    theirs = original.plans["configurations"]["3d_fullres"]
    ours = plans["configurations"]["3d_fullres"]
    for key in (
        "spacing",
        "patch_size",
        "architecture",
        "normalization_schemes",
        "resampling_fn_data_kwargs",
    ):
        assert ours[key] == theirs[key], key
    for key in ("transpose_forward", "transpose_backward"):
        assert plans[key] == original.plans[key], key
    network = build_network(plans, dataset_json, deep_supervision=False)
    weights = checkpoint["network_weights"]
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    patch = torch.randn(1, len(recipe.channels), *recipe.patch)
    with torch.no_grad():
        torch.testing.assert_close(
            network.eval()(patch), original.networks["0"].eval()(patch), rtol=1e-2, atol=1e-2
        )


def test_training_goes_on_from_a_bundle(
    cohort: Cohort, options: TrainingOptions, finished: Path, bundle: Path, tmp_path: Path
) -> None:
    barely = tiny(f"initial_weights={bundle}", "epochs=1", "iterations=1", "learning_rate=1e-9")
    fold = train(cohort, barely, 0, tmp_path, options)
    before, after = (
        torch.load(folder / "checkpoint_final.pth", weights_only=True)["network_weights"]
        for folder in (finished, fold)
    )
    heads = {name for name in before if "seg_layers" in name}
    last = {name for name in heads if f"seg_layers.{len(heads) // 2 - 1}." in name}
    assert len(last) == 2 < len(heads)
    for name in before.keys() - (heads - last):
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3)
    assert all(after[name].abs().max() < 1e-6 for name in heads - last)


def retold(bundle: Path, folder: Path, cases: Mapping[str, Digests]) -> Path:
    """A copy of a bundle that tells of other training cases."""
    copy = shutil.copytree(bundle, folder)
    opened = Bundle.open(bundle)
    write_training_cases(copy, cases)
    write_bundle_file(copy, opened.members, opened.card)
    return copy


def test_what_a_bundle_was_trained_on_is_passed_on(
    cohort: Cohort, options: TrainingOptions, bundle: Path, tmp_path: Path
) -> None:
    """From a bundle of another cohort to a run, from that to another, to a bundle, and to a run again."""
    seen = case_digests(["another"]) | case_digests(cohort.folds[0].train)
    start = retold(bundle, tmp_path / "bundle", {"member_0_fold_0.onnx": case_digests(["another"])})
    fold = train(cohort, tiny(f"initial_weights={start}", *ONCE), 0, tmp_path / "first", options)
    assert seen_cases(fold) == seen
    fold = train(cohort, tiny(f"initial_weights={fold.parent}", *ONCE), 0, tmp_path / "second", options)
    assert seen_cases(fold) == seen
    exported = export_model(ExportRequest([fold.parent], folds=["0"]), tmp_path / "exported").path
    assert read_training_cases(exported) == {"member_0_fold_0.onnx": seen}
    fold = train(cohort, tiny(f"initial_weights={exported}", *ONCE), 0, tmp_path / "third", options)
    assert seen_cases(fold) == seen


def test_a_bundle_that_tells_nothing_is_told_of_and_leaves_the_run_unsure(
    cohort: Cohort, options: TrainingOptions, bundle: Path, tmp_path: Path
) -> None:
    start = retold(bundle, tmp_path / "bundle", {})
    said: list[str] = []
    talking = replace(options, say=said.append)
    fold = train(cohort, tiny(f"initial_weights={start}", *ONCE), 0, tmp_path / "results", talking)
    assert any("does not tell which studies it was trained on" in sentence for sentence in said)
    assert seen_cases(fold) is None
    assert trained_on(fold.parent, ["0"]) == {}


def test_a_study_that_is_kept_for_the_test_must_be_unseen(
    cohort: Cohort, options: TrainingOptions, bundle: Path, tmp_path: Path
) -> None:
    seen = case_digests([cohort.test_cases[0].case_id])
    start = retold(bundle, tmp_path / "bundle", {"member_0_fold_0.onnx": seen})
    with pytest.raises(CohortError, match="1 of the cases that this fold holds out or the cohort keeps"):
        train(cohort, tiny(f"initial_weights={start}", *ONCE), 0, tmp_path / "results", options)


def test_a_model_of_images_that_lie_otherwise_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    exported = export_model(ExportRequest([folder], orientation="RAS"), tmp_path / "bundle")
    with pytest.raises(ModelError, match="was trained on images in RAS, and a cohort's are in LPS"):
        bundled_checkpoint(exported.path, "0")


def test_a_fold_that_a_bundle_was_trained_on_is_not_held_out(
    cohort: Cohort, options: TrainingOptions, bundle: Path, tmp_path: Path
) -> None:
    """The bundle's network of fold 0 under the name of fold 1, whose studies it has seen."""
    renamed = shutil.copytree(bundle, tmp_path / "bundle")
    opened = Bundle.open(renamed)
    (member,) = opened.members
    (name,) = member.networks.values()
    write_bundle_file(renamed, (replace(member, networks={"1": name}),), opened.card)
    with pytest.raises(CohortError, match="2 of the cases that this fold holds out"):
        train(cohort, tiny(f"initial_weights={renamed}"), 1, tmp_path / "results", options)


def test_a_fold_that_a_bundle_lacks_is_told(bundle: Path) -> None:
    with pytest.raises(ModelError, match="has no fold 3 to start from, only 0; train"):
        bundled_checkpoint(bundle, "3")


def test_several_models_in_one_are_refused(bundle: Path, tmp_path: Path) -> None:
    joint = join_bundles([Bundle.open(bundle)] * 2, tmp_path / "joint")
    with pytest.raises(ModelError, match="joins 2 models"):
        bundled_checkpoint(joint.path, "0")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(residual=True))
    exported = export_model(ExportRequest([folder]), tmp_path / "bundle")
    with pytest.raises(ModelError, match="not nnU-Net's PlainConvUNet"):
        bundled_checkpoint(exported.path, "0")


def test_a_network_that_answers_otherwise_is_refused(bundle: Path, tmp_path: Path) -> None:
    """One convolution's values doubled, with the digests signed anew."""
    changed = shutil.copytree(bundle, tmp_path / "bundle")
    (path,) = changed.glob("*.onnx")
    model = onnx.load(path)
    weight = next(weight for weight in model.graph.initializer if "seg_layers" in weight.name)
    weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight) + np.float32(1), weight.name))
    path.write_bytes(model.SerializeToString())
    opened = Bundle.open(bundle)
    write_bundle_file(changed, opened.members, opened.card)
    with pytest.raises(ModelError, match="cannot be trained on"):
        bundled_checkpoint(changed, "0")
