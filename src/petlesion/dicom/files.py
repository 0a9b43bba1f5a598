"""DICOM files in folders and zips, read as what they are: bytes that nobody vouches for.

Nothing of a zip is unpacked to disk. Whatever pydicom raises on a broken file becomes a FormatError here.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from petlesion.errors import FormatError, PetlesionError

_PREAMBLE = 128
_MAGIC = b"DICM"
_MOST_FILES = 200_000
_LARGEST_FILE = 4 * 2**30
_LARGEST_ZIP_CONTENT = 32 * 2**30
_SUSPECT_ZIP_CONTENT = 256 * 2**20
_HIGHEST_ZIP_RATIO = 200
_LARGEST_DEFLATED = 256 * 2**10
_META_BYTES = 2**10
_EMPTY_HEADER = bytes(8)
_MOST_EMPTY_HEADERS = 1000


@dataclass(frozen=True)
class DicomFile:
    """One file in a folder, or one member of a zip."""

    container: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The file's own name, to tell slices apart in a message."""
        return PurePosixPath(self.member).name if self.member else self.container.name

    def __str__(self) -> str:
        return f"{self.container}:{self.member}" if self.member else str(self.container)

    @contextmanager
    def opened(self) -> Iterator[_Clamped]:
        """The file's bytes; reading beyond its end takes no memory, however much is asked for."""
        if self.member is None:
            with self.container.open("rb") as stream:
                yield _Clamped(stream, self.container.stat().st_size)
        else:
            with zipfile.ZipFile(self.container) as archive:
                size = archive.getinfo(self.member).file_size
                with archive.open(self.member) as stream:
                    yield _Clamped(stream, size)


class _Clamped(io.RawIOBase):
    """A stream that never asks the one below for more bytes than that one can hold.

    A header may state a length of 4 GB in a file of 1 kB, and a buffered read would allocate it first. And
    megabytes of zeros would be read as millions of elements.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self.size = size
        self._empty_headers = 0

    def read(self, size: int | None = -1) -> bytes:
        left = max(self.size - self._stream.tell(), 0)
        data = self._stream.read(left if size is None or size < 0 else min(size, left))
        self._empty_headers += data == _EMPTY_HEADER
        if self._empty_headers > _MOST_EMPTY_HEADERS:
            raise EOFError("nothing but zeros")
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def without_remarks() -> Iterator[None]:
    """Keep pydicom and highdicom from warning: they quote values, which may be the patient's name."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Turn whatever a library raises on broken bytes into a FormatError that names `what`."""
    try:
        with without_remarks():
            yield
    except PetlesionError:
        raise
    except Exception as problem:
        raise FormatError(
            f"{what} is truncated or damaged ({type(problem).__name__}); copy it again from its source"
        ) from problem


def find_dicom(path: Path) -> list[DicomFile]:
    """All DICOM files in a folder and its subfolders, or in a zip, told by their content; in sorted order.

    Raises FormatError for a zip that is damaged, leaves its folder or would unpack to an absurd size.
    """
    if path.is_dir():
        return [file for name in walk(path) for file in _dicom_in(name)]
    return _dicom_in(path)


def walk(folder: Path) -> list[Path]:
    """All regular files below a folder in sorted order; links to folders and hidden names are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(place) / name
            if not name.startswith(".") and _is_regular(file):
                found.append(file)
        if len(found) > _MOST_FILES:
            raise FormatError(f"{folder} holds more than {_MOST_FILES} files; give a folder of fewer studies")
    return found


def read_header(file: DicomFile) -> FileDataset:
    """Everything of a DICOM file but its pixels; raises FormatError."""
    with reading(file), file.opened() as stream:
        _refuse_deflate_bombs(file, stream)
        return pydicom.dcmread(stream, stop_before_pixels=True)


def read_dataset(file: DicomFile) -> FileDataset:
    """A whole DICOM file; raises FormatError."""
    with reading(file), file.opened() as stream:
        _refuse_deflate_bombs(file, stream)
        return pydicom.dcmread(stream)


def _dicom_in(path: Path) -> list[DicomFile]:
    try:
        with path.open("rb") as stream:
            start = stream.read(_PREAMBLE + len(_MAGIC))
    except OSError as problem:
        raise FormatError(f"{path} cannot be read ({problem.strerror}); check the path") from problem
    if start[_PREAMBLE:] == _MAGIC:
        return [DicomFile(path)]
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _dicom_members(path)
    return []


def _dicom_members(path: Path) -> list[DicomFile]:
    with reading(path), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        _check_zip(path, members)
        names = sorted(member.filename for member in members)
        return [DicomFile(path, name) for name in names if _member_is_dicom(archive, name)]


def _member_is_dicom(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as stream:
        return stream.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def _check_zip(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise FormatError(f"{path} holds a file that would leave its folder; do not trust this zip")
        if member.flag_bits & 0x1:
            raise FormatError(f"{path} is encrypted; unpack it and give the folder")
    content = sum(member.file_size for member in members)
    packed = max(sum(member.compress_size for member in members), 1)
    if len(members) > _MOST_FILES or content > _LARGEST_ZIP_CONTENT:
        raise FormatError(f"{path} would unpack to {content / 2**30:.0f} GiB; unpack it and give the folder")
    if any(member.file_size > _LARGEST_FILE for member in members):
        raise FormatError(f"{path} holds a file of more than 4 GiB; unpack it and give the folder")
    if content > _SUSPECT_ZIP_CONTENT and content > _HIGHEST_ZIP_RATIO * packed:
        raise FormatError(
            f"{path} would unpack to {content // packed} times its size; do not trust this zip, or unpack "
            "it and give the folder"
        )


def _refuse_deflate_bombs(file: DicomFile, stream: _Clamped) -> None:
    """A deflated data set is inflated whole by pydicom, to as much as 1,032 times its size."""
    start = stream.read(_META_BYTES)
    stream.seek(0)
    if str(DeflatedExplicitVRLittleEndian).encode() in start and stream.size > _LARGEST_DEFLATED:
        raise FormatError(f"{file} is deflated and large; write it again in another transfer syntax")


def _is_regular(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return False
