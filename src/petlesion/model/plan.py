"""What a network expects of its input and means by its output, whoever trained it and whatever runs it.

The facts are nnU-Net v2's (plans.json, dataset.json and the checkpoint); a bundle carries the same ones.
Arrays are indexed [z, y, x] in the orientation of training, then transposed by `transpose`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from petlesion.errors import ModelError
from petlesion.volume import LPS

Json = Mapping[str, Any]

CT = "CT"
PET = "PET"
_CHANNEL_NAMES = {"CT": CT, "CTRES": CT, "PET": PET, "PT": PET, "SUV": PET}
_BY_STATISTICS = "CTNormalization"
_SCHEMES = (
    _BY_STATISTICS,
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
)
_RESAMPLING = "resample_data_or_seg_to_shape"
_REORIENTING_READER = "NibabelIOWithReorient"
_ORIENTATION_AXES = {"L": "x", "R": "x", "P": "y", "A": "y", "S": "z", "I": "z"}
_HIGHEST_ORDER = 5  # of SciPy's splines
_LESION_NAMES = ("lesion", "lesions", "tumor", "tumour", "gtv")


@dataclass(frozen=True)
class Normalization:
    """How one channel's values are scaled: an nnU-Net scheme and the training set's statistics.

    `within_mask`: whether only the study's non-zero region counts (nnU-Net's use_mask_for_norm).
    """

    scheme: str
    within_mask: bool = False
    mean: float = 0.0
    std: float = 1.0
    lower: float = 0.0
    upper: float = 0.0

    def __post_init__(self) -> None:
        if self.scheme not in _SCHEMES:
            raise ModelError(
                f"the model's normalisation {self.scheme!r} is not one of {', '.join(_SCHEMES)}; "
                "take a model with one of these"
            )
        statistics = (self.mean, self.std, self.lower, self.upper)
        if not all(map(math.isfinite, statistics)) or self.lower > self.upper:
            raise ModelError(
                f"the model's normalisation has statistics that cannot be, {statistics}; "
                "take the model from its source again"
            )


@dataclass(frozen=True)
class Interpolation:
    """How values are resampled: spline order, order across thick slices, and whether slices stand alone.

    `separate_slices`: True, False, or None for nnU-Net's own rule (spacing beyond 3 to 1).
    """

    order: int
    order_across: int = 0
    separate_slices: bool | None = None

    def __post_init__(self) -> None:
        orders = (self.order, self.order_across)
        if not all(isinstance(order, int) and 0 <= order <= _HIGHEST_ORDER for order in orders):
            raise ModelError(
                f"the model resamples by splines of order {self.order!r} and {self.order_across!r}, "
                f"but there are only 0 to {_HIGHEST_ORDER}; take the model from its source again"
            )
        if self.separate_slices not in (None, True, False):
            raise ModelError(
                f"the model's rule for thick slices, {self.separate_slices!r}, is not true, false or null; "
                "take the model from its source again"
            )


@dataclass(frozen=True)
class Plan:
    """The facts of one network's input and output.

    `channels` are "CT" (HU) and "PET" (SUV) in the network's order. `spacing_mm` and `patch_size` are in the
    order of the transposed array. `labels` maps names to values; `mirror_axes` are those of the transposed
    array along which training mirrored, and prediction does unless told otherwise if `mirrored`.
    `orientation` is that of the training images (see `Grid.orientation`).
    """

    channels: tuple[str, ...]
    normalization: tuple[Normalization, ...]
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    transpose: tuple[int, int, int]
    labels: Mapping[str, int]
    mirror_axes: tuple[int, ...]
    mirrored: bool = True
    orientation: str = LPS
    image_interpolation: Interpolation = Interpolation(order=3)
    logit_interpolation: Interpolation = Interpolation(order=1)

    def __post_init__(self) -> None:
        axes = sorted(_ORIENTATION_AXES.get(letter, "?") for letter in self.orientation)
        if axes != sorted(set(_ORIENTATION_AXES.values())):
            raise ModelError(f"{self.orientation!r} is no orientation of a model's images; give such as LPS")
        if sorted(self.channels) not in ([CT], [PET], [CT, PET]):
            raise ModelError(
                f"the model's channels are {list(self.channels)}, but only CT and PET, each once, "
                "can be given to it; export it again"
            )
        if len(self.channels) != len(self.normalization):
            raise ModelError("the model's plan does not say how to normalise each channel; export it again")
        if sorted(self.labels.values()) != list(range(max(len(self.labels), 2))):
            raise ModelError(
                f"the model's labels {dict(self.labels)} are not numbered 0, 1 and so on; "
                "take the model from its source again"
            )
        self._check_axes()

    def _check_axes(self) -> None:
        possible = (
            sorted(self.transpose) == [0, 1, 2]
            and min(self.patch_size) >= 1
            and all(0 < spacing < math.inf for spacing in self.spacing_mm)
        )
        if not possible:
            raise ModelError(
                f"the model's patch {self.patch_size}, spacing {self.spacing_mm} or order of axes "
                f"{self.transpose} cannot be; take the model from its source again"
            )
        if len(set(self.mirror_axes) & {0, 1, 2}) < len(self.mirror_axes):
            raise ModelError(
                f"the model mirrors along the axes {self.mirror_axes}, but there are only 0, 1 and 2, "
                "each once; take the model from its source again"
            )

    @property
    def lesion_channel(self) -> int:
        """Index of the lesion among the labels other than background."""
        foreground = {name: value for name, value in self.labels.items() if value > 0}
        named = [value for name, value in foreground.items() if name.lower() in _LESION_NAMES]
        values = named or sorted(foreground.values())
        if len(values) != 1:
            raise ModelError(
                f"the model knows the labels {sorted(foreground)} and none of them alone is called lesion; "
                "rename the lesion's label in its dataset.json"
            )
        return values[0] - 1

    @property
    def preprocessing(self) -> tuple[Hashable, ...]:
        """What a network's input hangs on beside the study: where it is equal, so is the input."""
        return (
            self.channels,
            self.normalization,
            self.spacing_mm,
            self.transpose,
            self.orientation,
            self.image_interpolation,
        )

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON data; `plan_from_json` reads it."""
        return asdict(self)


def plan_from_json(data: Json) -> Plan:
    """Read what `Plan.as_json` wrote. Raises ModelError for anything else."""
    try:
        return Plan(
            channels=tuple(data["channels"]),
            normalization=tuple(Normalization(**channel) for channel in data["normalization"]),
            spacing_mm=_three(data["spacing_mm"], float),
            patch_size=_three(data["patch_size"], int),
            transpose=_three(data["transpose"], int),
            labels={str(name): int(value) for name, value in data["labels"].items()},
            mirror_axes=tuple(int(axis) for axis in data["mirror_axes"]),
            mirrored=bool(data.get("mirrored", True)),
            orientation=str(data["orientation"]),
            image_interpolation=Interpolation(**data["image_interpolation"]),
            logit_interpolation=Interpolation(**data["logit_interpolation"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"the model's plan is not in order ({error}); export the model again") from None


def plan_from_nnunet(
    plans: Json,
    dataset: Json,
    configuration: str,
    *,
    mirror_axes: tuple[int, ...] = (),
    orientation: str | None = None,
) -> Plan:
    """Read nnU-Net v2's plans.json and dataset.json, of 2023 or later.

    `orientation`: how the training images lay; None takes LPS, or RAS where nnU-Net itself reoriented them.
    Raises ModelError for what cannot be run here: 2-D and cascade configurations, regions, other images.
    """
    try:
        settings = resolve_configuration(plans, configuration)
        return Plan(
            channels=_channels(dataset),
            normalization=_normalizations(plans, settings),
            spacing_mm=_three(settings["spacing"], float),
            patch_size=_three(settings["patch_size"], int),
            transpose=_three(plans["transpose_forward"], int),
            labels=_labels(dataset),
            mirror_axes=mirror_axes,
            orientation=orientation or _reader_orientation(plans),
            image_interpolation=_interpolation(settings, "data"),
            logit_interpolation=_interpolation(settings, "probabilities"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"plans.json or dataset.json of the model lacks or garbles {error}; "
            "take them from the folder that nnU-Net trained into"
        ) from None


def plan_to_nnunet(
    plan: Plan, configuration: str, architecture: Json
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A plan as nnU-Net v2's plans.json and dataset.json, with nnU-Net's description of the network."""
    settings = {
        "patch_size": list(plan.patch_size),
        "spacing": list(plan.spacing_mm),
        "normalization_schemes": [channel.scheme for channel in plan.normalization],
        "use_mask_for_norm": [channel.within_mask for channel in plan.normalization],
        "architecture": architecture,
    }
    kinds = {
        "data": plan.image_interpolation,
        "seg": Interpolation(order=1),
        "probabilities": plan.logit_interpolation,
    }
    for kind, interpolation in kinds.items():
        settings[f"resampling_fn_{kind}"] = _RESAMPLING
        settings[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": kind == "seg",
            "order": interpolation.order,
            "order_z": interpolation.order_across,
            "force_separate_z": interpolation.separate_slices,
        }
    plans = {
        "transpose_forward": list(plan.transpose),
        "transpose_backward": [plan.transpose.index(axis) for axis in range(3)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(number): _statistics(channel) for number, channel in enumerate(plan.normalization)
        },
        "configurations": {configuration: settings},
    }
    channel_names = {str(number): name for number, name in enumerate(plan.channels)}
    return plans, {"channel_names": channel_names, "labels": dict(plan.labels)}


def resolve_configuration(plans: Json, name: str) -> dict[str, Any]:
    """The settings of a configuration with those that it inherits."""
    configurations = plans["configurations"]
    chain: list[str] = []
    settings: dict[str, Any] = {}
    current: str | None = name
    while current is not None:
        if current in chain or current not in configurations:
            raise ModelError(
                f"configuration {name!r} is not in the model's plans.json or inherits from itself; "
                f"there are {sorted(configurations)}"
            )
        chain.append(current)
        settings = {**configurations[current], **settings}
        current = configurations[current].get("inherits_from")
    if settings.get("previous_stage"):
        raise ModelError(f"configuration {name!r} is the second stage of a cascade; use a 3d_fullres model")
    return settings


def _three(values: Any, kind: Any) -> Any:
    values = tuple(kind(value) for value in values)
    if len(values) != 3:
        raise ModelError(f"the model works on {len(values)}-D patches; use a 3d_fullres model")
    return values


def _channels(dataset: Json) -> tuple[str, ...]:
    names = dataset["channel_names"] if "channel_names" in dataset else dataset["modality"]
    channels = []
    for index in range(len(names)):
        name = str(names[str(index)])
        if name.upper() not in _CHANNEL_NAMES:
            raise ModelError(
                f"the model's channel {index} is called {name!r}, but only CT and PET can be given to it; "
                "correct channel_names in its dataset.json"
            )
        channels.append(_CHANNEL_NAMES[name.upper()])
    if len(set(channels)) < len(channels):
        raise ModelError(
            f"the model has {len(channels)} channels that are all called {channels[0]}, so that nothing "
            "tells which of them is the PET; correct channel_names in its dataset.json"
        )
    return tuple(channels)


def _labels(dataset: Json) -> dict[str, int]:
    labels = {}
    for name, value in dataset["labels"].items():
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) != 1:
            raise ModelError(
                f"the model's label {name!r} is a region of several labels; take a model without"
            )
        if name != "ignore":
            labels[str(name)] = int(values[0])
    return labels


def _normalizations(plans: Json, settings: Json) -> tuple[Normalization, ...]:
    statistics = plans.get("foreground_intensity_properties_per_channel")
    if statistics is None:
        statistics = plans["foreground_intensity_properties_by_modality"]
    result = []
    schemes = zip(settings["normalization_schemes"], settings["use_mask_for_norm"], strict=True)
    for index, (scheme, within_mask) in enumerate(schemes):
        result.append(_normalization(scheme, bool(within_mask), statistics.get(str(index), {})))
    return tuple(result)


def _normalization(scheme: str, within_mask: bool, statistics: Json) -> Normalization:
    if scheme != _BY_STATISTICS:
        return Normalization(scheme, within_mask)
    return Normalization(
        scheme,
        within_mask,
        mean=float(statistics["mean"]),
        std=float(statistics["std"]),
        lower=float(statistics["percentile_00_5"]),
        upper=float(statistics["percentile_99_5"]),
    )


def _statistics(channel: Normalization) -> dict[str, float]:
    """What `_normalization` reads."""
    if channel.scheme != _BY_STATISTICS:
        return {}
    return {
        "mean": channel.mean,
        "std": channel.std,
        "percentile_00_5": channel.lower,
        "percentile_99_5": channel.upper,
    }


def _interpolation(settings: Json, what: str) -> Interpolation:
    function = settings.get(f"resampling_fn_{what}", _RESAMPLING)
    if function != _RESAMPLING:
        raise ModelError(
            f"the model resamples by {function!r}, but only {_RESAMPLING!r} is known here; "
            "take a model that was planned with it"
        )
    keywords = settings.get(f"resampling_fn_{what}_kwargs", {})
    return Interpolation(
        order=int(keywords.get("order", 3 if what == "data" else 1)),
        order_across=int(keywords.get("order_z", 0)),
        separate_slices=keywords.get("force_separate_z"),
    )


def _reader_orientation(plans: Json) -> str:
    return "RAS" if plans.get("image_reader_writer") == _REORIENTING_READER else LPS
