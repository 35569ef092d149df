"""What a version of a key has signed, out of the ledger; what cannot be seen is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.ledgers import ACTOR, Ticking
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.usage import Usage, artifacts, usage
from secure_pipeline.errors import Inconclusive
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.ports import SecretUse

KEY = "vault-transit://transit/release"
KV = "vault-kv://secret/release#key"


def image(letter: str) -> str:
    return f"app@sha256:{letter * 64}"


class Ledger:
    """Writes what stages and sessions write."""

    def __init__(self, directory: Path) -> None:
        self.file = FileLedger(directory / "ledger.jsonl", ACTOR, Ticking())

    def begin(self, subject: str, run: str | None, key: str = KEY, stage: str = "sign") -> str:
        return self.file.intend(SecretUse("sign", stage, subject, run, {"key": key}))

    def end(self, intent: str, outcome: str = "done") -> None:
        self.file.conclude(intent, outcome, {})

    def signature(self, version: int, run: str | None, subject: str = KEY) -> None:
        use = SecretUse("sign", "sign", subject, run, {"version": version})
        self.end(self.file.intend(use))

    def fetch(self, version: int, run: str | None) -> None:
        intent = self.file.intend(SecretUse("fetch", "sign", KV, run, {}))
        self.file.conclude(intent, "done", {"version": version})

    def whole(self, subject: str, run: str | None, version: int, count: int = 2) -> None:
        intent = self.begin(subject, run)
        for _ in range(count):
            self.signature(version, run)
        self.end(intent)

    def usage(self, version: int, key: str = KEY) -> Usage:
        return usage(self.file.path, KeyRef.parse(key), version)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def test_each_artifact_of_the_version_is_listed(ledger: Ledger) -> None:
    """Versions 9 and 10 are different ones; other keys do not count; heads are told apart."""
    ledger.whole(image("a"), "r-1", 9)
    ledger.whole("ledger", "r-1", 9, count=1)
    ledger.whole(image("b"), "r-2", 10, count=3)
    other = ledger.begin(image("c"), "r-3", "vault-transit://transit/other")
    ledger.signature(9, "r-3", "vault-transit://transit/other")
    ledger.end(other)
    nine, ten = ledger.usage(9), ledger.usage(10)
    assert [(u.artifact, u.run, u.signatures, u.outcome) for u in nine.uses] == [
        (image("a"), "r-1", 2, "done"), ("ledger", "r-1", 1, "done")
    ]  # fmt: skip
    assert [(u.artifact, u.signatures) for u in ten.uses] == [(image("b"), 3)]
    assert artifacts(nine.uses) == {image("a").partition("@")[2]}
    assert (nine.blind, nine.loose) == ((), 0)
    assert ledger.usage(1).uses == ()


def test_spellings_of_one_key_are_one_key(ledger: Ledger) -> None:
    """The alias of cosign and a named version are the same key."""
    for letter, text in (("a", "hashivault://release"), ("b", f"{KEY}@9")):
        intent = ledger.begin(image(letter), letter, text)
        ledger.signature(9, letter, f"{KEY}@9" if letter == "b" else KEY)
        ledger.end(intent)
    assert [u.artifact for u in ledger.usage(9).uses] == [image("a"), image("b")]
    assert [u.artifact for u in ledger.usage(9, "hashivault://release").uses] == [
        image("a"), image("b")
    ]  # fmt: skip


def test_runs_side_by_side_are_not_mixed(ledger: Ledger) -> None:
    """Signatures belong to the artifact of their own run."""
    one, two = ledger.begin(image("a"), "r-1"), ledger.begin(image("b"), "r-2")
    ledger.signature(1, "r-2")
    ledger.signature(2, "r-1")
    ledger.end(two)
    ledger.end(one)
    assert [u.artifact for u in ledger.usage(1).uses] == [image("b")]
    assert [u.artifact for u in ledger.usage(2).uses] == [image("a")]


def test_what_was_only_intended_counts(ledger: Ledger) -> None:
    """A run that was killed, and one that failed, may have signed."""
    ledger.begin(image("a"), "r-1")
    ledger.file.intend(SecretUse("sign", "sign", KEY, "r-1", {"version": 3}))
    failed = ledger.begin(image("b"), "r-2")
    ledger.signature(3, "r-2")
    ledger.end(failed, "failed")
    assert [(u.artifact, u.outcome) for u in ledger.usage(3).uses] == [
        (image("a"), "unknown"), (image("b"), "failed")
    ]  # fmt: skip


def test_a_use_without_an_artifact_is_counted(ledger: Ledger) -> None:
    """A signature outside of any stage, or after its end, is not dropped."""
    ledger.signature(3, None)
    ledger.whole(image("a"), "r-1", 3)
    ledger.signature(3, "r-1")
    found = ledger.usage(3)
    assert (len(found.uses), found.loose) == (1, 2)


def test_a_fetched_key_counts_for_all_that_the_run_signs_with_it(ledger: Ledger) -> None:
    """KV: the version is that of the fetch; later artifacts of the run are signed with it too."""
    first = ledger.begin(image("a"), "r-1", KV)
    ledger.fetch(4, "r-1")
    ledger.end(first)
    ledger.end(ledger.begin("ledger", "r-1", KV))
    ledger.end(ledger.begin(image("b"), "r-2", KV))
    found = usage(ledger.file.path, KeyRef.parse(KV), 4)
    assert [u.artifact for u in found.uses] == [image("a"), "ledger"]


def test_where_the_image_went(ledger: Ledger) -> None:
    """Repositories that an affected image was pushed to are named."""
    ledger.whole(image("a"), "r-1", 1)
    digest = image("a").partition("@")[2]
    for place in ("registry.example/b", "registry.example/a"):
        ledger.end(ledger.file.intend(SecretUse("push", "push", f"{place}@{digest}", "r-1", {})))
    (use,) = ledger.usage(1).uses
    assert use.pushed == ("registry.example/a", "registry.example/b")


def test_sealed_ledgers_are_read_too(ledger: Ledger) -> None:
    """A rotated ledger still tells; one that is missing is said to be."""
    ledger.whole(image("a"), "r-1", 1)
    sealed = ledger.file.rotate("end of the year")
    ledger.whole(image("b"), "r-2", 1)
    assert [u.artifact for u in ledger.usage(1).uses] == [image("a"), image("b")]
    sealed.unlink()
    found = ledger.usage(1)
    assert [u.artifact for u in found.uses] == [image("b")]
    (blind,) = found.blind
    assert "the ledger before it is not here" in blind


def test_nothing_behind_an_altered_entry_is_believed(ledger: Ledger) -> None:
    """What is before the damage is listed, and the rest is said not to be seen."""
    ledger.whole(image("a"), "r-1", 1)
    ledger.whole(image("b"), "r-2", 1)
    data = ledger.file.path.read_bytes()
    ledger.file.path.write_bytes(data.replace(b"b" * 64, b"c" * 64, 1))
    found = ledger.usage(1)
    assert [u.artifact for u in found.uses] == [image("a")]
    (blind,) = found.blind
    assert "nothing behind entry 6" in blind


def test_no_ledger_is_no_answer(tmp_path: Path) -> None:
    """Without a ledger there is no empty list."""
    with pytest.raises(Inconclusive, match="there is no ledger"):
        usage(tmp_path / "ledger.jsonl", KeyRef.parse(KEY), 1)
