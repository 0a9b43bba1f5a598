"""Files and folders that are written whole or not at all.

Where the system refuses to write, everything here raises an OutputError that names the file and the reason.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from petlesion.errors import OutputError

_RANDOM = "????????"  # the part of a temporary name that the tempfile module makes up
_ATTEMPTS = 100  # to remove a folder into which a thread goes on writing


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
        tempfile.TemporaryDirectory(dir=standing, prefix=".partial-").cleanup()


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


def remove_unfinished(path: str | Path) -> None:
    """Remove what an interrupted writer of a file or folder has left under a temporary name.

    A thread that is still writing there fails and leaves nothing.
    """
    path = Path(path)
    name = glob.escape(path.name)
    for file in path.parent.glob(f".partial-{_RANDOM}-{name}"):
        file.unlink(missing_ok=True)
    for folder in path.parent.glob(f".partial-{name}-{_RANDOM}"):
        for _ in range(_ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".partial-{path.name}-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
