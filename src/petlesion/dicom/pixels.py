"""Pixels out of DICOM objects, one frame at a time, with sizes checked before memory is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array

from petlesion.dicom.files import DicomFile, read_dataset, reading
from petlesion.dicom.frames import Frame
from petlesion.dicom.headers import number, text
from petlesion.errors import FormatError

Pixels = npt.NDArray[np.integer]

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


def decode(frames: Sequence[Frame]) -> Iterator[Pixels]:
    """Yield the stored values [y, x] of each frame; a file is opened once for neighbouring frames of its own.

    Raises FormatError for pixels that are missing, cut off, of several samples or that no decoder can read.
    """
    opened: tuple[DicomFile, Dataset] | None = None
    for frame in frames:
        if opened is None or opened[0] != frame.file:
            opened = (frame.file, read_dataset(frame.file))
            _check_pixels(frame.file, opened[1])
        yield _decode_frame(frame, opened[1])


def _check_pixels(file: DicomFile, dataset: Dataset) -> None:
    """Compare what the header promises with what the file holds, before a decoder believes it."""
    if "PixelData" not in dataset:
        raise FormatError(f"{file} holds no pixels; export the series again")
    samples = number(dataset, "SamplesPerPixel") or 1
    bits = number(dataset, "BitsAllocated") or 0
    if samples != 1 or bits not in (8, 16, 32) or text(dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise FormatError(f"{file} is no grey-scale image of 8, 16 or 32 bits; give the original images")
    rows, columns = number(dataset, "Rows") or 0, number(dataset, "Columns") or 0
    frames = number(dataset, "NumberOfFrames") or 1
    promised = rows * columns * frames * bits / 8
    if str(dataset.file_meta.TransferSyntaxUID) in _NATIVE and promised > len(dataset.PixelData):
        raise FormatError(
            f"{file} is cut off: it holds {len(dataset.PixelData)} bytes of pixels where its header states "
            f"{promised:.0f}; copy it again from its source"
        )


def _decode_frame(frame: Frame, dataset: Dataset) -> Pixels:
    with reading(frame.file):
        native = str(dataset.file_meta.TransferSyntaxUID) in _NATIVE
        pixels = _native_frame(frame, dataset) if native else _compressed_frame(frame, dataset)
    rows, columns = number(frame.header, "Rows"), number(frame.header, "Columns")
    if pixels.shape != (rows, columns):
        raise FormatError(f"{frame.file} decodes to {pixels.shape} pixels, not {rows:g} × {columns:g}")
    return pixels


def _native_frame(frame: Frame, dataset: Dataset) -> Pixels:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    order = ">" if dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.2" else "<"
    dtype = np.dtype(f"{order}{kind}{int(dataset.BitsAllocated) // 8}")
    size = rows * columns
    start = frame.number * size * dtype.itemsize
    return np.frombuffer(dataset.PixelData, dtype, count=size, offset=start).reshape(rows, columns)


def _compressed_frame(frame: Frame, dataset: Dataset) -> Pixels:
    frames = int(dataset.get("NumberOfFrames") or 1)
    get_frame(dataset.PixelData, frame.number, number_of_frames=frames)
    pixels: Pixels = pixel_array(dataset, index=frame.number, raw=True)
    return pixels
