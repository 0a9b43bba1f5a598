"""petlesion experiment: the paper's training configurations, and what runs of them gave."""

from __future__ import annotations

from typing import Any

import typer

from petlesion.cli.console import print_json, print_table

app = typer.Typer(
    name="experiment",
    help="The paper's training configurations (Tables 1 and 2), and what runs of them gave.",
    no_args_is_help=True,
)

# What nnU-Net's plan decides where an experiment says nothing.
_PLANNED = ("patch_size", "batch_dice")

_AS_JSON = typer.Option(False, "--json", help="Print JSON in place of a table.")
_CHANGES = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")


@app.command("list")
def list_experiments(as_json: bool = _AS_JSON) -> None:
    """List the experiments."""
    from petlesion.experiments import EXPERIMENTS, Experiment

    if as_json:
        print_json([experiment.as_dict() for experiment in EXPERIMENTS.values()])
        return

    def row(experiment: Experiment) -> list[str]:
        return [
            experiment.name,
            str(experiment.epochs),
            _patch(experiment.patch_size),
            str(experiment.max_features),
            f"{experiment.learning_rate:g}",
            f"{experiment.oversampling:.0%} {experiment.oversampling_kind}",
            "yes" if experiment.mirroring else "no",
            experiment.loss,
            experiment.input,
        ]

    columns = ("experiment", "epochs", "patch", "most features", "learning rate", "oversampling", "mirroring")
    print_table((*columns, "loss", "input"), [row(experiment) for experiment in EXPERIMENTS.values()])


@app.command()
def show(
    name: str = typer.Argument(..., help="Name of the experiment."),
    changes: list[str] = _CHANGES,
    as_json: bool = _AS_JSON,
) -> None:
    """Show every setting of an experiment and where its value comes from, and what Table 1 fixes for all."""
    from petlesion.experiments import TABLE_1, find_experiment, sources_of, with_settings

    experiment = with_settings(find_experiment(name), changes)
    sources = sources_of(experiment)
    if as_json:
        print_json({"experiment": experiment.as_dict(), "sources": sources, "table_1": dict(TABLE_1)})
        return
    rows = [[setting, _value(setting, getattr(experiment, setting)), sources[setting]] for setting in sources]
    rows += [[fact, value, "Table 1"] for fact, value in TABLE_1.items()]
    print_table((name, "value", "source"), rows)


def _value(setting: str, value: Any) -> str:
    if value is None:
        return "planned" if setting in _PLANNED else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _patch(value) if setting == "patch_size" else str(value)


def _patch(patch_size: tuple[int, int, int] | None) -> str:
    return "×".join(map(str, patch_size)) if patch_size else "planned"
