"""Sending an event: what is no listener's answer is no success."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.eventlistener import send_event
from secure_pipeline.adapters.http import HttpLimits, Transport
from secure_pipeline.errors import Inconclusive, PipelineError, PolicyDenied, Unavailable

TAKEN = {
    "eventListener": "secure-pipeline",
    "eventListenerUID": "u",
    "eventID": "1b600790-4c04-4902-9378-a6388a39b3cf",
}
"""As the listener of Triggers 0.32 answers (tests/integration/test_tekton_triggers.py)."""


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with fault_proxy() as proxy:
        yield proxy


def send(proxy: FaultProxy) -> str:
    limits = HttpLimits(attempts=2, silence=2, total=5)
    transport = Transport(SystemClock(), limits=limits, sleep=lambda _: None)
    return send_event(f"http://{proxy.host}/", b"{}", "sha256=00", transport)


def test_the_answer_names_the_event(proxy: FaultProxy) -> None:
    """202 with an event id; the body and its signature went out as they are."""
    proxy.on("POST", "/", fault.answer(202, json.dumps(TAKEN).encode()))
    assert send(proxy) == TAKEN["eventID"]
    (seen,) = proxy.seen
    assert (seen.body, seen.headers["x-hub-signature-256"]) == (b"{}", "sha256=00")
    assert "x-hub-signature" not in seen.headers


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, json.dumps(TAKEN), Unavailable),
        (204, "", Unavailable),
        (302, "", Unavailable),
        (400, "no JSON", Unavailable),
        (401, "", PolicyDenied),
        (403, "", PolicyDenied),
        (404, "", Unavailable),
        (503, "", Unavailable),
        (202, "", Unavailable),
        (202, "ok", Unavailable),
        (202, "[]", Unavailable),
        (202, json.dumps({**TAKEN, "eventID": None}), Unavailable),
        (202, json.dumps({**TAKEN, "eventID": "\x1b[2J"}), Unavailable),
        (202, json.dumps({**TAKEN, "eventListener": 1}), Unavailable),
        (202, " " * (1 << 17), Inconclusive),
    ],
)
def test_another_answer_is_an_error(
    proxy: FaultProxy, status: int, body: str, error: type[PipelineError]
) -> None:
    """Another status, a redirect, a page, or more than a listener says."""
    location = {"Location": f"http://{proxy.host}/other"} if status == 302 else {}
    proxy.on("POST", "/", fault.answer(status, body.encode(), **location))
    with pytest.raises(error):
        send(proxy)
    assert not proxy.requests("GET")
    assert not proxy.requests("POST", "/other")


def test_a_lost_answer_is_asked_for_again(proxy: FaultProxy) -> None:
    """The same bytes once more: the run has one name, so it cannot start twice."""
    proxy.on("POST", "/", fault.cut, times=1)
    proxy.on("POST", "/", fault.answer(202, json.dumps(TAKEN).encode()))
    assert send(proxy) == TAKEN["eventID"]
    assert proxy.seen[0].body == proxy.seen[1].body


def test_plain_http_is_for_this_machine() -> None:
    """No event goes to another machine in the clear."""
    with pytest.raises(Unavailable, match="plain http"):
        send_event("http://10.0.0.1/", b"{}", "sha256=00", Transport(SystemClock()))
