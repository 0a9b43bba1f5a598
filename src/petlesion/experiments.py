"""The paper's training configurations (Tables 1 and 2) as data, and the settings that a run may change.

An experiment is data, never a class: one trainer reads it. Where the text leaves a doubt, the authors'
released plan and training state decide, and `sources_of` says so for every value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from petlesion.errors import ExperimentError

OVERSAMPLING_KINDS = ("last", "probabilistic")
SAMPLINGS = ("cases", "sources", "uncertain")
BACKGROUNDS = ("anywhere", "uptake")
OVERSAMPLED_CASES = ("all", "with_lesions")
OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("dice_ce", "generalised_dice_ce")
INPUTS = ("ct-pet", "pet", "ct")
PET_NORMALIZATIONS = ("study", "cohort", "suv")
PRECISIONS = ("auto", "float32", "bfloat16")

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "oversampling_kind": OVERSAMPLING_KINDS,
    "oversampled_cases": OVERSAMPLED_CASES,
    "sampling": SAMPLINGS,
    "background": BACKGROUNDS,
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "input": INPUTS,
    "pet_normalization": PET_NORMALIZATIONS,
    "precision": PRECISIONS,
}


def _require(holds: bool, setting: str, value: object, expected: str) -> None:
    if not holds:
        raise ExperimentError(f"{setting}={value} cannot be: it must be {expected}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_patch(value: object) -> bool:
    if value is None:
        return True
    if not (isinstance(value, tuple) and len(value) == 3 and all(_is_whole(n) and n >= 8 for n in value)):
        return False
    return any(n % 2 == 0 for n in value)  # No network can halve a patch that is odd along every axis.


@dataclass(frozen=True)
class Experiment:
    """One training configuration; the defaults are those of Table 1 and the released plan.

    Raises ExperimentError for a value that cannot be.
    """

    name: str
    epochs: int = 1500
    # Batches in an epoch; a fifth as many are drawn for validation, as in nnU-Net.
    iterations: int = 250
    batch_size: int = 2
    # Voxels (z, y, x); None takes the plan's.
    patch_size: tuple[int, int, int] | None = (128, 128, 128)
    # Features of the first stage, doubled at every stage up to `max_features`.
    base_features: int = 32
    max_features: int = 320
    optimizer: str = "sgd"
    learning_rate: float = 1e-4
    # Share of patches drawn around a lesion: the last ones of each batch, or each with that probability.
    oversampling: float = 0.5
    oversampling_kind: str = "last"
    # Whether such a patch may come from a case without a lesion, where it then lies anywhere, as in nnU-Net.
    oversampled_cases: str = "all"
    # Whether a patch comes from any case, or from each of the cohort's sources in turn; or, if it is
    # oversampled, from where an earlier run was unsure or wrong.
    sampling: str = "cases"
    # The run whose held-out probabilities say where that is; None unless sampling is uncertain.
    earlier_run: str | None = None
    # Where a patch lies that is not drawn around a lesion: anywhere in its case, or mostly where uptake is
    # high, which is where a network has most to learn about what is no lesion.
    background: str = "anywhere"
    mirroring: bool = True
    loss: str = "dice_ce"
    # Whether the soft Dice is taken over the batch as a whole, not patch by patch; None as the plan says.
    batch_dice: bool | None = None
    input: str = "ct-pet"
    # Whether PET is z-scored study by study, or scaled alike in all studies: by the cohort's lesion voxels
    # like CT, or as the SUV itself, centred on soft tissue.
    pet_normalization: str = "study"
    # A checkpoint of a network of the same shape whose weights training starts from; None for random ones. It
    # may see more channels than this one.
    initial_weights: str | None = None
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for setting in ("epochs", "iterations", "batch_size", "base_features", "max_features"):
            value = getattr(self, setting)
            _require(_is_whole(value) and value >= 1, setting, value, "a whole number of 1 or more")
        _require(
            _is_whole(self.seed) and 0 <= self.seed < 2**31, "seed", self.seed, "a whole number below 2^31"
        )
        _require(
            _is_patch(self.patch_size),
            "patch_size",
            self.patch_size,
            "three numbers of voxels of 8 or more, not all of them odd",
        )
        rate = self.learning_rate
        _require(math.isfinite(rate) and 0 < rate <= 1, "learning_rate", rate, "above 0 and at most 1")
        _require(0 <= self.oversampling <= 1, "oversampling", self.oversampling, "a share from 0 to 1")
        _require(isinstance(self.mirroring, bool), "mirroring", self.mirroring, "true or false")
        _require(
            self.batch_dice in (None, True, False), "batch_dice", self.batch_dice, "true, false or planned"
        )
        _require(
            self.base_features <= self.max_features,
            "base_features",
            self.base_features,
            f"at most max_features, {self.max_features}",
        )
        for setting, choices in _CHOICES.items():
            value = getattr(self, setting)
            _require(value in choices, setting, value, " or ".join(choices))
        self._check_earlier_run()

    def _check_earlier_run(self) -> None:
        needed = self.sampling == "uncertain"
        expected = (
            "the folder of a run with held-out probabilities, since sampling=uncertain"
            if needed
            else f"left out, since sampling={self.sampling}"
        )
        _require(bool(self.earlier_run) == needed, "earlier_run", self.earlier_run, expected)
        cases = self.oversampled_cases
        _require(
            not needed or cases == "all", "oversampled_cases", cases, "all, since sampling=uncertain chooses"
        )

    @property
    def validation_iterations(self) -> int:
        """Batches drawn from the held-out studies after each epoch: nnU-Net's 50 for 250."""
        return max(1, round(self.iterations / 5))

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        settings = asdict(self)
        settings["patch_size"] = list(self.patch_size) if self.patch_size else None
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Experiment:
        """The experiment that `as_dict` wrote; raises ExperimentError for settings that do not exist."""
        unknown = set(settings) - {field.name for field in fields(cls)}
        if unknown or "name" not in settings:
            problem = f"unknown settings {sorted(unknown)}" if unknown else "no name"
            raise ExperimentError(f"a stored experiment has {problem}; train anew with this version")
        patch_size = settings.get("patch_size")
        return cls(**{**settings, "patch_size": tuple(patch_size) if patch_size else None})


@dataclass(frozen=True)
class PublishedScores:
    """Averages over studies as Table 2 prints them; the volumes are in mL."""

    dice: float
    false_negative_volume_ml: float
    false_positive_volume_ml: float


@dataclass(frozen=True)
class PublishedRow:
    """A row of Table 2, as printed there; scores that were not measured or cannot be right are None."""

    name: str
    epochs: int
    patch_size: int
    max_features: int
    learning_rate: float
    oversampling: float
    mirroring: bool
    cross_validation: PublishedScores | None
    test: PublishedScores | None
    note: str = ""


def _row(
    name: str,
    settings: tuple[int, int, int, float, float, bool],
    cross_validation: tuple[float, float, float] | None,
    test: tuple[float, float, float] | None,
    note: str = "",
) -> PublishedRow:
    held_out = PublishedScores(*cross_validation) if cross_validation else None
    tested = PublishedScores(*test) if test else None
    return PublishedRow(name, *settings, cross_validation=held_out, test=tested, note=note)


# Epochs, patch, most features, learning rate, oversampling, mirroring; then Dice / FN / FP of both scorings.
_TABLE_2 = (
    _row("baseline", (1000, 128, 256, 1e-3, 0.5, True), (0.716, 8.345, 11.916), (0.664, 7.651, 11.883)),
    _row("a", (1500, 128, 256, 1e-3, 0.5, True), (0.734, 7.430, 10.258), (0.680, 7.376, 8.043)),
    _row(
        "b",
        (1500, 128, 256, 1e-3, 0.5, False),
        (0.732, 8.265, 8.577),
        (0.685, 6.270, 5.778),
        "the submitted model",
    ),
    _row(
        "c",
        (1500, 128, 256, 1e-2, 0.5, True),
        (0.670, 9.926, 22.255),
        (0.611, 14.878, 13.408),
        "three of five folds",
    ),
    _row("d", (1500, 192, 512, 1e-2, 0.5, True), (0.743, 13.960, 6.746), (0.673, 13.807, 3.788)),
    _row(
        "e",
        (1000, 192, 512, 1e-3, 0.5, True),
        None,
        (0.682, 8.923, 3.239),
        "the printed cross-validation repeats the baseline's and is taken as a misprint",
    ),
    _row("f", (1000, 128, 256, 1e-3, 0.33, True), (0.714, 7.930, 13.200), (0.660, 8.190, 12.412)),
    _row(
        "g",
        (1000, 128, 256, 1e-3, 0.10, True),
        (0.722, 7.227, 23.790),
        None,
        "one of five folds; the test was not run",
    ),
)

PUBLISHED: Mapping[str, PublishedRow] = MappingProxyType({row.name: row for row in _TABLE_2})

# What the released plan and training state put in place of a printed value.
_RELEASED_FEATURES = {256: 320, 512: 512}
_RELEASED_LEARNING_RATE = {1e-3: 1e-4, 1e-2: 1e-2}

# What Table 1 says of every experiment, and no setting changes.
TABLE_1: Mapping[str, str] = MappingProxyType(
    {
        "network": "nnU-Net's PlainConvUNet, 3d_fullres, with deep supervision",
        "momentum of sgd": "0.99, Nesterov",
        "schedule": "polynomial decay of the learning rate",
        "augmentation": "nnU-Net's: rotation, scaling, Gaussian noise and blur, brightness, contrast, "
        "low resolution, gamma",
    }
)

_NNUNET = "nnU-Net's default"
_SOURCES: Mapping[str, str] = {
    "epochs": "Table 2",
    "iterations": "Table 1",
    "batch_size": "Table 1; the released plan",
    "patch_size": "Table 2",
    "base_features": "the released plan",
    "max_features": "the released plan; Table 2 prints 256",
    "optimizer": "Table 1",
    "learning_rate": "Table 1 and the released training state; Table 2 prints 0.001",
    "oversampling": "Table 2",
    "oversampling_kind": "50 % is nnU-Net's last patch of each batch of two",
    "oversampled_cases": _NNUNET,
    "sampling": _NNUNET,
    "earlier_run": _NNUNET,
    "background": _NNUNET,
    "mirroring": "Table 2",
    "loss": "Table 1",
    "batch_dice": _NNUNET,
    "input": "section Data",
    "pet_normalization": "section Data; the released plan",
    "initial_weights": _NNUNET,
    "precision": "nnU-Net's mixed precision on CUDA; bfloat16 on processors that have it",
    "seed": "not published",
}

_HECKTOR_SOURCES: Mapping[str, str] = {
    **dict.fromkeys(("epochs", "mirroring"), "section Data, the model that was also trained on HECKTOR"),
    "patch_size": "the released training state; nnU-Net's plan of its 1,183 studies is 112×160×128",
}


def _preset(row: PublishedRow) -> Experiment:
    return Experiment(
        name=row.name,
        epochs=row.epochs,
        patch_size=(row.patch_size,) * 3,
        max_features=_RELEASED_FEATURES[row.max_features],
        learning_rate=_RELEASED_LEARNING_RATE[row.learning_rate],
        oversampling=row.oversampling,
        oversampling_kind="last" if row.oversampling == 0.5 else "probabilistic",
        mirroring=row.mirroring,
    )


def _table_2_variants() -> dict[str, Experiment]:
    variants = {}
    for row in _TABLE_2:
        preset = _preset(row)
        if preset.learning_rate != row.learning_rate:
            name = f"{row.name}-table2"
            variants[name] = replace(preset, name=name, learning_rate=row.learning_rate)
    return variants


_QUICK = Experiment(
    name="quick",
    epochs=10,
    iterations=20,
    patch_size=(32, 32, 32),
    base_features=8,
    max_features=64,
    learning_rate=1e-2,
    mirroring=False,
)

# A fold of the model in the box, small enough to be trained on two cores of a processor. It starts from
# weights that have seen simulated bodies for longer: box/train.sh.
_BOX = Experiment(
    name="box",
    epochs=12,
    iterations=100,
    patch_size=(56, 56, 96),
    base_features=16,
    max_features=96,
    optimizer="adamw",
    learning_rate=1e-3,
    oversampled_cases="with_lesions",
    sampling="sources",
    background="uptake",
    batch_dice=True,
    pet_normalization="suv",
)

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        **{row.name: _preset(row) for row in _TABLE_2},
        "b-hecktor": replace(_preset(PUBLISHED["b"]), name="b-hecktor", epochs=1000, mirroring=True),
        **_table_2_variants(),
        "quick": _QUICK,
        "box": _BOX,
        # From the network of the same fold that sees CT too.
        "box-pet": replace(_BOX, name="box-pet", input="pet"),
    }
)


_CHOSEN_HERE: Mapping[str, str] = {
    "quick": "chosen here for a first try",
    **dict.fromkeys(("box", "box-pet"), "chosen here for the model in the box"),
}


def sources_of(experiment: Experiment) -> dict[str, str]:
    """Where each value of an experiment comes from: a table, a released file or a change for this run."""
    preset = EXPERIMENTS.get(experiment.name)
    sources = {}
    for setting in _SOURCES:
        changed = preset is None or getattr(experiment, setting) != getattr(preset, setting)
        sources[setting] = "set for this run" if changed else _preset_source(experiment.name, setting)
    return sources


def _preset_source(name: str, setting: str) -> str:
    if name in _CHOSEN_HERE:
        return _CHOSEN_HERE[name]
    if name == "b-hecktor":
        return _HECKTOR_SOURCES.get(setting, f"as in b: {_SOURCES[setting]}")
    printed = PUBLISHED[name.split("-")[0]]
    if setting == "learning_rate" and (name.endswith("-table2") or printed.learning_rate == 1e-2):
        return "Table 2"
    if setting == "max_features" and printed.max_features == 512:
        return "Table 2"
    if setting == "oversampling_kind" and printed.oversampling != 0.5:
        return "33 % and 10 % are nnU-Net's probabilistic oversampling"
    return _SOURCES[setting]


def find_experiment(name: str) -> Experiment:
    """The preset of that name; raises ExperimentError, with the names that exist, for another."""
    if name not in EXPERIMENTS:
        raise ExperimentError(f"there is no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def with_settings(experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """The experiment with settings such as `epochs=20` or `patch_size=64x96x96` changed.

    A patch is one number for a cube, three joined by `x`, or `planned`. Raises ExperimentError for what
    is no setting and for a value that cannot be.
    """
    changes: dict[str, Any] = {}
    for text in settings:
        setting, separator, value = (part.strip() for part in text.partition("="))
        if not separator or setting not in _PARSERS:
            names = ", ".join(_PARSERS)
            raise ExperimentError(f"{text!r} changes no setting; write KEY=VALUE with a key out of {names}")
        try:
            changes[setting] = _PARSERS[setting](value)
        except ValueError:
            raise ExperimentError(f"{text!r}: {value!r} is not {_EXPECTED[_PARSERS[setting]]}") from None
    return replace(experiment, **changes)


def _parse_bool(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _parse_planned_bool(text: str) -> bool | None:
    return None if text == "planned" else _parse_bool(text)


def _parse_patch(text: str) -> tuple[int, ...] | None:
    if text == "planned":
        return None
    sizes = [int(size) for size in text.replace(",", "x").split("x")]
    return tuple(sizes * 3 if len(sizes) == 1 else sizes)


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "epochs": int,
    "iterations": int,
    "batch_size": int,
    "patch_size": _parse_patch,
    "base_features": int,
    "max_features": int,
    "optimizer": str,
    "learning_rate": float,
    "oversampling": float,
    "oversampling_kind": str,
    "oversampled_cases": str,
    "sampling": str,
    "earlier_run": str,
    "background": str,
    "mirroring": _parse_bool,
    "loss": str,
    "batch_dice": _parse_planned_bool,
    "input": str,
    "pet_normalization": str,
    "initial_weights": str,
    "precision": str,
    "seed": int,
}
_EXPECTED: Mapping[Callable[[str], Any], str] = {
    int: "a whole number",
    float: "a number",
    _parse_bool: "true or false",
    _parse_planned_bool: "true, false or planned",
    _parse_patch: "a patch such as 64, 64x96x96 or planned",
}
