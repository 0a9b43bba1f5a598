"""The losses that an experiment may name, with nnU-Net's deep supervision."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from torch import nn

_SMOOTH = 1e-5


class GeneralisedDiceLoss(nn.Module):
    """Minus the generalised Dice of softmax probabilities, every label weighted by the inverse of its volume.

    With w_l = 1 / (voxels of label l in the reference of the whole batch), p the probabilities, r the
    reference: -2 Σ_l w_l Σ p r / Σ_l w_l (Σ p + Σ r). Few lesion voxels thus count as much as all of the
    background. A label without any voxel takes the weight of one voxel. (Sudre et al. 2017, with the inverse
    of the volume in place of that of its square.)
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """`logits` (batch, labels, *space); `target` (batch, 1, *space) with label numbers."""
        probabilities = logits.float().softmax(dim=1)
        reference = torch.zeros_like(probabilities).scatter_(1, target.long(), 1.0)
        every_voxel = (0, *range(2, logits.ndim))
        volumes = reference.sum(every_voxel)
        weights = 1.0 / volumes.clamp_min(1.0)
        overlap = (probabilities * reference).sum(every_voxel)
        total = probabilities.sum(every_voxel) + volumes
        return -(2 * (weights * overlap).sum() + _SMOOTH) / ((weights * total).sum() + _SMOOTH)


class GeneralisedDiceAndCrossEntropy(nn.Module):
    """The sum of the generalised Dice loss and the mean cross-entropy over all voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = GeneralisedDiceLoss()
        self.cross_entropy = RobustCrossEntropyLoss()

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """`logits` (batch, labels, *space); `target` (batch, 1, *space) with label numbers."""
        loss: torch.Tensor = self.dice(logits, target) + self.cross_entropy(logits.float(), target)
        return loss


def build_loss(name: str, *, batch_dice: bool, outputs: int) -> nn.Module:
    """The loss called `name` over the `outputs` resolutions of a deeply supervised network, finest first.

    As in nnU-Net each resolution weighs half of the one before it, and the coarsest nothing. `batch_dice`
    (the plan's) takes the soft Dice over the whole batch in place of the mean over its patches.
    """
    if name == "generalised_dice_ce":
        loss: nn.Module = GeneralisedDiceAndCrossEntropy()
    else:
        dice = {"batch_dice": batch_dice, "smooth": _SMOOTH, "do_bg": False, "ddp": False}
        loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    weights = 0.5 ** np.arange(outputs)
    if outputs > 1:
        weights[-1] = 0
    supervised: nn.Module = DeepSupervisionWrapper(loss, tuple((weights / weights.sum()).tolist()))
    return supervised
