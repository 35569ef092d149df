"""Real builds with buildah on a real Debian base."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.builder import BuilderContract, request
from fakes.bases import debian_base, tiny_base
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.config import Network, SecretConfig
from secure_pipeline.dockerfile.context import examine
from secure_pipeline.dockerfile.ignore import IgnoreFile
from secure_pipeline.dockerfile.ignore import load as load_ignore
from secure_pipeline.errors import ConfigError, Inconclusive, Interrupted, Unavailable
from secure_pipeline.events import Event, Progress, ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPE
from secure_pipeline.oci.walk import check_image
from secure_pipeline.ports import BuildFailed, BuildOutcome, BuildRequest
from secure_pipeline.tools.buildah import Buildah
from secure_pipeline.tools.buildjob import host_platform
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.process import Processes

pytestmark = pytest.mark.integration
SECRET = "correct horse battery staple"


def make(storage: Path, cancelled: threading.Event | None = None) -> Buildah:
    processes = Processes(cancelled or threading.Event())
    return Buildah(locate("buildah"), processes, storage, SystemClock())


@pytest.fixture(scope="module")
def bases() -> Mapping[str, Path]:
    return {"debian-base": debian_base()}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by most tests, as the builds of one repository share it."""
    return tmp_path_factory.mktemp("buildah") / "storage"


@pytest.fixture
def builder(storage: Path) -> Buildah:
    return make(storage)


class TestBuildah(BuilderContract):
    """Buildah keeps the contract of builders."""


def files(request: BuildRequest, outcome: BuildOutcome) -> Iterator[tuple[str, bytes]]:
    """Every file of every layer above the base, deleted ones too."""
    layout = Layout.open(request.output)
    manifest = layout.read_manifest(layout.find(Digest.parse(outcome.digest)))
    for layer in manifest.layers[1:]:
        data = gzip.decompress(layout.read_blob(layer.digest, 1 << 28))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                yield member.name, stream.read() if stream else b""


def config_of(request: BuildRequest, digest: str) -> bytes:
    layout = Layout.open(request.output)
    manifest = layout.read_manifest(layout.find(Digest.parse(digest)))
    return layout.read_blob(manifest.config.digest, 1 << 20)


def test_two_storages_give_the_same_digest(bases: Mapping[str, Path], tmp_path: Path) -> None:
    """Nothing of the machine's time or storage is in the image (SOURCE_DATE_EPOCH)."""
    text = (
        "FROM debian-base AS build\n"
        "RUN seq 1 400000 > /numbers && date > /dev/null\n"
        'FROM debian-base\nCOPY --from=build /numbers /numbers\nCOPY app /app\nCMD ["/app"]\n'
    )
    digests = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        asked = request(directory, text, bases)
        (asked.context / "app").write_text("app")
        os.utime(asked.context / "app", (len(digests) * 1000, len(digests) * 1000))
        digests.append(make(directory / "storage").build(asked, ignore).digest)
    assert digests[0] == digests[1]


def test_the_layers_of_the_base_are_the_bases_own_blobs(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """A base's layer keeps its digest, and the manifest names the base."""
    asked = request(tmp_path, "FROM debian-base\nRUN touch /x\n", bases)
    outcome = builder.build(asked, ignore)
    layout = Layout.open(asked.output)
    manifest = layout.read_manifest(layout.find(Digest.parse(outcome.digest)))
    base = Layout.open(bases["debian-base"])
    base_manifest = base.read_manifest(base.manifests()[0])
    assert manifest.layers[0].digest == base_manifest.layers[0].digest
    assert manifest.annotations == {
        "org.opencontainers.image.base.name": "debian-base",
        "org.opencontainers.image.base.digest": outcome.bases[0].digest,
    }
    assert json.loads(config_of(asked, outcome.digest))["created"] == "2023-11-14T22:13:20Z"


def test_bld_01_secrets_are_in_no_layer_history_or_log(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """A mounted secret reaches its step and nothing that remains."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "secret.txt").write_text(SECRET + "-file")
    text = (
        "FROM debian-base\n"
        "RUN --mount=type=secret,id=env --mount=type=secret,id=file "
        "cat /run/secrets/env /run/secrets/file && wc -c < /run/secrets/env > /length\n"
        "RUN test ! -e /run/secrets/env\n"
    )
    secrets = (SecretConfig("env", env="TOKEN"), SecretConfig("file", file="secret.txt"))
    asked = request(tmp_path, text, bases, secrets=secrets, secret_values={"TOKEN": SECRET})
    seen: list[Event] = []
    outcome = builder.build(asked, seen.append)
    content = dict(files(asked, outcome))
    assert int(content["length"]) == len(SECRET)
    remains = [
        *content.values(),
        config_of(asked, outcome.digest),
        outcome.log,
        repr(seen).encode(),
    ]
    assert all(SECRET.encode() not in text for text in remains)
    assert b"***" in outcome.log


def test_a_secret_that_is_not_given_is_an_error(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """An unset variable is named before anything is built."""
    secrets = (SecretConfig("env", env="MISSING_VARIABLE"),)
    asked = request(tmp_path, "FROM debian-base\n", bases, secrets=secrets)
    with pytest.raises(ConfigError, match="MISSING_VARIABLE"):
        builder.build(asked, ignore)


def test_bld_03_a_from_through_arg_uses_the_resolved_base(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """FROM $BASE is the base that the argument names, also in COPY --from and a mount."""
    text = (
        "ARG BASE=nothing\nFROM ${BASE} AS a\nRUN echo a > /a\nFROM $BASE\n"
        "COPY --from=debian-base /etc/debian_version /version\n"
        "RUN --mount=type=bind,from=debian-base,target=/m test -e /m/etc/debian_version\n"
    )
    outcome = builder.build(request(tmp_path, text, bases, args={"BASE": "debian-base"}), ignore)
    assert {base.name for base in outcome.bases} == {"debian-base"}
    assert [step.line for step in outcome.steps] == [4, 5, 6]


def test_a_target_builds_only_what_it_needs(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """Stages after the target, and those it does not use, are not executed."""
    text = (
        "FROM debian-base AS unused\nRUN false\nFROM debian-base AS mid\nARG V=0\n"
        "RUN echo $V > /v\nFROM mid AS last\nRUN false\n"
    )
    asked = request(tmp_path, text, bases, target="MID", args={"V": "7"})
    outcome = builder.build(asked, ignore)
    assert [step.line for step in outcome.steps] == [3, 4, 5]
    assert dict(files(asked, outcome))["v"] == b"7\n"


def test_time_in_steps_is_told_from_time_in_the_cache(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """After a change only the steps from it on are executed, and only they took their time."""
    asked = request(tmp_path, "FROM debian-base\nRUN sleep 0.3\nCOPY f /f\nRUN true\n", bases)
    (asked.context / "f").write_text("1")
    first = builder.build(asked, ignore)
    (asked.context / "f").write_text("2")
    second = builder.build(asked, ignore)
    assert [step.cached for step in first.steps] == [True, False, False, False]
    assert first.steps[1].seconds > 0.3
    assert [step.cached for step in second.steps] == [True, True, False, False]
    assert first.digest != second.digest


def test_bld_08_buildah_sends_exactly_what_the_manifest_names(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """Our reading of .dockerignore and buildah's agree on a tree with every kind of pattern."""
    asked = request(tmp_path, "FROM scratch\nCOPY . /\n", bases, ignore=("state",))
    (asked.context / ".dockerignore").write_text(
        "# comment\n*.log\n**/cache\ndocs\n!docs/keep.md\nsrc/**/gen\n/top\na?c\n[x-z]1\n!state\n"
    )
    names = ["a.log", "b/a.log", "cache/x", "b/cache/x", "docs/keep.md", "docs/drop.md", "top",
             "b/top", "src/gen/x", "src/a/b/gen/x", "src/a/x", "abc", "b/abc", "x1", "a1",
             "state/x", "unit/é.txt"]  # fmt: skip
    for name in names:
        path = asked.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    outcome = builder.build(asked, ignore)
    layout = Layout.open(asked.output)
    manifest = layout.read_manifest(layout.find(Digest.parse(outcome.digest)))
    data = gzip.decompress(layout.read_blob(manifest.layers[-1].digest, 1 << 24))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        sent = {member.name.rstrip("/") for member in archive if member.isreg()}
    rules = load_ignore(asked.context, asked.dockerfile, asked.ignore)
    expected = {
        str(path.relative_to(asked.context))
        for path in asked.context.rglob("*")
        if path.is_file() and not rules.ignores(str(path.relative_to(asked.context)))
    }
    assert sent == expected
    assert "state/x" not in sent
    assert (
        examine(asked.context, rules).digest != examine(asked.context, IgnoreFile(None, ())).digest
    )


def test_several_platforms_become_one_index(builder: Buildah, tmp_path: Path) -> None:
    """Each platform has its own image in an index, in the order asked for."""
    asked = request(
        tmp_path, "FROM scratch\nCOPY Dockerfile /f\n", platforms=("linux/arm64", "linux/amd64")
    )
    outcome = builder.build(asked, ignore)
    assert outcome.media_type == INDEX_TYPE
    checked = check_image(Layout.open(asked.output), Digest.parse(outcome.digest))
    assert [str(item.platform) for item, _ in checked.manifests] == ["linux/arm64", "linux/amd64"]


def test_a_base_for_another_platform_is_refused(builder: Buildah, tmp_path: Path) -> None:
    """A layout without an image for the platform is no base for it."""
    bases = {"debian-base": tiny_base(tmp_path / "base", architecture="s390x")}
    with pytest.raises(ConfigError, match="0 images for linux/"):
        builder.build(request(tmp_path, "FROM debian-base\n", bases), ignore)


def test_network_none_leaves_a_step_without_network(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """With network none a step sees no interface but loopback; with host it sees the host's."""
    for network, count in ((Network.NONE, 1), (Network.HOST, len(os.listdir("/sys/class/net")))):
        text = f"FROM debian-base\nRUN test $(tail -n +3 /proc/net/dev | wc -l) -eq {count}\n"
        builder.build(request(tmp_path, text, bases, network=network), ignore)


def test_bld_06_a_step_runs_confined(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """Steps have seccomp, few capabilities and their own processes; links do not reach out."""
    text = (
        "FROM debian-base\n"
        "RUN grep -q 'Seccomp:.*2' /proc/self/status\n"
        "RUN ! grep -q 'CapEff:.*ffffffff' /proc/self/status && test $(ls /proc | grep -c "
        "'^[0-9]') -lt 10\n"
        "COPY link /copied\n"
        "RUN test ! -s /copied || ! grep -q outside-content /copied\n"
    )
    outside = tmp_path / "outside"
    outside.write_text("outside-content")
    asked = request(tmp_path, text, bases)
    (asked.context / "link").symlink_to(outside)
    with pytest.raises(BuildFailed) as caught:
        builder.build(asked, ignore)
    assert caught.value.where == "Dockerfile:4"


def test_bld_06_an_old_buildah_is_refused(storage: Path, tmp_path: Path) -> None:
    """Versions before the fixes are never run."""
    tool = replace(locate("buildah"), version="1.27.4")
    old = Buildah(tool, Processes(threading.Event()), storage, SystemClock())
    with pytest.raises(Unavailable, match=r"older than 1\.28"):
        old.build(request(tmp_path, "FROM scratch\n"), ignore)


def test_what_this_buildah_would_misread_is_refused(builder: Buildah, tmp_path: Path) -> None:
    """Here-documents would run as an empty command; they are named by line instead."""
    with pytest.raises(ConfigError, match="here-documents") as caught:
        builder.build(request(tmp_path, "FROM scratch\nRUN <<EOF\nx\nEOF\n"), ignore)
    assert caught.value.where == "Dockerfile:2"
    text = f"FROM scratch\nADD --checksum=sha256:{'a' * 64} https://x/y /z\n"
    with pytest.raises(ConfigError, match="--checksum"):
        builder.build(request(tmp_path, text), ignore)


def test_bld_07_a_storage_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """A cache that another user could fill is no cache for a release."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage").chmod(0o777)
    with pytest.raises(Unavailable, match="written by others"):
        make(tmp_path / "storage").build(request(tmp_path, "FROM scratch\nUSER 1\n"), ignore)


def test_an_altered_layer_in_the_output_is_replaced(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """A cached build never passes on a blob that is not what its digest says."""
    asked = request(tmp_path, "FROM debian-base\nRUN echo altered > /a\n", bases)
    outcome = builder.build(asked, ignore)
    layout = Layout.open(asked.output)
    for layer in layout.read_manifest(layout.find(Digest.parse(outcome.digest))).layers:
        path = asked.output / "blobs" / "sha256" / layer.digest.hex
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert builder.build(asked, ignore).digest == outcome.digest
    check_image(layout, Digest.parse(outcome.digest))


def test_an_altered_base_is_refused(tmp_path: Path) -> None:
    """A base whose layer is not what its manifest says is not built upon."""
    bases = {"debian-base": tiny_base(tmp_path / "base")}
    layout = Layout.open(bases["debian-base"])
    layer = layout.read_manifest(layout.manifests()[0]).layers[0]
    path = tmp_path / "base" / "blobs" / "sha256" / layer.digest.hex
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Exception, match="expected sha256") as caught:
        make(tmp_path / "storage").build(request(tmp_path, "FROM debian-base\n", bases), ignore)
    assert getattr(caught.value, "exit_code", None) == 11


def test_a_full_disk_is_unavailable_and_leaves_no_image(
    bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """When the output cannot be written the exit code is 4 and no image is listed."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=True)
    try:
        asked = request(tmp_path, "FROM debian-base\nUSER 1\n", bases, output=small / "image")
        with pytest.raises(Unavailable) as caught:
            make(tmp_path / "storage").build(asked, ignore)
        assert caught.value.exit_code == 4
        assert Layout.open(asked.output).manifests() == ()
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_build_that_takes_too_long_is_inconclusive(
    builder: Buildah, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """A time-out is no verdict about the Dockerfile."""
    asked = request(
        tmp_path, "FROM debian-base\nRUN sleep 60\n", bases, timeout=timedelta(seconds=2)
    )
    with pytest.raises(Inconclusive, match="timed out"):
        builder.build(asked, ignore)
    builder.build(request(tmp_path, "FROM debian-base\nUSER 2\n", bases), ignore)


def test_an_interrupt_ends_the_build(
    bases: Mapping[str, Path], storage: Path, tmp_path: Path
) -> None:
    """Cancelling while a step runs ends it, and the next build works."""
    cancelled = threading.Event()

    def cancel(event: Event) -> None:
        if isinstance(event, Progress) and "sleep 61" in event.message:
            cancelled.set()

    asked = request(tmp_path, "FROM debian-base\nRUN sleep 61\n", bases)
    with pytest.raises(Interrupted):
        make(storage, cancelled).build(asked, cancel)
    assert not processes_with("sleep 61")
    make(storage).build(request(tmp_path, "FROM debian-base\nUSER 3\n", bases), ignore)


def processes_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        found += [command] if text in command else []
    return found


def test_kill_9_in_the_middle_leaves_nothing_and_the_next_build_works(
    bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """No process, no mount, no half image; the same storage then builds."""
    text = "FROM debian-base\nRUN echo first > /first\nRUN sleep 62.5\n"
    asked = request(tmp_path, text, bases)
    program = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from contracts.builder import request\n"
        "from secure_pipeline.adapters.clock import SystemClock\n"
        "from secure_pipeline.tools.buildah import Buildah\n"
        "from secure_pipeline.tools.locate import locate\n"
        "from secure_pipeline.tools.process import Processes\n"
        "here, base = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "text = (here / 'context' / 'Dockerfile').read_text()\n"
        "builder = Buildah(locate('buildah'), Processes(threading.Event()), here / 'storage',"
        " SystemClock())\n"
        "show = lambda event: print(event.message, flush=True)\n"
        "builder.build(request(here, text, {'debian-base': base}), show)\n"
    )
    tests = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(bases["debian-base"])],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "RUN sleep 62.5" in line:
            break
    deadline = time.monotonic() + 30
    while not processes_with("sleep 62.5") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    while processes_with(str(tmp_path)) + processes_with("sleep 62.5"):
        assert time.monotonic() < deadline, "a process survived"
        time.sleep(0.05)
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert Layout.open(asked.output).manifests() == ()

    again = request(tmp_path, text.replace("sleep 62.5", "true"), bases)
    outcome = make(tmp_path / "storage").build(again, ignore)
    check_image(Layout.open(again.output), Digest.parse(outcome.digest))
    assert dict(files(again, outcome))["first"] == b"first\n"
    root = tmp_path / "storage" / host_platform().replace("/", "-") / "root"
    command = ["buildah", "--root", root, "--runroot", tmp_path / "run", "containers", "-q"]
    listed = subprocess.run(command, capture_output=True, check=True)
    assert listed.stdout == b""
