"""petlesion plan: nnU-Net's plan of a cohort, or of a fingerprint alone."""

from __future__ import annotations

from pathlib import Path

import typer

from petlesion.cli.console import print_json, say
from petlesion.errors import MissingExtraError, UsageError


def plan(
    cohort: Path | None = typer.Argument(None, help="Folder of the cohort.", show_default=False),
    fingerprint: Path | None = typer.Option(None, help="nnU-Net's dataset_fingerprint.json, without images."),
    dataset: Path | None = typer.Option(None, help="The dataset.json that goes with the fingerprint."),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Where to write plans.json.  [default: standard output]"
    ),
    processes: int = typer.Option(2, min=1, help="Processes that read a cohort's images."),
) -> None:
    """Make nnU-Net's plan: patch, stages, spacing and normalisation."""
    by_fingerprint = fingerprint is not None and dataset is not None
    if (cohort is not None) == by_fingerprint or (fingerprint is None) != (dataset is None):
        raise UsageError("give either a cohort, or both --fingerprint and --dataset")
    try:
        from petlesion.training.jsonfile import read_json, write_json
        from petlesion.training.planning import plan_cohort, plan_fingerprint
    except ModuleNotFoundError as error:
        raise MissingExtraError("planning", "train") from error
    from petlesion.cohort.layout import Cohort, default_name

    if cohort is not None:
        plans = plan_cohort(Cohort.open(cohort), processes)
    else:
        assert fingerprint is not None and dataset is not None
        name = default_name(dataset.resolve().parent)
        plans = plan_fingerprint(read_json(fingerprint), read_json(dataset), name)
    if output is None:
        print_json(plans)
        return
    write_json(output, plans)
    patch = "×".join(str(size) for size in plans["configurations"]["3d_fullres"]["patch_size"])
    say(f"{output}: patches of {patch} voxels")
