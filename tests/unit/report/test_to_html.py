"""Pages that load nothing, run nothing and show foreign text as it is."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.htmlpage import read_page
from secure_pipeline.report import to_html
from secure_pipeline.report.foreign import MAX_TEXT, visible
from secure_pipeline.report.to_html import Markup, element, page

TEXT = st.text(max_size=300) | st.text("<>&\"'=/ \u202e\u2066\x00\x1b\nsrciptonload-!", max_size=60)


@given(TEXT)
def test_foreign_text_is_shown_and_is_nothing_else(text: str) -> None:
    """Whatever a text holds, a parser finds one element with exactly its visible form."""
    read = read_page(page("t", element("p", text)))
    assert read.tags[-3:] == ["style", "body", "p"]
    assert read.text.replace("\n", "") == "t" + visible(text)


@given(TEXT)
def test_foreign_text_stays_inside_its_attribute(text: str) -> None:
    """A value cannot end its attribute, add another or open an element."""
    read = read_page(page("t", element("span", "x", title=text, class_=text)))
    assert read.tags[-1] == "span"
    assert read.text.replace("\n", "") == "tx"


@given(TEXT)
def test_a_title_cannot_end_the_head(text: str) -> None:
    """The page's title is foreign text like any other."""
    read = read_page(page(text, element("p", "x")))
    assert read.tags.count("body") == 1
    assert read.text.replace("\n", "") == visible(text) + "x"


@given(st.text())
def test_visible_text_hides_nothing(text: str) -> None:
    """No control, no mark that turns the direction, no line break; never over the limit."""
    shown = visible(text, 50)
    assert shown.isprintable()
    assert len(shown) <= 50 * len("\\u{10ffff}") + 40
    if text.isprintable() and len(text) <= 50 and text.isascii():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user\u202egnp.exe", "user\\u{202e}gnp.exe"),
        ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
        ("a\r\nb", "a\\u{d}\\u{a}b"),
        ("zero\u200bwidth", "zero\\u{200b}width"),
        ("e\u0301", "e\u0301"),
        ("e" + "\u0301" * 5, "e\u0301\u0301" + "\\u{301}" * 3),
        ("Ελληνικά 日本語", "Ελληνικά 日本語"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, shown: str) -> None:
    """Letters of any script stay; everything that could deceive is spelled."""
    assert visible(text) == shown


def test_a_megabyte_is_cut_and_counted() -> None:
    """A long text shows its beginning and its length."""
    shown = visible("A" * (1 << 20))
    assert shown == "A" * MAX_TEXT + "… (1048576 characters)"


@pytest.mark.parametrize(
    "tag", ["script", "img", "iframe", "link", "style", "form", "SCRIPT", "a b"]
)
def test_elements_that_run_or_load_are_unknown(tag: str) -> None:
    """A programmer cannot put them on a page by mistake."""
    with pytest.raises(ValueError, match="not allowed"):
        element(tag, "x")


@pytest.mark.parametrize(
    "attributes",
    [
        {"onclick": "x"},
        {"style": "x"},
        {"src": "x"},
        {"href": "https://example.com"},
        {"href": "javascript:alert(1)"},
        {"d": 'M0 0"/>'},
        {"points": "url(#x)"},
    ],
)
def test_attributes_that_run_or_load_are_refused(attributes: dict[str, Any]) -> None:
    """Links lead to the page itself, geometry holds numbers, nothing else has a place."""
    with pytest.raises(ValueError, match=r"not allowed|itself only|geometry"):
        element("a", "x", **attributes)


@pytest.mark.parametrize(
    "styles", ["</style><script>", "a{background:url(//x)}", "@import 'x';", "a{\\75rl(x)}"]
)
def test_styles_cannot_load(styles: str) -> None:
    """More rules of CSS neither end their element nor fetch anything."""
    with pytest.raises(ValueError, match="styles"):
        page("t", styles=styles)


def test_the_policy_of_the_page_allows_its_one_style_and_nothing_else() -> None:
    """The Content-Security-Policy names the digest of exactly the style that is there."""
    text = page("t", element("p", "x"), styles=".x{color:red}").decode()
    (style,) = re.findall(r"<style>(.*)</style>", text, re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert text.index("Content-Security-Policy") < text.index("<title>")


def test_parts_of_a_page_are_whole() -> None:
    """Tables, facts, disclosures and times make well-formed HTML with what they were given."""
    body = [
        to_html.table(("a", "b"), [("1", to_html.code("<2>")), ("3", None)]),
        to_html.facts([("label", "value & more")]),
        to_html.disclosure(Markup("sum"), to_html.badge("deny", "bad"), open_=True, id_="here"),
        to_html.moment(datetime(2026, 3, 1, 12, tzinfo=UTC)),
        to_html.moment(None),
        element("svg", element("path", d="M0 0 L10,10"), viewBox="0 0 10 10"),
    ]
    read = read_page(page("t", *body))
    assert "<2>" in read.text
    assert "value & more" in read.text
    assert "2026-03-01 12:00:00 UTC" in read.text
    assert read.ids == ["here"]
