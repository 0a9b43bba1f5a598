"""metrics.csv: a prediction's scores against its reference, one row per study."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from petlesion.errors import FormatError
from petlesion.io.atomic import write_text
from petlesion.overlap import StudyMetrics

METRICS_COLUMNS = tuple(field.name for field in fields(StudyMetrics))
_COUNT_COLUMNS = ("reference_components", "predicted_components")


def write_metrics(path: str | Path, rows: Sequence[StudyMetrics]) -> None:
    """Write metrics.csv: one row per study, an undefined value as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(METRICS_COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, column)) for column in METRICS_COLUMNS])
    write_text(path, text.getvalue())


def read_metrics(path: str | Path) -> list[StudyMetrics]:
    """Read metrics.csv; raises FormatError, which names the file and the row, for what cannot be."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path} cannot be read; give a metrics.csv that petlesion evaluate wrote"
        ) from error
    reader = csv.DictReader(lines)
    missing = [column for column in METRICS_COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise FormatError(
            f"{path} has no column {', '.join(missing)}; give a metrics.csv of petlesion evaluate"
        )
    rows = [_parse_row(path, number, cells) for number, cells in enumerate(reader, start=2)]
    check_unique(path, (row.case_id for row in rows))
    return rows


def check_unique(path: str | Path, case_ids: Iterable[str]) -> None:
    """Raise FormatError for a study that is listed twice."""
    seen: set[str] = set()
    for case_id in case_ids:
        if case_id in seen:
            raise FormatError(f"{path} lists the study {case_id} twice; each study counts once")
        seen.add(case_id)


def _parse_row(path: Path, number: int, cells: Mapping[str, str | None]) -> StudyMetrics:
    try:
        counts = {column: int(cells[column] or "") for column in _COUNT_COLUMNS}
        values = {
            column: _parse_number(cells[column])
            for column in METRICS_COLUMNS
            if column not in ("case_id", *_COUNT_COLUMNS)
        }
    except ValueError as error:
        raise FormatError(
            f"{path}, line {number}, is not a row of metrics ({error}); evaluate again"
        ) from error
    if not cells["case_id"] or any(value is None for column, value in values.items() if column != "dice"):
        raise FormatError(f"{path}, line {number}, lacks a value; evaluate again")
    return StudyMetrics(case_id=str(cells["case_id"]), **values, **counts)  # type: ignore[arg-type]


def _parse_number(cell: str | None) -> float | None:
    if cell is None or cell == "":
        return None
    value = float(cell)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{cell} cannot be")
    return value


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
