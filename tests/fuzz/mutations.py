"""Ways to spoil a file: its bytes, its DICOM attributes, its NIfTI header, the zip that it is in."""

from __future__ import annotations

import gzip
import io
import random
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

HOSTILE_NUMBERS = ("nan", "inf", "-1", "0", "1e300", "-1e300", "1e-300", "65535", "2147483647", "x", "")
HOSTILE_WORDS = ("", "\0", "../../etc/passwd", "9" * 500, "é", "PT", "NM", "LABELMAP", "FRACTIONAL", "GATED")
HOSTILE_WHOLE = (0, 1, 7, 255, 4097, 65535)
NIFTI_FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "b"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "6f"),
    "srow": (280, "12f"),
    "magic": (344, "4b"),
}


def spoil(path: Path, chance: random.Random) -> None:
    """Change a file in one to four ways."""
    for _ in range(chance.randint(1, 4)):
        kinds = [_spoil_bytes]
        if path.suffix == ".dcm":
            kinds += [_spoil_attributes] * 4
        elif path.suffix == ".nii":
            kinds += [_spoil_nifti] * 4
        elif path.suffix == ".zip":
            kinds += [_spoil_zip] * 2
        chance.choice(kinds)(path, chance)


def _spoil_bytes(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if not content:
        return
    place = chance.randrange(len(content))
    length = min(chance.choice((1, 2, 4, 16, 200)), len(content) - place)
    way = chance.randrange(6)
    if way == 0:
        content[place : place + length] = chance.randbytes(length)
    elif way == 1:
        content[place : place + 4] = b"\xff\xff\xff\xff"
    elif way == 2:
        del content[place:]
    elif way == 3:
        del content[place : place + length]
    elif way == 4:
        content[place:place] = content[place : place + length]
    else:
        content[place : place + length] = bytes(length)
    path.write_bytes(content)


def _spoil_attributes(path: Path, chance: random.Random) -> None:
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            places = list(_elements(dataset))
            holder, tag = chance.choice(places)
            _set_hostile(holder, tag, chance)
            buffer = io.BytesIO()
            dataset.save_as(buffer)
    except Exception:
        # Already spoilt beyond what pydicom writes: then the bytes have it.
        _spoil_bytes(path, chance)
    else:
        path.write_bytes(buffer.getvalue())


def _elements(dataset: Dataset) -> Iterator[tuple[Dataset, pydicom.tag.BaseTag]]:
    for element in dataset:
        yield dataset, element.tag
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _set_hostile(holder: Dataset, tag: pydicom.tag.BaseTag, chance: random.Random) -> None:
    element = holder[tag]
    if chance.random() < 0.15:
        del holder[tag]
    elif element.VR == "SQ":
        holder.add_new(tag, "SQ", _hostile_sequence(element.value, chance))
    elif element.VR in ("US", "SS", "UL"):
        holder.add_new(tag, "US", chance.choice(HOSTILE_WHOLE))
    elif element.VR in ("DS", "IS"):
        values = [chance.choice(HOSTILE_NUMBERS) for _ in range(chance.choice((0, 1, 1, 2, 3, 6)))]
        holder.add_new(tag, "LO", values)
    elif element.VR in ("FD", "FL"):
        holder.add_new(tag, element.VR, chance.choice((float("nan"), float("inf"), -1.0, 0.0, 1e300)))
    elif element.VR in ("OB", "OW"):
        holder.add_new(tag, element.VR, chance.randbytes(2 * chance.choice((0, 1, 50))))
    else:
        holder.add_new(tag, "LO", chance.choice(HOSTILE_WORDS))


def _hostile_sequence(items: Sequence, chance: random.Random) -> Sequence:
    way = chance.randrange(3)
    if way == 0 or not items:
        return Sequence()
    if way == 1:
        return Sequence(list(items) * chance.choice((2, 50)))
    nested = Dataset()
    for _ in range(chance.choice((3, 60))):
        outer = Dataset()
        outer.add_new(0x00081140, "SQ", Sequence([nested]))
        nested = outer
    return Sequence([nested])


def _spoil_nifti(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if len(content) < 348:
        return
    offset, form = chance.choice(list(NIFTI_FIELDS.values()))
    count = int(form[:-1] or 1)
    kind = form[-1]
    place = offset + struct.calcsize(kind) * chance.randrange(count)
    if kind == "f":
        value = chance.choice((float("nan"), float("inf"), -1.0, 0.0, 1e30, 1e-30, -3.0))
    else:
        limits = {"h": (-1, 0, 1, 3, 7, 32767, 1024), "i": (0, 348, 540, -1), "b": (0, 1, 110, 127)}
        value = chance.choice(limits[kind])
    struct.pack_into(f"<{kind}", content, place, value)
    path.write_bytes(content)
    if chance.random() < 0.2:
        path.write_bytes(gzip.compress(bytes(content), 1))


def _spoil_zip(path: Path, chance: random.Random) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        _spoil_bytes(path, chance)
        return
    name = chance.choice(sorted(members)) if members else "a.dcm"
    way = chance.randrange(5)
    if way == 0:
        members[chance.choice(("../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm"))] = (
            members.get(name, b"")
        )
    elif way == 1:
        members["bomb.dcm"] = bytes(128) + b"DICM" + bytes(2**26)
    elif way == 2:
        members.pop(name, None)
    elif way == 3:
        members["inner.zip"] = path.read_bytes()
    else:
        content = bytearray(members.get(name, b"x"))
        content[chance.randrange(len(content))] ^= 0xFF
        members[name] = bytes(content)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for member, content in members.items():
            archive.writestr(member, content)
