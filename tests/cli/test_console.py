import sys
from io import StringIO

import pytest

from petlesion.cli.console import step


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_step_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, shown in ((Terminal(), True), (StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with step("reading"):
            pass
        assert ("reading" in stream.getvalue()) == shown
        assert ("1/1" in stream.getvalue()) == shown
