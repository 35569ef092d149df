"""Lists of a registry, of referrers and of tags, page by page, within limits (SIG-15)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from requests.utils import parse_header_links

from secure_pipeline.adapters.http import Origin, shown
from secure_pipeline.adapters.registryclient import Fetched, RegistryClient
from secure_pipeline.errors import Inconclusive, Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    INDEX_TYPE,
    MAX_ENTRIES,
    MAX_MANIFEST_BYTES,
    Descriptor,
)
from secure_pipeline.oci.referrers import listed
from secure_pipeline.shape import optional, parse_object

_MAX_LINK = 8 << 10


@dataclass(frozen=True)
class ListLimits:
    """What one list of referrers may cost."""

    entries: int = MAX_ENTRIES
    pages: int = 1000
    total: int = 64 << 20
    """Bytes of all pages."""
    seconds: float = 300.0


def list_referrers(
    client: RegistryClient, subject: Digest, limits: ListLimits, where: str
) -> tuple[Descriptor, ...]:
    """Return what the API lists, nothing where the registry has no such API.

    Raises: VerificationFailed for a malformed page; Inconclusive over a limit or where pages
    lead in a circle; Unavailable, also where they lead to another host.
    """
    url: str | None = client.url(f"referrers/{subject}")
    deadline = client.transport.deadline(limits.seconds)
    found: list[Descriptor] = []
    seen: set[str] = set()
    total = 0
    while url is not None:
        seen.add(url)
        limit = min(MAX_MANIFEST_BYTES, limits.total - total)
        page = client.fetch(url, headers={"Accept": INDEX_TYPE}, limit=limit, deadline=deadline)
        if page is None:
            if len(seen) > 1:
                raise Unavailable("a page of the referrers is missing", where=shown(url))
            return ()
        total += len(page.data)
        found += listed(page.data, where)
        if len(found) > limits.entries:
            raise Inconclusive(f"more than {limits.entries} referrers", where=where)
        url = _next(client, page)
        if url in seen:
            raise Inconclusive("the pages of the referrers lead in a circle", where=where)
        if url and len(seen) >= limits.pages:
            raise Inconclusive(f"more than {limits.pages} pages of referrers", where=where)
    return tuple(found)


def first_page(
    client: RegistryClient, subject: Digest, where: str
) -> tuple[Descriptor, ...] | None:
    """Return the first page of what the API lists; None where the registry has no such API.

    Raises: VerificationFailed, Inconclusive, Unavailable.
    """
    url = client.url(f"referrers/{subject}")
    page = client.fetch(url, headers={"Accept": INDEX_TYPE}, limit=MAX_MANIFEST_BYTES)
    return None if page is None else listed(page.data, where)


def list_tags(client: RegistryClient, limits: ListLimits, where: str) -> tuple[str, ...]:
    """Return the names of all tags of the repository, as the registry says them.

    Raises: VerificationFailed for a malformed page; Inconclusive over a limit or where pages
    lead in a circle; Unavailable, also where there is no such list.
    """
    url: str | None = client.url("tags/list")
    deadline = client.transport.deadline(limits.seconds)
    found: list[str] = []
    seen: set[str] = set()
    while url is not None:
        if url in seen or len(seen) >= limits.pages:
            raise Inconclusive("the pages of the tags do not end", where=where)
        seen.add(url)
        page = client.fetch(url, limit=MAX_MANIFEST_BYTES, deadline=deadline)
        if page is None:
            raise Unavailable("there is no such list", where=where)
        tags = optional(
            parse_object(page.data, where, limit=MAX_MANIFEST_BYTES), "tags", list, where
        )
        if not all(isinstance(tag, str) for tag in tags or []):
            raise VerificationFailed("a tag is not a text", where=where)
        found += tags or []
        if len(found) > limits.entries:
            raise Inconclusive(f"more than {limits.entries} tags", where=where)
        url = _next(client, page)
    return tuple(dict.fromkeys(found))


def _next(client: RegistryClient, page: Fetched) -> str | None:
    """The next page, of the same list and the same origin only (RFC 8288)."""
    header = page.headers.get("Link", "")[:_MAX_LINK]
    links = [link["url"] for link in parse_header_links(header) if link.get("rel") == "next"]
    if not links:
        return None
    url = client.transport.join(page.url, links[0])
    if Origin.of(url) != Origin.of(client.base):
        raise Unavailable(
            f"the list of referrers goes on at another host, {urlsplit(url).hostname}",
            where=shown(page.url),
        )
    return url
