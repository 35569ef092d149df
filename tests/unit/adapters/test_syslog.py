"""The syslog adapter against a real listener."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.authority import make_authority
from fakes.ledgerlines import ORIGIN, event
from fakes.syslogreceiver import receiving
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.syslog import SyslogAddress, SyslogReceiver
from secure_pipeline.audit.sink import Refused
from secure_pipeline.errors import ConfigError, Unavailable


def speaker(port: int, seconds: float = 10.0, **more) -> SyslogReceiver:
    return SyslogReceiver(SyslogAddress("127.0.0.1", port, **more), SystemClock(), seconds)


def test_a_message_has_the_form_of_rfc_5424() -> None:
    """Priority, version, time in UTC, host, name, message id, structured data; length in octets."""
    frame = speaker(1, tls=False, origin="build er").encode(event(1))
    count, _, message = frame.partition(b" ")
    assert int(count) == len(message)
    assert message == (
        b"<109>1 2025-06-01T12:00:00.125Z build-er secure-pipeline - ledger "
        b'[secure-pipeline@32473 ledger="%s" seq="1" id="%s" whole="true"] %s'
        % (ORIGIN.encode(), event(1).id.encode(), event(1).data)
    )


def test_aud_11_plain_syslog_only_on_this_machine() -> None:
    """Entries do not cross a network in the clear."""
    with pytest.raises(ConfigError, match="only used on this machine") as caught:
        SyslogAddress("log.example", 601, tls=False)
    assert caught.value.hint == "syslog+tls://log.example:6514"


def test_aud_11_an_unknown_authority_gets_nothing(tmp_path: Path) -> None:
    """A receiver that is not trusted reads no entry."""
    authority = make_authority(tmp_path)
    with receiving(authority) as receiver:
        sender = speaker(receiver.port)
        with pytest.raises(Refused, match="not trusted"):
            sender.accept([sender.encode(event(0))])
        assert receiver.messages == receiver.broken == []


def test_a_receiver_that_goes_away_has_not_read_it() -> None:
    """What it left unread is an error, not a delivery."""
    with receiving() as receiver:
        receiver.leave_after = 1
        sender = speaker(receiver.port, tls=False)
        with pytest.raises(Unavailable, match="not all was read"):
            sender.accept([sender.encode(event(0, filler=6000)) for _ in range(2000)])


def test_a_receiver_without_tls_is_no_receiver(tmp_path: Path) -> None:
    """One that speaks something else is Unavailable; nothing falls back to plain."""
    with receiving() as receiver:
        sender = speaker(receiver.port, seconds=5.0, ca=make_authority(tmp_path).ca)
        with pytest.raises(Unavailable):
            sender.accept([sender.encode(event(0))])
        assert receiver.messages == []


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_authorities_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A wrong file is the configuration's fault, said before anything is sent."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="authorities"):
        speaker(1, ca=path)
