"""How box/export.sh puts bundles into the package, with stand-ins for the commands that it calls."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "box" / "export.sh"

# Of petlesion's commands here, those that are given an -o make a bundle of one file there.
_COMMAND = """#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then mkdir -p "$2" && echo new > "$2/bundle.json"; fi
    shift
done
"""
_COPY_THAT_BREAKS_OFF = """#!/bin/sh
mkdir "$3"
exit 1
"""


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "petlesion" / "model" / "boxed"
    for name in ("ct-pet", "pet"):
        (folder / name).mkdir(parents=True)
        (folder / name / "bundle.json").write_text("old\n")
        (folder / name / "network.onnx").touch()
    return folder


def add_command(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def export(place: Path, *, path: str = os.environ["PATH"]) -> int:
    for name in ("petlesion", "python"):
        add_command(place / "bin", name, _COMMAND)
    command = ["sh", str(SCRIPT), str(place / "bin"), "data", str(place / "work")]
    return subprocess.run(command, cwd=place, env={"PATH": path}, check=False).returncode


def test_the_new_bundles_take_the_place_of_the_old_ones(tmp_path: Path, boxed: Path) -> None:
    assert export(tmp_path) == 0
    found = {path.relative_to(boxed).as_posix(): path.read_text() for path in boxed.rglob("*.*")}
    assert found == {"ct-pet/bundle.json": "new\n", "pet/bundle.json": "new\n"}


def test_a_copy_that_breaks_off_leaves_the_old_bundle(tmp_path: Path, boxed: Path) -> None:
    add_command(tmp_path / "broken", "cp", _COPY_THAT_BREAKS_OFF)
    assert export(tmp_path, path=f"{tmp_path / 'broken'}:{os.environ['PATH']}") != 0
    assert {path.name for path in (boxed / "ct-pet").iterdir()} == {"bundle.json", "network.onnx"}
    assert export(tmp_path) == 0
    assert {path.name for path in boxed.iterdir()} == {"ct-pet", "pet"}
