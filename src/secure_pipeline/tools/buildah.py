"""Builds images with buildah, without a daemon (port: Builder).

Every image name is resolved here and written into the Dockerfile that buildah reads, so
that buildah resolves nothing by itself. The result is put into the output layout with the
layers of a base byte for byte as the base has them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.config import Network
from secure_pipeline.dockerfile.images import qualified, target_stage
from secure_pipeline.dockerfile.parser import Dockerfile, load
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.events import OnEvent
from secure_pipeline.files import read_bounded
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import (
    LAYER_TYPE,
    Image,
    fits,
    parse_config,
    read_image,
    store_file,
    unpacked_digest,
    write_image,
)
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.ports import BaseImage, BuildFailed, BuildOutcome, BuildRequest, Clock
from secure_pipeline.tools.buildahstore import BuildahStore, StoredImage, failure
from secure_pipeline.tools.buildjob import (
    Job,
    hidden_texts,
    list_image,
    platforms,
    secret_files,
    texts,
)
from secure_pipeline.tools.buildsteps import Redactor, StepLog
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool
from secure_pipeline.tools.process import Outcome, Processes

MINIMUM_VERSION = (1, 28)
"""Debian 12's, which carries the fixes for mounts that reach the host (BLD-06)."""
_HEREDOC_VERSION = (1, 33)
_CHECKSUM_VERSION = (1, 31)


@dataclass(frozen=True)
class _Task:
    """A job with the storage that it uses and the log that it writes."""

    job: Job
    store: BuildahStore
    log: StepLog


class Buildah:
    """Implements ports.Builder with a storage directory of its own."""

    def __init__(
        self,
        tool: LocatedTool,
        processes: Processes,
        storage: Path,
        clock: Clock,
        *,
        isolation: str = "oci",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``storage`` keeps layers between builds; nothing of it is shared (BLD-07).

        ``isolation`` is 'oci' (runc or crun, all namespaces, seccomp) or 'chroot' for
        machines that allow no containers; ``environment`` is for proxies.
        """
        self._tool = tool
        self._clock = clock
        self._isolation = isolation
        self._environment = dict(environment or {})
        self._processes = processes
        self._storage = storage

    def build(self, request: BuildRequest, on_event: OnEvent) -> BuildOutcome:
        """Build into ``request.output``.

        Raises: ConfigError, BuildFailed (a step), Unavailable (buildah, disk, registry),
        Inconclusive (killed, timed out), Interrupted.
        """
        self._check_version()
        name = request.dockerfile_name or request.dockerfile.name
        dockerfile = load(request.dockerfile, name)
        target_stage(dockerfile, request.target)
        self._check_features(dockerfile)
        redact = Redactor(hidden_texts(request))
        log = StepLog(dockerfile, self._clock.monotonic, redact, on_event)
        layout = Layout.create(request.output)
        images: list[Image] = []
        bases: list[BaseImage] = []
        for platform in platforms(request):
            job = Job.resolve(request, dockerfile, platform)
            # Buildah's cache does not tell platforms apart, so each has a storage of its own.
            directory = self._storage / platform.replace("/", "-")
            store = BuildahStore(self._tool, self._processes, directory, self._environment)
            with store.exclusive(request.timeout.total_seconds()):
                images.append(self._one(_Task(job, store, log), layout))
                bases += job.local_bases() + _remote_bases(job, store)
        descriptor = list_image(layout, images)
        return BuildOutcome(
            tool=self._tool.identity,
            digest=str(descriptor.digest),
            media_type=descriptor.media_type,
            size=sum(image.size for image in images),
            bases=tuple(dict.fromkeys(bases)),
            steps=tuple(log.steps),
            log=bytes(log.log),
        )

    def _check_version(self) -> None:
        if self._version() < MINIMUM_VERSION:
            raise Unavailable(
                f"buildah {self._tool.version} is older than 1.28, the oldest that is safe",
                where=str(self._tool.path),
                hint="apt-get install buildah",
            )

    def _version(self) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", self._tool.version)[:2])

    def _check_features(self, dockerfile: Dockerfile) -> None:
        """Refuse what this version would read as something else."""
        for item in dockerfile.instructions:
            if item.heredocs and self._version() < _HEREDOC_VERSION:
                dockerfile.fail(
                    item.line,
                    f"buildah {self._tool.version} does not know here-documents",
                    "write RUN with && and \\, or use a newer builder",
                )
            if "checksum" in item.flags and self._version() < _CHECKSUM_VERSION:
                dockerfile.fail(
                    item.line,
                    f"buildah {self._tool.version} does not know ADD --checksum",
                    "COPY the file from the context, or use a newer builder",
                )

    def _one(self, task: _Task, layout: Layout) -> Image:
        for base in task.job.bases.values():
            task.store.add_base(*base)
        directory = task.store.temporary("build")
        task.job.write_inputs(directory)
        outcome = task.store.run(
            *self._arguments(task, directory),
            seconds=task.job.request.timeout.total_seconds(),
            on_line=task.log.line,
            secrets=tuple(task.job.request.secret_values.values()),
        )
        if not outcome.ok:
            raise _step_failure(task, outcome)
        task.log.finish()
        identity = read_bounded(directory / "id", 200).decode("ascii", "replace").strip()
        return _export(task, layout, Digest.parse(identity))

    def _arguments(self, task: _Task, directory: Path) -> list[str]:
        job, request = task.job, task.job.request
        arguments = [
            "build", "--format", "oci", "--layers", "--force-rm",
            "--isolation", self._isolation, *self._runtime(),
            "--network", request.network.value,
            "--pull=false" if job.remote else "--pull-never",
            "--timestamp", str(request.source_date_epoch),
            "--identity-label=false", "--http-proxy=false",
            "--signature-policy", str(task.store.policy),
            "--platform", job.platform,
            "--iidfile", str(directory / "id"),
            "--ignorefile", str(directory / "Dockerfile.dockerignore"),
            "--file", str(directory / "Dockerfile"),
        ]  # fmt: skip
        if self._isolation == "chroot" and request.network is Network.NONE:
            raise Unavailable(
                "chroot isolation cannot keep steps from the network",
                hint="set 'build.network: host', or build where containers may run",
            )
        if job.target:
            arguments += ["--target", job.target]
        for name, value in sorted(request.args.items()):
            arguments += ["--build-arg", f"{name}={value}"]
        for secret, path in secret_files(request, task.store.temporary("secrets")).items():
            arguments += ["--secret", f"id={secret},src={path}"]
        return [*arguments, str(request.context)]

    def _runtime(self) -> tuple[str, ...]:
        """Runc where it is: crun refuses the mixed cgroup hierarchies of older hosts."""
        if self._isolation != "oci":
            return ()
        for name in ("runc", "crun"):
            if path := shutil.which(name, path=SYSTEM_PATH):
                return ("--runtime", path)
        raise Unavailable("no container runtime is installed", hint="apt-get install runc")


def _export(task: _Task, layout: Layout, identity: Digest) -> Image:
    """Bring the built image into the output layout, all but its index entry."""
    stored = task.store.image(identity.hex)
    if stored is None:
        raise Inconclusive(f"buildah said it built {identity}, and does not have it")
    diff_ids, platform = parse_config(stored.config, str(identity))
    if not fits(platform, task.job.platform):
        raise Inconclusive(f"buildah built {platform} where {task.job.platform} was asked for")
    known = task.job.base_layers(layout, diff_ids)
    for diff_id in diff_ids:
        packed = None if diff_id in known else task.store.remembered(diff_id)
        if packed and layout.has_blob(packed.digest, packed.size):
            known[diff_id] = packed
    if missing := {diff_id for diff_id in diff_ids if diff_id not in known}:
        known |= _fetch_layers(task.store, layout, stored, diff_ids, missing)
    layers = [known[diff_id] for diff_id in diff_ids]
    descriptor = write_image(layout, stored.config, layers, task.job.annotations())
    return read_image(layout, descriptor)


def _step_failure(task: _Task, outcome: Outcome) -> BuildFailed | Unavailable | Inconclusive:
    """Tell a step that failed from a builder that did."""
    error = failure(outcome, "build")
    text = outcome.stderr.decode("utf-8", "replace")
    in_step = "building at STEP" in text and "creating container for" not in text
    full = "no space left on device" in text.lower()
    if isinstance(error, Inconclusive) or full or not in_step or task.log.current is None:
        return error
    step, line = task.log.current
    name = task.job.dockerfile.source
    cause = re.search(r'building at STEP ".*": (.*)', text, re.DOTALL)
    reason = cause[1].strip().splitlines()[0][:300] if cause else "it failed"
    return BuildFailed(
        f"step {step[:120]!r}: {reason}",
        where=f"{name}:{line}" if line else name,
        hint="see build.log for its output",
        steps=tuple(task.log.steps),
        log=bytes(task.log.log),
    )


def _fetch_layers(
    store: BuildahStore,
    layout: Layout,
    stored: StoredImage,
    diff_ids: tuple[Digest, ...],
    missing: set[Digest],
) -> dict[Digest, Descriptor]:
    directory = store.temporary("push") / "layout"
    present = tuple(diff_id for diff_id in diff_ids if diff_id not in missing)
    store.push(stored.id, directory, present)
    pushed = Layout.open(directory)
    manifest = pushed.read_manifest(pushed.manifests()[0])
    found: dict[Digest, Descriptor] = {}
    for diff_id, layer in zip(diff_ids, manifest.layers, strict=True):
        if diff_id in missing and diff_id not in found:
            path = directory / "blobs" / "sha256" / layer.digest.hex
            if unpacked_digest(path) != diff_id:
                raise Inconclusive(f"buildah wrote another layer than {diff_id}")
            found[diff_id] = store_file(layout, path, LAYER_TYPE, layer.digest)
            store.remember(diff_id, found[diff_id])
    return found


def _remote_bases(job: Job, store: BuildahStore) -> list[BaseImage]:
    """Images that buildah pulled; one that no stage needed was not."""
    found = []
    for reference in job.remote:
        stored = store.image(qualified(reference))
        if stored is not None:
            diff_ids, _ = parse_config(stored.config, reference)
            digest = reference.partition("@")[2] or stored.manifest
            found.append(BaseImage(reference, digest, texts(diff_ids)))
    return found
