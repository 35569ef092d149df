"""kill -9 at every point of writing: no acknowledged entry is lost, no false alarm.

Children are forked from this process and killed for good: by themselves after every byte of a
write, or by strace at every system call that changes a file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.evidence import StepClock, make_image, public_key, sign_inputs, signer
from fakes.ledgers import USE, ledger
from fakes.thorough import sweep, times
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.seal import check_seal
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.audit import lockedfile
from secure_pipeline.audit.checkpoint import heads_beside, heads_in_file
from secure_pipeline.audit.entry import Kind
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.reader import entries
from secure_pipeline.audit.verify import verify
from secure_pipeline.errors import ExitCode
from secure_pipeline.events import ignore
from secure_pipeline.oci.layout import Layout
from secure_pipeline.signing import Recording, sign_recorded
from secure_pipeline.stages.result import Verdict
from secure_pipeline.stages.sign import SignInputs

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

CHANGES = ("write", "fsync", "ftruncate", "rename", "link", "unlink", "mkdir")
"""System calls that change files; strace counts each by itself."""
MAX_POINTS = 2000
Acknowledge = Callable[[str], None]


class Child:
    """A forked process that works when it is told to, and says which entries were acknowledged."""

    def __init__(self, work: Callable[[Acknowledge], object]) -> None:
        gate, self._go = os.pipe()
        self._said, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.read(gate, 1)
                work(lambda entry: _say(say, entry))
                code = 0
            finally:
                os._exit(code)
        os.close(gate)
        os.close(say)

    def go(self) -> tuple[int, list[str]]:
        """Let it work; its exit code (negative: the signal) and what was acknowledged."""
        os.write(self._go, b"x")
        said = b""
        while chunk := os.read(self._said, 1 << 16):
            said += chunk
        os.close(self._said)
        os.close(self._go)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, said.decode().split()


def _say(pipe: int, entry: str) -> None:
    """Acknowledge with a call that the injection does not count."""
    os.writev(pipe, [f"{entry}\n".encode()])


def killed_at_call(
    call: str, number: int, work: Callable[[Acknowledge], object]
) -> tuple[int, list[str]]:
    """Run ``work`` in a child that strace kills as it enters its n-th call of a kind."""
    child = Child(work)
    program = shutil.which("strace")
    assert program, "strace is needed: apt-get install strace"
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    command = [program, "-f", "-e", f"trace={call}", "-e", inject, "-o", os.devnull]
    with subprocess.Popen(
        [*command, "-p", str(child.pid)],
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stderr
        attached = tracer.stderr.readline()
        assert "attached" in attached, attached
        ended = child.go()
        tracer.stderr.read()
    return ended


def every_call(directory: Path, attempt: Callable[[str, int, Path], int]) -> int:
    """Kill at the swept calls of each kind, each in a directory of its own; how often it was."""
    kills = 0
    for call in CHANGES:
        for number in sweep(1, MAX_POINTS):
            place = directory / f"{call}-{number}"
            code = attempt(call, number, place)
            shutil.rmtree(place)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            kills += 1
        else:
            raise AssertionError("the work never came to its end")
    return kills


def killed_after_byte(number: int, work: Callable[[Acknowledge], object]) -> tuple[int, list[str]]:
    """Run ``work`` in a child whose n-th byte into the ledger is its last."""

    def run(acknowledge: Acknowledge) -> None:
        real, left = os.write, number

        def write(descriptor: int, data: bytes) -> int:
            nonlocal left
            if left < len(data):
                real(descriptor, bytes(data)[:left])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= len(data)
            return real(descriptor, data)

        vars(lockedfile.os)["write"] = write
        work(acknowledge)

    return Child(run).go()


def holds(log: FileLedger, acknowledged: list[str]) -> None:
    """After a kill: nothing is called tampering, and everything acknowledged is there."""
    if not log.path.exists():
        assert not acknowledged
        return
    found = verify(log.path)
    assert found.damage is None
    assert found.exit_code in (ExitCode.PASS, ExitCode.INCONCLUSIVE)
    assert set(acknowledged) <= {item.hash for item in entries(log.path)}


def goes_on(log: FileLedger, acknowledged: list[str]) -> None:
    """The next writer finds a whole ledger or makes it whole, and nothing is lost."""
    log.conclude(log.intend(USE), "done", {})
    found = verify(log.path)
    assert found.exit_code is ExitCode.PASS, found
    assert set(acknowledged) <= {item.hash for item in entries(log.path)}
    assert not log.path.with_name("ledger.jsonl.torn").exists()


def use_it(log: FileLedger) -> Callable[[Acknowledge], None]:
    """Two intents, each with its conclusion, as a process of its own does it."""

    def work(acknowledge: Acknowledge) -> None:
        mine = ledger(log.path.parent)
        for _ in range(2):
            intent = mine.intend(USE)
            acknowledge(intent)
            mine.conclude(intent, "done", {})
            acknowledge(mine.head().hash)

    return work


def test_aud_03_killed_after_any_byte(tmp_path: Path) -> None:
    """After the swept of more than 1,500 bytes of an opening, two intents and two conclusions."""
    log = ledger(tmp_path)
    torn = 0
    for number in sweep(0, 2 * MAX_POINTS):
        for path in tmp_path.iterdir():
            path.unlink()
        code, acknowledged = killed_after_byte(number, use_it(log))
        assert code in (0, -signal.SIGKILL)
        holds(log, acknowledged)
        torn += not log.path.read_bytes().endswith(b"\n")
        goes_on(log, acknowledged)
        if code == 0:
            break
    assert number > 1500
    assert torn > times(1500, 200)


@pytest.mark.parametrize(("torn", "least"), [(b"", 10), (b'{"action":"si', 18)])
def test_aud_05_killed_at_any_call_of_an_append(tmp_path: Path, torn: bytes, least: int) -> None:
    """Before each write, fsync, truncation and rename, in recovery too; then it goes on."""
    start = tmp_path / "start"
    start.mkdir()
    ledger(start).intend(USE)
    with ledger(start).path.open("ab") as stream:
        stream.write(torn)

    def attempt(call: str, number: int, place: Path) -> int:
        shutil.copytree(start, place)
        log = ledger(place)
        code, acknowledged = killed_at_call(call, number, use_it(log))
        holds(log, acknowledged)
        goes_on(log, acknowledged)
        kept = [path.read_bytes() for path in place.glob("*.torn")]
        assert kept.count(torn) == bool(torn)
        return code

    assert every_call(tmp_path, attempt) >= least


def test_aud_02_killed_at_any_call_of_a_rotation(tmp_path: Path) -> None:
    """The ledger is the old one or the new one; rotating again ends the work."""
    start = tmp_path / "start"
    start.mkdir()
    old = ledger(start).intend(USE)

    def attempt(call: str, number: int, place: Path) -> int:
        shutil.copytree(start, place)
        log = ledger(place)
        code, _ = killed_at_call(call, number, lambda _: log.rotate("full"))
        holds(log, [])
        if "previousHash" not in verify(log.path).opening:
            holds(log, [old])
            log.rotate("full")
        opening = verify(log.path).opening
        assert opening["previousHash"] == old
        assert verify(place / str(opening["previousFile"])).exit_code is ExitCode.PASS
        goes_on(log, [])
        return code

    assert every_call(tmp_path, attempt) >= 5


def test_aud_05_killed_at_any_call_of_signing(tmp_path: Path) -> None:
    """At each change of a file, by the layout or the ledger: signing again completes both.

    No signature is attached that the ledger does not know about, and every head that is beside
    the image or in the operator's file fits the ledger.
    """
    signer()
    start = tmp_path / "start"
    template = sign_inputs(start / "image", make_image(start / "image"))
    unsigned = []

    def attempt(call: str, number: int, place: Path) -> int:
        shutil.copytree(start, place)
        signing = Signing(replace(template, layout=place / "image"), ledger(place), place / "heads")
        code, acknowledged = killed_at_call(call, number, signing.sign)
        holds(signing.log, acknowledged)
        attached = signing.statements()
        unsigned.append(not attached)
        if attached:
            done = [(item.entry.kind, item.entry.action) for item in entries(signing.log.path)]
            assert (Kind.INTENT, "sign") in done
        signing.sign(lambda entry: None)
        signing.check()
        return code

    assert every_call(tmp_path, attempt) >= times(150, 40)
    assert sum(unsigned) > times(20, 5)


@dataclass(frozen=True)
class Signing:
    """An image to sign, with its ledger and the operator's file of heads."""

    inputs: SignInputs
    log: FileLedger
    heads: Path

    def sign(self, acknowledge: Acknowledge) -> None:
        recording = Recording(self.log, "file:release.key", self.heads)
        files = self.heads.parent / "files"
        result = sign_recorded(self.inputs, files, recording, signer, StepClock(), ignore)
        assert result.verdict is Verdict.PASS
        acknowledge(self.log.head().hash)

    def statements(self) -> list[Statement]:
        layout = Layout.open(self.inputs.layout)
        found = collect(layout, self.inputs.image.digest)
        return [parse_statement(item.envelope.payload) for item in found]

    def check(self) -> None:
        """One sealed set, and a ledger that every kept head fits."""
        statements = self.statements()
        sealed = [s for s in statements if s.predicate_type != predicates.LEDGER_HEAD]
        (seal,) = [s for s in sealed if s.predicate_type == predicates.SEAL]
        check_seal(seal, statements)
        assert len(sealed) == 8
        keys, layout = [public_key()], Layout.open(self.inputs.layout)
        anchors = heads_beside(layout, self.inputs.image.digest, keys)
        anchors += heads_in_file(self.heads, keys)
        assert verify(self.log.path, [a.head for a in anchors]).exit_code is ExitCode.PASS
