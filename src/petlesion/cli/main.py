"""The entry point `petlesion`: registers the commands and turns errors into one sentence."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from petlesion._version import __version__
from petlesion.cli import (
    calibrate,
    challenge,
    cohort,
    convert,
    demo,
    ensemble,
    evaluate,
    experiment,
    experiment_tables,
    model,
    plan,
    postprocess,
    predict,
    segment,
    summarize,
    sweep,
    train,
)
from petlesion.cli.batch import EXPECTED, in_one_sentence

_STOPPED = 130  # what a shell reports of a program that Ctrl-C ended

# Heavy imports stand inside the commands' bodies, so that `--help` answers at once.
app = typer.Typer(
    name="petlesion",
    help="Find and measure tumour lesions in whole-body FDG PET/CT. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"petlesion {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    pass


app.add_typer(cohort.app)
app.add_typer(experiment.app)
app.add_typer(model.app)
model.app.command()(calibrate.calibrate)
experiment.app.command()(experiment_tables.compare)
experiment.app.command()(experiment_tables.figure)
experiment.app.command()(ensemble.ensemble)
app.command()(demo.demo)
app.command()(segment.segment)
app.command()(challenge.challenge)
app.command()(convert.convert)
app.command()(plan.plan)
app.command()(train.train)
app.command()(predict.predict)
app.command()(postprocess.postprocess)
app.command()(evaluate.evaluate)
app.command()(summarize.summarize)
app.command()(sweep.sweep)


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 some studies failed, 2 wrong usage, unusable input or an output that cannot be
    written, 130 stopped by the user.
    """
    try:
        app()
    except EXPECTED as error:
        print(f"error: {in_one_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _leave_at_once()
    except SystemExit as end:
        if end.code == _STOPPED:  # what typer makes of Ctrl-C in a command
            _leave_at_once()
        raise


def _leave_at_once() -> NoReturn:
    """End without waiting for a network that computes, as sys.exit would; no half file is left by now."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_STOPPED)
