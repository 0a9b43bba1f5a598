"""A model that can be handed on: a folder with bundle.json and one ONNX network per fold.

bundle.json says what goes in and what comes out (`Plan`), where the model comes from and how it scored, and
holds the sha256 of each file beside it and of itself. A changed byte is refused. A calibration may be added
later; it is signed like the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlesion.errors import ModelError
from petlesion.io.atomic import atomic_file
from petlesion.model.plan import Plan, plan_from_json

BUNDLE_FILE = "bundle.json"
FORMAT_VERSION = 1

_OWN_SHA256 = "bundle_sha256"
_CALIBRATION = "calibration"
_UNSIGNED = "0" * 64
_LARGEST_BUNDLE_FILE = 16 * 2**20
_CHUNK = 2**20


@dataclass(frozen=True)
class BundleMember:
    """Networks of one plan: file names by fold, and what they were trained as (experiment, trainer …).

    `weight` is the member's share in the mean of the members' probabilities; only its ratio to the others'
    counts.
    """

    plan: Plan
    networks: Mapping[str, str]
    trained_as: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0

    @property
    def logit_shift(self) -> float:
        """What was added to the logits of lesions when the networks were exported."""
        return float(self.trained_as.get("logit_shift", 0.0))


@dataclass(frozen=True)
class ModelCard:
    """What a user must know of a model before trusting it.

    `scores` are `petlesion summarize --json`'s. `min_volume_ml` is the smallest size of a lesion that was
    chosen for it; None where none was.
    """

    name: str
    training_data: str
    licence: str
    scores: Mapping[str, Any] = field(default_factory=dict)
    min_volume_ml: float | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files are as they were written.

    `fingerprint` is the sha256 of bundle.json without its calibration: it tells which networks these are.
    `calibration` is as petlesion.calibration stores it, None where there is none.
    """

    path: Path
    members: tuple[BundleMember, ...]
    card: ModelCard
    sha256: Mapping[str, str]
    own_sha256: str
    fingerprint: str
    calibration: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read bundle.json and check every file. Raises ModelError for a changed, missing or foreign one."""
        path = Path(path)
        data = _read_checked(path / BUNDLE_FILE)
        try:
            members = tuple(
                BundleMember(
                    plan_from_json(member["plan"]),
                    member["networks"],
                    member["trained_as"],
                    _checked_weight(member.get("weight", 1.0)),
                )
                for member in data["members"]
            )
            card = ModelCard(**data["card"])
            sha256 = {str(name): str(digest) for name, digest in data["sha256"].items()}
            named = {name for member in members for name in member.networks.values()}
        except ModelError as error:
            raise ModelError(f"{path / BUNDLE_FILE}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{path / BUNDLE_FILE} lacks or garbles {error}; export the model again"
            ) from None
        if not members or not named or not named <= set(sha256):
            raise ModelError(f"{path / BUNDLE_FILE} does not list all its networks; export the model again")
        for name, digest in sha256.items():
            _check_file(path, name, digest)
        own = str(data[_OWN_SHA256])
        calibration = data.get(_CALIBRATION)
        uncalibrated = {key: value for key, value in data.items() if key != _CALIBRATION}
        fingerprint = own if calibration is None else _signed(uncalibrated)[1]
        return cls(path, members, card, sha256, own, fingerprint, calibration)

    def network_paths(self) -> Iterator[tuple[int, str, Path]]:
        """Index of the member, fold and file of each network."""
        for index, member in enumerate(self.members):
            for fold, name in member.networks.items():
                yield index, fold, self.path / name

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum((self.path / name).stat().st_size for name in self.sha256)


def write_bundle_file(folder: Path, members: tuple[BundleMember, ...], card: ModelCard) -> None:
    """Write bundle.json for the files that lie in `folder`."""
    names = sorted(file.name for file in folder.iterdir() if file.name != BUNDLE_FILE)
    data = {
        "format_version": FORMAT_VERSION,
        "card": {
            "name": card.name,
            "training_data": card.training_data,
            "licence": card.licence,
            "scores": dict(card.scores),
            "min_volume_ml": card.min_volume_ml,
        },
        "members": [
            {
                "plan": member.plan.as_json(),
                "networks": dict(member.networks),
                "trained_as": dict(member.trained_as),
                "weight": member.weight,
            }
            for member in members
        ],
        "sha256": {name: file_sha256(folder / name) for name in names},
        _OWN_SHA256: _UNSIGNED,
    }
    (folder / BUNDLE_FILE).write_bytes(_signed(data)[0])


def store_calibration(bundle: Bundle, calibration: Mapping[str, Any]) -> Bundle:
    """Put a calibration into a bundle in place of any former one, and sign bundle.json anew."""
    path = bundle.path / BUNDLE_FILE
    data = _read_checked(path)
    own = data.pop(_OWN_SHA256)
    if own != bundle.own_sha256:
        raise ModelError(f"{path} was changed in the meantime; calibrate the model again")
    content, _ = _signed({**data, _CALIBRATION: dict(calibration), _OWN_SHA256: own})
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return Bundle.open(bundle.path)


def _signed(data: Mapping[str, Any]) -> tuple[bytes, str]:
    """bundle.json's content with its own sha256, taken while zeros stand in that one's place, in it."""
    unsigned = json.dumps({**data, _OWN_SHA256: _UNSIGNED}, indent=2, ensure_ascii=False).encode()
    own = hashlib.sha256(unsigned).hexdigest()
    return unsigned.replace(_UNSIGNED.encode(), own.encode()), own


def _checked_weight(weight: Any) -> float:
    if not (isinstance(weight, (int, float)) and 0 < weight < math.inf):
        raise ValueError(f"weight ({weight})")
    return float(weight)


def _read_checked(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_BUNDLE_FILE:
            raise ModelError(f"{path} is too large to be a bundle's; take the bundle from its source again")
        content = path.read_bytes()
        data = json.loads(content)
        version, own = data["format_version"], str(data[_OWN_SHA256])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path} is missing or no bundle's; take the bundle from its source again") from None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path} has the format version {version}, but this petlesion reads {FORMAT_VERSION}"
        )
    unsigned = content.replace(own.encode(), _UNSIGNED.encode())
    if hashlib.sha256(unsigned).hexdigest() != own:
        raise ModelError(f"{path} was changed after the export; take the bundle from its source again")
    assert isinstance(data, dict)
    return data


def _check_file(folder: Path, name: str, digest: str) -> None:
    if Path(name).name != name or name in (".", ".."):
        raise ModelError(f"{folder / BUNDLE_FILE} names the file {name!r}, which does not lie in the bundle")
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{path} is missing; take the bundle from its source again")
    if file_sha256(path) != digest:
        raise ModelError(f"{path} was changed after the export; take the bundle from its source again")


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()
