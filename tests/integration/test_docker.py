"""Real builds with BuildKit in a Docker engine that only these tests use."""

from __future__ import annotations

import fcntl
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.builder import BuilderContract, request
from fakes.bases import debian_base
from fakes.engine import CLIENT, docker_engine
from fakes.workplace import Workplace
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.config import SecretConfig
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.tools.buildah import Buildah
from secure_pipeline.tools.docker import Docker
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.process import Processes

pytestmark = pytest.mark.integration
SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an engine on a private socket, with its own data, ended by its pid."""
    with docker_engine(tmp_path_factory.mktemp("docker")) as host:
        yield host


@pytest.fixture(scope="module")
def bases() -> Mapping[str, Path]:
    return {"debian-base": debian_base()}


@pytest.fixture
def builder(engine: str, tmp_path: Path) -> Docker:
    tool = locate("docker", path="/usr/bin")
    return Docker(tool, Processes(threading.Event()), tmp_path / "work", SystemClock(), host=engine)


class TestDocker(BuilderContract):
    """The Docker engine keeps the contract of builders."""


def docker(engine: str, *arguments: str) -> str:
    command = [CLIENT, "-H", engine, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def config_of(layout: Layout, digest: str) -> dict[str, object]:
    manifest = layout.read_manifest(layout.find(Digest.parse(digest)))
    value = json.loads(layout.read_blob(manifest.config.digest, 1 << 20))
    assert isinstance(value, dict)
    return value


def test_docker_two_engine_caches_give_the_same_digest(
    builder: Docker, engine: str, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """Times are cut to the epoch: a build without any cache gives the same image again."""
    text = (
        "FROM debian-base AS build\nRUN seq 1 1000 > /numbers\nFROM debian-base\n"
        "COPY --from=build /numbers /numbers\nRUN mkdir /d && ln -s x /d/l && touch /d/f\n"
        "LABEL a=b\nUSER 1000\n"
    )
    asked = request(tmp_path, text, bases)
    first = builder.build(asked, ignore)
    docker(engine, "builder", "prune", "--all", "--force")
    time.sleep(1.1)
    second = builder.build(asked, ignore)
    assert not all(step.cached for step in second.steps)
    assert first.digest == second.digest
    config = config_of(Layout.open(asked.output), first.digest)
    assert config["created"] == "2023-11-14T22:13:20Z"
    # BuildKit runs the same FROM once.
    assert [step.line for step in second.steps] == [1, 2, 4, 5]


def test_docker_and_buildah_make_the_same_files(
    builder: Docker, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """What was taken out of the engine has the base's own layer and the user of the Dockerfile."""
    text = "FROM debian-base\nRUN echo x > /x\nUSER 1000:1000\nENV A=b\n"
    asked = request(tmp_path, text, bases)
    other = replace(asked, output=tmp_path / "other")
    buildah = Buildah(
        locate("buildah"), Processes(threading.Event()), tmp_path / "storage", SystemClock()
    )
    digests = [builder.build(asked, ignore).digest, buildah.build(other, ignore).digest]
    configs, layers = [], []
    for one, digest in zip((asked, other), digests, strict=True):
        layout = Layout.open(one.output)
        configs.append(config_of(layout, digest)["config"])
        layers.append(layout.read_manifest(layout.find(Digest.parse(digest))).layers)
    assert configs[0] == configs[1]
    assert layers[0][0].digest == layers[1][0].digest
    assert len(layers[0]) == len(layers[1]) == 2


def test_bld_01_docker_keeps_secrets_out_of_image_and_log(
    builder: Docker, engine: str, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """A mounted secret is in no blob, no log, and no tag or image of ours stays behind."""
    text = (
        "FROM debian-base\n"
        "RUN --mount=type=secret,id=env cat /run/secrets/env; wc -c < /run/secrets/env > /n\n"
    )
    asked = request(
        tmp_path, text, bases, secrets=(SecretConfig("env", env="T"),), secret_values={"T": SECRET}
    )
    outcome = builder.build(asked, ignore)
    assert b"***" in outcome.log
    assert SECRET.encode() not in outcome.log
    layout = Layout.open(asked.output)
    assert SECRET not in json.dumps(config_of(layout, outcome.digest))
    assert "secure-pipeline/build" not in docker(engine, "images", "--format", "{{.Repository}}")
    assert list((tmp_path / "work").glob("docker-*")) == []


def test_docker_that_is_not_running_is_unavailable(tmp_path: Path) -> None:
    """Without an engine the exit code is 4, and the hint says what to do."""
    builder = Docker(
        locate("docker", path="/usr/bin"),
        Processes(threading.Event()),
        tmp_path / "work",
        SystemClock(),
        host=f"unix://{tmp_path / 'nothing'}",
    )
    with pytest.raises(Unavailable) as caught:
        builder.build(request(tmp_path, "FROM scratch\nUSER 1\n"), ignore)
    assert "DOCKER_HOST" in str(caught.value.hint)


def test_docker_takes_no_instruction_that_it_misreads(builder: Docker, tmp_path: Path) -> None:
    """Here-documents of an engine that does not know them are refused by line."""
    with pytest.raises(ConfigError, match="here-documents") as caught:
        builder.build(request(tmp_path, "FROM scratch\nRUN <<EOF\nx\nEOF\n"), ignore)
    assert caught.value.where == "Dockerfile:2"


def test_docker_that_takes_too_long_is_inconclusive(
    builder: Docker, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """A time-out is no verdict, and the engine still builds afterwards."""
    text = "FROM debian-base\nRUN sleep 45\n"
    with pytest.raises(Inconclusive, match="timed out"):
        builder.build(request(tmp_path, text, bases, timeout=timedelta(seconds=2)), ignore)
    builder.build(request(tmp_path, "FROM debian-base\nUSER 5\n", bases), ignore)


def test_bld_08_docker_sends_what_the_ignore_file_leaves(
    builder: Docker, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """The ignore file that was checked is the one that BuildKit uses."""
    text = "FROM debian-base\nCOPY . /c\nRUN test -e /c/a && test ! -e /c/b && test ! -e /c/s\n"
    asked = request(tmp_path, text, bases, ignore=("s",))
    (asked.context / ".dockerignore").write_text("b\n!s\n")
    for name in ("a", "b", "s"):
        (asked.context / name).write_text(name)
    builder.build(asked, ignore)


def test_what_a_killed_build_left_goes_with_the_next(
    builder: Docker, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    """Secrets of a build that nobody holds any more are removed; those of a live one stay."""
    for name in ("docker-dead", "docker-live"):
        (tmp_path / "work" / name / "secrets").mkdir(parents=True)
        (tmp_path / "work" / name / "secrets/token").write_text("secret")
    with (tmp_path / "work/docker-live/held").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        builder.build(request(tmp_path, "FROM debian-base\n", bases), ignore)
    assert sorted(p.name for p in (tmp_path / "work").glob("docker-*")) == ["docker-live"]


def test_a_whole_run_with_docker(engine: str, workplace: Workplace) -> None:
    """With `builder: docker` the same run ends verified, and the provenance names docker."""
    path = workplace.root / "secure-pipeline.yaml"
    path.write_text(path.read_text().replace("build:\n", "build:\n  builder: docker\n"))
    workplace.commit()
    ended = workplace.run("run", DOCKER_HOST=engine)
    assert ended.code == 0, ended.text
    (provenance,) = workplace.state.glob("runs/*/reports/build/provenance.json")
    assert '"docker"' in provenance.read_text()
