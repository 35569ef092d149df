"""Docker's image archives (``docker save``, ``docker load``) to and from layouts.

An archive is untrusted input: members are looked up by name and read, never unpacked, every
layer must have the diff id that the config gives, and times are cut to the epoch, because
Docker's builder writes the present time into layers and config.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from secure_pipeline import shape
from secure_pipeline.errors import Inconclusive, Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import (
    LAYER_TYPE,
    MAX_CONFIG_BYTES,
    Image,
    LayerWriter,
    parse_config,
    store_file,
    write_image,
)
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.shape import rfc3339

MAX_MEMBERS = 10_000
MAX_LAYER_MEMBERS = 2_000_000
_CHUNK = 1 << 20
_CONFIG_KEYS = ("architecture", "author", "os", "os.version", "variant")
_RUN_KEYS = (
    "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell",
    "StopSignal", "User", "Volumes", "WorkingDir",
)  # fmt: skip


def write_archive(layout: Layout, image: Image, name: str, path: Path) -> None:
    """Write an image of a layout as an archive that ``docker load`` reads."""
    with tarfile.open(path, "w") as archive:
        config = layout.read_blob(image.manifest.config.digest, MAX_CONFIG_BYTES)
        _add(archive, "config.json", config)
        names = []
        for number, layer in enumerate(image.manifest.layers):
            layout.check_blob(layer.digest, layer.size)
            info = tarfile.TarInfo(f"{number}.tar")
            info.size = layer.size
            with (layout.path / "blobs" / "sha256" / layer.digest.hex).open("rb") as stream:
                archive.addfile(info, stream)
            names.append(info.name)
        entry = {"Config": "config.json", "RepoTags": [name], "Layers": names}
        _add(archive, "manifest.json", json.dumps([entry]).encode())


def read_archive(
    path: Path,
    layout: Layout,
    known: Mapping[Digest, Descriptor],
    epoch: int,
    annotations: Mapping[str, str],
) -> Descriptor:
    """Bring the one image of an archive into a layout; return its manifest, not yet listed.

    Layers in ``known`` (by diff id) keep the blobs they have. Raises: VerificationFailed for
    an archive that is not what it says; Inconclusive over a limit; Unavailable.
    """
    with _opened(path) as archive:
        members = _members(archive, str(path))
        # (1) the one image that manifest.json names
        entry = _entry(_read(archive, members, "manifest.json"), str(path))
        data = _read(archive, members, shape.member(entry, "Config", str, str(path)))
        names = shape.member(entry, "Layers", list, str(path))
        # (2) as many layers as the config has diff ids, each with its own
        diff_ids, _ = parse_config(data, str(path))
        if len(names) != len(diff_ids):
            raise VerificationFailed("layers and diff_ids differ in number", where=str(path))
        layers: list[Descriptor] = []
        final: list[Digest] = []
        for name, diff_id in zip(names, diff_ids, strict=True):
            if diff_id in known:
                layers.append(known[diff_id])
                final.append(diff_id)
                continue
            stream = _stream(archive, members, str(name))
            layer, cut = _layer(stream, diff_id, epoch, path.parent, layout)
            layers.append(layer)
            final.append(cut)
        # (3) the config again, with the cut times and the diff ids that came of them
        return write_image(layout, _config(data, final, epoch, str(path)), layers, annotations)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise VerificationFailed(f"not an image archive: {error}", where=str(path)) from None
    except OSError as error:
        raise Unavailable(f"cannot read or write: {error.strerror}", where=str(path)) from error


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _members(archive: tarfile.TarFile, where: str) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if member.name in members:
            raise VerificationFailed(f"{member.name[:100]!r} is there twice", where=where)
        members[member.name] = member
        if len(members) > MAX_MEMBERS:
            raise Inconclusive(f"more than {MAX_MEMBERS} members", where=where)
    return members


def _stream(
    archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str
) -> IO[bytes]:
    """Open a member; docker links equal layers to each other, within the archive only."""
    member = members.get(name)
    if member is not None and member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        member = members.get(target)
    if member is None or not member.isreg():
        raise VerificationFailed(f"no file {name[:100]!r} in it", where=str(archive.name))
    return cast(IO[bytes], archive.extractfile(member))


def _read(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes:
    data = _stream(archive, members, name).read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise Inconclusive(
            f"{name[:100]} is over {MAX_CONFIG_BYTES} bytes", where=str(archive.name)
        )
    return data


def _entry(data: bytes, where: str) -> Mapping[str, Any]:
    document = shape.parse_object(b'{"images":' + data + b"}", where, limit=MAX_CONFIG_BYTES + 32)
    images = shape.objects(document, "images", where, limit=2)
    if len(images) != 1:
        raise VerificationFailed(f"{len(images)} images where one is needed", where=where)
    return cast(Mapping[str, Any], images[0])


def _layer(
    stream: IO[bytes], diff_id: Digest, epoch: int, work: Path, layout: Layout
) -> tuple[Descriptor, Digest]:
    """Check a layer's bytes, cut its times, store it packed; return it with its new diff id."""
    hasher = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        hasher.update(chunk)
    if hasher.hexdigest() != diff_id.hex:
        raise VerificationFailed(f"expected {diff_id}, found sha256:{hasher.hexdigest()}")
    stream.seek(0)
    writer = LayerWriter(work)
    with (
        tarfile.open(fileobj=stream, mode="r:") as source,
        tarfile.open(fileobj=cast(Any, writer), mode="w|", format=tarfile.PAX_FORMAT) as target,
    ):
        for count, member in enumerate(source):
            if count > MAX_LAYER_MEMBERS:
                raise Inconclusive(f"more than {MAX_LAYER_MEMBERS} files", where=str(diff_id))
            target.addfile(
                _cut(member, epoch), source.extractfile(member) if member.isreg() else None
            )
    cut = writer.close()
    return store_file(layout, writer.path, LAYER_TYPE, None), cut


def _cut(member: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    """No time later than the epoch, none more exact than a second, no other times."""
    member.mtime = min(int(member.mtime), epoch)
    times = ("mtime", "atime", "ctime", "LIBARCHIVE.creationtime")
    member.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in times}
    return member


def _config(data: bytes, diff_ids: list[Digest], epoch: int, where: str) -> bytes:
    """The config with OCI's members only: the rest tells about the daemon that built it."""
    source = shape.parse_object(data, where, limit=MAX_CONFIG_BYTES)
    run = shape.optional(source, "config", dict, where) or {}
    document: dict[str, Any] = {key: source[key] for key in _CONFIG_KEYS if source.get(key)}
    document["created"] = _time(source.get("created"), epoch)
    document["config"] = {key: run[key] for key in _RUN_KEYS if run.get(key)}
    document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    document["history"] = [
        {**item, "created": _time(item.get("created"), epoch)}
        for item in shape.objects(source, "history", where, limit=MAX_MEMBERS)
    ]
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _time(value: Any, epoch: int) -> str:
    """A time of the config, cut to the epoch; what cannot be read becomes the epoch."""
    latest = datetime.fromtimestamp(epoch, UTC)
    try:
        time = datetime.fromisoformat(str(value)[:19] + "+00:00")
    except ValueError:
        time = latest
    return rfc3339(min(time, latest))
