"""Builds images with BuildKit through the Docker engine (port: Builder).

The engine gets a Dockerfile with resolved names, as buildah does; the image is taken out of it
with ``docker save`` and converted here. Tags that are used carry a random name and are removed.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline import strictjson
from secure_pipeline.dockerfile.images import qualified, target_stage
from secure_pipeline.dockerfile.parser import Dockerfile, load
from secure_pipeline.errors import (
    Inconclusive,
    PipelineError,
    Unavailable,
    VerificationFailed,
)
from secure_pipeline.events import OnEvent
from secure_pipeline.files import canonical_json, locked, read_bounded, write_atomic
from secure_pipeline.oci.archive import read_archive, write_archive
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import Image, fits, read_image
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import MANIFEST_TYPE, Descriptor
from secure_pipeline.ports import BaseImage, BuildFailed, BuildOutcome, BuildRequest, Clock
from secure_pipeline.tools.buildjob import (
    Job,
    hidden_texts,
    list_image,
    local_name,
    platforms,
    secret_files,
    texts,
)
from secure_pipeline.tools.buildkitsteps import BuildKitLog
from secure_pipeline.tools.buildsteps import Redactor
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool
from secure_pipeline.tools.process import Command, OnLine, Outcome, Processes

MINIMUM_VERSION = (20, 10)
MAX_RECORD_BYTES = 1 << 20
SHORT_SECONDS = 120.0
COPY_SECONDS = 900.0
_HELD = "held"
_RESULT = "localhost/secure-pipeline/build"
_HEREDOC_VERSION = (23, 0)
_CHECKSUM_VERSION = (24, 0)


@dataclass(frozen=True)
class _Task:
    """A job with its work directory and log."""

    job: Job
    work: Path
    log: BuildKitLog


class Docker:
    """Implements ports.Builder with the docker client and the engine it is told of."""

    def __init__(
        self,
        tool: LocatedTool,
        processes: Processes,
        directory: Path,
        clock: Clock,
        *,
        host: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``directory`` is for work in progress and for what was converted before.

        ``host`` is the engine's address as in DOCKER_HOST; the client's default without it.
        """
        self._tool = tool
        self._processes = processes
        self._directory = directory
        self._clock = clock
        self._variables = {**(environment or {}), **({"DOCKER_HOST": host} if host else {})}

    def build(self, request: BuildRequest, on_event: OnEvent) -> BuildOutcome:
        """Build into ``request.output``.

        Raises: ConfigError, BuildFailed (a step), Unavailable (client, engine, disk),
        Inconclusive (killed, timed out), Interrupted.
        """
        dockerfile = load(request.dockerfile, request.dockerfile_name or request.dockerfile.name)
        target_stage(dockerfile, request.target)
        redact = Redactor(hidden_texts(request))
        with self._work() as work:
            try:
                _check_features(dockerfile, self._engine_version(work))
                log = BuildKitLog(dockerfile, redact, on_event)
                layout = Layout.create(request.output)
                tasks = [
                    _Task(Job.resolve(request, dockerfile, platform), work, log)
                    for platform in platforms(request)
                ]
                images = [self._one(task, layout) for task in tasks]
                bases = [base for task in tasks for base in self._bases(task)]
                descriptor = list_image(layout, images)
            except OSError as error:
                raise Unavailable(f"cannot write: {error.strerror}", where=str(work)) from error
        return BuildOutcome(
            tool=self._tool.identity,
            digest=str(descriptor.digest),
            media_type=descriptor.media_type,
            size=sum(image.size for image in images),
            bases=tuple(dict.fromkeys(bases)),
            steps=log.steps(),
            log=bytes(log.log),
        )

    @contextmanager
    def _work(self) -> Iterator[Path]:
        """A private directory, held while it is used; those that killed builds left go first."""
        try:
            with locked(self._directory / "lock"):
                self._directory.chmod(0o700)
                self._remove_abandoned()
                work = Path(tempfile.mkdtemp(prefix="docker-", dir=self._directory))
                for name in ("config", "secrets"):
                    (work / name).mkdir(mode=0o700)
                held = (work / _HELD).open("wb")
                fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            raise Unavailable(
                f"cannot write: {error.strerror}", where=str(self._directory)
            ) from error
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            held.close()

    def _remove_abandoned(self) -> None:
        """Secrets of a build that was ended with kill -9 must not stay on the disk."""
        for path in self._directory.glob("docker-*"):
            with suppress(BlockingIOError), (path / _HELD).open("ab") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)

    def _run(
        self,
        work: Path,
        *arguments: str,
        seconds: float = SHORT_SECONDS,
        on_line: OnLine | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Outcome:
        """Run the client with an empty configuration: no credentials, no plugins."""
        environment = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": str(work)}
        command = Command(
            argv=(str(self._tool.path), "--config", str(work / "config"), *arguments),
            cwd=work,
            env={**environment, "DOCKER_BUILDKIT": "1", **self._variables},
            timeout=seconds,
            secrets=secrets,
        )
        return self._processes.run(command, on_line)

    def _must(self, work: Path, *arguments: str, seconds: float = SHORT_SECONDS) -> bytes:
        outcome = self._run(work, *arguments, seconds=seconds)
        if not outcome.ok:
            raise _failure(outcome, arguments[0])
        return outcome.stdout

    def _engine_version(self, work: Path) -> tuple[int, ...]:
        text = self._must(work, "version", "--format", "{{.Server.Version}}").decode(
            "ascii", "replace"
        )
        version = tuple(int(number) for number in re.findall(r"\d+", text)[:2])
        if version < MINIMUM_VERSION:
            raise Unavailable(
                f"the Docker engine is {text.strip()[:40]}, older than 20.10",
                hint="update docker.io, or use --builder buildah",
            )
        return version

    def _one(self, task: _Task, layout: Layout) -> Image:
        for base in task.job.bases.values():
            self._load(task.work, *base)
        tag = f"{_RESULT}:{uuid.uuid4().hex}"
        identity = task.work / "id"
        identity.unlink(missing_ok=True)
        try:
            outcome = self._run(
                task.work,
                *self._arguments(task, tag, identity),
                seconds=task.job.request.timeout.total_seconds(),
                on_line=task.log.line,
                secrets=tuple(task.job.request.secret_values.values()),
            )
            if not outcome.ok:
                raise _step_failure(task, outcome)
            image = Digest.parse(read_bounded(identity, 200).decode("ascii", "replace").strip())
            return self._export(task, layout, tag, image)
        finally:
            self._run(task.work, "image", "rm", "--no-prune", tag)

    def _arguments(self, task: _Task, tag: str, identity: Path) -> list[str]:
        request = task.job.request
        file = task.job.write_inputs(task.work)
        arguments = [
            "build", "--progress=plain", "--tag", tag, "--iidfile", str(identity),
            "--network", request.network.value, "--platform", task.job.platform,
            "--file", str(file),
        ]  # fmt: skip
        if task.job.target:
            arguments += ["--target", task.job.target]
        for name, value in sorted(request.args.items()):
            arguments += ["--build-arg", f"{name}={value}"]
        directory = Path(tempfile.mkdtemp(dir=task.work / "secrets"))
        for secret, path in secret_files(request, directory).items():
            arguments += ["--secret", f"id={secret},src={path}"]
        return [*arguments, str(request.context)]

    def _load(self, work: Path, layout: Layout, image: Image) -> None:
        """Give the engine a local base, unless it has exactly that one."""
        name = local_name(image)
        wanted = str(image.manifest.config.digest)
        if self._identity(work, name) != wanted:
            archive = work / "base.tar"
            write_archive(layout, image, name, archive)
            self._must(work, "load", "--quiet", "--input", str(archive), seconds=COPY_SECONDS)
            archive.unlink()
        if self._identity(work, name) != wanted:
            raise VerificationFailed("the engine holds another base image", where=name)

    def _identity(self, work: Path, name: str) -> str | None:
        outcome = self._run(work, "image", "inspect", "--format", "{{.Id}}", name)
        return outcome.stdout.decode("ascii", "replace").strip() if outcome.ok else None

    def _export(self, task: _Task, layout: Layout, tag: str, image: Digest) -> Image:
        job = task.job
        record = self._directory / "converted" / f"{self._conversion(job, image)}.json"
        if found := _converted(record, layout):
            return found
        archive = task.work / "image.tar"
        self._must(task.work, "save", "--output", str(archive), tag, seconds=COPY_SECONDS)
        known = _all_base_layers(job, layout)
        descriptor = read_archive(
            archive, layout, known, job.request.source_date_epoch, job.annotations()
        )
        archive.unlink()
        result = read_image(layout, descriptor)
        if not fits(result.platform, job.platform):
            raise Inconclusive(f"docker built {result.platform}, asked was {job.platform}")
        write_atomic(
            record, canonical_json({"digest": str(descriptor.digest), "size": descriptor.size})
        )
        return result

    def _conversion(self, job: Job, image: Digest) -> str:
        document = {
            "image": str(image),
            "epoch": job.request.source_date_epoch,
            "annotations": job.annotations(),
        }
        return Digest.of(canonical_json(document)).hex

    def _bases(self, task: _Task) -> list[BaseImage]:
        found = task.job.local_bases()
        for reference in task.job.remote:
            template = "{{json .RootFS.Layers}} {{json .RepoDigests}}"
            name = qualified(reference)
            outcome = self._run(task.work, "image", "inspect", "--format", template, name)
            layers, digest = _inspected(outcome, reference)
            found.append(BaseImage(reference, digest, layers))
        return found


def _inspected(outcome: Outcome, reference: str) -> tuple[tuple[str, ...], str]:
    """Layers and digest of an image of a registry; BuildKit may keep it to itself."""
    pinned = reference.partition("@")[2]
    try:
        layers, _, digests = outcome.stdout.decode().strip().partition(" ")
        items = [Digest.parse(str(item)) for item in strictjson.loads(layers.encode())]
        listed = [str(item) for item in strictjson.loads(digests.encode()) or []]
    except (strictjson.InvalidJson, UnicodeDecodeError, TypeError, VerificationFailed):
        items, listed = [], []
    digest = pinned or (listed[0].partition("@")[2] if listed else "")
    if not digest:
        raise Inconclusive(f"the engine does not say which {reference[:100]!r} it used")
    return texts(tuple(items)), digest


def _check_features(dockerfile: Dockerfile, version: tuple[int, ...]) -> None:
    """Refuse what this engine would read as something else."""
    for item in dockerfile.instructions:
        if item.heredocs and version < _HEREDOC_VERSION:
            dockerfile.fail(item.line, "this Docker engine does not know here-documents",
                            "write RUN with && and \\, or use a newer engine")  # fmt: skip
        if "checksum" in item.flags and version < _CHECKSUM_VERSION:
            dockerfile.fail(item.line, "this Docker engine does not know ADD --checksum",
                            "COPY the file from the context, or use a newer engine")  # fmt: skip


def _all_base_layers(job: Job, layout: Layout) -> dict[Digest, Descriptor]:
    diff_ids = tuple(diff_id for _, image in job.bases.values() for diff_id in image.diff_ids)
    return job.base_layers(layout, diff_ids)


def _converted(record: Path, layout: Layout) -> Image | None:
    """What an engine's image became before, if every byte of it is in the layout."""
    try:
        value = strictjson.loads(read_bounded(record, MAX_RECORD_BYTES))
        descriptor = Descriptor(MANIFEST_TYPE, Digest.parse(value["digest"]), int(value["size"]))
        image = read_image(layout, descriptor)
        for layer in image.manifest.layers:
            layout.check_blob(layer.digest, layer.size)
    except (PipelineError, strictjson.InvalidJson, KeyError, TypeError, ValueError):
        return None
    return image


def _failure(outcome: Outcome, verb: str) -> Unavailable | Inconclusive:
    text = outcome.tail(40)
    if outcome.timed_out or outcome.returncode < 0:
        return Inconclusive(f"docker {verb}: {outcome.describe()}", hint="run it again")
    if "no space left on device" in text.lower():
        return Unavailable("the disk is full", hint="free some disk space and build again")
    detail = (text.strip().splitlines() or [""])[-1]
    return Unavailable(
        f"docker {verb}: {outcome.describe()}: {detail[:300]}",
        hint="start the Docker engine, set DOCKER_HOST, or use buildah",
    )


def _step_failure(task: _Task, outcome: Outcome) -> BuildFailed | Unavailable | Inconclusive:
    """Tell a step that failed from an engine that did."""
    error = _failure(outcome, "build")
    failed = task.log.failed
    full = "no space left on device" in outcome.tail(40).lower()
    if isinstance(error, Inconclusive) or full or failed is None:
        return error
    name = task.job.dockerfile.source
    return BuildFailed(
        f"step {failed.text[:120]!r}: {failed.reason[:300]}",
        where=f"{name}:{failed.line}" if failed.line else name,
        hint="see build.log for its output",
        steps=task.log.steps(),
        log=bytes(task.log.log),
    )
