"""Sends one signed event to an EventListener of Tekton Triggers, or to what stands before it.

Its answer, 202 with an event id, only says that the event was taken: the listener answers before
it looks at the signature (pkg/sink/sink.go of Triggers 0.32, and tests/integration).
"""

from __future__ import annotations

import re

from secure_pipeline.adapters.http import Transport, shown
from secure_pipeline.errors import PolicyDenied, Unavailable, VerificationFailed
from secure_pipeline.shape import member, parse_object
from secure_pipeline.trigger import SIGNATURE

SECONDS = 60.0
"""For the whole call with its repetitions."""
_MAX_ANSWER = 64 << 10
_EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,64}\Z")


def send_event(url: str, body: bytes, signature: str, transport: Transport) -> str:
    """Send and return the listener's id of the event.

    The same event may arrive twice: its run has one name. Raises: Unavailable (no answer, no trust,
    http to another machine, an answer that is no listener's), PolicyDenied (401, 403).
    """
    headers = {"Content-Type": "application/json", SIGNATURE: signature}
    answer = transport.request(
        "POST",
        url,
        headers=headers,
        body=body,
        deadline=transport.deadline(SECONDS),
        retry=True,
        follow=False,
    )
    with answer:
        if answer.status in (401, 403):
            raise PolicyDenied(f"refused with status {answer.status}", where=shown(url))
        if answer.status != 202:
            raise Unavailable(
                f"status {answer.status}, and a listener answers 202: {answer.quote()}",
                where=shown(url),
            )
        data = answer.read(_MAX_ANSWER)
    try:
        said = parse_object(data, shown(url), limit=_MAX_ANSWER)
        event = member(said, "eventID", str, shown(url))
        member(said, "eventListener", str, shown(url))
    except VerificationFailed as error:
        raise Unavailable(f"no EventListener answered: {error.message}", where=shown(url)) from None
    if not _EVENT_ID.match(event):
        raise Unavailable("no EventListener answered: its event id is none", where=shown(url))
    return str(event)
