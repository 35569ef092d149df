"""VEX documents (OpenVEX 0.2, CycloneDX): statements that a vulnerability does not apply.

Only documents that the trusted policy names set a finding aside. Those of the repository
under test are read and counted aloud, and change nothing (DESIGN rule 11): otherwise the
author of a change could excuse the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from secure_pipeline import shape
from secure_pipeline.errors import ConfigError, VerificationFailed
from secure_pipeline.files import read_bounded
from secure_pipeline.findings import Finding, Ignored, Kind

MAX_VEX_BYTES = 8 << 20
MAX_STATEMENTS = 50_000
_HIDING = frozenset(
    {"not_affected", "fixed", "false_positive", "resolved", "resolved_with_pedigree"}
)
_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Purl:
    """A package URL, decoded."""

    type: str
    path: str
    """Namespace and name."""
    version: str | None
    qualifiers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Purl | None:
        """Return the package URL, or None if ``text`` is none."""
        if not text.startswith("pkg:"):
            return None
        rest, _, query = text[4:].partition("#")[0].partition("?")
        path, at, version = rest.rpartition("@") if "@" in rest else (rest, "", "")
        kind, slash, name = path.strip("/").partition("/")
        if not slash or not name:
            return None
        qualifiers = tuple(sorted(parse_qsl(query)))
        return cls(kind.lower(), unquote(name), unquote(version) if at else None, qualifiers)

    def covers(self, other: Purl) -> bool:
        """Tell whether every part that this one names is the other's too."""
        return (
            (self.type, self.path) == (other.type, other.path)
            and self.version in (None, other.version)
            and set(self.qualifiers) <= set(other.qualifiers)
        )


@dataclass(frozen=True)
class Product:
    """What a statement is about: an image or a package, perhaps only parts of it."""

    purl: Purl | None
    digests: frozenset[str]
    """SHA-256 in hex, for an image."""
    parts: tuple[Purl, ...]


@dataclass(frozen=True)
class Statement:
    """One statement."""

    document: str
    """Name of the file it stands in."""
    vulnerabilities: frozenset[str]
    status: str
    reason: str
    time: datetime
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Subject:
    """The image that is scanned."""

    name: str
    digest: str
    """``sha256:…``."""


def load(path: Path) -> tuple[Statement, ...]:
    """Read a VEX document.

    Raises: ConfigError if it is neither OpenVEX nor CycloneDX, or a statement lacks a part.
    """
    try:
        value = shape.parse_object(
            read_bounded(path, MAX_VEX_BYTES), str(path), limit=MAX_VEX_BYTES
        )
        if str(value.get("@context", "")).startswith("https://openvex.dev/ns"):
            return tuple(_openvex(value, path))
        if value.get("bomFormat") == "CycloneDX":
            return tuple(_cyclonedx(value, path))
    except VerificationFailed as error:
        raise ConfigError(error.message, where=error.where) from None
    raise ConfigError("neither OpenVEX nor CycloneDX", where=str(path))


def apply_vex(
    findings: Iterable[Finding], statements: Iterable[Statement], image: Subject
) -> tuple[tuple[Finding, ...], Mapping[str, str]]:
    """Set aside what the latest statement about it says does not apply.

    Returns all findings, and for each one set aside its fingerprint with the document's name.
    """
    ordered = sorted(statements, key=lambda statement: statement.time)
    result, documents = [], {}
    for finding in findings:
        about = [
            item for item in ordered if finding.ignored is None and _about(item, finding, image)
        ]
        if about and about[-1].status in _HIDING:
            last = about[-1]
            finding = replace(finding, ignored=Ignored.VEX, reason=f"{last.status}: {last.reason}")
            documents[finding.fingerprint] = last.document
        result.append(finding)
    return tuple(result), documents


def _about(statement: Statement, finding: Finding, image: Subject) -> bool:
    purl = Purl.parse(finding.purl) if finding.purl else None
    return (
        finding.kind is Kind.VULNERABILITY
        and purl is not None
        and finding.rule in statement.vulnerabilities
        and any(_matches(product, purl, image) for product in statement.products)
    )


def _matches(product: Product, package: Purl, image: Subject) -> bool:
    if _is_image(product, image):
        return not product.parts or any(part.covers(package) for part in product.parts)
    return product.purl is not None and product.purl.covers(package)


def _is_image(product: Product, image: Subject) -> bool:
    if image.digest.removeprefix("sha256:") in product.digests:
        return True
    purl = product.purl
    return (
        purl is not None
        and purl.type == "oci"
        and purl.path == image.name.rpartition("/")[2]
        and purl.version in (None, image.digest)
    )


def _openvex(value: dict[str, Any], path: Path) -> Iterable[Statement]:
    default = _time(value, _START, path)
    for number, item in enumerate(_objects(value, "statements", path)):
        where = f"{path}: statements[{number}]"
        status = shape.member(item, "status", str, where)
        reason = item.get("justification") or item.get("impact_statement")
        if status == "not_affected" and not reason:
            raise ConfigError("not_affected without justification or impact_statement", where=where)
        yield Statement(
            document=path.name,
            vulnerabilities=_names(item.get("vulnerability"), where),
            status=status,
            reason=" ".join(_words(item, "justification", "impact_statement", "status_notes")),
            time=_time(item, default, path),
            products=tuple(_product(entry) for entry in _objects(item, "products", path)),
        )


def _names(value: Any, where: str) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset({value})
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ConfigError("no name of a vulnerability", where=where)
    return frozenset({value["name"], *(str(alias) for alias in value.get("aliases") or ())})


def _product(value: dict[str, Any]) -> Product:
    identifiers = value.get("identifiers")
    identifiers = identifiers if isinstance(identifiers, dict) else {}
    hashes = value.get("hashes")
    digest = hashes.get("sha-256") if isinstance(hashes, dict) else None
    purl = Purl.parse(str(identifiers.get("purl") or value.get("@id") or ""))
    parts = value.get("subcomponents") or ()
    found = [_product(part).purl for part in parts if isinstance(part, dict)]
    if len([part for part in found if part]) != len(parts):
        # A part that cannot be read must not widen the statement to the whole image.
        return Product(None, frozenset(), ())
    return Product(
        purl, frozenset({digest} if digest else ()), tuple(part for part in found if part)
    )


def _cyclonedx(value: dict[str, Any], path: Path) -> Iterable[Statement]:
    refs = {
        str(item.get("bom-ref")): str(item.get("purl"))
        for item in _objects(value, "components", path)
        if item.get("purl")
    }
    for number, item in enumerate(_objects(value, "vulnerabilities", path)):
        where = f"{path}: vulnerabilities[{number}]"
        analysis = shape.optional(item, "analysis", dict, where) or {}
        status = shape.optional(analysis, "state", str, where) or "in_triage"
        words = _words(analysis, "justification", "detail")
        if status in ("not_affected", "false_positive") and not words:
            raise ConfigError(f"{status} without justification or detail", where=where)
        yield Statement(
            document=path.name,
            vulnerabilities=frozenset({shape.member(item, "id", str, where)}),
            status=status,
            reason=" ".join(words),
            time=_START,
            products=tuple(_affected(entry, refs) for entry in _objects(item, "affects", path)),
        )


def _affected(value: dict[str, Any], refs: Mapping[str, str]) -> Product:
    ref = str(value.get("ref") or "")
    name = unquote(ref.partition("#")[2]) if ref.startswith("urn:cdx:") else ref
    return Product(Purl.parse(refs.get(name, name)), frozenset(), ())


def _objects(value: dict[str, Any], name: str, path: Path) -> list[Any]:
    return shape.objects(value, name, str(path), limit=MAX_STATEMENTS)


def _words(value: dict[str, Any], *names: str) -> list[str]:
    return [str(value[name]).strip() for name in names if value.get(name)]


def _time(value: dict[str, Any], default: datetime, path: Path) -> datetime:
    text = value.get("timestamp")
    return shape.timestamp(str(text), str(path)) if text else default
