import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from petlesion.errors import OutputError
from petlesion.io.atomic import atomic_file, atomic_folder, check_place, remove_unfinished, write_text


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


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "study"
    with atomic_folder(target) as temporary:
        (temporary / "kept").touch()
    rename = Path.rename

    def refused(source: Path, to: Path) -> Path:
        if source.name.startswith(".partial-"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(source, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match="Permission denied"), atomic_folder(target) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("place", ["file/table.csv", "file/deep/table.csv", "folder", "/proc/nope/table.csv"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "kept").mkdir(parents=True)
    with pytest.raises(OutputError, match=rf"{place} cannot be written \([A-Z]"):
        write_text(tmp_path / place, "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "kept"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="file/study cannot be written"),
        atomic_folder(tmp_path / "file/study"),
    ):
        raise AssertionError


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    told = r"x\.csv cannot be written \(No space left on device\)"
    with pytest.raises(OutputError, match=told), atomic_file(tmp_path / "x.csv"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "file/deep", "/proc/nope"])
def test_a_place_is_checked_before_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        check_place(tmp_path / place)
    check_place(tmp_path / "new" / "deep")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_an_interrupted_thread_writes_is_removed_and_nothing_else(tmp_path: Path) -> None:
    begun, ended = threading.Event(), threading.Event()
    (tmp_path / ".partial-other-12345678").mkdir()
    (tmp_path / "study").mkdir()

    def write_on_and_on() -> None:
        with pytest.raises(OutputError), atomic_folder(tmp_path / "study") as temporary:
            while True:
                for number in range(20):
                    (temporary / str(number)).write_text("half")
                begun.set()
        ended.set()

    thread = threading.Thread(target=write_on_and_on)
    thread.start()
    assert begun.wait(10)
    with atomic_file(tmp_path / "mask.nii.gz") as half:
        half.touch()
        remove_unfinished(tmp_path, ["mask.nii.gz"])
        assert not half.exists()
        half.touch()
    remove_unfinished(tmp_path, ["study"])
    thread.join(10)
    assert ended.is_set()
    left = {".partial-other-12345678", "study", "mask.nii.gz"}
    assert {path.name for path in tmp_path.iterdir()} == left


class Writer(threading.Thread):
    """Writes a folder of two files; waits between them, and again before the folder is published."""

    def __init__(self, target: Path) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._may_go_on = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        self.failure: OutputError | None = None

    def run(self) -> None:
        try:
            with atomic_folder(self._target) as temporary:
                write_text(temporary / "lesions.csv", "first")
                self._wait()
                write_text(temporary / "deep" / "run.json", "last")
                self._wait()
        except OutputError as error:
            self.failure = error

    def until_it_waits(self) -> None:
        assert self._waits.acquire(timeout=10)

    def go_on(self) -> None:
        self._may_go_on.release()

    def _wait(self) -> None:
        self._waits.release()
        assert self._may_go_on.acquire(timeout=10)


def test_what_a_thread_writes_after_the_removal_is_not_published(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "study")
    writer.start()
    writer.until_it_waits()
    remove_unfinished(tmp_path, ["study"])
    writer.go_on()
    writer.join(10)
    assert isinstance(writer.failure, OutputError)
    assert not list(tmp_path.iterdir())


def test_what_is_half_removed_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has written all and publishes it while the first file is being removed."""
    writer = Writer(tmp_path / "study")
    writer.start()
    writer.until_it_waits()
    writer.go_on()
    writer.until_it_waits()
    remove = shutil.rmtree

    def remove_slowly(folder: Path, ignore_errors: bool = False) -> None:
        monkeypatch.undo()
        (folder / "lesions.csv").unlink()
        writer.go_on()
        writer.join(10)
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", remove_slowly)
    remove_unfinished(tmp_path, ["study"])
    assert isinstance(writer.failure, OutputError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["s[1]", "*", "?", "a-12345678", "line\nend"])
def test_only_what_bears_the_very_name_is_removed(tmp_path: Path, name: str) -> None:
    others = {".partial-s1-12345678", ".partial-a-12345678", ".partial-12345678-b", ".partial-12345678"}
    for other in others:
        (tmp_path / other).mkdir()
    (tmp_path / f".partial-{name}-abcd_fgh").mkdir()
    (tmp_path / f".partial-abcd_fgh-{name}").touch()
    remove_unfinished(tmp_path, [name])
    assert {path.name for path in tmp_path.iterdir()} == others
    remove_unfinished(tmp_path / "absent", [name])


def test_thousands_of_names_are_looked_for_at_once(tmp_path: Path) -> None:
    names = [f"study-{number}" for number in range(3000)]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".partial-study-7-12345678").mkdir()
    before = time.monotonic()
    remove_unfinished(tmp_path, names)
    assert time.monotonic() - before < 2
    assert {path.name for path in tmp_path.iterdir()} == set(names)
