"""XML of foreign test tools, read without anything that XML can do beyond data.

No document type subset, no entities, no processing of external parts, and limits on size,
depth and number of elements: a report is small and flat (entity bombs, XXE, deep nesting).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

MAX_DEPTH = 64
MAX_ELEMENTS = 2_000_000
MAX_ATTRIBUTES = 64


class InvalidXml(ValueError):
    """The bytes are not one plain XML document."""


@dataclass
class Element:
    """An element without its text, which no reader needs; ``name`` has no namespace prefix."""

    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)


def parse(data: bytes, *, limit: int = 64 << 20) -> Element:
    """Parse one document of at most ``limit`` bytes.

    A DOCTYPE that only names a public or system id is passed over unread, as Cobertura
    reports of several tools carry one.
    Raises: InvalidXml.
    """
    if len(data) > limit:
        raise InvalidXml(f"larger than {limit} bytes")
    builder = _Builder()
    try:
        builder.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InvalidXml(f"not XML: {error}") from None
    except (UnicodeError, LookupError, ValueError) as error:
        raise InvalidXml(str(error)) from None
    if builder.root is None:
        raise InvalidXml("no element")
    return builder.root


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._refuse_entity
        parser.UnparsedEntityDeclHandler = self._refuse_entity
        parser.SkippedEntityHandler = self._refuse_entity
        parser.ExternalEntityRefHandler = self._refuse_entity
        self.parser = parser

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH:
            raise InvalidXml(f"nested deeper than {MAX_DEPTH}")
        if self._count > MAX_ELEMENTS or len(attributes) > MAX_ATTRIBUTES:
            raise InvalidXml("too many elements or attributes")
        element = Element(name.rpartition(":")[2], attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _doctype(self, name: str, system: object, public: object, internal: int) -> None:
        if internal:
            raise InvalidXml("a document type with declarations is not allowed")

    def _refuse_entity(self, *arguments: object) -> NoReturn:
        raise InvalidXml("entities are not allowed")
