from pathlib import Path

import pytest

from petlesion.io.atomic import atomic_file, atomic_folder, write_text


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "mask.nii.gz"
    with atomic_file(target) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("data")
        assert not target.exists()
    assert target.read_text() == "data"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "study"
    for content in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "study"
    with atomic_folder(target) as temporary:
        (temporary / "kept").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]
