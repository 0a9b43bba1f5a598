"""Whole-body PET/CT studies with known truth."""

from petlesion.simulate.study import SimulationSettings, simulate

__all__ = ["SimulationSettings", "simulate"]
