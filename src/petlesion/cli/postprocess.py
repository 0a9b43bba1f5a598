"""petlesion postprocess: predicted masks without their small components."""

from __future__ import annotations

from pathlib import Path

import typer

from petlesion.cli.batch import run_batch
from petlesion.errors import UsageError


def postprocess(
    prediction: Path = typer.Argument(..., help="A mask, or a folder of masks."),
    output: Path = typer.Option(..., "-o", "--output", help="Where the masks go: a file for a file."),
    min_size: int | None = typer.Option(None, "--min-size", min=0, help="Fewest voxels of a component."),
    min_volume: float | None = typer.Option(None, "--min-volume", help="Smallest component in mL."),
) -> None:
    """Remove components that are smaller than so many voxels or mL (18-connected)."""
    from petlesion.cli.masks import mask_files
    from petlesion.io.atomic import check_place
    from petlesion.io.nifti import is_image, read_mask, write_volume
    from petlesion.lesions import min_voxels_for_volume, remove_small_components

    if (min_size is None) == (min_volume is None):
        raise UsageError("give either --min-size VOXELS or --min-volume ML")
    files = mask_files(prediction)
    to_one_file = prediction.is_file() and is_image(output)
    check_place(output.parent if to_one_file else output)

    def work(path: Path) -> None:
        target = output if to_one_file else output / path.name
        if target.resolve() == path.resolve():
            raise UsageError(f"{path} would be written over itself; give another --output")
        mask = read_mask(path)
        fewest = min_size
        if fewest is None:
            fewest = min_voxels_for_volume(float(min_volume or 0), mask.voxel_volume_ml)
        write_volume(target, mask.with_array(remove_small_components(mask.array, fewest)))

    run_batch("post-processing", files.items(), work)
