"""A network of a bundle as a checkpoint, so that a training can start from a model that was handed on.

A bundle keeps nnU-Net's plan as far as prediction needs it; what training needs beside is read off the ONNX
network itself: stages, strides, kernels and features. Whether that is the network that was exported is
checked by its answer to the bundle's probe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from petlesion.errors import ModelError
from petlesion.inference.backends.torch import TorchNetwork
from petlesion.inference.resampling import Float
from petlesion.inference.verify import PROBABILITY_TOLERANCE, probe_probability
from petlesion.model.bundle import Bundle, BundleMember
from petlesion.model.plan import plan_to_nnunet
from petlesion.model.probe import probe_sample, read_samples
from petlesion.training.checkpoint import Checkpoint
from petlesion.training.export import HALF, Shifted
from petlesion.training.jsonfile import Json
from petlesion.training.nnunet import CONFIGURATION
from petlesion.training.planning import build_network
from petlesion.volume import LPS

_ENCODER = re.compile(r"encoder\.stages\.(\d+)\.0\.convs\.\d+\.(?:conv|all_modules\.0)\.weight")
_DECODER = re.compile(r"decoder\.stages\.(\d+)\.convs\.\d+\.(?:conv|all_modules\.0)\.weight")

Weights = Mapping[str, Float]

# What nnU-Net's planner says of every PlainConvUNet.
_LAYERS: Json = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
_IMPORTED = ("conv_op", "norm_op", "dropout_op", "nonlin")


def bundled_checkpoint(path: Path, fold: str) -> tuple[Path, Checkpoint]:
    """The file of a bundle's network of a fold, and the network as a checkpoint without an optimizer's state.

    The heads of deep supervision, which no bundle holds, are zeros: no gradient goes through them before they
    have learnt, so that they disturb nothing. Raises ModelError for a bundle of several members or without
    that fold, and for a network that is not nnU-Net's PlainConvUNet.
    """
    bundle = Bundle.open(path)
    if len(bundle.members) != 1:
        raise ModelError(f"{path} joins {len(bundle.members)} models; start from a bundle of one of them")
    (member,) = bundle.members
    if fold not in member.networks:
        raise ModelError(
            f"{path} has no fold {fold} to start from, only {', '.join(member.networks)}; train one of these"
        )
    if member.plan.orientation != LPS:
        raise ModelError(
            f"{path} was trained on images in {member.plan.orientation}, and a cohort's are in {LPS}; "
            "start from a model of such images"
        )
    network_path = path / member.networks[fold]
    graph = onnx.load(network_path).graph
    weights = _weights(graph)
    architecture = _architecture(graph, weights, network_path)
    plans, dataset_json = plan_to_nnunet(member.plan, CONFIGURATION, architecture)
    network = build_network(plans, dataset_json, deep_supervision=False)  # which has its heads all the same
    _take_weights(network, weights, network_path)
    _check_answer(network, bundle, member, network_path)
    return network_path, {
        "network_weights": network.state_dict(),
        "init_args": {"plans": plans, "dataset_json": dataset_json},
    }


def _architecture(graph: onnx.GraphProto, weights: Weights, path: Path) -> Json:
    """nnU-Net's description of the network, by its convolutions."""
    encoder: dict[int, list[onnx.NodeProto]] = {}
    decoder: dict[int, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for pattern, stages in ((_ENCODER, encoder), (_DECODER, decoder)):
            found = pattern.search(node.input[1]) if node.op_type == "Conv" else None
            if found:
                stages.setdefault(int(found[1]), []).append(node)
    if len(encoder) < 2 or len(decoder) != len(encoder) - 1:
        raise _other_network(path)
    firsts = [encoder[stage][0] for stage in sorted(encoder)]
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": len(encoder),
            "features_per_stage": [len(weights[first.input[1]]) for first in firsts],
            "kernel_sizes": [_attribute(first, "kernel_shape") for first in firsts],
            "strides": [_attribute(first, "strides") for first in firsts],
            "n_conv_per_stage": [len(encoder[stage]) for stage in sorted(encoder)],
            "n_conv_per_stage_decoder": [len(decoder[stage]) for stage in sorted(decoder)],
            **_LAYERS,
        },
        "_kw_requires_import": list(_IMPORTED),
    }


def _attribute(node: onnx.NodeProto, name: str) -> list[int]:
    return next(list(attribute.ints) for attribute in node.attribute if attribute.name == name)


def _weights(graph: onnx.GraphProto) -> Weights:
    """The graph's weights in float32, by the names under which its layers take them."""
    return {
        weight.name.removesuffix(HALF): numpy_helper.to_array(weight).astype(np.float32)
        for weight in graph.initializer
        if weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }


def _take_weights(network: nn.Module, weights: Weights, path: Path) -> None:
    """Give a network the weights of a graph, whose names begin with the modules that wrapped it in export.

    The exporter keeps equal weights once, such as the ones and zeros that a network begins with; these keep
    what they begin with.
    """
    *heads, _ = network.decoder.seg_layers  # type: ignore[union-attr, misc]
    for parameter in nn.ModuleList(heads).parameters():
        nn.init.zeros_(parameter)
    own = network.state_dict()
    for name, values in weights.items():
        known = next((name[start:] for start in _beginnings(name) if name[start:] in own), None)
        if known is None:
            continue
        if own[known].shape != values.shape:
            raise _other_network(path)
        own[known].copy_(torch.from_numpy(values))


def _beginnings(name: str) -> list[int]:
    """Where the name of a module begins in a name of nested ones, and the whole name's beginning."""
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]


def _check_answer(network: nn.Module, bundle: Bundle, member: BundleMember, path: Path) -> None:
    """Raise ModelError unless the network answers to the bundle's probe as the one that was exported."""
    shifted = Shifted(network, member.logit_shift)
    found = probe_sample(probe_probability(TorchNetwork(shifted, "cpu", "float32"), member.plan))
    expected = read_samples(bundle)[path.stem]
    same = found.shape == expected.shape and np.abs(found - expected).max() <= PROBABILITY_TOLERANCE
    if not same:  # nor is what is no number
        raise ModelError(
            f"{path} cannot be trained on: it does not answer as its layers say; start from its run"
        )


def _other_network(path: Path) -> ModelError:
    return ModelError(f"{path} is not nnU-Net's PlainConvUNet; start from the run that it was exported from")
