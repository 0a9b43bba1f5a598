"""A network with more features that answers as a smaller one does, to train on from there.

Function-preserving widening (Net2Net, Chen, Goodfellow and Shlens, ICLR 2016, https://arxiv.org/abs/1511.05641),
with filters drawn anew where that paper copies some.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

from petlesion.experiments import Experiment
from petlesion.model.training_cases import SPLIT_FILE
from petlesion.training.checkpoint import FINAL_NAME, load_checkpoint, save_checkpoint
from petlesion.training.planning import build_network, plan_experiment

# The first convolution of a decoder's stage sees what comes from below and, behind it, what was skipped.
_AFTER_SKIP = re.compile(r"decoder\.stages\.\d+\.convs\.0\.(conv|all_modules\.0)\.weight")
_TRANSPOSED = re.compile(r"decoder\.transpconvs\.\d+\.weight")


def widened_checkpoint(checkpoint: Path, experiment: Experiment, folder: Path) -> Path:
    """Write a fold's checkpoint, widened to the features of an experiment, and what it has seen."""
    path = folder / FINAL_NAME
    if path.exists():
        return path
    content = load_checkpoint(checkpoint, torch.device("cpu"))
    plan = plan_experiment(content["init_args"]["plans"], experiment)
    torch.manual_seed(0)
    larger = build_network(plan, content["init_args"]["dataset_json"], deep_supervision=True).state_dict()
    content["network_weights"] = {
        name: widened(name, weights, larger[name]) for name, weights in content["network_weights"].items()
    }
    content["init_args"]["plans"] = plan
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint.with_name(SPLIT_FILE), folder / SPLIT_FILE)
    save_checkpoint(path, content)
    return path


def widened(name: str, weights: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """A layer's weights within those of a wider layer, whose new features no old one looks at.

    `drawn` are the wider layer's as they are initialised; what its new features look at stays as drawn.
    """
    result = drawn.clone()
    if weights.dim() < 2:
        result[: len(weights)] = weights
        return result
    out, seen = (1, 0) if _TRANSPOSED.fullmatch(_own_name(name)) else (0, 1)
    old = result.narrow(out, 0, weights.shape[out])
    old.zero_()
    parts = 2 if _AFTER_SKIP.fullmatch(_own_name(name)) else 1
    for part, own in enumerate(weights.chunk(parts, seen)):
        old.narrow(seen, part * (drawn.shape[seen] // parts), own.shape[seen]).copy_(own)
    return result


def _own_name(name: str) -> str:
    """A layer's name where nnU-Net lists it under the decoder as well."""
    return name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
