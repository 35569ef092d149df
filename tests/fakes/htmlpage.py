"""Reads a page strictly: every element is closed, nothing runs, nothing is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = {"meta", "br", "hr", "col"}
LOADING = re.compile(
    "action|background|cite|data|formaction|longdesc|manifest|ping|poster|src|srcdoc|srcset"
    "|xlink:href|style|on.*"
)
"""Attributes that load or run something."""
NEVER = re.compile(
    "script|iframe|object|embed|img|image|link|base|form|input|button|audio|video|source|track"
    "|frame|frameset|applet|template|foreignobject|use|animate|set"
)
"""Elements that do."""


@dataclass
class Page(HTMLParser):
    """A page as a browser's parser takes it apart."""

    tags: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in EMPTY:
            self.open.append(tag)
        if NEVER.fullmatch(tag):
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            if LOADING.fullmatch(name):
                self.faults.append(f"{name}={value!r} of <{tag}>")
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> where {self.open} is open")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """Everything that a reader sees."""
        return "".join(self.texts)


def read_page(data: bytes) -> Page:
    """Parse a page and assert that it is whole and harmless."""
    page = Page()
    page.feed(data.decode("utf-8"))
    page.close()
    assert page.faults == []
    assert page.open == []
    assert set(page.links) <= {f"#{name}" for name in page.ids}
    assert len(page.ids) == len(set(page.ids))
    return page
