"""A network with its loss and optimizer: one step at a time, on any device and in any number format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from petlesion.experiments import Experiment
from petlesion.training.nnunet import LESION
from petlesion.training.precision import Computation, Outputs, prepare_network
from petlesion.training.sampling import Batch

_WEIGHT_DECAY = {"sgd": 3e-5, "adamw": 1e-2}
_MOMENTUM = 0.99
_LARGEST_GRADIENT_NORM = 12


def build_optimizer(network: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """nnU-Net's SGD with Nesterov momentum, or AdamW (Loshchilov and Hutter 2019)."""
    rate, decay = experiment.learning_rate, _WEIGHT_DECAY[experiment.optimizer]
    if experiment.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    return torch.optim.SGD(network.parameters(), rate, weight_decay=decay, momentum=_MOMENTUM, nesterov=True)


class Learner:
    """nnU-Net's step: its optimizer or AdamW, clipped gradients and a polynomial schedule of epochs."""

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        experiment: Experiment,
        computation: Computation,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.network = network
        self.computation = computation
        self._run_network = prepare_network(network, computation, say)
        self._loss = loss
        self._optimizer = build_optimizer(network, experiment)
        self._schedule = PolyLRScheduler(self._optimizer, experiment.learning_rate, experiment.epochs)
        self._scaler = torch.amp.GradScaler(computation.device.type, enabled=computation.scales_gradients)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the current epoch."""
        return float(self._optimizer.param_groups[0]["lr"])

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate of an epoch and begin to train."""
        self._schedule.step(epoch)
        self.network.train()

    def begin_validation(self) -> None:
        """Stop training until the next epoch."""
        self.network.eval()

    def train_step(self, batch: Batch) -> float:
        """One step of the optimizer; returns the loss."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss_of(*self._forward(batch, self._run_network))
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return float(loss.detach())

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> tuple[float, tuple[int, int, int]]:
        """The loss, and how many voxels are lesion in both, in the prediction only, in the reference only."""
        outputs, targets = self._forward(batch, self.network)
        predicted = outputs[0].argmax(1) == LESION
        reference = targets[0][:, 0] == LESION
        both = int((predicted & reference).sum())
        overlap = (both, int(predicted.sum()) - both, int(reference.sum()) - both)
        return float(self._loss_of(outputs, targets)), overlap

    def state(self) -> dict[str, Any]:
        """Weights and state of the optimizer, under the names of nnU-Net's checkpoints."""
        return {
            "network_weights": {
                name: value.contiguous() for name, value in self.network.state_dict().items()
            },
            "optimizer_state": self._optimizer.state_dict(),
            "grad_scaler_state": self._scaler.state_dict(),
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go back to what `state` returned, on whatever device it was."""
        self.network.load_state_dict(checkpoint["network_weights"])
        self._optimizer.load_state_dict(checkpoint["optimizer_state"])
        if checkpoint["grad_scaler_state"]:
            self._scaler.load_state_dict(checkpoint["grad_scaler_state"])

    def _forward(self, batch: Batch, network: Callable[[torch.Tensor], Outputs]) -> tuple[Outputs, Outputs]:
        device = self.computation.device
        layout = self.computation.memory_format
        data = batch["data"].to(device, non_blocking=True, memory_format=layout)
        targets = [target.to(device, non_blocking=True) for target in batch["target"]]
        autocast = self.computation.autocast
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = network(data)
        return outputs, targets

    def _loss_of(self, outputs: Outputs, targets: Outputs) -> torch.Tensor:
        loss: torch.Tensor = self._loss([output.float() for output in outputs], targets)
        return loss
