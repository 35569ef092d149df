"""The ledger of a real release: recorded, shown, exported, checked against its anchors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fakes.registry import debian_program, debian_registry
from fakes.workplace import Workplace
from secure_pipeline.files import sha256_file

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("released")]


def ledger(place: Workplace) -> Path:
    return place.state / "ledger.jsonl"


def shown(place: Workplace, *arguments: str) -> list[dict[str, Any]]:
    ended = place.run("audit", "show", "--json", *arguments)
    assert ended.code == 0, ended.text
    return [item["entry"] for item in ended.document["entries"]]


def public(place: Workplace) -> str:
    private = place.environment["SECURE_PIPELINE_KEY"].removeprefix("file:")
    return str(Path(private).with_suffix(".pub"))


def anchored(place: Workplace) -> tuple[str, ...]:
    return ("--anchor", f"layout:{place.state / 'image'}", "--key", public(place))


def damaged(place: Workplace, old: bytes, new: bytes) -> None:
    data = ledger(place).read_bytes()
    assert old in data
    ledger(place).write_bytes(data.replace(old, new, 1))


def test_a_run_records_the_use_of_its_key(released: Workplace) -> None:
    """Intents before, conclusions after: the image, the key in its file, a file, the head."""
    entries = shown(released)
    image = f"inference-service@{released.image()}"
    key = released.environment["SECURE_PIPELINE_KEY"]
    (signed,) = (released.state / "files").glob("*.py")
    file = f"{signed.name}@sha256:{sha256_file(signed)}"
    summary = [(e["kind"], e["action"], e["subject"]) for e in entries]
    assert summary == [
        ("opened", "open", "ledger"),
        ("intent", "sign", image),
        ("intent", "fetch", key),
        ("conclusion", "fetch", key),
        ("conclusion", "sign", image),
        ("intent", "sign", file),
        ("conclusion", "sign", file),
        ("intent", "sign", "ledger"),
        ("conclusion", "sign", "ledger"),
    ]
    (run,) = {entry["run"] for entry in entries[1:]}
    assert (released.state / "runs" / run).is_dir()
    assert entries[4]["details"]["statements"] == 7
    assert entries[1]["actor"]["kind"] == "os"
    assert entries[1]["actor"]["verified"] is False


def test_aud_01_the_image_carries_the_ledgers_head(released: Workplace) -> None:
    """The signed head beside the image fits the ledger, and the image still verifies."""
    ended = released.run("audit", "verify", "--json", *anchored(released))
    assert ended.code == 0, ended.text
    (found,) = ended.document["ledgers"]
    assert (found["anchors"], found["entries"], found["open"]) == (1, 9, 0)
    assert released.run("verify", f"inference-service@{released.image()}").code == 0


def test_aud_01_a_cut_tail_is_caught_by_the_image(copy_of_released: Workplace) -> None:
    """Whole entries are gone: the chain alone passes, the image's evidence tells."""
    lines = ledger(copy_of_released).read_bytes().splitlines(keepends=True)
    ledger(copy_of_released).write_bytes(b"".join(lines[:3]))
    assert copy_of_released.run("audit", "verify").code == 0
    ended = copy_of_released.run("audit", "verify", *anchored(copy_of_released))
    assert ended.code == 11
    assert "ledger.jsonl:4 (byte " in ended.err
    assert "entry 3 is truncated" in ended.err


def test_aud_02_an_edited_entry_is_named_and_sealed(copy_of_released: Workplace) -> None:
    """Verify names it, signing refuses to build upon it, rotation keeps it on record."""
    place = copy_of_released
    damaged(place, b'"stage":"sign"', b'"stage":"scan"')
    ended = place.run("audit", "verify")
    assert ended.code == 11
    assert "ledger.jsonl:2 (byte " in ended.err
    assert "entry 1 is edited" in ended.err
    assert place.run("audit", "show").code == 11
    assert place.run("audit", "rotate", "--reason", "x").code == 11
    ended = place.run("audit", "rotate", "--reason", "incident 7", "--damaged")
    assert ended.code == 0, ended.text
    ended = place.run("audit", "verify")
    assert ended.code == 0
    assert "follows a ledger that was damaged" in ended.out
    assert place.run("audit", "verify", "--history").code == 11
    assert place.run("audit", "verify", *anchored(place)).code == 11


def test_a_rotated_ledger_is_checked_with_its_history(copy_of_released: Workplace) -> None:
    """The anchors of sealed ledgers are found in them; a sealed file that changed is caught."""
    place = copy_of_released
    ended = place.run("audit", "rotate", "--reason", "quarterly", "--json")
    assert ended.code == 0, ended.text
    sealed = Path(ended.document["sealed"])
    assert place.run("audit", "verify", *anchored(place)).code == 11
    ended = place.run("audit", "verify", "--history", "--json", *anchored(place))
    assert ended.code == 0, ended.text
    assert [item["anchors"] for item in ended.document["ledgers"]] == [0, 1]
    sealed.write_bytes(sealed.read_bytes() + b"x")
    assert place.run("audit", "verify", "--history").code == 11


def test_aud_03_a_torn_tail_is_told_and_moved_aside(copy_of_released: Workplace) -> None:
    """Not tampering, not proof: 14, until it is moved aside."""
    with ledger(copy_of_released).open("ab") as stream:
        stream.write(b'{"action":"sig')
    ended = copy_of_released.run("audit", "verify")
    assert ended.code == 14
    assert "a torn tail of 14 bytes" in ended.err
    assert copy_of_released.run("audit", "recover").code == 0
    assert copy_of_released.run("audit", "verify").code == 0
    assert shown(copy_of_released)[-1]["kind"] == "recovered"


def test_a_ledger_that_is_not_there_proves_nothing(tmp_path: Path, released: Workplace) -> None:
    """No file, an empty one, one of another program: never 0."""
    empty, foreign = tmp_path / "empty", tmp_path / "foreign"
    empty.touch()
    foreign.write_text('{"level":"info"}\n')
    for path, code in ((tmp_path / "none", 14), (empty, 14), (foreign, 11), (tmp_path, 14)):
        for word in ("verify", "show"):
            ended = released.run("audit", word, "--ledger", str(path))
            assert ended.code == code or (word, path) == ("show", empty), ended.text


def test_anchors_need_a_key_and_a_signature(
    released: Workplace, tmp_path: Path, shared: Path
) -> None:
    """A head that anybody could have written anchors nothing."""
    assert released.run("keys", "generate", "--output", str(tmp_path / "other")).code == 0
    image = f"layout:{released.state / 'image'}"
    other = ("--key", str(tmp_path / "other.pub"))
    ended = released.run("audit", "verify", "--anchor", image, *other)
    assert ended.code == 14
    heads = tmp_path / "heads"
    ended = released.run("audit", "checkpoint", "--to", str(heads), "--ledger", str(tmp_path / "l"))
    assert ended.code == 0, ended.text
    ended = released.run("audit", "verify", "--anchor", str(heads), *other)
    assert ended.code == 11
    assert "not signed by the key" in ended.err


def test_a_head_is_kept_where_the_operator_says(copy_of_released: Workplace) -> None:
    """--ledger-anchor adds it to a file; audit checkpoint takes another at any time."""
    place = copy_of_released
    heads = place.root.parent / "heads.jsonl"
    ended = place.run("sign", "--ledger-anchor", str(heads))
    assert ended.code == 0, ended.text
    count = len(heads.read_bytes().splitlines()) if heads.exists() else 0
    assert place.run("audit", "checkpoint", "--to", str(heads)).code == 0
    assert len(heads.read_bytes().splitlines()) == count + 1
    check = ("audit", "verify", "--anchor", str(heads), "--key", public(place))
    assert place.run(*check).code == 0
    lines = ledger(place).read_bytes().splitlines(keepends=True)
    ledger(place).write_bytes(b"".join(lines[:-2]))
    assert place.run(*check).code == 11


def test_aud_07_what_cannot_be_recorded_is_not_signed(copy_of_released: Workplace) -> None:
    """No place for the ledger: exit 4, and the image has no new evidence."""
    place = copy_of_released
    shutil.rmtree(place.state / "cache")
    before = (place.state / "image/index.json").read_bytes()
    for path in ("/dev/full", str(place.root / "secure-pipeline.yaml" / "ledger.jsonl")):
        ended = place.run("sign", "--ledger", path)
        assert ended.code == 4, ended.text
        assert "ledger" in ended.err
    assert (place.state / "image/index.json").read_bytes() == before


def test_aud_07_what_cannot_be_recorded_is_not_pushed(released: Workplace, tmp_path: Path) -> None:
    """The registry sees no upload; with a ledger, intent and conclusion are there."""
    image = f"layout:{released.state / 'image'}"
    (tmp_path / "registry").mkdir()
    with debian_registry(debian_program(), tmp_path / "registry") as host:
        target = f"{host}/team/service:v1"
        ended = released.run("copy", image, target, "--ledger", "/dev/full")
        assert ended.code == 4, ended.text
        assert not list((tmp_path / "registry").rglob("team"))
        own = tmp_path / "ledger.jsonl"
        ended = released.run("copy", image, target, "--ledger", str(own))
        assert ended.code == 0, ended.text
    entries = shown(released, "--ledger", str(own))
    subject = f"{host}/team/service@{released.image()}"
    assert [(e["kind"], e["action"]) for e in entries[1:]] == [
        ("intent", "push"),
        ("conclusion", "push"),
    ]
    assert {e["subject"] for e in entries[1:]} == {subject}
    assert entries[2]["outcome"] == "done"


def test_show_selects(released: Workplace) -> None:
    """By run, stage and time."""
    (run,) = {entry["run"] for entry in shown(released)[1:]}
    assert len(shown(released, "--run", run, "--stage", "sign")) == 8
    assert shown(released, "--stage", "promote") == []
    assert shown(released, "--since", "2999-01-01") == []
    assert released.run("audit", "show", "--since", "yesterday").code == 2


def test_export_gives_the_lines_and_ocsf(released: Workplace) -> None:
    """JSON lines are the ledger's own bytes; an OCSF event holds what its class requires."""
    ended = released.run("audit", "export", "--from", "2")
    assert ended.out.encode() == b"".join(
        ledger(released).read_bytes().splitlines(keepends=True)[2:]
    )
    ended = released.run("audit", "export", "--format", "ocsf")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert len(events) == 9
    required = {
        *("activity_id", "actor", "api", "category_uid", "class_uid", "metadata"),
        *("severity_id", "src_endpoint", "time", "type_uid"),
    }
    for number, event in enumerate(events):
        assert required <= event.keys()
        assert (event["class_uid"], event["metadata"]["sequence"]) == (6003, number)
        assert event["type_uid"] == 600300 + event["activity_id"]
        raw, uid = event["raw_data"], event["metadata"]["uid"]
        rest = raw.replace(f'"hash":"{uid}",', "")
        assert hashlib.sha256(rest.encode()).hexdigest() == uid
    assert events[1]["metadata"]["correlation_uid"] == events[4]["metadata"]["correlation_uid"]
    assert released.run("audit", "export", "--format", "cef").code == 2


def test_aud_10_the_password_is_nowhere_in_the_ledger(released: Workplace) -> None:
    """What unlocks the key is in the environment only."""
    password = released.environment["SECURE_PIPELINE_KEY_PASSWORD"]
    for path in released.state.glob("ledger.jsonl*"):
        assert password.encode() not in path.read_bytes()
    assert os.stat(ledger(released)).st_mode & 0o077 == 0
