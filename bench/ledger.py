"""Durable appends to the ledger beside the disk's own fsync rate, and verify beside sha256sum.

"append": 1, 4 and 16 processes record intents, each acknowledged only after fsync, beside as many
processes that append lines of the same length to one file and fsync, without lock or chain. Both
take turns on the same disk. "verify": ``audit verify`` of many entries, beside ``sha256sum`` of the
same file, which does no more than hash it. Ratios are what counts.

    python bench/ledger.py [--rounds N] [--seconds S] [--entries N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import NO_HASH, Actor, Entry, Kind
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.verify import verify
from secure_pipeline.errors import ExitCode
from secure_pipeline.ports import SecretUse

RESULTS = Path(__file__).resolve().parent / "results"
WRITERS = (1, 4, 16)
ACTOR = Actor("vault", "entity/6b1f8a5e-0d52-4f7e-9b3c-2f7c0b7d9e11", verified=True)
USE = SecretUse(
    "sign",
    "sign",
    "registry.example.com/team/inference-service@sha256:" + "b" * 64,
    "r-20260301T120000Z-1f2e3d",
    {
        "key": "vault-transit://transit/release",
        "version": 3,
        "requestHash": "sha256:" + "c" * 64,
        "vaultRequestId": "0f3c1a52-9d8b-4b5e-8f53-0d8f6c1f2b1a",
    },
)


def line(seq: int, prev: str, moment: datetime) -> entry.Line:
    """One line as the ledger of the bench has them."""
    return entry.write(
        Entry(
            seq=seq,
            prev=prev,
            time=moment,
            kind=Kind.INTENT,
            action=USE.action,
            stage=USE.stage,
            subject=USE.subject,
            actor=ACTOR,
            run=USE.run,
            details=USE.details,
        )
    )


def rate(writers: int, seconds: float, writer: Callable[[float], int]) -> float:
    """Acknowledged appends a second of so many processes together."""
    begin = time.monotonic() + 0.2
    pipes = []
    for _ in range(writers):
        reading, writing = os.pipe()
        if os.fork() == 0:
            time.sleep(max(0.0, begin - time.monotonic()))
            os.write(writing, b"%d" % writer(begin + seconds))
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    counts = []
    for pipe in pipes:
        counts.append(int(os.read(pipe, 64)))
        os.close(pipe)
        os.wait()
    return sum(counts) / seconds


def ledger_writer(path: Path) -> Callable[[float], int]:
    """Records intents until the deadline."""

    def write(deadline: float) -> int:
        ledger, count = FileLedger(path, ACTOR, SystemClock()), 0
        while time.monotonic() < deadline:
            ledger.intend(USE)
            count += 1
        return count

    return write


def raw_writer(path: Path) -> Callable[[float], int]:
    """Appends a line and fsyncs until the deadline."""
    data = line(1, NO_HASH, datetime.now(UTC)).data + b"\n"

    def write(deadline: float) -> int:
        count = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        while time.monotonic() < deadline:
            os.write(descriptor, data)
            os.fsync(descriptor)
            count += 1
        return count

    return write


def appends(rounds: int, seconds: float, directory: Path) -> dict[str, list[float]]:
    """Rates by name, interleaved."""
    rates: dict[str, list[float]] = {}
    for turn in range(rounds):
        for writers in WRITERS:
            path = directory / f"ledger-{turn}-{writers}"
            pairs = (
                ("fsync loop", raw_writer(path.with_suffix(".raw"))),
                ("ledger", ledger_writer(path)),
            )
            for name, writer in pairs:
                found = rate(writers, seconds, writer)
                rates.setdefault(f"{name}, {writers} writers", []).append(found)
            assert verify(path).exit_code is ExitCode.PASS
    return rates


def make(path: Path, count: int) -> None:
    """Write a ledger of so many entries, without a durable write for each."""
    moment, prev = datetime(2026, 3, 1, tzinfo=UTC), NO_HASH
    with path.open("wb") as stream:
        for seq in range(count):
            made = line(seq, prev, moment + timedelta(milliseconds=seq))
            stream.write(made.data + b"\n")
            prev = made.hash


def verifying(rounds: int, count: int, directory: Path) -> dict[str, list[float]]:
    """Seconds by name, interleaved; and the most memory that a verification took, in MiB."""
    path = directory / "ledger.jsonl"
    make(path, count)
    program = str(Path(sys.executable).with_name("secure-pipeline"))
    commands = {
        "sha256sum": ["sha256sum", str(path)],
        "audit verify": [program, "audit", "verify", "--ledger", str(path)],
    }
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, argv in commands.items():
            started = time.perf_counter()
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            if turn:
                seconds.setdefault(name, []).append(time.perf_counter() - started)
                used = usage.ru_utime + usage.ru_stime
                seconds.setdefault(f"{name}, processor", []).append(used)
                if name == "audit verify":
                    seconds.setdefault("MiB", []).append(usage.ru_maxrss / 1024)
    print(f"{count} entries, {path.stat().st_size / 2**20:.0f} MiB")
    return seconds


def report(rates: dict[str, list[float]], seconds: dict[str, list[float]], count: int) -> None:
    """Print medians, spread and ratios; keep the same as JSON."""
    ratios: dict[str, float] = {}
    for name, values in rates.items():
        print(
            f"{name:24} median {statistics.median(values):8.0f}/s "
            f"({min(values):.0f} to {max(values):.0f}, {len(values)} rounds)"
        )
    for writers in WRITERS:
        ours, theirs = (
            statistics.median(rates[f"{name}, {writers} writers"])
            for name in ("ledger", "fsync loop")
        )
        ratios[f"ledger / fsync loop, {writers} writers"] = ours / theirs
        alone = statistics.median(rates["fsync loop, 1 writers"])
        ratios[f"ledger, {writers} writers / fsync loop, 1 writers"] = ours / alone
    memory = max(seconds.pop("MiB"))
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{name:24} median {middle:8.2f} s, {count / middle:.0f} entries/s "
            f"({min(values):.2f} to {max(values):.2f}, {len(values)} rounds)"
        )
    for suffix in ("", ", processor"):
        ours, theirs = (
            statistics.median(seconds[f"{name}{suffix}"]) for name in ("audit verify", "sha256sum")
        )
        ratios[f"audit verify / sha256sum{suffix or ', elapsed'}"] = ours / theirs
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    print(f"audit verify took at most {memory:.0f} MiB")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ledger.json").write_text(
        json.dumps({"rates": rates, "seconds": seconds, "ratios": ratios, "MiB": memory}, indent=2)
    )


def main() -> None:
    """Measure, interleaved, and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--entries", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ledger.") as temporary:
        rates = appends(asked.rounds, asked.seconds, Path(temporary))
        seconds = verifying(max(1, asked.rounds // 2), asked.entries, Path(temporary))
    report(rates, seconds, asked.entries)


if __name__ == "__main__":
    main()
