"""The fake collector keeps to Splunk's documentation: its codes, statuses and order of events."""

from __future__ import annotations

import gzip
import json

import pytest

from fakes.ledgerlines import HandClock
from fakes.splunkcollector import TOKEN, Collector, Reply, Request, Token

CHANNEL = "FE0ECFAD-13D5-401B-847D-77833BD77131"
GOOD = {"authorization": f"Splunk {TOKEN}", "x-splunk-request-channel": CHANNEL}
EVENT = b'{"event":"hello","fields":{"entry_id":"1"}}'


def collector(**more) -> Collector:
    return Collector(HandClock().monotonic, {TOKEN: Token(**more)})


def post(
    found: Collector, body: bytes = EVENT, path: str = "event", headers: dict | None = None
) -> Reply:
    headers = GOOD if headers is None else headers
    return found.handle(Request("POST", f"/services/collector/{path}", headers, body))


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, 2),
        ({"authorization": f"Bearer {TOKEN}"}, 401, 3),
        ({"authorization": "Splunk"}, 401, 3),
        ({"authorization": "Splunk 00000000-0000"}, 403, 4),
        ({"authorization": GOOD["authorization"]}, 400, 10),
        ({**GOOD, "x-splunk-request-channel": "me"}, 400, 11),
    ],
)
def test_who_may_speak(headers: dict, status: int, code: int) -> None:
    """The token first, then the channel, which is a GUID."""
    reply = post(collector(), headers=headers)
    assert (reply.status, reply.document["code"]) == (status, code)


def test_a_disabled_token() -> None:
    """403 with code 1."""
    reply = post(collector(disabled=True))
    assert (reply.status, reply.document["code"]) == (403, 1)


@pytest.mark.parametrize(
    ("body", "code", "number"),
    [
        (b"", 5, None),
        (b"  ", 5, None),
        (b"{", 6, 0),
        (EVENT + b"{", 6, 1),
        (EVENT + b"3", 6, 1),
        (b'{"host":"x"}', 12, 0),
        (b'{"event":""}', 13, 0),
        (EVENT + b'{"event":"x","index":"secret"}', 7, 2),
        (b'{"event":"x","fields":{"a":{"b":"c"}}}', 15, 0),
        (b'{"event":"x","time":"soon"}', 15, 0),
    ],
)
def test_a_bad_event(body: bytes, code: int, number: int | None) -> None:
    """The first bad one is named; those before it are indexed all the same."""
    found = collector()
    reply = post(found, body)
    assert (reply.status, reply.document["code"]) == (400, code)
    assert reply.document.get("invalid-event-number") == number
    found.work()
    assert len(found.indexed) == body.startswith(EVENT)


def test_acknowledgements_count_from_zero_on_each_channel_and_are_told_once() -> None:
    """Numbers, false for what is not known, true once, then forgotten."""
    found = collector()
    assert [post(found).document["ackId"] for _ in range(3)] == [0, 1, 2]
    ask = json.dumps({"acks": [0, 2, 7]}).encode()
    assert post(found, ask, "ack").document == {"acks": {"0": True, "2": True, "7": False}}
    assert post(found, ask, "ack").document == {"acks": {"0": False, "2": False, "7": False}}
    other = {**GOOD, "x-splunk-request-channel": CHANNEL.replace("F", "A")}
    assert post(found, headers=other).document["ackId"] == 0
    assert post(found, ask, "ack", {}).document["code"] == 2


def test_without_acknowledgement_there_is_no_number() -> None:
    """The channel is not needed, and asking is code 14."""
    found = collector(acknowledges=False)
    authorized = {"authorization": GOOD["authorization"]}
    assert post(found, headers=authorized).document == {"text": "Success", "code": 0}
    assert post(found, b'{"acks":[0]}', "ack").document["code"] == 14


def test_the_channel_may_be_in_the_query_and_the_body_compressed() -> None:
    """As the documentation's examples have it."""
    found = collector()
    headers = {"authorization": GOOD["authorization"], "content-encoding": "gzip"}
    reply = post(found, gzip.compress(EVENT), f"event?channel={CHANNEL}", headers)
    assert reply.document == {"text": "Success", "code": 0, "ackId": 0}


def test_a_crash_loses_what_waits_and_keeps_the_index() -> None:
    """Numbers begin again; what was indexed stays."""
    found = collector()
    post(found)
    found.delay = 9.0
    post(found)
    found.restart()
    found.work()
    assert len(found.indexed) == 1
    assert post(found).document["ackId"] == 0


def test_health_and_other_methods() -> None:
    """The health needs no token; only POST takes events."""
    found = collector()
    health = Request("GET", "/services/collector/health", {})
    assert (found.handle(health).status, found.handle(health).document["code"]) == (200, 17)
    found.healthy = False
    assert found.handle(health).status == 503
    assert found.handle(Request("GET", "/services/collector/event", GOOD)).status == 405
    assert post(found, path="elsewhere").status == 404
