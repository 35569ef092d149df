"""Which packages a database knows about."""

from __future__ import annotations

import pytest

from secure_pipeline.tools.trivycoverage import uncovered

BUCKETS = frozenset(
    {"debian 12", "pip::Python Packaging Advisory Database", "alpine 3.19", "Red Hat"}
)


@pytest.mark.parametrize(
    ("system", "kind"),
    [
        (("debian", "12.5"), "debian"),
        (("alpine", "3.19.1"), "alpine"),
        (("redhat", "9.4"), "redhat"),
        (None, "python-pkg"),
        (("debian", "12.5"), "poetry"),
    ],
)
def test_known_packages_are_covered(system: tuple[str, str] | None, kind: str) -> None:
    """A bucket for the system's version, or for the ecosystem, covers the packages."""
    assert uncovered(system, {kind: 3}, BUCKETS) == ()


@pytest.mark.parametrize(
    ("system", "kind", "words"),
    [
        (("debian", "11.2"), "debian", "debian 11.2 (3 packages)"),
        (("debian", ""), "debian", "debian  (3 packages)"),
        (("alpine", "3.20.0"), "alpine", "alpine 3.20.0 (3 packages)"),
        (("lunix", "1"), "lunix", "lunix 1 (3 packages)"),
        (("debian", "12"), "gobinary", "gobinary (3 packages)"),
        (("debian", "12"), "conda-pkg", "conda-pkg (3 packages)"),
        (None, "debian", "debian (3 packages)"),
    ],
)
def test_scn_01_packages_without_advisories_are_named(
    system: tuple[str, str] | None, kind: str, words: str
) -> None:
    """Packages that no bucket is about are told in words, since the scanner says nothing."""
    assert uncovered(system, {kind: 3}, BUCKETS) == (words,)


def test_one_package_is_one_package() -> None:
    """The number is in the line."""
    assert uncovered(None, {"gobinary": 1}, BUCKETS) == ("gobinary (1 package)",)
