"""A study's report: one HTML file with pictures, a viewer, the lesions, numbers and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from petlesion._version import __version__
from petlesion.errors import GeometryError, ValueRangeError
from petlesion.io.atomic import write_text
from petlesion.lesions import LesionTable
from petlesion.report.body import Box, body_box, cropped, number_lesions
from petlesion.report.layers import (
    Layer,
    compress,
    ct_layer,
    encode_layers,
    encode_numbers,
    fraction_layer,
    pet_layer,
    quantised,
)
from petlesion.report.page import render_page
from petlesion.report.projections import Projections, maximum_projections, strength_of, thumbnail_url
from petlesion.volume import Study, Volume

_STYLES = ("page.css", "report.css")
_MODULES = ("colours.js", "volume.js", "state.js", "planes.js", "projection.js", "table.js", "report.js")


@dataclass(frozen=True)
class ReportFacts:
    """What a report tells beside images and lesions. All texts are shown as they are, never as markup.

    `created` is the time in ISO 8601. `model` and `conversion` are shown as lists of names and values.
    `warnings` are added to the study's own; `flag` is one sentence that asks the reader for special care.
    `expected_dice` is that of the mask, `uncertainty` holds values from 0 to 1 on the PET's grid.
    """

    created: str
    title: str | None = None
    version: str = __version__
    model: Mapping[str, str] = field(default_factory=dict)
    conversion: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    flag: str | None = None
    expected_dice: float | None = None
    uncertainty: Volume | None = None


def write_report(
    path: str | Path, study: Study, mask: Volume, table: LesionTable, facts: ReportFacts
) -> Projections:
    """Write a study's report as one HTML file that needs no network.

    `mask` is the lesions' mask on the PET's grid and `table` what was measured on it. Returns the projections
    that the page shows; the same input gives the same page. Raises GeometryError where a grid does not fit or
    the PET is a single slice, ValueRangeError where an image is not finite, StudyError where the table does
    not belong to the mask.
    """
    _check(study, mask, facts.uncertainty)
    page, projections = _render(study, mask, table, facts)
    write_text(path, page)
    return projections


def require_volume(study: Study) -> None:
    """Raise GeometryError for a PET of a single slice, of which no projection can be made."""
    if min(study.pet.shape) < 2:
        raise GeometryError(
            f"study {study.name}: a PET of shape {study.pet.shape} is a single slice; give a whole volume"
        )


def _check(study: Study, mask: Volume, uncertainty: Volume | None) -> None:
    require_volume(study)
    for what, other in (("mask", mask), ("uncertainty", uncertainty)):
        if other is not None and not other.grid.matches(study.pet.grid):
            raise GeometryError(
                f"study {study.name}: the {what}'s grid {other.shape} is not the PET's {study.pet.shape} "
                f"or lies elsewhere; resample the {what} to the PET first"
            )
    for what, image in (("PET", study.pet), ("CT", study.ct), ("uncertainty", uncertainty)):
        if image is not None and not np.isfinite(image.array).all():
            raise ValueRangeError(
                f"study {study.name}: the {what} has voxels that are not finite numbers; "
                "convert the study again"
            )


def _render(study: Study, mask: Volume, table: LesionTable, facts: ReportFacts) -> tuple[str, Projections]:
    numbers = number_lesions(mask, table, study.name).reoriented()
    study = study.reoriented()
    box = body_box(study, numbers.array > 0)
    numbers, pet = cropped(numbers, box), cropped(study.pet, box)
    layers = {"pet": pet_layer(pet.array)}
    if study.ct is not None:
        layers["ct"] = ct_layer(cropped(study.ct, box).array)
    if facts.uncertainty is not None:
        layers["uncertainty"] = fraction_layer(cropped(facts.uncertainty.reoriented(), box).array)
    projections = maximum_projections(pet, numbers, [lesion.confidence for lesion in table.lesions])
    data = {
        "grid": _grid_as_json(pet, study.pet, box),
        "layers": encode_layers(layers),
        "numbers": encode_numbers(numbers.array),
        "projections": _projections_as_json(projections, layers["pet"]),
        "lesions": _lesions_as_json(table, pet),
    }
    page = render_page(
        "report.html.j2",
        styles=_STYLES,
        modules=_MODULES,
        icon=thumbnail_url(projections),
        title=facts.title if facts.title is not None else study.name,
        facts=facts,
        table=table,
        has_ct=study.ct is not None,
        has_confidence=any(lesion.confidence is not None for lesion in table.lesions),
        image=_image_facts(study),
        warnings=tuple(dict.fromkeys((*study.warnings, *facts.warnings))),
        data=data,
    )
    return page, projections


def _grid_as_json(shown: Volume, pet: Volume, box: Box) -> dict[str, Any]:
    """Shape and spacing (z, y, x), the affine from index (x, y, z) to LPS mm, and the place in the PET."""
    return {
        "shape": list(shown.shape),
        "spacing": [round(spacing, 6) for spacing in shown.spacing_mm],
        "affine": [[round(float(value), 6) for value in row] for row in shown.affine[:3]],
        "first": [part.start for part in box],
        "fullShape": list(pet.shape),
    }


def _projections_as_json(projections: Projections, pet: Layer) -> dict[str, Any]:
    frames, rows, columns = projections.suv.shape
    return {
        "frames": frames,
        "rows": rows,
        "columns": columns,
        "pixel": projections.pixel_mm,
        "centre": [round(value, 4) for value in projections.centre_mm],
        "suv": compress(quantised(Layer(projections.suv, pet.levels, pet.resolution), (1, 1, 1))),
        "lesions": compress(projections.lesions.astype("<u2")),
        "depth": compress(projections.depth),
    }


def _lesions_as_json(table: LesionTable, pet: Volume) -> list[dict[str, Any]]:
    """Number, how opaque it is drawn, and centroid as an index (z, y, x) into the shown part of the PET."""
    to_index = np.linalg.inv(pet.affine)
    lesions = []
    for lesion in table.lesions:
        x, y, z, _ = to_index @ (*lesion.centroid_mm, 1.0)
        centroid = [round(float(value), 4) for value in (z, y, x)]
        strength = round(strength_of(lesion.confidence), 3)
        lesions.append({"number": lesion.number, "centroid": centroid, "strength": strength})
    return lesions


def _image_facts(study: Study) -> dict[str, str]:
    z, y, x = study.pet.spacing_mm
    slices, rows, columns = study.pet.shape
    return {
        "PET matrix": f"{columns} × {rows} × {slices}",
        "PET voxel": f"{x:.2f} × {y:.2f} × {z:.2f} mm",
        "CT": "on the PET's grid" if study.ct is not None else "none",
    }
