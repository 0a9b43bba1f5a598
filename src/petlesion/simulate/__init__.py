"""Whole-body PET/CT studies with known truth."""
