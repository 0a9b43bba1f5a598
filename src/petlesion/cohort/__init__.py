"""Cohorts on disk: their layout, where they come from, how they are split and checked."""
