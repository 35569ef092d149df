"""Delivery to a collector of Splunk's protocol that is not ours, with its acknowledgements."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.otelcollector import OtelCollector, otel_collector
from fakes.workplace import Workplace
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit.entry import Actor
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.ports import SecretUse

pytestmark = pytest.mark.integration


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[OtelCollector]:
    with otel_collector(tmp_path) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, collector: OtelCollector) -> Workplace:
    return Workplace(
        tmp_path,
        {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "SECURE_PIPELINE_LEDGER": str(tmp_path / "ledger.jsonl"),
            "SECURE_PIPELINE_AUDIT_TO": f"splunk+{collector.base}",
            "SECURE_PIPELINE_AUDIT_TOKEN": "only-for-tests",
        },
    )


def fill(place: Workplace, count: int) -> list[str]:
    path = place.root / "ledger.jsonl"
    ledger = FileLedger(path, Actor("os", "tester", verified=False), SystemClock())
    for number in range(count):
        odd = {"odd": 'é "x" \n ]\t\x1b[31m'}
        ledger.intend(SecretUse("sign", "sign", f"app@sha256:{number:064}", details=odd))
    return path.read_text().splitlines()


def test_every_entry_arrives_and_is_acknowledged(
    place: Workplace, collector: OtelCollector
) -> None:
    """Exact bytes in order, time and fields as they were meant."""
    lines = fill(place, 450)
    ended = place.run("audit", "ship", timeout=120)
    assert ended.code == 0, ended.text
    events = collector.events()
    assert [item["event"] for item in events] == lines
    for item in events:
        entry = json.loads(item["event"])
        assert item["fields"] == {
            "entry_id": entry["hash"],
            "ledger": json.loads(lines[0])["hash"],
            "sequence": str(entry["seq"]),
            "whole": "true",
        }
        assert item["metadata"]["com.splunk.sourcetype"] == "secure-pipeline:ledger"
        assert abs(item["time"] - time.time()) < 3600


def test_aud_09_a_collector_that_is_killed_again_and_again(
    place: Workplace, collector: OtelCollector
) -> None:
    """Kill -9 of the collector while entries come: all arrive, and duplicates are the same."""
    chance = random.Random(11)
    lines: list[str] = []
    for _ in range(6):
        lines = fill(place, 400)
        process = place.start("audit", "ship", "--deadline", "24s")
        time.sleep(0.3 + chance.random() / 2)
        collector.kill()
        collector.start()
        process.communicate(timeout=120)
        assert process.returncode in (0, 14)  # taken, and lost with the collector's memory
    assert place.run("audit", "ship").code == 0
    found = [item["event"] for item in collector.events()]
    assert set(found) == set(lines)
    assert len(found) >= len(lines)


def test_without_acknowledgements_its_health_counts(place: Workplace) -> None:
    """The health endpoint is the documented one."""
    fill(place, 3)
    ended = place.run("audit", "ship", "--without-ack", "--confirm-window", "1s", timeout=120)
    assert ended.code == 0, ended.text
