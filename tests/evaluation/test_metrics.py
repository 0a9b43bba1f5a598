"""metrics.csv, written and read."""

from pathlib import Path

import pytest

from petlesion.errors import FormatError
from petlesion.evaluation.metrics import METRICS_COLUMNS, read_metrics, write_metrics
from tests.evaluation.paper import ON_PAPER

ROWS = list(ON_PAPER.values())


def test_metrics_come_back_from_their_file(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv", ROWS)
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == (
        "case_id,reference_volume_ml,predicted_volume_ml,dice,false_positive_volume_ml,"
        "false_negative_volume_ml,reference_components,predicted_components"
    )
    assert lines[2] == "missed,2.5,0,0,0,2.5,2,0"
    assert lines[4] == "nothing,0,0,,0,0,0,0"
    back = read_metrics(tmp_path / "metrics.csv")
    assert back[0].dice == pytest.approx(6 / 11)
    assert back[1:] == ROWS[1:]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("x,1,1,0.5,0,0,1", "line 2"),
        ("x,1,1,0.5,0,0,1,one", "line 2"),
        ("x,1,1,nan,0,0,1,1", "line 2"),
        ("x,1,1,0.5,-3,0,1,1", "line 2"),
        ("x,,1,0.5,0,0,1,1", "lacks a value"),
        (",1,1,0.5,0,0,1,1", "lacks a value"),
        ("x,1,1,0.5,0,0,1,1\nx,1,1,0.5,0,0,1,1", "twice"),
    ],
)
def test_a_file_that_holds_no_metrics_is_refused_by_name(tmp_path: Path, line: str, word: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"{','.join(METRICS_COLUMNS)}\n{line}\n", encoding="utf-8")
    with pytest.raises(FormatError, match=word) as caught:
        read_metrics(path)
    assert "metrics.csv" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(FormatError, match="cannot be read"):
        read_metrics(path)
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(FormatError, match="no column case_id"):
        read_metrics(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="cannot be read"):
        read_metrics(path)
