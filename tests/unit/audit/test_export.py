"""Entries as other programs read them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from fakes.ledgers import START, USE, ledger
from secure_pipeline.audit.export import Selection, as_jsonl, as_ocsf, select
from secure_pipeline.ports import SecretUse


@pytest.fixture
def log(tmp_path):
    """A login, a signature that is refused, and one that is done."""
    made = ledger(tmp_path)
    made.conclude(made.intend(SecretUse("login", "sign", "https://vault", "r-1")), "done", {})
    refused = made.intend(SecretUse("sign", "sign", "x", "r-1", {"vaultRequestId": "abc"}))
    made.conclude(refused, "refused", {"reason": "not you"})
    made.conclude(made.intend(USE), "done", {})
    return made


def test_jsonl_is_the_ledger_itself(log):
    """The lines, from any number on."""
    lines = log.path.read_bytes().splitlines()
    assert list(as_jsonl(log.path, 0)) == lines
    assert list(as_jsonl(log.path, 5)) == lines[5:]


def test_ocsf_maps_as_the_page_says(log):
    """Class, activity, status, severity, correlation."""
    events = [json.loads(line) for line in as_ocsf(log.path, 0)]
    assert [e["activity_id"] for e in events] == [99, 99, 99, 1, 1, 1, 1]
    assert [e["status_id"] for e in events] == [0, 0, 1, 0, 2, 0, 1]
    assert [e["severity_id"] for e in events] == [1, 1, 1, 1, 3, 1, 1]
    assert [e["metadata"]["sequence"] for e in events] == list(range(7))
    assert events[4]["metadata"]["correlation_uid"] == events[3]["metadata"]["uid"]
    assert events[4]["status_detail"] == "not you"
    assert events[3]["api"]["request"] == {"uid": "abc"}
    assert {e["type_uid"] for e in events} == {600399, 600301}
    assert events[0]["time"] == round((START + timedelta(milliseconds=250)).timestamp() * 1000)


def test_a_ledger_after_damage_is_a_severe_event(log):
    """Whoever watches events sees that a damaged ledger was sealed."""
    log.rotate("incident", damage="entry 3 is edited")
    (event,) = [json.loads(line) for line in as_ocsf(log.path, 0)]
    assert event["severity_id"] == 4


def test_entries_are_selected(log):
    """By run, stage and time, and all of these together."""

    def count(**wanted):
        return len(list(select(log.path, Selection(**wanted))))

    assert count() == 7
    assert count(run="r-1") == 6
    assert count(stage="ledger") == 1
    assert count(since=START + timedelta(hours=1)) == 0
    assert count(run="r-1", stage="ledger") == 0
