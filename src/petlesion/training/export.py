"""From what was trained to what can be handed on: a bundle of ONNX networks that checks itself."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from petlesion.errors import ModelError
from petlesion.inference.backends.openvino import OpenVinoNetwork
from petlesion.inference.backends.torch import (
    LogitDifference,
    ModelFolder,
    TorchNetwork,
    open_model_folder,
)
from petlesion.inference.resampling import Float
from petlesion.inference.verify import PROBABILITY_TOLERANCE, probe_probability
from petlesion.io.atomic import atomic_folder
from petlesion.model.bundle import BUNDLE_FILE, Bundle, BundleMember, ModelCard, write_bundle_file
from petlesion.model.plan import Plan
from petlesion.model.probe import PROBE_FILE, probe_sample
from petlesion.model.training_cases import Digests, trained_on, write_training_cases
from petlesion.records import check_replaceable
from petlesion.training.jsonfile import read_json
from petlesion.training.run import EXPERIMENT_NAME

HALF = ".half"
"""What the names of weights end in that are stored in float16."""

_OPSET = 20
_HALVED = (4096, 2**17)  # weights of so many values become float16: all but biases, or the deep layers' alone
_HALVED_TOLERANCE = PROBABILITY_TOLERANCE / 2  # as other input than the probe may be harder
# Settings of an experiment that are places, of which a bundle keeps the run's, fold's and file's names alone.
_PLACES = ("initial_weights", "earlier_run")
_PARTS_KEPT = 3


@dataclass(frozen=True)
class ExportRequest:
    """What goes into a bundle: model folders, each a member, and what to say of them.

    `folds` and `orientation` as in `open_model_folder`. Without `mirrored`, prediction does not average
    mirrored passes unless it is asked to, though training mirrored. `weights` are the members' shares in the
    mean of their probabilities, equal ones by default. `logit_shift` is added to the logits of lesions:
    training draws patches in which lesions are far more frequent than in bodies, so a network marks too much,
    and a shift below 0 takes that back. It is to be chosen on studies that nothing is scored on. `halved`
    rounds all large weights to float16 before anything is compared: half the size, whatever that changes.
    """

    folders: Sequence[Path]
    folds: Sequence[str] | None = None
    orientation: str | None = None
    mirrored: bool = True
    weights: Sequence[float] | None = None
    name: str | None = None
    training_data: str | None = None
    licence: str = "not stated"
    scores: dict[str, Any] = field(default_factory=dict)
    min_volume_ml: float | None = None
    logit_shift: float = 0.0
    halved: bool = False


def export_model(request: ExportRequest, bundle_path: Path) -> Bundle:
    """Write a bundle of one or several model folders and check it against torch's float32.

    Weights are float16 where that changes no label of the probe. Raises ModelError if the bundle's
    probabilities differ from torch's by more than 1e-3, and what `check_replaceable` raises before anything
    is loaded.
    """
    check_replaceable(bundle_path, BUNDLE_FILE, request.folders)
    folders = [open_model_folder(Path(path), request.folds, request.orientation) for path in request.folders]
    with atomic_folder(bundle_path) as target:
        samples: dict[str, Float] = {}
        cases: dict[str, Digests] = {}
        members = []
        for index, folder in enumerate(folders):
            names = {fold: f"member_{index}_fold_{fold}.onnx" for fold in folder.networks}
            for fold, network in folder.networks.items():
                if request.halved:
                    _round_to_half(network)
                shifted = Shifted(network, request.logit_shift) if request.logit_shift else network
                expected = _write_checked(shifted, folder.plan, target / names[fold])
                samples[Path(names[fold]).stem] = probe_sample(expected)
            cases |= {names[fold]: digests for fold, digests in trained_on(folder.path, names).items()}
            plan = folder.plan if request.mirrored else replace(folder.plan, mirrored=False)
            weight = request.weights[index] if request.weights else 1.0
            changed = {"logit_shift": request.logit_shift, "halved": request.halved}
            trained_as = {**_trained_as(folder), **changed}
            members.append(BundleMember(plan, names, trained_as, weight))
        np.savez_compressed(target / PROBE_FILE, **samples)  # type: ignore[arg-type]
        write_training_cases(target, cases)
        write_bundle_file(target, tuple(members), _card(request, folders))
    return Bundle.open(bundle_path)


class Shifted(torch.nn.Module):
    """A segmentation network with a constant added to all logits but the background's."""

    def __init__(self, network: torch.nn.Module, shift: float) -> None:
        super().__init__()
        self.network = network
        self.shift = shift

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[batch, channel, z, y, x] -> [batch, label, z, y, x]."""
        logits = self.network(image)
        return torch.cat([logits[:, :1], logits[:, 1:] + self.shift], dim=1)


def _round_to_half(network: torch.nn.Module) -> None:
    for weight in network.parameters():
        if weight.numel() >= _HALVED[0]:
            weight.data = weight.data.half().float()


def _write_checked(network: torch.nn.Module, plan: Plan, path: Path) -> Float:
    """Write one network, with the smallest weights that pass; return torch's probabilities of the probe."""
    expected = probe_probability(TorchNetwork(network, "cpu", "float32"), plan)
    model = _to_onnx(LogitDifference(network).eval(), plan)
    for smallest in _HALVED:
        found = _write_and_run(_with_half_weights(model, smallest), path, plan)
        same_labels = np.array_equal(found > 0.5, expected > 0.5)
        if same_labels and np.abs(found - expected).max() <= _HALVED_TOLERANCE:
            return expected
    found = _write_and_run(model, path, plan)
    if np.abs(found - expected).max() <= PROBABILITY_TOLERANCE:
        return expected
    raise ModelError(
        f"{path.name}: the exported network's probabilities differ from torch's by more than "
        f"{PROBABILITY_TOLERANCE}; the model cannot be exported"
    )


def _write_and_run(model: onnx.ModelProto, path: Path, plan: Plan) -> Float:
    path.write_bytes(model.SerializeToString())
    return probe_probability(OpenVinoNetwork(path, "float32"), plan)


def _to_onnx(network: torch.nn.Module, plan: Plan) -> onnx.ModelProto:
    example = torch.zeros(1, len(plan.channels), *plan.patch_size)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model)
    return _without_traces(model)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes on where each node came from: source paths of the exporting machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model


def _with_half_weights(model: onnx.ModelProto, smallest: int) -> onnx.ModelProto:
    """A copy whose weights of `smallest` values or more are stored in float16 and cast when loaded."""
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    casts = []
    for weight in halved.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < smallest:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + HALF))
        casts.append(helper.make_node("Cast", [name + HALF], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def _trained_as(folder: ModelFolder) -> dict[str, Any]:
    return {
        "dataset": folder.plans.get("dataset_name"),
        "studies": folder.dataset.get("numTraining"),
        "plans": folder.plans.get("plans_name"),
        "configuration": folder.configuration,
        "trainer": folder.trainer,
        "experiment": _experiment_of(folder.path),
    }


def _experiment_of(run: Path) -> dict[str, Any] | None:
    """What experiment.json of a run says, without the places of the machine that trained it."""
    path = run / EXPERIMENT_NAME
    if not path.is_file():
        return None
    content = read_json(path)
    settings = content.get("experiment", {})
    for setting in _PLACES:
        if settings.get(setting):
            settings[setting] = str(Path(*Path(settings[setting]).parts[-_PARTS_KEPT:]))
    return content


def _card(request: ExportRequest, folders: Sequence[ModelFolder]) -> ModelCard:
    datasets = sorted(
        {
            f"{f.plans.get('dataset_name', 'unnamed')} ({f.dataset.get('numTraining', '?')} studies)"
            for f in folders
        }
    )
    return ModelCard(
        name=request.name or folders[0].path.name,
        training_data=request.training_data or "; ".join(datasets),
        licence=request.licence,
        scores=request.scores,
        min_volume_ml=request.min_volume_ml,
    )
