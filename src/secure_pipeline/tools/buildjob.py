"""What every builder does before and after its own work: resolve, hand over, put together."""

from __future__ import annotations

import os
import platform as machine
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.config import SecretConfig
from secure_pipeline.dockerfile import ignore
from secure_pipeline.dockerfile.images import (
    ImageUse,
    Kind,
    base_of,
    image_uses,
    qualified,
    target_stage,
)
from secure_pipeline.dockerfile.parser import Dockerfile
from secure_pipeline.dockerfile.rewrite import rewrite
from secure_pipeline.dockerfile.secrets import secret_name, secret_shape
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import Image, choose, store_file, write_index
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.ports import BaseImage, BuildRequest

MAX_SECRET_BYTES = 1 << 20
BASE_REPOSITORY = "localhost/secure-pipeline/base"
"""Under this name, with the manifest's digest as tag, builders know the local bases."""
_REMOTE = (Kind.PINNED, Kind.UNPINNED)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}


@dataclass(frozen=True)
class Job:
    """One platform of one request, with every image name resolved."""

    request: BuildRequest
    dockerfile: Dockerfile
    platform: str
    uses: tuple[ImageUse, ...]
    bases: Mapping[str, tuple[Layout, Image]]
    """Local bases by the name that FROM uses."""

    @classmethod
    def resolve(cls, request: BuildRequest, dockerfile: Dockerfile, platform: str) -> Job:
        """Resolve names and find the local bases.

        Raises: ConfigError, VerificationFailed (a base that is not what it says).
        """
        uses = image_uses(dockerfile, request.args, request.bases, platform)
        bases = {}
        for use in uses:
            if use.kind is Kind.BASE and use.reference not in bases:
                layout = Layout.open(request.bases[use.reference])
                bases[use.reference] = (layout, choose(layout, platform))
        return cls(request, dockerfile, platform, uses, bases)

    @property
    def remote(self) -> tuple[str, ...]:
        """References of images that a registry must give, once each."""
        return tuple(dict.fromkeys(use.reference for use in self.uses if use.kind in _REMOTE))

    @property
    def target(self) -> str | None:
        """The target as a builder knows it: lower-case name, or number."""
        if self.request.target is None:
            return None
        stage = target_stage(self.dockerfile, self.request.target)
        return stage.name or str(stage.index)

    def write_inputs(self, directory: Path) -> Path:
        """Write the Dockerfile with resolved names, and its ignore file beside it."""
        names = {reference: qualified(reference) for reference in self.remote}
        names |= {name: local_name(image) for name, (_, image) in self.bases.items()}
        file = directory / "Dockerfile"
        file.write_bytes(rewrite(self.dockerfile, self.uses, names))
        rules = ignore.load(self.request.context, self.request.dockerfile, self.request.ignore)
        (directory / "Dockerfile.dockerignore").write_bytes(rules.text())
        return file

    def local_bases(self) -> list[BaseImage]:
        """The local bases as evidence names them."""
        return [
            BaseImage(name, str(image.descriptor.digest), texts(image.diff_ids))
            for name, (_, image) in self.bases.items()
        ]

    def annotations(self) -> dict[str, str]:
        """Which base the image stands on (OCI image-spec, pre-defined annotation keys)."""
        stage = target_stage(self.dockerfile, self.request.target)
        reference = base_of(self.uses, self.dockerfile, stage).reference
        digest = reference.partition("@")[2]
        if reference in self.bases:
            digest = str(self.bases[reference][1].descriptor.digest)
        if not digest:
            return {}
        return {
            "org.opencontainers.image.base.digest": digest,
            "org.opencontainers.image.base.name": reference.partition("@")[0],
        }

    def base_layers(self, layout: Layout, diff_ids: tuple[Digest, ...]) -> dict[Digest, Descriptor]:
        """Layers of the local bases, copied into ``layout`` as they are where it needs them."""
        known: dict[Digest, Descriptor] = {}
        for source, image in self.bases.values():
            for diff_id, layer in zip(image.diff_ids, image.manifest.layers, strict=True):
                if diff_id in diff_ids and diff_id not in known:
                    if not layout.has_blob(layer.digest, layer.size):
                        path = source.path / "blobs" / "sha256" / layer.digest.hex
                        store_file(layout, path, layer.media_type, layer.digest)
                    known[diff_id] = layer
        return known


def local_name(image: Image) -> str:
    """How a builder's own storage calls a local base."""
    return f"{BASE_REPOSITORY}:{image.descriptor.digest.hex}"


def platforms(request: BuildRequest) -> tuple[str, ...]:
    """The platforms asked for, or this machine's."""
    return request.platforms or (host_platform(),)


def host_platform() -> str:
    """``linux/ARCH`` of this machine, in OCI's names."""
    name = machine.machine()
    return f"linux/{_ARCHITECTURES.get(name, name)}"


def list_image(layout: Layout, images: list[Image]) -> Descriptor:
    """List the image, or an index of several: before this a reader sees nothing of it."""
    descriptor = images[0].descriptor
    if len(images) > 1:
        descriptor = write_index(layout, images)
    layout.add_manifest(descriptor)
    return descriptor


def texts(digests: tuple[Digest, ...]) -> tuple[str, ...]:
    """Digests as ports carry them."""
    return tuple(str(digest) for digest in digests)


def hidden_texts(request: BuildRequest) -> list[str]:
    """What a log must not show: secrets, and arguments that look like one.

    Raises: ConfigError for a secret that is not there.
    """
    mounted = [_secret_value(request, s).decode("utf-8", "replace") for s in request.secrets]
    items = request.args.items()
    return mounted + [value for name, value in items if secret_name(name) or secret_shape(value)]


def secret_files(request: BuildRequest, directory: Path) -> dict[str, Path]:
    """Copies of the secrets by id, readable by their owner, gone with ``directory``."""
    files = {}
    for number, secret in enumerate(request.secrets):
        files[secret.id] = directory / str(number)
        handle = os.open(files[secret.id], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as stream:
            stream.write(_secret_value(request, secret))
    return files


def _secret_value(request: BuildRequest, secret: SecretConfig) -> bytes:
    if secret.env is not None:
        if secret.env not in request.secret_values:
            raise ConfigError(
                f"secret {secret.id!r}: the variable {secret.env} is not set",
                hint=f"set {secret.env} in the environment of secure-pipeline",
            )
        return request.secret_values[secret.env].encode()
    return read_bounded((request.root or request.context) / str(secret.file), MAX_SECRET_BYTES)
