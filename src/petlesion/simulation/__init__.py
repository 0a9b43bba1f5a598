"""Whole-body PET/CT studies with known truth."""

from petlesion.simulation.study import SimulationSettings, simulate

__all__ = ["SimulationSettings", "simulate"]
