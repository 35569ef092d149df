"""``verify running`` on a real Docker engine and a real registry, as people start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from contracts.test_runtime_contract import RuntimeContract
from fakes.engine import TOOL, Containers, RunnableRelease, docker_engine
from fakes.registry import configured_registry, debian_program, push_fallback_tag, push_layout
from fakes.release import policy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.docker import DockerRuntime
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.dockerengine import EngineAddress
from secure_pipeline.adapters.registry import open_repository
from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.attachments import Attachment, collect
from secure_pipeline.attestations.predicates import VSA
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.keys import local
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.ports import ChangedFile, Runtime
from secure_pipeline.stages.promotion_identity import described, identify

pytestmark = pytest.mark.integration
PASSWORD = "only for tests"


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Place:
    """A policy, an engine, and the program."""

    directory: Path
    engine: str
    policy: Path

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        return subprocess.Popen(
            [sys.executable, "-m", "secure_pipeline", "verify", "running", *words],
            cwd=self.directory,
            env={
                **variables,
                "DOCKER_HOST": self.engine,
                "SECURE_PIPELINE_POLICY": str(self.policy),
                **more,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def verify(self, *words: str, **more: str) -> Ended:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return Ended(process.returncode, out, err)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine of this module's own."""
    with docker_engine(tmp_path_factory.mktemp("running")) as host:
        yield host


@pytest.fixture
def containers(engine: str) -> Iterator[Containers]:
    """The engine's client; what a test started is removed."""
    client = Containers(engine)
    yield client
    client.clean()


@pytest.fixture
def place(tmp_path: Path, engine: str) -> Place:
    """An operator with a policy that trusts the tests' key."""
    loaded = policy(tmp_path / "policy")
    loaded.source.write_text(loaded.source.read_text().replace(", max-age: 7d", ""))
    return Place(tmp_path, engine, loaded.source)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> RunnableRelease:
    """A signed image for one platform; no test changes it."""
    path = tmp_path_factory.mktemp("release") / "image"
    return RunnableRelease(path).sealed(datetime.now(UTC))


@dataclass(frozen=True)
class Registry:
    """A registry that a test can stop."""

    host: str
    name: str

    def push(self, release: RunnableRelease) -> str:
        """Upload image and evidence; what to pull."""
        push_layout(release.layout, self.host, "team/app")
        push_fallback_tag(release.layout, self.host, "team/app", release.image.digest)
        return f"{self.name}@{release.image.digest}"

    def delete(self, digest: Digest) -> None:
        url = f"http://{self.host}/v2/team/app/manifests/{digest}"
        assert requests.delete(url, timeout=20).status_code == 202


def several_platforms(directory: Path) -> RunnableRelease:
    """A signed index of two platforms and an attestation."""
    release = RunnableRelease(directory / "multi", mark="multi", index=True)
    return release.sealed(datetime.now(UTC))


def evidence(registry: Registry, release: RunnableRelease) -> tuple[Attachment, ...]:
    """What is attached to the image in the registry."""
    store = open_repository(registry.name, credentials=NoCredentials(), clock=SystemClock())
    return collect(store, release.image.digest)


def serve(directory: Path) -> Iterator[Registry]:
    root = str(directory / "storage")
    storage = {"filesystem": {"rootdirectory": root}, "delete": {"enabled": True}}
    with configured_registry(debian_program(), directory, {"storage": storage}) as host:
        yield Registry(host, f"{host}/team/app")


registry = pytest.fixture(name="registry")(lambda tmp_path: (yield from serve(tmp_path)))


class TestDockerRuntime(RuntimeContract):
    """The Docker engine keeps the contract of runtimes."""

    @pytest.fixture
    def loaded(
        self, containers: Containers, release: RunnableRelease, tmp_path: Path
    ) -> Containers:
        containers.load(release.layout, release.image, "contract:1", tmp_path)
        containers.run("contract:1", "one", "--read-only")
        containers.run("contract:1", "two")
        return containers

    @pytest.fixture
    def runtime(self, loaded: Containers) -> Runtime:
        return docker_runtime(loaded.host, None)

    @pytest.fixture
    def changed(self, loaded: Containers) -> ChangedFile:
        loaded.sh("two", "echo '#!/bin/sh' > /opt/tool")
        return ChangedFile("/opt/tool", "changed")

    @pytest.fixture
    def ended(self, loaded: Containers, runtime: Runtime) -> None:
        loaded("rm", "--force", "two")

    @pytest.fixture
    def empty(self, engine: str) -> Runtime:
        return docker_runtime(engine, "none")


def docker_runtime(host: str, name: str | None) -> DockerRuntime:
    return DockerRuntime(name, address=EngineAddress(host), clock=SystemClock())


def test_a_container_of_the_signed_image_matches(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """What was loaded from the layout and runs unchanged is proven, and the document says why."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    ended = place.verify("docker://web", "--layout", str(release.path))
    assert ended.code == 0, ended.text
    assert f"MATCH docker://web {release.image.digest} run run-1" in ended.out
    document = json.loads(place.verify("docker://web", "--layout", str(release.path), "--json").out)
    assert (document["kind"], document["outcome"]) == ("RunningVerification", "MATCH")
    (found,) = document["containers"]
    assert found["runs"] == str(release.config)
    assert {rule["outcome"] for rule in found["rules"]} == {"allow"}
    assert {"image", "seal", "drift"} <= {rule["rule"] for rule in found["rules"]}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo '#!/bin/sh' > /opt/tool", "/opt/tool was changed"),
        ("echo '#!/bin/sh' > /bin/new && chmod +x /bin/new", "/bin/new was added"),
        ("rm /bin/touch", "/bin/touch was deleted"),
        ("echo 'print(2)' > /opt/app.py", "/opt/app.py was changed"),
        ("chmod 4755 /opt/tool", "/opt/tool was changed"),
        ("rm /bin/cat && ln -s /opt/tool /bin/cat", "/bin/cat was changed"),
        ("mv /opt /moved && mkdir /opt", "/opt/tool was deleted"),
        # Same size and time: the engine's own list of changes does not have it.
        (
            "echo '#!/bin/sh' > /x && echo 'evil tool' > /y && cat /x /y > /z"
            " && rm /x /y && chmod 755 /z && touch -r /opt/tool /z && mv /z /opt/tool",
            "/opt/tool was changed",
        ),
    ],
    ids=["write", "add", "delete", "module", "setuid", "link", "directory", "same-size-and-time"],
)
def test_changed_executables_are_named(
    place: Place,
    containers: Containers,
    release: RunnableRelease,
    tmp_path: Path,
    script: str,
    words: str,
) -> None:
    """An executable that differs from the image is a mismatch, and named."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    containers.sh("web", script)
    ended = place.verify("docker://web", "--layout", str(release.path))
    assert ended.code == 11, ended.text
    assert "MISMATCH docker://web" in ended.out
    assert words in ended.out


def test_what_the_engine_hides_is_hidden_from_its_own_list(
    containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """Why content is compared: `docker diff` does not list a file of the same size and time."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    other = TOOL.replace(b"tool", b"evil")
    (tmp_path / "evil").write_bytes(other)
    (tmp_path / "evil").chmod(0o755)
    os.utime(tmp_path / "evil", (1_700_000_000, 1_700_000_000))
    containers("cp", "--archive", str(tmp_path / "evil"), "web:/opt/tool")
    assert "/opt/tool" not in containers("diff", "web")
    (found,) = docker_runtime(containers.host, "web").containers()
    drift = docker_runtime(containers.host, "web").drift(found)
    assert drift == (ChangedFile("/opt/tool", "changed"),)


def test_data_and_settings_are_no_drift(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """Files that nothing executes may change, and a replaced program is fine with --no-drift."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    containers.sh("web", "echo b > /etc/settings; mkdir /data; echo c > /data/d; mkfifo /data/f")
    layout = ("--layout", str(release.path))
    assert place.verify("docker://web", *layout).code == 0
    (tmp_path / "tool").write_text("#!/bin/sh\nexit 1\n")
    containers("cp", str(tmp_path / "tool"), "web:/opt/tool")
    assert place.verify("docker://web", *layout).code == 11
    assert place.verify("docker://web", *layout, "--no-drift").code == 0


def test_pulled_from_a_registry_then_stopped_or_deleted(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """Evidence comes from where it was pulled, a summary goes there; without it: 14."""
    serving = serve(tmp_path)
    registry = next(serving)
    image = registry.push(release)
    containers("pull", image)
    containers.run(image, "web")
    ended = place.verify("docker://web")
    assert ended.code == 0, ended.text
    assert str(release.image.digest) in ended.out
    local.generate(tmp_path / "vsa.key", PASSWORD)
    signing = place.verify(
        "docker://web", "--vsa-key", "file:vsa.key", SECURE_PIPELINE_KEY_PASSWORD=PASSWORD
    )
    assert (signing.code, f"summary PASSED {image}" in signing.out) == (0, True), signing.text
    assert (
        len(evidence(registry, release)) == len(collect(release.layout, release.image.digest)) + 1
    )
    registry.delete(release.image.digest)
    deleted = place.verify("docker://web")
    assert deleted.code == 14, deleted.text
    assert f"UNREACHABLE docker://web {release.config}" in deleted.out
    assert "not to be had" in deleted.out
    serving.close()
    stopped = place.verify("docker://web")
    assert stopped.code == 14, stopped.text
    assert "UNREACHABLE docker://web" in stopped.out


def test_reg_04_the_platform_is_proven_from_the_index(
    place: Place, containers: Containers, registry: Registry, tmp_path: Path
) -> None:
    """Evidence is on the index; the node runs its child, which the index's bytes prove."""
    release = RunnableRelease(tmp_path / "multi", mark="multi", index=True).sealed(
        datetime.now(UTC)
    )
    image = registry.push(release)
    containers("pull", image)
    containers.run(image, "multi")
    ended = place.verify("docker://multi")
    assert ended.code == 0, ended.text
    assert f"MATCH docker://multi {release.image.digest} run run-1" in ended.out
    document = json.loads(place.verify("docker://multi", "--json").out)
    assert document["containers"][0]["runs"] == str(release.config)


def test_reg_05_the_engine_names_a_config(
    containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """The engine's image id is the digest of a config, and it says so."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    (found,) = docker_runtime(containers.host, "web").containers()
    assert found.image == str(release.config)
    assert (found.image_is_config, found.platform) == (True, "linux/amd64")


def test_reg_06_a_poisoned_tag_does_not_match(
    place: Place, containers: Containers, registry: Registry, release: RunnableRelease,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Another image under the right name and tag is a mismatch, wherever one looks."""
    image = registry.push(release)
    evil = RunnableRelease(tmp_path / "evil", mark="evil")
    containers("pull", image)
    tag = f"{registry.name}:v1"
    containers("tag", image, tag)
    containers.load(evil.layout, evil.image, tag, tmp_path)
    containers.run(tag, "web")
    for words in (("--image", image), ("--layout", str(release.path))):
        ended = place.verify("docker://web", *words)
        assert ended.code == 11, ended.text
        assert f"MISMATCH docker://web {evil.config}" in ended.out
    nowhere = place.verify("docker://web")
    assert nowhere.code == 14, nowhere.text
    assert "--image" in nowhere.out


def test_reg_07_the_attestation_in_an_index_is_no_platform(
    place: Place, containers: Containers, tmp_path: Path
) -> None:
    """A container made from BuildKit's attestation manifest is not the build."""
    release = RunnableRelease(tmp_path / "multi", mark="multi", index=True).sealed(
        datetime.now(UTC)
    )
    inside = release.layout.read_index(release.image).manifests[2]
    assert str(inside.platform) == "unknown/unknown"
    containers.load(release.layout, inside, "attestation:1", tmp_path)
    containers.run("attestation:1", "web")
    ended = place.verify("docker://web", "--layout", str(release.path))
    assert ended.code == 11, ended.text


def test_an_image_without_evidence_is_a_mismatch(
    place: Place, containers: Containers, registry: Registry, tmp_path: Path
) -> None:
    """Pulled from the registry, but nothing signed about it."""
    bare = RunnableRelease(tmp_path / "bare", mark="bare")
    push_layout(bare.layout, registry.host, "team/app")
    image = f"{registry.name}@{bare.image.digest}"
    containers("pull", image)
    containers.run(image, "web")
    ended = place.verify("docker://web")
    assert ended.code == 11, ended.text
    assert "no evidence is attached" in ended.out


def test_all_containers_the_worst_counts(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """docker:// looks at everything that runs; one mismatch decides."""
    evil = RunnableRelease(tmp_path / "evil", mark="evil")
    for each, tag in ((release, "app:1"), (evil, "evil:1")):
        containers.load(each.layout, each.image, tag, tmp_path)
    containers.run("app:1", "good")
    containers.run("evil:1", "bad")
    ended = place.verify("docker://", "--layout", str(release.path))
    assert ended.code == 11, ended.text
    assert "MATCH docker://good" in ended.out
    assert "MISMATCH docker://bad" in ended.out
    assert place.verify("docker://good", "--layout", str(release.path)).code == 0


def test_a_policy_that_is_not_met_is_12(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """The evidence is what it says, and the policy of today denies it."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    text = place.policy.read_text()
    place.policy.write_text(
        "\n".join(
            "builders: [https://other.example/1]" if line.startswith("builders:") else line
            for line in text.splitlines()
        )
    )
    ended = place.verify("docker://web", "--layout", str(release.path))
    assert ended.code == 12, ended.text


def test_wrong_names_and_no_engine(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """Unknown, stopped and nothing at all are usage errors; no engine is unavailable."""
    nothing = place.verify("docker://")
    assert (nothing.code, "no container runs" in nothing.err) == (2, True), nothing.text
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    unknown = place.verify("docker://nope")
    assert unknown.code == 2, unknown.text
    assert "what runs: web" in unknown.err
    containers("stop", "--time", "0", "web")
    stopped = place.verify("docker://web")
    assert (stopped.code, "docker start web" in stopped.err) == (2, True), stopped.text
    away = place.verify("docker://web", DOCKER_HOST=f"unix://{tmp_path / 'nothing'}")
    assert away.code == 4, away.text
    assert "hint: start the engine, or set DOCKER_HOST" in away.err


def test_a_signed_summary_is_written_and_attached(
    place: Place, containers: Containers, tmp_path: Path
) -> None:
    """--vsa-key leaves a signed SLSA summary in a file and beside the image."""
    release = RunnableRelease(tmp_path / "image").sealed(datetime.now(UTC))
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    key = local.generate(tmp_path / "vsa.key", PASSWORD)
    layout = ("--layout", str(release.path))
    words = (*layout, "--vsa-key", "file:vsa.key", "--vsa-output", "vsa.jsonl")
    ended = place.verify("docker://web", *words, SECURE_PIPELINE_KEY_PASSWORD=PASSWORD)
    assert ended.code == 0, ended.text
    (line,) = (tmp_path / "vsa.jsonl").read_bytes().splitlines()
    envelope = dsse.parse_envelope(line)
    assert key.signed(envelope)
    statement = parse_statement(envelope.payload)
    statement.require_subject(release.image.digest)
    statement.require_type(VSA)
    assert statement.predicate["verificationResult"] == "PASSED"
    attached = collect(Layout.open(release.path), release.image.digest)
    assert envelope.payload in {item.envelope.payload for item in attached}
    assert place.verify("docker://web", "--layout", str(release.path)).code == 0


def test_watch_tells_changes_and_ends_with_130(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """--watch prints one JSON line a change, and Ctrl-C ends it cleanly."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    words = ("--layout", str(release.path), "--watch", "--interval", "1s", "--json")
    process = place.start("docker://web", *words)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["kind"], first["before"], first["outcome"]) == ("RunningChange", None, "MATCH")
    containers.sh("web", "echo '#!/bin/sh' > /opt/tool")
    second = json.loads(process.stdout.readline())
    assert (second["before"], second["outcome"]) == ("MATCH", "MISMATCH")
    containers("rm", "--force", "web")
    third = json.loads(process.stdout.readline())
    assert (third["before"], third["outcome"]) == ("MISMATCH", "GONE")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_watch_with_a_count_ends_with_the_worst(
    place: Place, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """A mismatch that was seen once stays in the exit code."""
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "web")
    containers.sh("web", "echo '#!/bin/sh' > /opt/tool")
    words = ("--layout", str(release.path), "--watch", "--interval", "1s", "--count", "2")
    ended = place.verify("docker://web", *words)
    assert ended.code == 11, ended.text
    assert len(ended.out.splitlines()) == 1


def test_can_15_a_slot_of_a_real_engine_is_the_promoted_image_or_it_is_not(
    engine: str, containers: Containers, release: RunnableRelease, tmp_path: Path
) -> None:
    """What a promotion asks of a slot: proven the same, proven another, gone is not told."""
    other = RunnableRelease(tmp_path / "other", mark="another")
    containers.load(release.layout, release.image, "app:1", tmp_path)
    containers.run("app:1", "green")
    runtime = DockerRuntime("green", address=EngineAddress(engine, None), clock=SystemClock())
    image = ImageReference("app", release.image.digest)
    assert identify(runtime, release.layout, image).same is True
    wrong = ImageReference("app", other.image.digest)
    assert identify(runtime, other.layout, wrong).same is False
    assert described(runtime) is not None
    containers("rm", "--force", "green")
    assert identify(runtime, release.layout, image).same is None
