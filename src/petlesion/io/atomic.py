"""Files and folders that are written whole or not at all.

Where the system refuses to write, everything here raises an OutputError that names the file and the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from petlesion.errors import OutputError

_TEMPORARY = ".partial-"
_RANDOM = ".{8}"  # the part of a temporary name that the tempfile module makes up
_TEMPORARY_FILE = re.compile(f"{re.escape(_TEMPORARY)}{_RANDOM}-(.+)", re.DOTALL)
_TEMPORARY_FOLDER = re.compile(f"{re.escape(_TEMPORARY)}(.+)-{_RANDOM}", re.DOTALL)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); check the path, who may write there, and "
            "that there is room"
        ) from error


def check_place(folder: str | Path) -> None:
    """Raise OutputError if a folder cannot be made or written to; leaves nothing behind.

    Long work is preceded by it, so that it is not lost in the end.
    """
    folder = Path(folder).absolute()
    with writing(folder):
        standing = next(place for place in (folder, *folder.parents) if place.exists())
        tempfile.TemporaryDirectory(dir=standing, prefix=_TEMPORARY).cleanup()


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that takes the place of `path` if the block succeeds.

    The temporary name keeps all endings of `path`, since image libraries choose the format by them.
    """
    path = Path(path)
    with writing(path), _temporary_file(path) as temporary:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush_to_disk(temporary)
        temporary.replace(path)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place if the block succeeds.

    What stood at `path` before is removed only after the block has succeeded and the new folder stands there.
    """
    path = Path(path)
    with writing(path), _temporary_folder(path) as temporary:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            replaced = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".replaced-{path.name}-"))
            path.rename(replaced / path.name)
            try:
                temporary.rename(path)
            except BaseException:
                (replaced / path.name).rename(path)
                replaced.rmdir()
                raise
            shutil.rmtree(replaced)
        else:
            temporary.rename(path)


def remove_unfinished(folder: str | Path, names: Iterable[str]) -> None:
    """Remove what interrupted writers of these files and folders have left in `folder` under temporary names.

    A thread that is still writing into such a folder fails, and nothing of it is published. One that is still
    writing such a file fails too, or writes it whole. What is begun only afterwards is not looked for.
    """
    wanted = set(names)
    for temporary in list(Path(folder).glob(f"{_TEMPORARY}*")):
        if _final_name(temporary) in wanted:
            _remove(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    _make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY, suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    _make_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_TEMPORARY}{path.name}-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, but never a temporary one: where that is gone, it was removed."""
    for place in reversed((folder, *folder.parents)):
        if not place.name.startswith(_TEMPORARY):
            place.mkdir(exist_ok=True)


def _final_name(temporary: Path) -> str | None:
    """The name that a temporary file or folder is to get in the end; None for any other."""
    match = (_TEMPORARY_FOLDER if temporary.is_dir() else _TEMPORARY_FILE).fullmatch(temporary.name)
    return match[1] if match else None


def _remove(temporary: Path) -> None:
    """Remove a temporary file or folder into which a thread may still be writing."""
    if not temporary.is_dir():
        temporary.unlink(missing_ok=True)
        return
    # In one step, lest the thread publish what is half removed.
    with suppress(OSError):
        removed = temporary.rename(f"{temporary}.removed")
        shutil.rmtree(removed, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
