"""One step of each optimizer against its formula, and many in each number format."""

import numpy as np
import pytest
import torch
from torch import nn

from petlesion.experiments import find_experiment, with_settings
from petlesion.training.learner import Learner, build_optimizer
from petlesion.training.losses import build_loss
from petlesion.training.precision import Computation, missing_compiler

RATE = 1e-3


def after_one_step(optimizer: str, gradient: torch.Tensor) -> torch.Tensor:
    network = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
    network.weight.grad = gradient.clone()
    experiment = with_settings(find_experiment("b"), [f"optimizer={optimizer}", f"learning_rate={RATE}"])
    build_optimizer(network, experiment).step()
    return network.weight.detach()


@pytest.fixture
def gradient() -> torch.Tensor:
    return torch.tensor([[0.5, 0.25, -4.0]])


def test_sgd_is_nnunets(gradient: torch.Tensor) -> None:
    """With Nesterov momentum the first step is (1 + momentum) times the decayed gradient."""
    start = torch.tensor([[1.0, -2.0, 3.0]])
    expected = start - RATE * 1.99 * (gradient + 3e-5 * start)
    torch.testing.assert_close(after_one_step("sgd", gradient), expected)


def test_adamw_takes_steps_of_one_size(gradient: torch.Tensor) -> None:
    """Its first step has the size of the learning rate, whatever the gradient's, beside the weight decay."""
    start = torch.tensor([[1.0, -2.0, 3.0]])
    expected = start - RATE * 1e-2 * start - RATE * gradient.sign()
    torch.testing.assert_close(after_one_step("adamw", gradient), expected, rtol=1e-5, atol=1e-8)


class TinyNetwork(nn.Module):
    """Two convolutions around a normalisation; one output, as without deep supervision, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1),
            nn.InstanceNorm3d(8, affine=True),
            nn.LeakyReLU(),
            nn.Conv3d(8, 2, 1),
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.layers(image)]


def losses_of(computation: Computation, steps: int) -> list[float]:
    """The losses of so many steps on the same batches: noise, brighter where the lesion is."""
    torch.manual_seed(0)
    experiment = with_settings(find_experiment("b"), ["learning_rate=1e-2"])
    loss = build_loss("dice_ce", batch_dice=True, outputs=1)
    said: list[str] = []
    learner = Learner(TinyNetwork(), loss, experiment, computation, said.append)
    learner.begin_epoch(0)
    losses = []
    for _ in range(steps):
        lesion = torch.zeros(2, 1, 8, 8, 8)
        lesion[:, :, 2:5, 2:6, 3:6] = 1
        batch = {"data": torch.randn(2, 2, 8, 8, 8) + 2 * lesion, "target": [lesion]}
        losses.append(learner.train_step(batch))
    assert not said
    return losses


def test_bfloat16_learns_as_float32_does() -> None:
    exact = losses_of(Computation(torch.device("cpu")), 60)
    short = losses_of(Computation(torch.device("cpu"), torch.bfloat16), 60)
    assert np.mean(exact[-15:]) < np.mean(exact[:15]) - 0.2
    assert np.mean(short[-15:]) == pytest.approx(np.mean(exact[-15:]), rel=0.02)


@pytest.mark.skipif(missing_compiler(torch.device("cpu")) is not None, reason="there is no C++ compiler")
def test_a_compiled_network_learns_as_it_does_uncompiled() -> None:
    plain = losses_of(Computation(torch.device("cpu")), 3)
    compiled = losses_of(Computation(torch.device("cpu"), compiled=True), 3)
    np.testing.assert_allclose(compiled, plain, rtol=1e-3)
