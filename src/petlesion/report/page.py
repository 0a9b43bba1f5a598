"""One self-contained page: style, program and data stand inside it, and it may load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def render_page(template: str, *, styles: Sequence[str], modules: Sequence[str], **context: Any) -> str:
    """Fill a template of this package; all values are escaped.

    `styles` and `modules` name files in `static/`, in the order in which they build on one another. The
    page's policy allows this style and this program and forbids every request (Content Security Policy
    Level 3, W3C).
    """
    style = "\n".join(_static(name) for name in styles)
    program = "\n".join(_as_part(_static(name)) for name in modules)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_source(program)}",
            f"style-src {_hash_source(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = _environment().get_template(template)
    return page.render(style=Markup(style), program=Markup(program), policy=policy, **context)


def _as_part(module: str) -> str:
    """A module's text without its imports and exports: in one page all modules share one scope."""
    return _EXPORT.sub("", _IMPORT.sub("", module))


def _hash_source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


@cache
def _static(name: str) -> str:
    return files("petlesion.report").joinpath("static", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("petlesion.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["tick"] = _tick
    # tojson escapes <, >, & and ', so that no text ends the script element; sorted keys keep pages equal.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return environment


def _number(value: float | None, digits: int = 1) -> str:
    """A number for a reader, a dash where there is none."""
    return "–" if value is None or value != value else f"{value:,.{digits}f}"


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")
