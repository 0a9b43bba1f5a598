"""The walls of the house: who may import whom, and where torch may be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "petlesion"

# From the bottom up: a module imports only from its own layer and those above it in this list.
LAYERS = [
    "_version",
    "errors",
    "volume",
    "resample",
    "io",
    "dicom",
    "intake",
    "records",
    "lesions",
    "overlap",
    "cohort",
    "simulation",
    "experiments",
    "model",
    "inference",
    "calibration",
    "training",
    "evaluation",
    "report",
    "pipeline",
    "outputs",
    "cli",
]
TORCH_PACKAGES = {
    "torch",
    "nnunetv2",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic_network_architectures",
    "acvl_utils",
    "onnxscript",
}
TORCH_HOMES = ("training/", "inference/backends/torch.py")
LONGEST_FILE = 600

FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name not in ("__main__.py",))


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports absolutely"
            module = node.module or ""
            names.add(module)
            if module == "petlesion":
                names |= {f"petlesion.{alias.name}" for alias in node.names}
    return names


def layer_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_from_its_own_layer_and_those_above(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__init__":
        return
    allowed = set(LAYERS[: LAYERS.index(layer) + 1]) | {"__version__"}
    used = {name.split(".")[1] for name in imported_modules(path) if name.startswith("petlesion.")}
    assert used <= allowed, f"{path.name} imports from {sorted(used - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_is_imported_only_at_home(path: Path) -> None:
    relative = path.relative_to(SOURCE).as_posix()
    if relative.startswith(TORCH_HOMES[0]) or relative == TORCH_HOMES[1]:
        return
    packages = {name.split(".")[0] for name in imported_modules(path)}
    assert not packages & TORCH_PACKAGES


def test_no_file_grows_beyond_reading() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_import_petlesion_is_light() -> None:
    heavy = ["torch", "nnunetv2", "openvino", "SimpleITK", "nibabel", "pydicom", "matplotlib", "scipy"]
    code = f"import sys, petlesion; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
