"""Self-contained pages: one file, no script, nothing loaded, safe to open wherever it came from.

``element`` escapes every text and knows no element or attribute that could run or load
something; the page's Content-Security-Policy forbids both once more.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from secure_pipeline.report.foreign import visible
from secure_pipeline.shape import rfc3339


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS = _words(
    "a article aside b bdi br caption code col colgroup dd details div dl dt em figcaption figure"
    " footer h1 h2 h3 h4 header hr li main nav ol p pre section small span strong summary table"
    " tbody td tfoot th thead time tr ul svg g path rect circle line polyline text tspan title desc"
)
_EMPTY = _words("br col hr")
_ATTRIBUTES = _words(
    "aria-hidden aria-label aria-labelledby class colspan datetime dir href id lang open role"
    " rowspan scope span text-anchor title transform"
)
_GEOMETRY = _words("cx cy d dx dy height points r rx stroke-width viewBox width x x1 x2 y y1 y2")
_NUMBERS = re.compile(r"[0-9A-Za-z ,.+-]*\Z")


class Markup(str):
    """Finished HTML. Made by ``element`` and ``join`` only."""

    __slots__ = ()


Child = str | Markup | None


def element(tag: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """Return an element; children that are no Markup are foreign text and are escaped.

    An attribute is written ``aria_label`` or ``class_``; True writes it without a value, None
    and False leave it out. Raises: ValueError for an element or attribute that is not on the
    lists, or a link that leaves the page.
    """
    if tag not in _ELEMENTS:
        raise ValueError(f"element {tag!r} is not allowed on a page")
    start = f"<{tag}{''.join(_attribute(*pair) for pair in attributes.items())}>"
    if tag in _EMPTY:
        return Markup(start)
    return Markup(f"{start}{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Put children one after another; text among them is escaped."""
    return Markup("".join(escape(child) for child in children if child is not None))


def escape(text: str | Markup) -> Markup:
    """Return text as HTML that shows exactly it: bounded, visible, without markup."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text)))


def _attribute(name: str, value: str | bool | None) -> str:
    plain = name.rstrip("_").replace("_", "-")
    if plain not in _ATTRIBUTES | _GEOMETRY:
        raise ValueError(f"attribute {plain!r} is not allowed on a page")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {plain}"
    if plain == "href" and not value.startswith("#"):
        raise ValueError("a page links to itself only")
    if plain in _GEOMETRY:  # may be long: the points of a chart
        if not _NUMBERS.match(value):
            raise ValueError(f"attribute {plain!r} is no geometry")
        return f' {plain}="{value}"'
    return f' {plain}="{html.escape(visible(value))}"'


def page(title: str, *body: Markup, styles: str = "") -> bytes:
    """Return a whole document; ``styles`` are more rules of CSS, ours and never foreign.

    Raises: ValueError for styles that could end their element or load something.
    """
    css = f"{_STYLES}{styles}"
    if any(word in css for word in ("<", "url(", "@import", "\\")):
        raise ValueError("styles must hold no markup and load nothing")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{css}</style>"
    )
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{join(body)}</body></html>'
    return text.encode() + b"\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Child]], *, class_: str = "") -> Markup:
    """A table; it scrolls sideways by itself where the window is too narrow."""
    head = element("tr", *(element("th", name, scope="col") for name in header))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    inner = element("table", element("thead", head), element("tbody", *body))
    return element("div", inner, class_=f"table {class_}".strip())


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Labels of ours with values."""
    return element(
        "dl",
        *(join((element("dt", label), element("dd", isolated(value)))) for label, value in pairs),
    )


def isolated(value: Child) -> Markup:
    """Foreign text whose direction of writing does not reach the text around it."""
    return value if isinstance(value, Markup) else element("bdi", value)


def code(text: str) -> Markup:
    """A digest or another exact text, in type of one width."""
    return element("code", text)


def moment(time: datetime | None) -> Markup:
    """A time, UTC, whole seconds."""
    if time is None:
        return element("span", "no time", class_="dim")
    text = rfc3339(time)
    return element("time", text.replace("T", " ").replace("Z", " UTC"), datetime=text)


def badge(word: str, kind: str) -> Markup:
    """A word with a colour: kind is good, bad, unsure or none."""
    return element("span", word, class_=f"badge {kind}")


def disclosure(summary: Markup, *children: Child, open_: bool = False, id_: str = "") -> Markup:
    """A part that opens on a click, without script."""
    return element("details", element("summary", summary), *children, open=open_, id=id_ or None)


_STYLES = """
:root{--back:#fff;--front:#1f2328;--dim:#59636e;--line:#d1d9e0;--soft:#f6f8fa;--link:#0969da;
--good:#1a7f37;--good-soft:#e9f7ed;--bad:#c5221f;--bad-soft:#fdeeee;
--unsure:#8a5a00;--unsure-soft:#fff6df;--none:#59636e;--none-soft:#f6f8fa}
@media (prefers-color-scheme:dark){:root{--back:#0d1117;--front:#e6edf3;--dim:#9198a1;
--line:#30363d;--soft:#161b22;--link:#6cb2ff;--good:#4ac26b;--good-soft:#0f2418;--bad:#ff7b72;
--bad-soft:#2d1416;--unsure:#e0b341;--unsure-soft:#2a2110;--none:#9198a1;--none-soft:#161b22}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--front);
font:15px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
main,header.top,footer{max-width:1240px;margin:0 auto;padding:0 24px}
header.top{padding-top:20px}
h1,h2,h3{line-height:1.25;margin:0}
h2{font-size:19px;margin:36px 0 12px}
p{margin:6px 0}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
code{font:13px/1.45 ui-monospace,"DejaVu Sans Mono",monospace}
bdi{unicode-bidi:isolate}
.dim{color:var(--dim)}
.badge{display:inline-block;padding:0 8px;border-radius:10px;border:1px solid currentColor;
font-size:12px;font-weight:600;line-height:19px;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.unsure{color:var(--unsure)}.none{color:var(--none)}
.table{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:6px 12px;border-top:1px solid var(--line)}
thead th{border-top:0;background:var(--soft);color:var(--dim);font-weight:600;white-space:nowrap}
dl{display:grid;grid-template-columns:minmax(110px,180px) 1fr;gap:3px 16px;margin:8px 0}
dt{color:var(--dim)}
dd{margin:0}
details{border:1px solid var(--line);border-radius:8px;margin:8px 0;background:var(--back)}
details[open]{padding-bottom:10px}
details>:not(summary){margin-left:16px;margin-right:16px}
summary{cursor:pointer;padding:8px 14px}
footer{color:var(--dim);font-size:13px;padding-top:28px;padding-bottom:36px}
@media (max-width:640px){main,header.top,footer{padding-left:14px;padding-right:14px}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:6px}}
@media print{body{font-size:11px}details{break-inside:avoid}h2{break-after:avoid}
tr{break-inside:avoid}.badge{border-width:1px}}
"""
