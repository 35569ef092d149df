"""XML reports of tests are data; whatever else XML can do is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.strictxml import Element, InvalidXml, parse

BOMB = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]><a>&a9;</a>"
)
REFUSED = {
    "empty": b"",
    "text": b"hello",
    "half": b"<testsuite><testcase/>",
    "two roots": b"<a/><b/>",
    "trailing text": b"<a/>x",
    "entity bomb": BOMB.encode(),
    "quadratic bomb": f'<!DOCTYPE a [<!ENTITY a "{"x" * 9999}">]><a>{"&a;" * 999}</a>'.encode(),
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "parameter entity": b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]><a/>',
    "undeclared entity with a remote type": b'<!DOCTYPE a SYSTEM "x.dtd"><a>&x;</a>',
    "internal subset without entities": b"<!DOCTYPE a [<!ELEMENT a ANY>]><a/>",
    "deep": b"<a>" * 1_000 + b"</a>" * 1_000,
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><a/>',
    "not the encoding it says": b'<?xml version="1.0" encoding="utf-8"?><a b="\xff"/>',
    "duplicate attribute": b'<a b="1" b="2"/>',
    "many attributes": b"<a %s/>" % b" ".join(b'a%d="1"' % n for n in range(100)),
    "control character": b"<a>\x01</a>",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_plain_xml_is_refused(case: str) -> None:
    """Bombs, external parts, halves and nesting end in one kind of error."""
    with pytest.raises(InvalidXml):
        parse(REFUSED[case])


def test_a_document_over_the_limit_is_refused() -> None:
    """The limit counts bytes before anything is parsed."""
    with pytest.raises(InvalidXml, match="larger than 10 bytes"):
        parse(b"<aaaaaaaaaa/>", limit=10)


def test_elements_attributes_and_namespaces_are_read() -> None:
    """Order and attributes are kept; a prefix is dropped; a bare DOCTYPE is passed over."""
    root = parse(
        b'<!DOCTYPE c SYSTEM "http://x/y.dtd"><x:c xmlns:x="u" n="1"><b/><d e="&lt;"/></x:c>'
    )
    assert root.name == "c"
    assert root.attributes["n"] == "1"
    assert root.children == [Element("b", {}), Element("d", {"e": "<"})]


@given(st.binary(max_size=200) | st.text(alphabet="<>/ab&;![]\"'= ", max_size=80).map(str.encode))
def test_any_bytes_give_an_element_or_the_error(data: bytes) -> None:
    """No input ends in another exception."""
    with contextlib.suppress(InvalidXml):
        assert parse(data).name
