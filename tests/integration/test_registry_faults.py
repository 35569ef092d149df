"""Real registries behind a proxy that breaks, lies and leads astray."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from fakes import faultproxy as fault
from fakes.faultproxy import Exchange, FaultProxy, Reply, fault_proxy
from fakes.registry import (
    build_referrers_registry,
    debian_program,
    debian_registry,
    push_referrers,
    referrers_registry,
)
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import Login
from secure_pipeline.adapters.http import HttpLimits
from secure_pipeline.adapters.registry import RegistryLimits, Repository, open_repository
from secure_pipeline.adapters.registrylist import ListLimits
from secure_pipeline.attestations import bundle
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.errors import Inconclusive, PipelineError, Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    EMPTY_BYTES,
    EMPTY_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    Descriptor,
)
from secure_pipeline.oci.referrers import fallback_tag

pytestmark = pytest.mark.integration

PART = 1 << 20
LIMITS = RegistryLimits(http=HttpLimits(total=60.0, silence=5.0), part=PART)
SIZE = 5 * PART + 12345
MANIFESTS, BLOBS, UPLOADS = "/manifests/", "/blobs/sha256:", "/blobs/uploads/"


class Alice:
    """Has a password that must not leak."""

    def login(self, registry: str) -> Login:
        return Login("as user 'alice'", "alice", "s3cr3t")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with debian_registry(debian_program(), tmp_path_factory.mktemp("debian")) as host:
        yield host


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the referrers API."""
    with referrers_registry(build_referrers_registry(tmp_path_factory.mktemp("go"))) as host:
        yield host


@pytest.fixture
def proxy(debian: str) -> Iterator[FaultProxy]:
    with fault_proxy(debian) as proxy:
        yield proxy


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A repository of its own."""
    return f"team/app-{Digest.of(str(tmp_path).encode()).hex[:12]}"


def at(host: str, path: str, limits: RegistryLimits = LIMITS) -> Repository:
    return open_repository(
        f"{host}/{path}",
        credentials=Alice(),
        clock=SystemClock(),
        limits=limits,
        sleep=lambda seconds: None,
    )


def waiting(host: str, path: str) -> Repository:
    """One that really waits, for tests with several writers."""
    return open_repository(f"{host}/{path}", credentials=Alice(), clock=SystemClock())


def manifest(repository: Repository, note: str, subject: Descriptor | None = None) -> bytes:
    config = repository.write_blob(EMPTY_BYTES, EMPTY_TYPE)
    document = {
        **{"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config.to_json()},
        **{"layers": [], "artifactType": "a/b", "annotations": {"note": note}},
    }
    if subject:
        document["subject"] = subject.to_json()
    return json.dumps(document).encode()


def image(repository: Repository) -> Descriptor:
    return repository.write_manifest(manifest(repository, "image"), MANIFEST_TYPE, tag="latest")


def big(debian: str, path: str) -> tuple[bytes, Digest]:
    """A blob that is in the registry."""
    data = os.urandom(SIZE)
    at(debian, path).receive(Digest.of(data), SIZE, iter([data]))
    return data, Digest.of(data)


# Reading


def test_reg_16_a_broken_download_goes_on_where_it_broke(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """Cut after cut, each byte is asked for once, and the whole has the right digest."""
    data, digest = big(debian, path)
    for number in (100_000, 0, 2 * PART, 50_000):
        proxy.on("GET", BLOBS, fault.cut_body(number), times=1)
    assert b"".join(at(proxy.host, path).stream_blob(digest, SIZE)) == data
    ranges = [item.headers.get("range") for item in proxy.requests("GET", BLOBS)]
    assert ranges[:3] == [None, "bytes=100000-", "bytes=100000-"]
    assert ranges[4] == f"bytes={100_000 + 2 * PART + 50_000}-"


def test_a_registry_without_ranges_is_read_again(proxy: FaultProxy, debian: str, path: str) -> None:
    """Where Range is ignored the known beginning is passed over, and still hashed as it was."""
    data, digest = big(debian, path)

    def whole(exchange: Exchange) -> None:
        headers = {name: text for name, text in exchange.seen.headers.items() if name != "range"}
        exchange.seen = replace(exchange.seen, headers=headers)
        exchange.reply(exchange.forward())

    proxy.on("GET", BLOBS, fault.cut_body(3 * PART), times=1)
    proxy.on("GET", BLOBS, whole)
    assert b"".join(at(proxy.host, path).stream_blob(digest, SIZE)) == data


def test_a_download_that_never_gets_on_is_given_up(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """Tries without progress are bounded, and what came is never given as the whole."""
    _, digest = big(debian, path)
    proxy.on("GET", BLOBS, fault.cut_body(10))
    with pytest.raises(Unavailable):
        at(proxy.host, path).check_blob(digest, SIZE)
    assert len(proxy.requests("GET", BLOBS)) == LIMITS.tries


def test_a_short_body_without_a_length_is_not_whole(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """A body ended by closing the connection is whole only by size and digest."""
    data, digest = big(debian, path)
    proxy.on("GET", BLOBS, fault.without_length, times=1)
    assert b"".join(at(proxy.host, path).stream_blob(digest, SIZE)) == data

    def short(exchange: Exchange) -> None:
        reply = exchange.forward()
        exchange.begin(200, {"Connection": "close"})
        exchange.write(reply.body[:1000])
        exchange.cut()

    proxy.on("GET", BLOBS, short)
    with pytest.raises(Unavailable, match="ended after"):
        at(proxy.host, path).check_blob(digest, SIZE)


def test_reg_02_other_bytes_for_a_digest_fail(proxy: FaultProxy, debian: str, path: str) -> None:
    """Blobs and manifests are hashed here; Docker-Content-Digest is not believed."""
    data, digest = big(debian, path)
    written = image(at(debian, path))
    proxy.on("GET", BLOBS, fault.other_bytes)
    proxy.on("GET", MANIFESTS, fault.other_bytes)
    repository = at(proxy.host, path)
    pieces = []
    with pytest.raises(VerificationFailed, match=f"expected {digest}, found sha256:"):
        pieces.extend(repository.stream_blob(digest, SIZE))
    assert sum(map(len, pieces)) < SIZE
    for read in (
        lambda: repository.read_blob(digest, SIZE),
        lambda: repository.read_blob(digest, SIZE, SIZE),
        lambda: repository.find(written.digest),
        lambda: repository.read_manifest(written),
    ):
        with pytest.raises(VerificationFailed):
            read()
    assert len(data) == SIZE


def test_reg_02_a_tag_is_what_its_bytes_are(proxy: FaultProxy, debian: str, path: str) -> None:
    """The digest of a tag comes from the bytes, whatever the headers say."""
    written = image(at(debian, path))

    def lie(exchange: Exchange) -> None:
        reply = exchange.forward()
        claims = {"docker-content-digest": f"sha256:{'0' * 64}", "content-type": INDEX_TYPE}
        kept = [item for item in reply.headers if item[0].lower() not in claims]
        exchange.reply(Reply(reply.status, (*kept, *claims.items()), reply.body))

    proxy.on("GET", MANIFESTS, lie)
    found = at(proxy.host, path).tagged("latest")
    assert found is not None
    assert (found.digest, found.media_type) == (written.digest, MANIFEST_TYPE)


def test_sig_15_limits_hold_before_and_while_reading(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """A blob of 100 MB is refused by its announced length; an endless one at the limit."""
    proxy.on("GET", BLOBS, fault.answer(200, bytes(100_000_000)), times=1)
    repository = at(proxy.host, path)
    digest = Digest.of(b"any")
    with pytest.raises(Inconclusive, match="100000000 bytes; limit 1048576"):
        repository.read_blob(digest, 1 << 20)
    with pytest.raises(Inconclusive):
        repository.read_blob(digest, 1 << 20, 100_000_000)
    assert len(proxy.seen) == 1
    proxy.on("GET", "/", fault.endless)
    with pytest.raises(Inconclusive):
        repository.read_blob(digest, 1 << 20)
    with pytest.raises(VerificationFailed, match="found more"):
        repository.check_blob(digest, 1 << 20)
    with pytest.raises(Inconclusive):
        repository.tagged("latest")
    with pytest.raises(Inconclusive):
        repository.referrers(digest)


def test_reg_16_a_busy_registry_is_waited_for(proxy: FaultProxy, debian: str, path: str) -> None:
    """429 and 5xx now and then do not fail reading or writing."""
    for method in ("GET", "HEAD", "POST", "PUT"):
        proxy.on(method, "/", fault.answer(429, Retry_After="0"), times=1)
        proxy.on(method, "/", fault.answer(503), times=1)
    repository = at(proxy.host, path)
    written = image(repository)
    assert repository.find(written.digest).size == written.size


def test_a_registry_that_stays_busy_is_unavailable(proxy: FaultProxy, path: str) -> None:
    """Not 'missing' and not 'wrong': a retry may help."""
    proxy.on("GET", "/", fault.answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'))
    proxy.on("HEAD", "/", fault.answer(500))
    repository = at(proxy.host, path)
    for read in (
        lambda: repository.tagged("latest"),
        lambda: repository.find(Digest.of(b"x")),
        lambda: repository.referrers(Digest.of(b"x")),
        lambda: repository.read_blob(Digest.of(b"x"), 10),
        lambda: repository.has_blob(Digest.of(b"x"), 1),
    ):
        with pytest.raises(Unavailable, match=r"429|500"):
            read()


@pytest.mark.parametrize("slow", [fault.drip, fault.drip_headers, fault.silent])
def test_reg_16_a_slow_registry_meets_the_deadline(
    proxy: FaultProxy, path: str, slow: fault.Fault
) -> None:
    """Slow bodies, slow headers and silence end with the deadline, as unavailable."""
    limits = replace(LIMITS, http=HttpLimits(total=1.0), blob_seconds=1.0)
    proxy.on("GET", "/", slow)
    repository = at(proxy.host, path, limits)
    with pytest.raises(Unavailable):
        repository.tagged("latest")
    with pytest.raises(Unavailable):
        repository.check_blob(Digest.of(b"x"), 1 << 14)


def test_reg_10_nothing_of_ours_reaches_another_host(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """Redirected downloads and uploads to another port go without Authorization."""
    data = os.urandom(3 * PART)
    digest = Digest.of(data)
    at(debian, path).receive(digest, len(data), iter([data]))
    with fault_proxy(debian) as storage:

        def gate(exchange: Exchange) -> None:
            if not exchange.seen.headers.get("authorization"):
                exchange.reply(Reply(401, (("WWW-Authenticate", 'Basic realm="x"'),), b""))
            elif exchange.seen.method == "GET":
                exchange.reply(Reply(307, (("Location", away(exchange.seen.path)),), b""))
            else:
                reply = exchange.forward()
                place = dict(reply.headers)["Location"].partition("/v2/")[2]
                kept = [item for item in reply.headers if item[0] != "Location"]
                there = ("Location", away(f"/v2/{place}"))
                exchange.reply(Reply(reply.status, (*kept, there), reply.body))

        def away(path: str) -> str:
            return f"http://{storage.host}{path}"

        proxy.on("GET", BLOBS, gate)
        proxy.on("POST", UPLOADS, gate)
        repository = at(proxy.host, path)
        assert repository.read_blob(digest, len(data), len(data)) == data
        more = os.urandom(3 * PART)
        repository.receive(Digest.of(more), len(more), iter([more]))
        repository.write_blob(b"small", "text/plain")
        at(debian, path).check_blob(Digest.of(more), len(more))
        methods = {item.method for item in storage.seen}
        assert methods == {"GET", "PATCH", "PUT"}
        assert all("authorization" not in item.headers for item in storage.seen)
        assert any("authorization" in item.headers for item in proxy.seen)


@pytest.mark.parametrize(
    "location", ["http://registry.example/x", "ftp://127.0.0.1/x", "http://u:s3cr3t@127.0.0.1/x"]
)
def test_an_upload_is_not_sent_to_a_forbidden_place(
    proxy: FaultProxy, path: str, location: str
) -> None:
    """A Location on plain http elsewhere, of another scheme or with a user is refused."""
    proxy.on("POST", UPLOADS, fault.answer(202, Location=location))
    with pytest.raises(Unavailable) as caught:
        at(proxy.host, path).write_blob(b"data", "text/plain")
    assert "s3cr3t" not in str(caught.value)


# Referrers


def pages(entries: list[dict[str, object]], size: int) -> fault.Fault:
    """A referrers API that gives so many entries a page."""

    def fault_(exchange: Exchange) -> None:
        parts = urlsplit(exchange.seen.path)
        start = int(parse_qs(parts.query).get("last", ["0"])[0])
        shown = {
            **{"schemaVersion": 2, "mediaType": INDEX_TYPE},
            "manifests": entries[start : start + size],
        }
        more = start + size < len(entries)
        link = (("Link", f'<{parts.path}?last={start + size}>; rel="next"'),) if more else ()
        exchange.reply(Reply(200, link, json.dumps(shown).encode()))

    return fault_


def entries(number: int) -> list[dict[str, object]]:
    return [
        Descriptor(
            MANIFEST_TYPE, Digest.of(str(n).encode()), 500, "a/b", {"note": f"number {n}"}
        ).to_json()
        for n in range(number)
    ]


def test_reg_09_the_api_and_the_tag_are_joined(modern: str, path: str) -> None:
    """Both present and different: the union, each once, with neither trusted alone."""
    repository = at(modern, path)
    subject = image(repository)
    listed = repository.write_manifest(manifest(repository, "api", subject), MANIFEST_TYPE)
    by_tag = manifest(repository, "only in the tag")  # no subject, so the API does not list it
    push_referrers(modern, path, [by_tag, manifest(repository, "api", subject)], subject.digest)
    found = [item.digest for item in repository.referrers(subject.digest)]
    assert sorted(found) == sorted([listed.digest, Digest.of(by_tag)])


def test_sig_15_ten_thousand_referrers_page_by_page(proxy: FaultProxy, path: str) -> None:
    """Ten thousand are listed to the end; one more is over the limit and said so."""
    proxy.on("GET", "/referrers/", pages(entries(10_000), 1000), times=10)
    repository = at(proxy.host, path)
    assert len(repository.referrers(Digest.of(b"x"))) == 10_000
    proxy.on("GET", "/referrers/", pages(entries(10_001), 1000))
    with pytest.raises(Inconclusive, match="more than 10000"):
        repository.referrers(Digest.of(b"x"))


def test_sig_15_ten_thousand_real_referrers(modern: str, path: str) -> None:
    """Ten thousand manifests that really are in a registry."""
    repository = at(modern, path)
    subject = image(repository)
    base = json.loads(manifest(repository, "x", subject)) | {"artifactType": bundle.MEDIA_TYPE}
    wanted = [
        json.dumps({**base, "annotations": {"n": str(number)}}).encode() for number in range(10_000)
    ]

    def push(part: list[bytes]) -> None:
        with requests.Session() as session:
            for data in part:
                url = f"http://{modern}/v2/{path}/manifests/{Digest.of(data)}"
                headers = {"Content-Type": MANIFEST_TYPE}
                assert session.put(url, data, headers=headers, timeout=60).status_code == 201

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, [wanted[start::4] for start in range(4)]))
    found = {item.digest for item in repository.referrers(subject.digest)}
    assert found == {Digest.of(data) for data in wanted}
    with pytest.raises(Inconclusive, match="10000 attachments; limit 2000"):
        collect(repository, subject.digest)


def test_sig_15_an_attestation_of_100_mb_is_never_fetched(modern: str, path: str) -> None:
    """The manifest tells its size, and that decides: over the limit before a byte is read."""
    repository = at(modern, path)
    subject = image(repository)
    large = json.loads(manifest(repository, "x", subject)) | {"artifactType": bundle.MEDIA_TYPE}
    layer = Descriptor(bundle.MEDIA_TYPE, Digest.of(b"nowhere"), 100_000_000)
    large["layers"] = [layer.to_json()]
    repository.write_manifest(json.dumps(large).encode(), MANIFEST_TYPE)
    with pytest.raises(Inconclusive, match="attachment of 100000000 bytes; limit"):
        collect(repository, subject.digest)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (ListLimits(entries=99), "more than 99 referrers"),
        (ListLimits(pages=9), "more than 9 pages"),
        (ListLimits(total=9_000), "limit"),
    ],
)
def test_sig_15_a_list_has_limits(
    proxy: FaultProxy, path: str, limits: ListLimits, says: str
) -> None:
    """Entries, pages and bytes of a list are bounded; over one it is inconclusive, never cut."""
    proxy.on("GET", "/referrers/", pages(entries(100), 10))
    repository = at(proxy.host, path, replace(LIMITS, lists=limits))
    with pytest.raises(Inconclusive, match=says):
        repository.referrers(Digest.of(b"x"))


def empty_page(link: str) -> fault.Fault:
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []})
    return fault.answer(200, body.encode(), Link=link)


def test_sig_15_pages_in_a_circle_end(proxy: FaultProxy, path: str) -> None:
    """A next page that was read already is noticed at once."""
    proxy.on("GET", "last=2", empty_page('<?last=1>; rel="next"'))
    proxy.on("GET", "/referrers/", empty_page('<?last=2>; rel="next"'))
    with pytest.raises(Inconclusive, match="circle"):
        at(proxy.host, path).referrers(Digest.of(b"x"))
    assert len(proxy.requests("GET", "/referrers/")) == 3


def test_reg_10_pages_at_another_host_are_not_read(proxy: FaultProxy, path: str) -> None:
    """The list of referrers cannot lead away from its registry."""
    with fault_proxy() as other:
        link = f'<http://{other.host}/v2/x/referrers/y>; rel="next"'
        proxy.on("GET", "/referrers/", empty_page(link))
        with pytest.raises(Unavailable, match="goes on at another host"):
            at(proxy.host, path).referrers(Digest.of(b"x"))
        assert other.seen == []


def test_a_part_of_a_list_is_not_a_list(proxy: FaultProxy, path: str) -> None:
    """A page that is missing or broken fails the whole; what came before is not given."""
    repository = at(proxy.host, path)
    for bad in (fault.answer(404), fault.answer(200, b"<html>"), fault.answer(400, b"no")):
        proxy.rules.clear()
        proxy.on("GET", "last=", bad)
        proxy.on("GET", "/referrers/", pages(entries(20), 10))
        with pytest.raises((Unavailable, VerificationFailed)):
            repository.referrers(Digest.of(b"x"))


def test_a_failing_tag_fails_the_list(proxy: FaultProxy, path: str) -> None:
    """Where the fallback tag cannot be read, nobody can tell what it lists."""
    proxy.on("GET", "/referrers/", pages(entries(5), 10))
    proxy.on("GET", f"{MANIFESTS}sha256-", fault.answer(503))
    with pytest.raises(Unavailable):
        at(proxy.host, path).referrers(Digest.of(b"x"))


# Writing


def test_reg_16_an_upload_goes_on_where_it_broke(path: str) -> None:
    """The registry tells how much arrived, as the specification has it, and gets the rest."""
    data = os.urandom(SIZE)
    arrived = bytearray()
    failing = [0, 300_000, PART, 5]  # bytes that arrive before the line breaks, or the answer

    def place(status: int) -> Reply:
        end = max(len(arrived) - 1, 0)
        return Reply(status, (("Location", "/v2/up/1"), ("Range", f"0-{end}")), b"")

    def patch(exchange: Exchange) -> None:
        start, end = map(int, exchange.seen.headers["content-range"].split("-"))
        assert (start, end + 1) == (len(arrived), start + len(exchange.seen.body))
        broken = failing.pop(0) if failing else None
        arrived.extend(exchange.seen.body[:broken])
        exchange.cut() if broken is not None else exchange.reply(place(202))

    with fault_proxy() as registry:
        registry.on("POST", UPLOADS, lambda exchange: exchange.reply(place(202)))
        registry.on("PATCH", "/v2/up/1", patch)
        registry.on("GET", "/v2/up/1", lambda exchange: exchange.reply(place(204)))
        registry.on("PUT", "/v2/up/1", fault.answer(201))
        at(registry.host, path).receive(Digest.of(data), SIZE, iter([data]))
    assert arrived == data
    assert failing == []


def test_reg_16_a_real_upload_that_broke_is_made_whole(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """Debian's registry resumes where nothing arrived; else what can be read again is sent anew."""
    data = os.urandom(SIZE)
    digest = Digest.of(data)
    for broken in (fault.cut, fault.answer(503)):
        proxy.on("PATCH", UPLOADS, broken, times=1)
    at(proxy.host, path).receive(digest, SIZE, iter([data]))
    assert len(proxy.requests("POST", UPLOADS)) == 1
    at(debian, path).check_blob(digest, SIZE)
    more = os.urandom(SIZE)
    for broken in (fault.cut_request(300_000), fault.lose_answer):
        proxy.on("PATCH", UPLOADS, broken, times=1)
    at(proxy.host, path).receive(Digest.of(more), SIZE, [more])
    assert len(proxy.requests("POST", UPLOADS)) == 4
    at(debian, path).check_blob(Digest.of(more), SIZE)


def test_reg_16_a_lost_answer_to_the_last_request(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """Where the end of an upload got no answer, the registry is asked whether it has the blob."""
    data = os.urandom(2 * PART)
    proxy.on("PUT", UPLOADS, fault.lose_answer, times=2)
    repository = at(proxy.host, path)
    repository.receive(Digest.of(data), len(data), iter([data]))
    repository.write_blob(b"small", "text/plain")
    at(debian, path).check_blob(Digest.of(data), len(data))
    assert len(proxy.requests("PUT", UPLOADS)) == 2


def test_an_upload_that_cannot_be_resumed_says_so(proxy: FaultProxy, path: str) -> None:
    """A registry that forgot the upload is unavailable, with what to do; nothing is there."""
    data = os.urandom(3 * PART)
    proxy.on("PATCH", UPLOADS, fault.cut)
    proxy.on("GET", UPLOADS, fault.answer(404))
    with pytest.raises(Unavailable, match="cannot be resumed") as caught:
        at(proxy.host, path).receive(Digest.of(data), len(data), iter([data]))
    assert caught.value.hint == "run it again"
    assert len(proxy.requests("DELETE", UPLOADS)) == 1


def test_a_full_registry_refuses_with_its_words(proxy: FaultProxy, path: str) -> None:
    """What a registry says about a refusal is shown, short and printable."""
    proxy.on("PUT", UPLOADS, fault.answer(413, b'{"errors":[{"code":"SIZE\x1b"}]}'))
    with pytest.raises(Unavailable, match=r"413 .*SIZE") as caught:
        at(proxy.host, path).write_blob(b"data", "text/plain")
    assert caught.value.message.isprintable()


def test_reg_16_the_manifest_is_the_last_to_be_written(proxy: FaultProxy, path: str) -> None:
    """A push that dies before its end leaves no tag; running it again converges."""
    repository = at(proxy.host, path)
    data = manifest(repository, "new")
    proxy.on("PUT", f"{MANIFESTS}latest", fault.answer(500), times=6)
    with pytest.raises(Unavailable):
        repository.write_manifest(data, MANIFEST_TYPE, tag="latest")
    assert repository.tagged("latest") is None
    written = repository.write_manifest(data, MANIFEST_TYPE, tag="latest")
    assert repository.tagged("latest") == written


def test_a_manifest_that_was_taken_and_is_not_there(proxy: FaultProxy, path: str) -> None:
    """201 is not believed: what was written is read again."""
    repository = at(proxy.host, path)
    data = manifest(repository, "x")
    proxy.on("PUT", MANIFESTS, fault.answer(201))
    with pytest.raises(VerificationFailed, match="is not in"):
        repository.write_manifest(data, MANIFEST_TYPE)


def test_a_manifest_is_not_written_as_something_else(proxy: FaultProxy, path: str) -> None:
    """The media type said must be the one inside; nothing is sent otherwise."""
    repository = at(proxy.host, path)
    data = manifest(repository, "x")
    with pytest.raises(VerificationFailed, match=r"manifest.v1.json, not"):
        repository.write_manifest(data, INDEX_TYPE, tag="bad")
    assert proxy.requests("PUT", MANIFESTS) == []


def test_a_tag_that_does_not_move(proxy: FaultProxy, debian: str, path: str) -> None:
    """A registry that takes a tag and keeps the old one is found out."""
    image(at(debian, path))
    repository = at(proxy.host, path)
    data = manifest(repository, "new")
    proxy.on("PUT", f"{MANIFESTS}latest", fault.answer(201))
    with pytest.raises(VerificationFailed, match="names sha256:"):
        repository.write_manifest(data, MANIFEST_TYPE, tag="latest")


def test_the_fallback_tag_is_kept_by_the_specification(debian: str, path: str) -> None:
    """Without OCI-Subject the list has kind, size and all annotations of the manifest."""
    repository = at(debian, path)
    subject = image(repository)
    written = repository.write_manifest(manifest(repository, "first", subject), MANIFEST_TYPE)
    tagged = repository.tagged(fallback_tag(subject.digest))
    assert tagged is not None
    entry = repository.read_index(tagged).manifests[0]
    assert entry == replace(written, artifact_type="a/b", annotations={"note": "first"})


def test_with_oci_subject_the_tag_is_left_alone(modern: str, path: str) -> None:
    """A registry that says it keeps the list is not given another one."""
    repository = at(modern, path)
    subject = image(repository)
    repository.write_manifest(manifest(repository, "first", subject), MANIFEST_TYPE)
    assert repository.tagged(fallback_tag(subject.digest)) is None


def test_an_oci_subject_of_something_else_does_not_count(modern: str, path: str) -> None:
    """Only the very subject tells that the registry understood."""
    with fault_proxy(modern) as proxy:

        def other(exchange: Exchange) -> None:
            reply = exchange.forward()
            kept = [item for item in reply.headers if item[0].lower() != "oci-subject"]
            wrong = ("OCI-Subject", f"sha256:{'0' * 64}")
            exchange.reply(Reply(reply.status, (*kept, wrong), reply.body))

        repository = at(proxy.host, path)
        subject = image(repository)
        proxy.on("PUT", f"{MANIFESTS}sha256:", other)
        repository.write_manifest(manifest(repository, "first", subject), MANIFEST_TYPE)
        assert repository.tagged(fallback_tag(subject.digest)) is not None


def test_sig_29_a_lost_entry_is_written_again(proxy: FaultProxy, debian: str, path: str) -> None:
    """Another client overwrites the list after us: our entry comes back, theirs stays."""
    plain = at(debian, path)
    subject = image(plain)
    theirs = plain.write_manifest(manifest(plain, "theirs", subject), MANIFEST_TYPE)
    tag = fallback_tag(subject.digest)
    old = plain.tagged(tag)
    assert old is not None
    before = plain.read_index(old).raw

    def overwritten(exchange: Exchange) -> None:
        exchange.reply(exchange.forward())
        exchange.forward(before)

    proxy.on("PUT", tag, overwritten, times=3)
    repository = waiting(proxy.host, path)
    ours = repository.write_manifest(manifest(repository, "ours", subject), MANIFEST_TYPE)
    found = {item.digest for item in plain.referrers(subject.digest)}
    assert found == {theirs.digest, ours.digest}
    assert len(proxy.requests("PUT", tag)) == 4


def test_sig_29_an_entry_lost_after_the_first_look_is_written_again(
    proxy: FaultProxy, debian: str, path: str
) -> None:
    """One look is not enough: a slower writer may still overwrite what was just seen."""
    plain = at(debian, path)
    subject = image(plain)
    theirs = plain.write_manifest(manifest(plain, "theirs", subject), MANIFEST_TYPE)
    tag = fallback_tag(subject.digest)
    old = plain.tagged(tag)
    assert old is not None
    before = plain.read_index(old).raw

    def overwritten(exchange: Exchange) -> None:
        seen = exchange.forward()
        plain.write_manifest(before, INDEX_TYPE, tag=tag)
        exchange.reply(seen)

    proxy.on("GET", tag, lambda exchange: exchange.reply(exchange.forward()), times=1)
    proxy.on("GET", tag, overwritten, times=1)
    repository = waiting(proxy.host, path)
    ours = repository.write_manifest(manifest(repository, "ours", subject), MANIFEST_TYPE)
    found = {item.digest for item in plain.referrers(subject.digest)}
    assert found == {theirs.digest, ours.digest}


def test_sig_29_a_list_that_is_always_overwritten_is_an_error(proxy: FaultProxy, path: str) -> None:
    """Tries are bounded; success is said only when our entry is there."""
    repository = at(proxy.host, path)
    subject = image(repository)
    data = manifest(repository, "ours", subject)
    proxy.on("PUT", fallback_tag(subject.digest), fault.answer(201))
    with pytest.raises(Unavailable, match="keep overwriting"):
        repository.write_manifest(data, MANIFEST_TYPE)


def test_sig_29_a_repeated_write_is_decided_anew(proxy: FaultProxy, debian: str, path: str) -> None:
    """After a lost answer the list is read again; the same bytes are not sent blindly."""
    repository = waiting(proxy.host, path)
    subject = image(repository)
    data = manifest(repository, "ours", subject)
    tag = fallback_tag(subject.digest)
    for broken in (fault.answer(503), fault.cut, fault.answer(412), fault.lose_answer):
        proxy.on("PUT", tag, broken, times=1)
    repository.write_manifest(data, MANIFEST_TYPE)
    order = [item.method for item in proxy.seen if tag in item.path]
    assert order[:8] == ["GET", "PUT"] * 4
    assert "PUT" not in order[8:]
    assert [item.digest for item in repository.referrers(subject.digest)] == [Digest.of(data)]


def test_sig_29_conditional_writes_where_they_are_offered(modern: str, path: str) -> None:
    """With an ETag the write says what it replaces, and one that comes late is decided anew."""
    with fault_proxy(modern) as proxy:
        repository = waiting(proxy.host, path)
        first = manifest(repository, "first")
        repository.write_manifest(first, MANIFEST_TYPE, tag="notes")
        late = manifest(repository, "late")

        def change(present: bytes | None) -> bytes | None:
            assert present is not None
            if json.loads(present)["annotations"]["note"] == "first":
                waiting(modern, path).write_manifest(late, MANIFEST_TYPE, tag="notes")
            note = json.loads(present)["annotations"]["note"]
            return None if note.endswith("+") else manifest(repository, f"{note}+")

        repository.change_tag("notes", MANIFEST_TYPE, change)
        sent = [item.headers.get("if-match") for item in proxy.requests("PUT", "/notes")]
        assert sent == [None, f'"{Digest.of(first)}"', f'"{Digest.of(late)}"']
        tagged = repository.tagged("notes")
        assert tagged is not None
        assert repository.read_manifest(tagged).annotations == {"note": "late+"}


def test_blobs_are_mounted_from_a_neighbour(debian: str, path: str) -> None:
    """Within a registry a blob need not be sent again; a registry may decline."""
    blob = at(debian, f"{path}/source").write_blob(b"shared", "text/plain")
    repository = at(debian, f"{path}/target")
    assert not repository.has_blob(blob.digest, blob.size)
    assert not repository.mount(Digest.of(b"unknown"), f"{path}/source")
    assert repository.mount(blob.digest, f"{path}/source")
    assert repository.read_blob(blob.digest, 100) == b"shared"


def test_no_error_is_without_a_place(proxy: FaultProxy, path: str) -> None:
    """Every failure says which registry it was about, in one line, without the password."""
    repository = at(proxy.host, path)
    gone = Digest.of(b"gone")
    for fail in (
        lambda: repository.find(gone),
        lambda: repository.read_blob(gone, 10),
        lambda: repository.check_blob(gone, 10),
        lambda: repository.write_manifest(b"{}", MANIFEST_TYPE),
        lambda: repository.read_manifest(Descriptor(MANIFEST_TYPE, gone, 5 << 20)),
    ):
        with pytest.raises(PipelineError) as caught:
            fail()
        assert proxy.host in str(caught.value)
        assert "\n" not in str(caught.value)
