"""petlesion model: models that can be handed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.console import print_json, print_table, say
from petlesion.cli.prediction_options import folds_of
from petlesion.errors import FormatError, MissingExtraError, UsageError
from petlesion.io.jsonfile import load_json

if TYPE_CHECKING:
    from petlesion.model.bundle import Bundle
    from petlesion.model.plan import Plan

# What an export changed of the trained network, if it did.
_CHANGED = (
    ("logit_shift", "logits of lesions shifted by"),
    ("halved", "weights rounded to float16"),
)

app = typer.Typer(name="model", help="Export, describe and verify models.", no_args_is_help=True)


@app.command()
def export(
    folders: list[Path] = typer.Argument(
        ..., metavar="MODEL...", help="Runs or nnU-Net v2 model folders; several make an ensemble."
    ),
    output: Path = typer.Option(..., "-o", "--output", help="Folder of the bundle."),
    folds: str | None = typer.Option(
        None, "--folds", help="Folds to take, such as 0,1.  [default: all that are trained]"
    ),
    orientation: str | None = typer.Option(
        None, "--orientation", help="How the training images lay, such as RAS.  [default: LPS]"
    ),
    mirror: bool = typer.Option(
        True, "--mirror/--no-mirror", help="Whether prediction mirrors, as trained, unless told otherwise."
    ),
    logit_shift: float = typer.Option(
        0.0, "--logit-shift", help="Added to the logits of lesions; below 0, less is marked."
    ),
    halved: bool = typer.Option(
        False, "--half", help="Round weights to float16 even where that changes labels: half the size."
    ),
    name: str | None = typer.Option(None, "--name", help="The model's name.  [default: the folder's]"),
    training_data: str | None = typer.Option(None, "--training-data", help="What it was trained on."),
    licence: str = typer.Option("not stated", "--licence", help="Under which licence it may be used."),
    scores: Path | None = typer.Option(
        None, "--scores", help="How it scored: a file written by petlesion summarize --json."
    ),
) -> None:
    """Write a bundle of ONNX networks that runs without torch, and check it against torch."""
    try:
        from petlesion.training.export import ExportRequest, export_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting a model", "train") from error

    request = ExportRequest(
        folders=folders,
        folds=folds_of(folds),
        orientation=orientation,
        mirrored=mirror,
        name=name,
        training_data=training_data,
        licence=licence,
        scores=_read_scores(scores) if scores else {},
        logit_shift=logit_shift,
        halved=halved,
    )
    bundle = export_model(request, output)
    say(f"{output}: {sum(1 for _ in bundle.network_paths())} networks, {bundle.size_bytes / 1e6:.1f} MB")


@app.command()
def join(
    bundles: list[Path] = typer.Argument(..., metavar="BUNDLE...", help="Folders of two or more bundles."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder of the bundle that has them all."),
    name: str | None = typer.Option(None, "--name", help="The model's name.  [default: those of all]"),
    licence: str | None = typer.Option(
        None, "--licence", help="Under which licence it may be used.  [default: those of all]"
    ),
) -> None:
    """Make one bundle of several, of other input or architecture: their probabilities are averaged."""
    from petlesion.model.bundle import Bundle
    from petlesion.model.join import join_bundles

    if len(bundles) < 2:
        raise UsageError("one bundle alone cannot be joined; give two or more")
    joint = join_bundles([Bundle.open(path) for path in bundles], output, name=name, licence=licence)
    say(f"{output}: {sum(1 for _ in joint.network_paths())} networks, {joint.size_bytes / 1e6:.1f} MB")


@app.command()
def info(
    bundle: Path | None = typer.Argument(
        None, help="Folder of a bundle.  [default: the models in the box]", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Say what a model was trained on, how it scored and under which licence it may be used.

    Without a bundle it prints the model card of those in the box.
    """
    from petlesion.model.boxed import boxed_bundles, model_card
    from petlesion.model.bundle import Bundle

    if bundle is None and as_json:
        print_json({kind: _facts(Bundle.open(path)) for kind, path in boxed_bundles().items()})
    elif bundle is None:
        print(model_card())
    elif as_json:
        print_json(_facts(Bundle.open(bundle)))
    else:
        print_table(("fact", "value"), _fact_rows(Bundle.open(bundle)))


@app.command()
def verify(
    bundle: Path = typer.Argument(..., help="Folder of a bundle."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Check a bundle's files, and its networks' answers to a probe against torch's."""
    from petlesion.inference.verify import verify_bundle
    from petlesion.model.bundle import Bundle

    checks = verify_bundle(Bundle.open(bundle))
    if as_json:
        print_json([asdict(check) for check in checks])
        return
    rows = [
        (
            check.network,
            f"{check.float32_difference:.1e}",
            "–" if check.bfloat16_difference is None else f"{check.bfloat16_difference:.1e}",
            "–" if check.bfloat16_dice is None else f"{check.bfloat16_dice:.4f}",
        )
        for check in checks
    ]
    print_table(("network", "float32 off by", "bfloat16 off by", "bfloat16 Dice"), rows)


def _facts(bundle: Bundle) -> dict[str, Any]:
    return {
        **asdict(bundle.card),
        "members": [asdict(member) for member in bundle.members],
        "sha256": dict(bundle.sha256),
        "size_bytes": bundle.size_bytes,
    }


def _fact_rows(bundle: Bundle) -> list[tuple[str, str]]:
    card = bundle.card
    rows = [("name", card.name), ("trained on", card.training_data), ("licence", card.licence)]
    if card.min_volume_ml is not None:
        rows.append(("smallest lesion", f"{card.min_volume_ml:g} mL"))
    rows += _score_rows("score", card.scores) or [("score", "not stated")]
    for member in bundle.members:
        plan = member.plan
        rows += [
            ("channels", ", ".join(plan.channels)),
            ("folds", ", ".join(member.networks)),
            ("weight", f"{member.weight:g}"),
            ("patch (z, y, x)", " × ".join(str(n) for n in plan.patch_size)),
            ("spacing (z, y, x)", " × ".join(f"{length:g}" for length in plan.spacing_mm) + " mm"),
            ("orientation", plan.orientation),
            ("mirrored axes", _mirrored_axes(plan)),
        ]
        rows += [(words, str(value)) for key, words in _CHANGED if (value := member.trained_as.get(key))]
    return [*rows, ("size", f"{bundle.size_bytes / 1e6:.1f} MB")]


def _score_rows(title: str, scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One row per score; those of a set of studies are named after it."""
    rows = []
    for key, value in scores.items():
        if isinstance(value, Mapping):
            rows += _score_rows(f"{title}, {key}", value)
        else:
            rows.append((f"{title}: {key}", _in_words(value)))
    return rows


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_in_words(part) for part in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _mirrored_axes(plan: Plan) -> str:
    axes = ", ".join(str(axis) for axis in plan.mirror_axes) or "none"
    return axes if plan.mirrored or not plan.mirror_axes else f"{axes} in training; none in prediction"


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        scores = load_json(path)
    except (OSError, ValueError):
        scores = None
    if not isinstance(scores, dict):
        raise FormatError(f"{path} is no JSON object; write it with petlesion summarize --json")
    return scores
