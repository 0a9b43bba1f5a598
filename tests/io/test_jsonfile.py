"""What a JSON reader may be given."""

from pathlib import Path

import pytest

from petlesion.io.jsonfile import load_json


def test_content_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": [1, 2.5, "é"]}', encoding="utf-8")
    assert load_json(path) == {"a": [1, 2.5, "é"]}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        load_json(path)


def test_a_file_that_is_missing_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no\.json"):
        load_json(tmp_path / "no.json")
