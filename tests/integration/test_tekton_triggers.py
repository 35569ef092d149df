"""The hand-over through a real EventListener: what starts a run, and what starts nothing.

The listener answers 202 to all of these, so every test looks at the runs.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
import yaml

from cluster.api import until
from cluster.pipelines import NAMESPACE, PipelinePlace
from cluster.tekton import TEKTON
from cluster.triggers import Listener, component, listening
from fakes.workplace import ROOT
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.plan.tekton_access import EXPIRES
from secure_pipeline.shape import rfc3339
from secure_pipeline.trigger import HandOver, Secret

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1200),  # whichever is first makes cluster, images and a sound run
]
IMAGE = ImageReference.parse(f"registry.example/team/service@sha256:{'a' * 64}")
SHELL = "$(touch /tmp/pwned)`touch /tmp/pwned`'\"; touch /tmp/pwned; $PATH"
RUNS = f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns"


@pytest.fixture(scope="module")
def listener(pipelines: PipelinePlace) -> Iterator[Listener]:
    """tekton/triggers beside the rest of tekton/; each test talks in its network."""
    with listening(pipelines.tekton.cluster, NAMESPACE) as made:
        yield made


@dataclass(frozen=True)
class Sender:
    """Somebody who knows the listener, and maybe the secret."""

    listener: Listener

    def event(self, seconds: float = 300, **changes: Any) -> HandOver:
        """An event that is good for so long."""
        now = datetime.now(UTC).replace(microsecond=0)
        values: dict[str, Any] = {
            "id": secrets.token_hex(16), "image": IMAGE, "target": "production",
            "audience": self.listener.url, "issued": now + timedelta(seconds=seconds - 300),
            "expires": now + timedelta(seconds=seconds), **changes,
        }  # fmt: skip
        return HandOver(**values)

    def send(self, body: bytes, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Post a body, signed if nothing else is said."""
        given = self.signed(body) if headers is None else headers
        return requests.post(
            self.listener.url,
            data=body,
            headers={"Content-Type": "application/json", **given},
            verify=str(self.listener.ca),
            timeout=20,
        )

    def signed(self, body: bytes) -> dict[str, str]:
        return {"X-Hub-Signature-256": Secret(self.listener.secret).sign(body)}

    def sha1(self, body: bytes) -> str:
        return f"sha1={hmac.new(self.listener.secret, body, 'sha1').hexdigest()}"

    def started(self, event: HandOver) -> dict[str, Any]:
        """Wait for the run of an event."""
        until(event.run, lambda: event.run in self.listener.runs(), 30)
        return self.listener.api.get(f"{RUNS}/{event.run}")


@pytest.fixture(scope="module")
def sender(listener: Listener) -> Sender:
    return Sender(listener)


@pytest.fixture(scope="module")
def good(sender: Sender) -> tuple[HandOver, dict[str, Any]]:
    """An event that was taken, and the run that it started."""
    event = sender.event()
    answer = sender.send(event.body())
    assert answer.status_code == 202, answer.text
    return event, sender.started(event)


# --- what starts a run -----------------------------------------------------------------------


def test_a_signed_event_starts_one_run(good: tuple[HandOver, dict[str, Any]]) -> None:
    """Named after the event, of the Pipeline promote, with the image and target of the event."""
    event, run = good
    given = {item["name"]: item["value"] for item in run["spec"]["params"]}
    assert run["spec"]["pipelineRef"] == {"name": "promote"}
    assert (given.pop("image"), given.pop("target")) == (str(event.image), event.target)
    template = yaml.safe_load((ROOT / "tekton/runs/promote.yaml").read_text())
    fixed = {item["name"]: item["value"] for item in template["spec"]["params"]}
    assert given == {name: fixed[name] for name in given}
    assert run["spec"]["taskRunTemplate"]["serviceAccountName"] == "secure-pipeline"


def test_a_replayed_trigger_starts_nothing(
    sender: Sender, good: tuple[HandOver, dict[str, Any]]
) -> None:
    """The same bytes again, at once: the answer is the same, the run is the first one's."""
    event, run = good
    before = sender.listener.runs()
    answers = {sender.send(event.body()).status_code for _ in range(3)}
    refused = f'"{event.run}" already exists'
    until("refusals", lambda: sender.listener.log().count(refused) == 3, 30)
    assert answers == {202}
    assert sender.listener.runs() == before
    again = sender.listener.api.get(f"{RUNS}/{event.run}")
    assert again["metadata"]["uid"] == run["metadata"]["uid"]


def test_a_replayed_trigger_starts_nothing_when_the_first_run_is_gone(sender: Sender) -> None:
    """A captured event is worth nothing after its minutes, whatever became of its run."""
    event = sender.event(seconds=12)
    assert sender.send(event.body()).status_code == 202
    sender.started(event)
    sender.listener.api.delete(f"{RUNS}/{event.run}")
    until("its end", lambda: event.run not in sender.listener.runs(), 30)
    until("its time is over", lambda: datetime.now(UTC) > event.expires, 30)
    assert sender.send(event.body()).status_code == 202
    refused = f'"{event.run}" is forbidden: ValidatingAdmissionPolicy'
    until("a refusal", lambda: refused in sender.listener.log(), 30)
    assert event.run not in sender.listener.runs()


# --- what starts nothing ---------------------------------------------------------------------


@dataclass
class Attempts:
    """Events that were sent, one change each, and the runs after all of them."""

    sender: Sender
    ids: dict[str, str] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    """Runs after all of them but that of a good event."""

    def nothing_runs(self) -> bool:
        """No run came of any, neither then nor until now."""
        runs = {f"promote-{item}" for item in self.ids.values()}
        return not self.started and not runs & self.sender.listener.runs()

    def send(
        self,
        name: str,
        body: bytes | None = None,
        headers: Callable[[bytes], Mapping[str, str]] | None = None,
        **changes: Any,
    ) -> None:
        """Send an event with some members changed, signed if nothing else is said."""
        document = {**json.loads(self.sender.event().body()), **changes}
        self.ids[name] = str(document["id"])
        data = json.dumps(document).encode() if body is None else body
        answer = self.sender.send(data, headers(data) if headers else None)
        self.answers[name] = answer.status_code


def unsigned(attempts: Attempts) -> None:
    """Everything that has no signature of these bytes by this secret."""
    sender = attempts.sender
    other = Secret(secrets.token_hex(32).encode())
    name = "X-Hub-Signature-256"
    attempts.send("no signature", headers=lambda _: {})
    attempts.send("another secret", headers=lambda body: {name: other.sign(body)})
    attempts.send("zeros", headers=lambda _: {name: f"sha256={'0' * 64}"})
    attempts.send("empty", headers=lambda _: {name: ""})
    attempts.send("altered body", headers=lambda body: sender.signed(body + b" "))
    attempts.send("only SHA-1", headers=lambda body: {"X-Hub-Signature": sender.sha1(body)})
    attempts.send("SHA-1 by the other name", headers=lambda body: {name: sender.sha1(body)})
    attempts.send(
        "SHA-1 beside a wrong one",
        headers=lambda body: {name: f"sha256={'0' * 64}", "X-Hub-Signature": sender.sha1(body)},
    )


def wrong(attempts: Attempts) -> None:
    """Everything that is signed as it should be and still is no hand-over to this cluster now."""
    sender = attempts.sender
    now = datetime.now(UTC).replace(microsecond=0)
    attempts.send("another kind", type="https://example.org/push")
    attempts.send("no kind", type=None)
    attempts.send("an event of GitHub", json.dumps({"ref": "refs/heads/main"}).encode())
    attempts.send("expired", **_times(now - timedelta(minutes=6), now - timedelta(minutes=1)))
    attempts.send("for too long", **_times(now, now + timedelta(hours=1)))
    later = now + timedelta(hours=2)
    attempts.send("not yet", **_times(later, later + timedelta(minutes=5)))
    attempts.send("backwards", **_times(now + timedelta(minutes=5), now))
    attempts.send("no time", expires="tomorrow")
    attempts.send("another cluster", audience="https://hooks.example/")
    attempts.send("no audience", audience="")
    attempts.send("another pipeline", pipeline="build")
    attempts.send("more parameters", params={"policy": "/workspace/source/policy.yaml"})
    attempts.send("a tag", image="registry.example/team/service:latest")
    attempts.send("an image of too many characters", image=f"r.example/{'a' * 400}@{IMAGE.digest}")
    for member in ("id", "image", "target", "audience", "issued", "expires"):
        attempts.send(f"shell as {member}", **{member: SHELL})
        attempts.send(f"a parameter as {member}", **{member: "$(tt.params.image)"})
        attempts.send(f"JSON as {member}", **{member: '","pipelineRef":{"name":"build"},"x":"'})
        attempts.send(f"a list as {member}", **{member: ["production"]})
    attempts.send("a body that is too long", more="a" * (1 << 20))
    attempts.send("another line", target="production\n")
    body = sender.event().body()
    attempts.send("a list", b"[" + body + b"]")
    attempts.send("two events", body + body)


def _times(issued: datetime, expires: datetime) -> dict[str, str]:
    return {"issued": rfc3339(issued), "expires": rfc3339(expires)}


def _attempted(sender: Sender, make: Callable[[Attempts], None]) -> Attempts:
    """Send all, then a good one; when that one runs the others have had their time."""
    before = sender.listener.runs()
    attempts = Attempts(sender)
    make(attempts)
    last = sender.event()
    sender.send(last.body())
    sender.started(last)
    sender.send(last.body())
    until("the last one", lambda: f'"{last.run}" already exists' in sender.listener.log(), 30)
    attempts.started = sender.listener.runs() - before - {last.run}
    return attempts


@pytest.fixture(scope="module")
def without_signature(sender: Sender, good: object) -> Attempts:
    return _attempted(sender, unsigned)


@pytest.fixture(scope="module")
def signed_but_wrong(sender: Sender, good: object) -> Attempts:
    return _attempted(sender, wrong)


def test_a_trigger_without_a_valid_signature_starts_nothing(without_signature: Attempts) -> None:
    """None, wrong ones, and SHA-1: the answer is 202 each time, and no run is there."""
    assert without_signature.nothing_runs()
    assert set(without_signature.answers.values()) == {202}, without_signature.answers
    log = without_signature.sender.listener.cluster.directory / "logs/triggers-interceptors"
    said = log.read_text()
    assert "Must set X-Hub-Signature-256 or X-Hub-Signature header" in said
    assert "payload signature check failed" in said


def test_a_signed_trigger_that_is_no_hand_over_starts_nothing(signed_but_wrong: Attempts) -> None:
    """Another kind, time, cluster, pipeline or shape: no run, whoever signed it."""
    assert signed_but_wrong.nothing_runs()
    answers = signed_but_wrong.answers
    assert {n for n, code in answers.items() if code != 202} == {"a list", "two events"}
    assert "pwned" not in json.dumps(sorted(signed_but_wrong.sender.listener.runs()))


def test_the_listener_may_do_no_more_than_it_has_to(listener: Listener) -> None:
    """It reads no Secret, no ConfigMap, and starts nothing else; the rules of the starter hold."""
    resources = {
        (resource, verb)
        for document in component()
        for rule in document.get("rules", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {verb for _, verb in resources} == {"get", "list", "watch"}
    assert not {"secrets", "configmaps", "serviceaccounts"} & {name for name, _ in resources}
    log = listener.log()
    assert "forbidden: User" not in log


# --- without a listener ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires", "status"), [(5, 201), (-1, 422), (20, 422), ("tomorrow", 422), (None, 422)]
)
def test_the_clock_of_the_api_server_decides(
    listener: Listener, expires: int | str | None, status: int
) -> None:
    """Whoever has the starter's account: what is named after an event ends, and soon (minutes)."""
    if isinstance(expires, int):
        expires = rfc3339(datetime.now(UTC) + timedelta(minutes=expires))
    config = json.loads(listener.cluster.account(NAMESPACE, "secure-pipeline-start").read_bytes())
    run = yaml.safe_load((ROOT / "tekton/runs/promote.yaml").read_text())
    annotations = {} if expires is None else {EXPIRES: expires}
    run["metadata"] = {"name": f"promote-{secrets.token_hex(16)}", "annotations": annotations}
    answer = requests.post(
        f"{listener.api.server}{RUNS}?dryRun=All",
        json=run,
        headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
        verify=str(listener.cluster.keys / "ca.crt"),
        timeout=10,
    )
    assert answer.status_code == status, answer.text
    assert status == 201 or "ValidatingAdmissionPolicy" in answer.text
