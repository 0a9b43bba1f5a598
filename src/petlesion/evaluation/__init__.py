"""Scores, averages, tables and figures."""
