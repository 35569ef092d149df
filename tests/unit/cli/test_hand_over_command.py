"""``secure-pipeline hand-over`` as people start it, before a listener that only takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from secure_pipeline.audit import reader
from secure_pipeline.trigger import Secret

IMAGE = f"registry.example/team/service@sha256:{'a' * 64}"
SECRET = "0123456789abcdef" * 4
TAKEN = {"eventListener": "l", "eventListenerUID": "u", "eventID": "e-1"}


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with fault_proxy() as proxy:
        proxy.on("POST", "/", fault.answer(202, json.dumps(TAKEN).encode()))
        yield proxy


def program(directory: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "hand-over", *words],
        cwd=directory, env={**kept, "SECURE_PIPELINE_STATE": str(directory / "state"), **more},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def words(proxy: FaultProxy, *more: str) -> tuple[str, ...]:
    return (IMAGE, "--to", f"http://{proxy.host}/", "--target", "production", "--no-wait", *more)


def test_an_event_is_sent_signed(tmp_path: Path, proxy: FaultProxy) -> None:
    """What arrives is signed with the secret of the file, and names image, target and address."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    ended = program(tmp_path, *words(proxy, "--secret-file", "secret", "--json"))
    assert ended.returncode == 0, ended.stderr
    (seen,) = proxy.seen
    assert seen.headers["x-hub-signature-256"] == Secret(SECRET.encode()).sign(seen.body)
    said, event = json.loads(ended.stdout), json.loads(seen.body)
    assert (event["image"], event["target"]) == (IMAGE, "production")
    assert event["audience"] == f"http://{proxy.host}/"
    assert said["run"] == f"promote-{event['id']}"
    assert (said["kind"], said["event"], said["verdict"]) == ("HandOver", "e-1", None)


def test_the_secret_is_written_nowhere(tmp_path: Path, proxy: FaultProxy) -> None:
    """The ledger has the use, by image, run and address; neither it nor the output the secret."""
    ended = program(tmp_path, *words(proxy), SECURE_PIPELINE_HAND_OVER_SECRET=SECRET)
    assert ended.returncode == 0, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    found = [item.entry for item in reader.entries(tmp_path / "state/ledger.jsonl")]
    (intent,) = (e for e in found if e.stage == "hand-over" and "to" in e.details)
    assert (intent.action, intent.subject) == ("promote", IMAGE)


@pytest.mark.parametrize(
    ("more", "secret", "code", "says"),
    [
        ((), "", 2, "no secret is named"),
        ((), "short", 2, "the secret has 5 bytes"),
        (("--target", "$(id)"), SECRET, 2, "cannot be handed over as target"),
        (("--to", "http://10.0.0.1/"), SECRET, 4, "plain http"),
        (("--to", "https://127.0.0.1:1/"), SECRET, 4, "no answer"),
        (("--wait", "for ever"), SECRET, 2, "no time from 1s to 24h"),
        (("--secret-file", "nowhere"), SECRET, 3, "nowhere"),
        (("--listener-ca", "nowhere"), SECRET, 3, "no such file"),
    ],
)
def test_what_cannot_be_handed_over(
    tmp_path: Path, proxy: FaultProxy, more: tuple[str, ...], secret: str, code: int, says: str
) -> None:
    """Each is said in a line, with nothing sent and the secret not shown."""
    ended = program(tmp_path, *words(proxy, *more), SECURE_PIPELINE_HAND_OVER_SECRET=secret)
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert not proxy.seen
    assert "Traceback" not in ended.stderr


def test_a_tag_is_no_image(tmp_path: Path, proxy: FaultProxy) -> None:
    """A tag can move while the cluster works: 2, and nothing is sent."""
    named = ("registry.example/team/service:latest", *words(proxy)[1:])
    ended = program(tmp_path, *named, SECURE_PIPELINE_HAND_OVER_SECRET=SECRET)
    assert ended.returncode == 2, ended.stderr
    assert not proxy.seen


def test_nothing_is_sent_where_the_verdict_could_not_be_read(
    tmp_path: Path, proxy: FaultProxy
) -> None:
    """To wait, policy and registry have to be there before: 3 or 4, with nothing sent."""
    variables = {"SECURE_PIPELINE_HAND_OVER_SECRET": SECRET}
    local = (f"127.0.0.1:1/service@sha256:{'a' * 64}", *words(proxy)[1:-1])
    missing = program(tmp_path, *local, "--policy", "nowhere.yaml", **variables)
    assert missing.returncode == 3, missing.stderr
    away = program(tmp_path, *local, **variables)
    assert away.returncode == 4, away.stderr
    assert not proxy.seen
