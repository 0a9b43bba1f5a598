"""A page carries its own style and program, whose hashes its policy names."""

import base64
import hashlib
import re
from html import unescape

import pytest
from jinja2 import UndefinedError

from petlesion.report.page import render_page


def page() -> str:
    facts = {"version": "1", "created": "now", "summary": None, "sweep": ()}
    return render_page(
        "cohort.html.j2",
        styles=("page.css",),
        modules=("table.js", "cohort.js"),
        title="<b>",
        icon="data:,",
        rows=[],
        compared=False,
        failures=[],
        plots=[],
        facts=facts,
        width=1,
        height=1,
    )


@pytest.mark.parametrize(
    ("element", "directive"), [("style", "style-src"), ('script type="module"', "script-src")]
)
def test_the_policy_allows_what_stands_in_the_page_and_nothing_else(element: str, directive: str) -> None:
    text = page()
    body = re.search(f"<{element}>(.*?)</{element.split()[0]}>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert f"{directive} 'sha256-{digest}'" in policy.split("; ")
    assert "default-src 'none'" in policy and "connect-src" not in policy


def test_modules_are_joined_without_imports_and_values_are_escaped() -> None:
    text = page()
    program = re.search(r'<script type="module">(.*?)</script>', text, re.S)[1]
    assert "function makeSortable" in program
    assert not re.search(r"^(import|export) ", program, re.M)
    assert '<h1 title="&lt;b&gt;">&lt;b&gt;</h1>' in text


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_page("cohort.html.j2", styles=(), modules=(), title="x")
