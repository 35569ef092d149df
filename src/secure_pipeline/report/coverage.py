"""Line coverage from the reports of other tools: Cobertura (coverage.py too) and LCOV."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from secure_pipeline import strictxml
from secure_pipeline.config import CoverageFormat
from secure_pipeline.strictxml import Element, InvalidXml

MAX_BYTES = 64 << 20
_MAX_DIGITS = 12
_RATE_SLACK = 0.01


class InvalidCoverage(ValueError):
    """The report is not whole, not consistent, or measured nothing."""


@dataclass(frozen=True)
class Coverage:
    """Lines that could run and lines that did."""

    covered: int
    lines: int

    def __post_init__(self) -> None:
        if self.lines <= 0:
            raise InvalidCoverage("no line was measured")
        if not 0 <= self.covered <= self.lines:
            raise InvalidCoverage(f"{self.covered} of {self.lines} lines cannot be")

    @property
    def percent(self) -> float:
        """Covered lines in per cent, cut (never rounded up) to two decimals."""
        return self.covered * 10_000 // self.lines / 100


def read_coverage(data: bytes, form: CoverageFormat) -> Coverage:
    """Read a report of the given format; ``auto`` takes XML for Cobertura.

    Raises: InvalidCoverage.
    """
    if len(data) > MAX_BYTES:
        raise InvalidCoverage(f"larger than {MAX_BYTES} bytes")
    xml = data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    if form is CoverageFormat.COBERTURA or (form is CoverageFormat.AUTO and xml):
        return _cobertura(data)
    return _lcov(data)


def _cobertura(data: bytes) -> Coverage:
    try:
        root = strictxml.parse(data, limit=MAX_BYTES)
    except InvalidXml as error:
        raise InvalidCoverage(str(error)) from None
    if root.name != "coverage":
        raise InvalidCoverage(f"the root is <{root.name[:40]}>, not <coverage>")
    hits = list(_class_lines(root, ""))
    counted = [_union(hits), Coverage(sum(h > 0 for _, h in hits), len(hits))]
    valid, covered = (_attribute(root, key) for key in ("lines-valid", "lines-covered"))
    if valid is None or covered is None:
        return _checked_rate(root, counted[0])
    stated = Coverage(covered, valid)
    if stated not in counted:
        raise InvalidCoverage(
            f"it says {covered} of {valid} lines and lists {counted[0].covered} of"
            f" {counted[0].lines}"
        )
    return _checked_rate(root, stated)


def _class_lines(element: Element, file: str) -> Iterator[tuple[tuple[str, int], int]]:
    """Yield ((file, line), hits) of the lines directly in each class, not in its methods."""
    for child in element.children:
        if child.name == "class":
            file = child.attributes.get("filename", "")
            for group in child.children:
                if group.name == "lines":
                    yield from ((_place(line, file), _hits(line)) for line in group.children)
        elif child.name in ("packages", "package", "classes"):
            yield from _class_lines(child, file)


def _place(line: Element, file: str) -> tuple[str, int]:
    return file, _number(line.attributes.get("number", ""))


def _hits(line: Element) -> int:
    return _number(line.attributes.get("hits", ""))


def _attribute(root: Element, key: str) -> int | None:
    text = root.attributes.get(key)
    return None if text is None else _number(text)


def _checked_rate(root: Element, coverage: Coverage) -> Coverage:
    text = root.attributes.get("line-rate")
    if text is not None:
        try:
            rate = float(text)
        except ValueError:
            raise InvalidCoverage(f"line-rate {text[:40]!r} is not a number") from None
        if not math.isfinite(rate) or abs(rate - coverage.covered / coverage.lines) > _RATE_SLACK:
            raise InvalidCoverage(f"line-rate {text[:40]} does not agree with the lines")
    return coverage


def _lcov(data: bytes) -> Coverage:
    """Read an LCOV tracefile (geninfo(1)): SF, DA:line,hits[,checksum], LF, LH, end_of_record."""
    hits: list[tuple[tuple[str, int], int]] = []
    record: list[tuple[tuple[str, int], int]] | None = None
    file = ""
    totals: dict[str, int] = {}
    for raw in data.decode("utf-8", "backslashreplace").splitlines():
        key, _, value = raw.strip().partition(":")
        if key == "SF":
            if record is not None:
                raise InvalidCoverage(f"the record of {file[:200]} has no end")
            record, file, totals = [], value, {}
        elif key in ("DA", "LF", "LH", "end_of_record"):
            if record is None:
                raise InvalidCoverage(f"{key} outside a record")
            if key == "DA":
                line, _, rest = value.partition(",")
                record.append(((file, _number(line)), _number(rest.partition(",")[0])))
            elif key == "end_of_record":
                _check_totals(file, record, totals)
                hits += record
                record = None
            else:
                totals[key] = _number(value)
    if record is not None:
        raise InvalidCoverage(f"the record of {file[:200]} has no end")
    return _union(hits)


def _check_totals(
    file: str, record: list[tuple[tuple[str, int], int]], totals: dict[str, int]
) -> None:
    lines = {place: 0 for place, _ in record}
    for place, count in record:
        lines[place] = max(lines[place], count)
    found = {"LF": len(lines), "LH": sum(count > 0 for count in lines.values())}
    for key, value in totals.items():
        if value != found[key]:
            raise InvalidCoverage(f"{key} of {file[:200]} is {value}, its lines say {found[key]}")


def _union(hits: list[tuple[tuple[str, int], int]]) -> Coverage:
    """Count each line of each file once; covered when any entry says so."""
    lines: dict[tuple[str, int], bool] = {}
    for place, count in hits:
        lines[place] = lines.get(place, False) or count > 0
    return Coverage(sum(lines.values()), len(lines))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise InvalidCoverage(f"{text[:40]!r} is not a count")
    return int(text)
