"""Keyless signatures under a trust root of our own, each part of them wrong in turn."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.evidence import NOON
from fakes.virtualsigstore import DAY, IDENTITY, ISSUER, Faults, VirtualSigstore
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.attestations import dsse, legacy
from secure_pipeline.errors import ConfigError, ExitCode, Inconclusive, VerificationFailed

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'


@cache
def ours() -> VirtualSigstore:
    return VirtualSigstore(NOON)


@cache
def stranger() -> VirtualSigstore:
    return VirtualSigstore(NOON)


@cache
def verifier() -> SigstoreVerifier:
    return SigstoreVerifier(ours().trusted_root(), "root.json", NOON)


WRONG: dict[str, Callable[[], Faults]] = {
    "sig-16 entry of another artifact": lambda: Faults(entry_of=b"other"),
    "sig-16 entry of another key": lambda: Faults(entry_key=True),
    "sig-16 entry of another signature": lambda: Faults(entry_signature=True),
    "sig-17 no inclusion proof": lambda: Faults(proof=False),
    "sig-17 wrong root hash": lambda: Faults(hash=True),
    "sig-17 malformed checkpoint": lambda: Faults(checkpoint="\n\n"),
    "sig-17 checkpoint without a signature": lambda: Faults(checkpoint="a\n1\nAAAA\n\nx\n"),
    "sig-17 checkpoint with odd base64": lambda: Faults(checkpoint="a\n1\nA\n\n— a %%%%\n"),
    "sig-17 empty checkpoint": lambda: Faults(checkpoint=""),
    "sig-17 checkpoint of another log": lambda: Faults(checkpoint_key=True),
    "sig-17 promise of another log": lambda: Faults(promise_key=True),
    "sig-18 certificate ended before signing": lambda: Faults(signed_after=timedelta(minutes=11)),
    "sig-18 signed before the certificate": lambda: Faults(signed_after=-timedelta(minutes=1)),
    "sig-20 unknown authority": lambda: Faults(promise=False, stamp=stranger()),
    "sig-20 unknown authority beside a promise": lambda: Faults(stamped=True, stamp=stranger()),
    "sig-20 stamp of another signature": lambda: Faults(promise=False, stamp_of=b"x"),
    "another signature": lambda: Faults(signature=True),
    "no certificate transparency": lambda: Faults(sct=False),
    "certificate transparency of another log": lambda: Faults(sct_key=True),
}


@pytest.mark.parametrize(
    "faults", [Faults(), Faults(stamped=True), Faults(promise=False)], ids=["set", "both", "stamp"]
)
def test_a_good_bundle_names_its_signer(faults: Faults) -> None:
    """With a promise, a time-stamp or both, identity, issuer and trusted time come back."""
    certified = verifier().verify(ours().bundle(PAYLOAD, faults=faults), PAYLOAD)
    assert (certified.identity, certified.issuer) == (IDENTITY, ISSUER)
    assert certified.signed_at == NOON - timedelta(seconds=59)


@pytest.mark.parametrize("name", WRONG)
def test_sig_16_17_18_20_a_wrong_part_is_refused(name: str) -> None:
    """Each part that is wrong alone refuses, as an error of ours and in one line."""
    with pytest.raises(VerificationFailed) as caught:
        verifier().verify(ours().bundle(PAYLOAD, faults=WRONG[name]()), PAYLOAD)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) <= 300


def test_sig_23_a_bundle_of_another_root_is_refused() -> None:
    """All of it is consistent, and none of it is in our trust root."""
    with pytest.raises(VerificationFailed):
        verifier().verify(stranger().bundle(PAYLOAD), PAYLOAD)


def test_sig_04_another_payload_is_refused() -> None:
    """What was verified has to be what the caller read."""
    with pytest.raises(VerificationFailed, match="another payload"):
        verifier().verify(ours().bundle(PAYLOAD), PAYLOAD + b" ")


def test_identities_that_are_addresses_are_read() -> None:
    """A person's certificate holds an e-mail address instead of a URI."""
    data = ours().bundle(PAYLOAD, "someone@team.invalid", "https://login.invalid")
    certified = verifier().verify(data, PAYLOAD)
    assert certified.identity == "someone@team.invalid"
    assert certified.issuer == "https://login.invalid"


@pytest.mark.parametrize("name", ["0.1", "0.2"])
def test_older_bundles_with_a_proof_are_verified(name: str) -> None:
    """Versions with a chain of certificates are judged alike."""
    data = ours().bundle(PAYLOAD, version=f"+json;version={name}")
    assert verifier().verify(data, PAYLOAD).identity == IDENTITY


@pytest.mark.parametrize("version", [".v0.3+json", "+json;version=0.2"])
def test_sig_17_a_promise_alone_is_not_enough_since_version_0_2(version: str) -> None:
    """Only v0.1 may come without a proof of inclusion."""
    with pytest.raises(VerificationFailed):
        verifier().verify(
            ours().bundle(PAYLOAD, faults=Faults(proof=False), version=version), PAYLOAD
        )


def test_a_log_entry_of_another_kind_cannot_be_told() -> None:
    """Entries of kind intoto do not bind what is checked here: no answer, and no crash."""
    document = json.loads(ours().bundle(PAYLOAD))
    entry = document["verificationMaterial"]["tlogEntries"][0]
    entry["kindVersion"] = {"kind": "intoto", "version": "0.0.2"}
    with pytest.raises(Inconclusive, match="intoto"):
        verifier().verify(json.dumps(document).encode(), PAYLOAD)


@pytest.mark.parametrize("entries", [[], None, [{}, {}]])
def test_exactly_one_log_entry_is_needed(entries: Any) -> None:
    """None, or several, refuse."""
    document = json.loads(ours().bundle(PAYLOAD))
    document["verificationMaterial"]["tlogEntries"] = entries
    with pytest.raises(VerificationFailed, match="log entries"):
        verifier().verify(json.dumps(document).encode(), PAYLOAD)


# --- cosign 1 and 2 ------------------------------------------------------------------------

LEGACY_WRONG = [name for name in WRONG if "proof" not in name and "checkpoint" not in name]
NO_PROOF = [name for name in LEGACY_WRONG if "root hash" not in name]


def attested(faults: Faults) -> bytes:
    envelope, annotations = ours().attested(PAYLOAD, faults=faults)
    made = legacy.of_envelope(annotations, dsse.parse_envelope(envelope), "test")
    assert made is not None
    return made.proof


def signed(faults: Faults) -> bytes:
    annotations = ours().signed_message(PAYLOAD, faults=faults)
    signature = base64.b64decode(annotations["dev.cosignproject.cosign/signature"])
    made = legacy.of_message(annotations, PAYLOAD, signature, "test")
    assert made is not None
    return made.proof


@pytest.mark.parametrize("form", [attested, signed])
@pytest.mark.parametrize("faults", [Faults(), Faults(stamped=True)], ids=["set", "both"])
def test_annotations_of_cosign_2_are_verified(
    form: Callable[[Faults], bytes], faults: Faults
) -> None:
    """A layer with certificate and promise proves its signer, with and without a time-stamp."""
    assert verifier().verify(form(faults), PAYLOAD).identity == IDENTITY


@pytest.mark.parametrize("form", [attested, signed])
@pytest.mark.parametrize("name", NO_PROOF)
def test_sig_16_annotations_with_a_wrong_part_are_refused(
    form: Callable[[Faults], bytes], name: str
) -> None:
    """The log entry's digest, key and signature are compared here too (CVE-2022-36056)."""
    with pytest.raises(VerificationFailed):
        verifier().verify(form(WRONG[name]()), PAYLOAD)


def test_annotations_without_a_log_entry_are_refused() -> None:
    """A certificate alone, or with a time-stamp only, is no proof."""
    with pytest.raises(VerificationFailed, match="0 log entries"):
        verifier().verify(attested(Faults(promise=False)), PAYLOAD)


# --- the trust root --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (b"", "not a Sigstore trust root"),
        (b"{}", "not a Sigstore trust root"),
        (b'{"a":1,"a":2}', "duplicate member"),
        (b"\xff", "not UTF-8"),
        (ours().trusted_root(mediaType="application/json"), "not a Sigstore trust root"),
        (ours().trusted_root(certificateAuthorities=[]), "not a Sigstore trust root"),
        (ours().trusted_root(tlogs=[]), "not a Sigstore trust root"),
        (ours().trusted_root(ctlogs=[]), "names no certificate log"),
        (ours().trusted_root(certificateAuthorities=[{}]), "not a Sigstore trust root"),
    ],
)
def test_sig_24_an_unusable_trust_root_is_a_config_error(root: bytes, words: str) -> None:
    """Broken or empty: exit 3, one line, and what to do; never a crash, never a pass."""
    with pytest.raises(ConfigError) as caught:
        SigstoreVerifier(root, "root.json", NOON)
    assert words in caught.value.message
    assert caught.value.where == "root.json"
    assert caught.value.hint


def test_sig_24_an_expired_trust_root_says_so() -> None:
    """A root of which nothing holds today is a configuration error that names the reason."""
    with pytest.raises(ConfigError, match="expired") as caught:
        SigstoreVerifier(ours().trusted_root(), "root.json", NOON + 31 * DAY)
    assert caught.value.exit_code is ExitCode.CONFIG


@pytest.mark.parametrize(
    "part", ["certificateAuthorities", "tlogs", "ctlogs", "timestampAuthorities"]
)
def test_sig_18_a_part_of_the_root_counts_only_inside_its_window(part: str) -> None:
    """An authority or log that ended before the signature proves nothing, though its key fits."""
    root = json.loads(ours().trusted_root())
    ended = json.loads(json.dumps(root[part]))
    for item in ended:
        window = item.get("validFor") or item["publicKey"]["validFor"]
        window["end"] = "2026-02-20T00:00:00Z"
    other = json.loads(stranger().trusted_root())[part]
    trusted = ours().trusted_root(**{part: [*ended, *other]})
    limited = SigstoreVerifier(trusted, "root.json", NOON)
    with pytest.raises(VerificationFailed):
        limited.verify(ours().bundle(PAYLOAD, faults=Faults(stamped=True)), PAYLOAD)


def test_the_root_of_the_public_instance_comes_along() -> None:
    """Without a root of one's own the library's copy is used, read from a file."""
    public = SigstoreVerifier(None, "", NOON)
    with pytest.raises(VerificationFailed):
        public.verify(ours().bundle(PAYLOAD), PAYLOAD)


# --- whatever comes --------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_sig_26_a_changed_bundle_passes_only_if_it_says_the_same(data: st.DataObject) -> None:
    """One member of a good bundle replaced: the same signer, or one of our own errors."""
    document = json.loads(ours().bundle(PAYLOAD, faults=Faults(stamped=True)))
    paths = list(_paths(document))
    path = data.draw(st.sampled_from(paths))
    parent = document
    for name in path[:-1]:
        parent = parent[name]
    junk = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.none(), max_size=1)
    parent[path[-1]] = data.draw(junk | st.just({}) | st.floats(allow_nan=False))
    try:
        certified = verifier().verify(json.dumps(document).encode(), PAYLOAD)
    except (VerificationFailed, Inconclusive):
        return
    assert (certified.identity, certified.issuer) == (IDENTITY, ISSUER)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        yield (*path, name)
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, name))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"a":1,"a":1}', b"[" * 100_000])
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    """Nothing but our own error comes out."""
    with pytest.raises(VerificationFailed):
        verifier().verify(data, PAYLOAD)


def test_threads_may_share_a_verifier() -> None:
    """Good and bad bundles at once: each gets its own answer."""
    good, bad = ours().bundle(PAYLOAD), ours().bundle(PAYLOAD, faults=Faults(signature=True))

    def judge(data: bytes) -> bool:
        try:
            return verifier().verify(data, PAYLOAD).identity == IDENTITY
        except VerificationFailed:
            return False

    with ThreadPoolExecutor(8) as workers:
        assert list(workers.map(judge, [good, bad] * 20)) == [True, False] * 20


def test_the_library_says_nothing_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Its logger has a handler, so that Python's last resort prints nothing."""
    verifier()
    assert logging.getLogger("sigstore").handlers
