"""One step of each optimizer against its formula."""

import pytest
import torch
from torch import nn

from petlesion.experiments import find_experiment, with_settings
from petlesion.training.learner import build_optimizer

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
