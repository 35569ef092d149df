"""Builds images with buildah, without a daemon (port: Builder).

Every image name is resolved here and written into the Dockerfile that buildah reads, so
that buildah resolves nothing by itself. The result is put into the output layout with the
layers of a base byte for byte as the base has them.
"""

from __future__ import annotations

import os
import platform as machine
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.config import Network, SecretConfig
from secure_pipeline.dockerfile import ignore
from secure_pipeline.dockerfile.images import (
    ImageUse,
    Kind,
    base_of,
    image_uses,
    qualified,
    target_stage,
)
from secure_pipeline.dockerfile.parser import Dockerfile, load
from secure_pipeline.dockerfile.rewrite import rewrite
from secure_pipeline.dockerfile.secrets import secret_name, secret_shape
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable
from secure_pipeline.events import OnEvent
from secure_pipeline.files import read_bounded
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import (
    LAYER_TYPE,
    Image,
    choose,
    fits,
    has_blob,
    parse_config,
    read_image,
    store_file,
    unpacked_digest,
    write_image,
    write_index,
)
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.ports import BaseImage, BuildFailed, BuildOutcome, BuildRequest, Clock
from secure_pipeline.tools.buildahstore import BuildahStore, StoredImage, failure
from secure_pipeline.tools.buildsteps import Redactor, StepLog
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool
from secure_pipeline.tools.process import Outcome, Processes

MINIMUM_VERSION = (1, 28)
"""Debian 12's, which carries the fixes for mounts that reach the host (BLD-06)."""
MAX_SECRET_BYTES = 1 << 20
_HEREDOC_VERSION = (1, 33)
_CHECKSUM_VERSION = (1, 31)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}


@dataclass(frozen=True)
class _Job:
    """One platform of one request."""

    request: BuildRequest
    store: BuildahStore
    dockerfile: Dockerfile
    platform: str
    uses: tuple[ImageUse, ...]
    bases: Mapping[str, tuple[Layout, Image]]
    """By name."""
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
        log = StepLog(dockerfile, self._clock.monotonic, Redactor(_secret_texts(request)), on_event)
        layout = Layout.create(request.output)
        images: list[Image] = []
        bases: list[BaseImage] = []
        for platform in request.platforms or (host_platform(),):
            job = self._job(request, dockerfile, platform, log)
            with job.store.exclusive(request.timeout.total_seconds()):
                images.append(self._one(job, layout))
                bases += _bases(job)
        # The index entry comes last: before it, a reader sees nothing of this image.
        descriptor = images[0].descriptor
        if len(images) > 1:
            descriptor = write_index(layout, images)
        layout.add_manifest(descriptor)
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

    def _job(
        self, request: BuildRequest, dockerfile: Dockerfile, platform: str, log: StepLog
    ) -> _Job:
        uses = image_uses(dockerfile, request.args, request.bases, platform)
        bases = {}
        for use in uses:
            if use.kind is Kind.BASE and use.reference not in bases:
                layout = Layout.open(request.bases[use.reference])
                bases[use.reference] = (layout, choose(layout, platform))
        # Buildah's cache does not tell platforms apart, so each has a storage of its own.
        directory = self._storage / platform.replace("/", "-")
        store = BuildahStore(self._tool, self._processes, directory, self._environment)
        return _Job(request, store, dockerfile, platform, uses, bases, log)

    def _one(self, job: _Job, layout: Layout) -> Image:
        names = {name: job.store.add_base(*base) for name, base in job.bases.items()}
        names |= {
            use.reference: qualified(use.reference)
            for use in job.uses
            if use.kind in (Kind.PINNED, Kind.UNPINNED)
        }
        directory = job.store.temporary("build")
        file = directory / "Dockerfile"
        file.write_bytes(rewrite(job.dockerfile, job.uses, names))
        rules = ignore.load(job.request.context, job.request.dockerfile, job.request.ignore)
        (directory / "ignore").write_bytes(rules.text())
        outcome = job.store.run(
            *self._arguments(job, directory),
            seconds=job.request.timeout.total_seconds(),
            on_line=job.log.line,
            secrets=tuple(job.request.secret_values.values()),
        )
        if not outcome.ok:
            raise _step_failure(job, outcome)
        job.log.finish()
        identity = read_bounded(directory / "id", 200).decode("ascii", "replace").strip()
        return self._export(job, layout, Digest.parse(identity))

    def _arguments(self, job: _Job, directory: Path) -> list[str]:
        request = job.request
        remote = any(use.kind in (Kind.PINNED, Kind.UNPINNED) for use in job.uses)
        arguments = [
            "build", "--format", "oci", "--layers", "--force-rm",
            "--isolation", self._isolation, *self._runtime(),
            "--network", request.network.value,
            "--pull=false" if remote else "--pull-never",
            "--timestamp", str(request.source_date_epoch),
            "--identity-label=false", "--http-proxy=false",
            "--signature-policy", str(job.store.policy),
            "--platform", job.platform,
            "--iidfile", str(directory / "id"),
            "--ignorefile", str(directory / "ignore"),
            "--file", str(directory / "Dockerfile"),
        ]  # fmt: skip
        if self._isolation == "chroot" and request.network is Network.NONE:
            raise Unavailable(
                "chroot isolation cannot keep steps from the network",
                hint="set 'build.network: host', or build where containers may run",
            )
        if request.target:
            stage = target_stage(job.dockerfile, request.target)
            arguments += ["--target", stage.name or str(stage.index)]
        for name, value in sorted(request.args.items()):
            arguments += ["--build-arg", f"{name}={value}"]
        for secret, path in _secret_files(request, job.store.temporary("secrets")).items():
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

    def _export(self, job: _Job, layout: Layout, identity: Digest) -> Image:
        """Bring the built image into the output layout, all but its index entry."""
        stored = job.store.image(identity.hex)
        if stored is None:
            raise Inconclusive(f"buildah said it built {identity}, and does not have it")
        diff_ids, platform = parse_config(stored.config, str(identity))
        if not fits(platform, job.platform):
            raise Inconclusive(f"buildah built {platform} where {job.platform} was asked for")
        known = _known_layers(job, layout, diff_ids)
        if missing := [diff_id for diff_id in diff_ids if diff_id not in known]:
            known |= _fetch_layers(job.store, layout, stored, diff_ids, set(missing))
        layers = [known[diff_id] for diff_id in diff_ids]
        descriptor = write_image(layout, stored.config, layers, _annotations(job))
        return read_image(layout, descriptor)


def host_platform() -> str:
    """``linux/ARCH`` of this machine, in OCI's names."""
    name = machine.machine()
    return f"linux/{_ARCHITECTURES.get(name, name)}"


def _texts(digests: tuple[Digest, ...]) -> tuple[str, ...]:
    return tuple(str(digest) for digest in digests)


def _annotations(job: _Job) -> dict[str, str]:
    """Which base the image stands on (OCI image-spec, pre-defined annotation keys)."""
    stage = target_stage(job.dockerfile, job.request.target)
    use = base_of(job.uses, job.dockerfile, stage)
    if use.kind is Kind.BASE:
        digest = str(job.bases[use.reference][1].descriptor.digest)
    else:
        digest = use.reference.partition("@")[2]
    if not digest:
        return {}
    return {
        "org.opencontainers.image.base.digest": digest,
        "org.opencontainers.image.base.name": use.reference.partition("@")[0],
    }


def _secret_texts(request: BuildRequest) -> list[str]:
    """What the log must not show: secrets, and arguments that look like one."""
    mounted = [_secret_value(request, s).decode("utf-8", "replace") for s in request.secrets]
    items = request.args.items()
    return mounted + [value for name, value in items if secret_name(name) or secret_shape(value)]


def _secret_value(request: BuildRequest, secret: SecretConfig) -> bytes:
    if secret.env is not None:
        if secret.env not in request.secret_values:
            raise ConfigError(
                f"secret {secret.id!r}: the variable {secret.env} is not set",
                hint=f"set {secret.env} in the environment of secure-pipeline",
            )
        return request.secret_values[secret.env].encode()
    return read_bounded((request.root or request.context) / str(secret.file), MAX_SECRET_BYTES)


def _secret_files(request: BuildRequest, directory: Path) -> dict[str, Path]:
    """Copies that only the builder reads, gone with the build's work directory."""
    files = {}
    for number, secret in enumerate(request.secrets):
        files[secret.id] = directory / str(number)
        handle = os.open(files[secret.id], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as stream:
            stream.write(_secret_value(request, secret))
    return files


def _step_failure(job: _Job, outcome: Outcome) -> BuildFailed | Unavailable | Inconclusive:
    """Tell a step that failed from a builder that did."""
    error = failure(outcome, "build")
    text = outcome.stderr.decode("utf-8", "replace")
    in_step = "building at STEP" in text and "creating container for" not in text
    full = "no space left on device" in text.lower()
    if isinstance(error, Inconclusive) or full or not in_step or job.log.current is None:
        return error
    step, line = job.log.current
    name = job.dockerfile.source
    cause = re.search(r'building at STEP ".*": (.*)', text, re.DOTALL)
    reason = cause[1].strip().splitlines()[0][:300] if cause else "it failed"
    return BuildFailed(
        f"step {step[:120]!r}: {reason}",
        where=f"{name}:{line}" if line else name,
        hint="see build.log for its output",
        steps=tuple(job.log.steps),
        log=bytes(job.log.log),
    )


def _known_layers(
    job: _Job, layout: Layout, diff_ids: tuple[Digest, ...]
) -> dict[Digest, Descriptor]:
    """Layers that need no packing: those of the bases, and those packed before."""
    known: dict[Digest, Descriptor] = {}
    for source, image in job.bases.values():
        for diff_id, layer in zip(image.diff_ids, image.manifest.layers, strict=True):
            if diff_id in diff_ids and diff_id not in known:
                if not has_blob(layout, layer):
                    path = source.path / "blobs" / "sha256" / layer.digest.hex
                    store_file(layout, path, layer.media_type, layer.digest)
                known[diff_id] = layer
    for diff_id in diff_ids:
        packed = None if diff_id in known else job.store.remembered(diff_id)
        if packed and has_blob(layout, packed):
            known[diff_id] = packed
    return known


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


def _bases(job: _Job) -> list[BaseImage]:
    found = []
    for use in job.uses:
        if use.kind is Kind.BASE:
            _, image = job.bases[use.reference]
            found.append(
                BaseImage(use.reference, str(image.descriptor.digest), _texts(image.diff_ids))
            )
        elif use.kind in (Kind.PINNED, Kind.UNPINNED):
            stored = job.store.image(qualified(use.reference))
            if stored is not None:
                diff_ids, _ = parse_config(stored.config, use.reference)
                digest = use.reference.partition("@")[2] or stored.manifest
                found.append(BaseImage(use.reference, digest, _texts(diff_ids)))
    return found
