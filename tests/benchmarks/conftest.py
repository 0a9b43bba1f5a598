"""The benchmarks are scripts that import each other by name from their own folder."""

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
