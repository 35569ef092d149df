"""Delivery to a syslog server that is not ours: rsyslog, over TLS and plain TCP."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fakes.authority import make_authority
from fakes.rsyslog import rsyslog
from fakes.workplace import Workplace
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit.entry import Actor
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.ports import SecretUse

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "tcp"])
def test_rsyslog_receives_every_entry_as_it_is(tmp_path: Path, tls: bool) -> None:
    """451 entries over several connections: exact bytes, numbers and ids, nothing besides."""
    authority = make_authority(tmp_path / "tls")
    ledger = FileLedger(
        tmp_path / "ledger.jsonl", Actor("os", "tester", verified=False), SystemClock()
    )
    for number in range(450):
        odd = {"odd": 'é "x" \n ] <109>1 - \t\x1b[31m', "filler": "x" * (number % 500)}
        ledger.intend(SecretUse("sign", "sign", f"app@sha256:{number:064}", details=odd))
    place = Workplace(
        tmp_path, {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    )
    with rsyslog(tmp_path / "rsyslog", authority if tls else None) as server:
        ended = place.run(
            *("audit", "ship", "--ledger", "ledger.jsonl", "--without-ack"),
            *("--to", f"syslog+{'tls' if tls else 'tcp'}://127.0.0.1:{server.port}"),
            *("--confirm-window", "1s", *(("--audit-ca", str(authority.ca)) if tls else ())),
            timeout=120,
        )
        assert ended.code == 0, ended.text
    found = server.lines()
    written = ledger.path.read_text().splitlines()
    assert [text.removeprefix(" ") for text, _, _, _ in found] == written
    numbers = [re.search(r' seq="([0-9]+)" id="([0-9a-f]{64})" ', data) for _, data, _, _ in found]
    assert [int(item[1]) for item in numbers if item] == list(range(451))
    assert all(item and item[2] in line for item, line in zip(numbers, written, strict=True))
    assert {priority for _, _, _, priority in found} == {"109"}
