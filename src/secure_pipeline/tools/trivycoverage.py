"""Which packages a vulnerability database knows about.

Trivy finds nothing for a system that the database has no advisories for, and exits with 0.
"""

from __future__ import annotations

from collections.abc import Mapping

_SYSTEMS = {
    "alma": ("alma", 1),
    "alpine": ("alpine", 2),
    "amazon": ("amazon linux", 1),
    "azurelinux": ("Azure Linux", 2),
    "cbl-mariner": ("CBL-Mariner", 2),
    "centos": ("Red Hat", 0),
    "chainguard": ("chainguard", 0),
    "debian": ("debian", 1),
    "echo": ("echo", 0),
    "minimos": ("minimos", 0),
    "opensuse-leap": ("openSUSE Leap", 2),
    "opensuse-tumbleweed": ("openSUSE Tumbleweed", 0),
    "oracle": ("Oracle Linux", 1),
    "photon": ("Photon OS", 2),
    "redhat": ("Red Hat", 0),
    "rocky": ("rocky", 1),
    "sles": ("SUSE Linux Enterprise", 2),
    "ubuntu": ("ubuntu", 2),
    "wolfi": ("wolfi", 0),
}
"""Family to its bucket's first word and how many numbers of the version follow."""

_ECOSYSTEMS = {
    "cargo": ("cargo", "rustbinary"),
    "cocoapods": ("cocoapods",),
    "composer": ("composer", "composer-vendor"),
    "conan": ("conan",),
    "erlang": ("hex",),
    "go": ("gobinary", "gomod"),
    "julia": ("julia",),
    "maven": ("jar", "pom", "gradle", "sbt"),
    "npm": ("npm", "yarn", "pnpm", "bun", "node-pkg", "javascript"),
    "nuget": ("nuget", "dotnet-core", "packages-props"),
    "pip": ("pip", "pipenv", "poetry", "uv", "pylock", "python-pkg"),
    "pub": ("pub",),
    "rubygems": ("bundler", "gemspec"),
    "swift": ("swift",),
    "bitnami": ("bitnami",),
}
"""Prefix of the ecosystem's buckets to the kinds of packages that Trivy reports."""

_ECOSYSTEM_OF = {kind: name for name, kinds in _ECOSYSTEMS.items() for kind in kinds}


def uncovered(
    system: tuple[str, str] | None, packages: Mapping[str, int], buckets: frozenset[str]
) -> tuple[str, ...]:
    """Return, in words, the kinds of packages found that no bucket is about."""
    missing = []
    for kind, number in sorted(packages.items()):
        if system and kind == system[0]:
            covered, name = _system_bucket(*system) in buckets, " ".join(system)
        else:
            prefix = f"{_ECOSYSTEM_OF.get(kind, '?')}::"
            covered, name = any(bucket.startswith(prefix) for bucket in buckets), kind
        if not covered:
            missing.append(f"{name} ({number} package{'s' if number != 1 else ''})")
    return tuple(missing)


def _system_bucket(family: str, version: str) -> str | None:
    if family not in _SYSTEMS:
        return None
    word, numbers = _SYSTEMS[family]
    return " ".join([word, *filter(None, [".".join(version.split(".")[:numbers])])])
