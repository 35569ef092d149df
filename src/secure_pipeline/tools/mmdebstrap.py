"""Makes a reproducible Debian base image with mmdebstrap, as an OCI layout.

Packages come from where this machine's own apt gets them, checked by apt's signatures. The
image keeps no mirror, list, log or machine identity, so that two runs over the same packages
give the same digest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from secure_pipeline.errors import ConfigError, Unavailable, UsageError, VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import digest_of, read_bounded
from secure_pipeline.oci.image import LAYER_TYPE, LayerWriter, store_file, write_image
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.oci.walk import check_image
from secure_pipeline.shape import rfc3339
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool
from secure_pipeline.tools.process import Command, Outcome, Processes

PARAMETERS = "dev.secure-pipeline.base.parameters"
RECIPE = 2
"""Counts changes of what is removed or set below."""
MAX_SOURCE_BYTES = 1 << 20
MAX_TAR_BYTES = 8 << 30
_WORD = re.compile(r"[a-z0-9][a-z0-9+.-]{0,63}\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}(=[A-Za-z0-9.+:~-]{1,99})?\Z")
_CHUNK = 1 << 20
_BLOCK = 512
_TYPE = 156
"""Offset of the type in a tar header; '3' and '4' are devices."""
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_CLEANUP = (
    'find "$1/var/log" "$1/var/cache" "$1/tmp" "$1/run" -type f -delete',
    'rm -rf "$1/etc/apt/sources.list" "$1/etc/apt/sources.list.d" "$1/var/lib/apt/lists"',
    'mkdir -p "$1/etc/apt/sources.list.d" "$1/var/lib/apt/lists/partial"',
    'rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1/var/lib/dbus/machine-id"',
    'rm -f "$1"/etc/*- "$1"/var/lib/dpkg/*-old "$1"/var/cache/ldconfig/aux-cache',
    ': > "$1/etc/machine-id"',
)


@dataclass(frozen=True)
class BaseRequest:
    """What the base holds."""

    suite: str
    include: tuple[str, ...] = ()
    epoch: int = 0
    """Seconds since 1970 that no file is newer than."""

    def __post_init__(self) -> None:
        if not _WORD.match(self.suite):
            raise UsageError(f"{self.suite[:60]!r} is no suite", hint="write bookworm or trixie")
        for package in self.include:
            if not _PACKAGE.match(package):
                raise UsageError(f"{package[:60]!r} is no package name")
        if not 0 <= self.epoch < 1 << 33:
            raise UsageError(f"{self.epoch} is no time in seconds since 1970")


@dataclass(frozen=True)
class BaseLayout:
    """A base image that is there."""

    digest: str
    """``sha256:…`` of its manifest."""
    size: int
    """Bytes of the layer, compressed; 0 when it was there already."""
    reused: bool


class Mmdebstrap:
    """Makes bases; needs root or user namespaces."""

    def __init__(
        self,
        tool: LocatedTool,
        processes: Processes,
        *,
        sources: Path = Path("/etc/apt"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``sources`` is apt's directory; ``environment`` is for proxies."""
        self._tool = tool
        self._processes = processes
        self._sources = sources
        self._environment = dict(environment or {})

    def make(
        self,
        request: BaseRequest,
        output: Path,
        on_event: OnEvent,
        *,
        refresh: bool = False,
        timeout: float = 1800.0,
    ) -> BaseLayout:
        """Make the base in ``output``, or find it there from the same parameters.

        Raises: UsageError (the directory holds something else), ConfigError (no apt sources
        for the suite), Unavailable (mmdebstrap failed, no rights, disk full).
        """
        architecture = self._architecture()
        parameters = self._parameters(request, architecture)
        if not refresh and (descriptor := _existing(output, parameters)):
            return BaseLayout(str(descriptor.digest), 0, True)
        if output.exists() and any(output.iterdir()) and not (output / "oci-layout").is_file():
            raise UsageError("the directory is not empty and no OCI layout", where=str(output))
        sources = machine_sources(self._sources, request.suite)
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="base-", dir=output.parent))
        try:
            on_event(Progress("base", f"mmdebstrap {request.suite}: a minute or less"))
            tar = self._bootstrap(request, sources, work, timeout, on_event)
            layout = Layout.create(output)
            return _write(layout, tar, work, request, architecture, parameters)
        except OSError as error:
            raise Unavailable(f"cannot write: {error.strerror}", where=str(work)) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _parameters(self, request: BaseRequest, architecture: str) -> str:
        document = {
            **asdict(request),
            "include": sorted(set(request.include)),
            "architecture": architecture,
            "mmdebstrap": self._tool.version,
            "recipe": RECIPE,
        }
        return digest_of(document)

    def _architecture(self) -> str:
        outcome = self._run(("/usr/bin/dpkg", "--print-architecture"), Path("/"), 30, {})
        if not outcome.ok:
            raise Unavailable(f"{outcome.describe()}", hint="this needs a Debian system")
        return outcome.stdout.decode("ascii", "replace").strip()

    def _bootstrap(
        self, request: BaseRequest, sources: bytes, work: Path, timeout: float, on_event: OnEvent
    ) -> Path:
        listing = work / "machine.sources"
        listing.write_bytes(sources)
        (work / "tmp").mkdir()
        # apt's own user reads the lists that mmdebstrap puts there.
        os.chmod(work, 0o711)  # noqa: S103
        tar = work / "base.tar"
        arguments = [str(self._tool.path), "--variant=minbase", "--format=tar", "--quiet"]
        if request.include:
            arguments.append(f"--include={','.join(sorted(set(request.include)))}")
        arguments += [f"--dpkgopt=path-exclude={pattern}" for pattern in _WITHOUT]
        arguments.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        arguments.append('--aptopt=Acquire::Languages "none"')
        arguments += [f"--customize-hook={command}" for command in _CLEANUP]
        argv = (*arguments, request.suite, str(tar), str(listing))
        variables = {"SOURCE_DATE_EPOCH": str(request.epoch), "TMPDIR": str(work / "tmp")}
        outcome = self._run(argv, work, timeout, variables, on_event)
        if not outcome.ok:
            raise _failure(outcome)
        return tar

    def _run(
        self,
        argv: tuple[str, ...],
        cwd: Path,
        timeout: float,
        variables: Mapping[str, str],
        on_event: OnEvent | None = None,
    ) -> Outcome:
        environment = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
        command = Command(
            argv=argv, cwd=cwd, env={**environment, **self._environment, **variables},
            timeout=timeout,
        )  # fmt: skip

        def show(line: str) -> None:
            if on_event and line.strip():
                on_event(Progress("base", line[:300], detail=True))

        return self._processes.run(command, show)


def machine_sources(directory: Path, suite: str) -> bytes:
    """The entries of this machine's apt sources that serve ``suite`` and its updates.

    Raises: ConfigError if there are none.
    """
    files = sorted((directory / "sources.list.d").glob("*.sources"))
    stanzas = [stanza for path in files for stanza in _deb822(path, suite)]
    one_line = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*.list"))]
    stanzas += [stanza for path in one_line if path.is_file() for stanza in _lines(path, suite)]
    if not stanzas:
        raise ConfigError(
            f"this machine's apt sources have no entry for {suite}",
            where=str(directory),
            hint=f"add one for {suite} under /etc/apt/sources.list.d",
        )
    return "\n\n".join(stanzas).encode() + b"\n"


def _deb822(path: Path, suite: str) -> Iterator[str]:
    text = read_bounded(path, MAX_SOURCE_BYTES).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = dict(re.findall(r"(?mi)^([a-z-]+):[ \t]*(.*)$", stanza))
        fields = {name.lower(): value for name, value in fields.items()}
        suites = [name for name in fields.get("suites", "").split() if _serves(name, suite)]
        if suites and "deb" in fields.get("types", "").split() and fields.get("enabled") != "no":
            replaced = re.sub(r"(?mi)^suites:.*$", f"Suites: {' '.join(suites)}", stanza)
            yield re.sub(r"(?mi)^types:.*$", "Types: deb", replaced).strip()


def _lines(path: Path, suite: str) -> Iterator[str]:
    """One-line entries, rewritten as stanzas."""
    text = read_bounded(path, MAX_SOURCE_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(\S.*?)\s*(?:#.*)?\Z", line)
        if match and _serves(match[3], suite):
            options = dict(item.split("=", 1) for item in (match[1] or "").split() if "=" in item)
            signed = options.get("signed-by")
            stanza = f"Types: deb\nURIs: {match[2]}\nSuites: {match[3]}\nComponents: {match[4]}"
            yield stanza + (f"\nSigned-By: {signed}" if signed else "")


def _serves(name: str, suite: str) -> bool:
    return name in (suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates")


def _existing(output: Path, parameters: str) -> Descriptor | None:
    """The base of the same parameters, if every byte of it is there."""
    if not (output / "oci-layout").is_file():
        return None
    layout = Layout.open(output)
    for descriptor in layout.manifests():
        if descriptor.annotations.get(PARAMETERS) == parameters:
            try:
                check_image(layout, descriptor.digest)
            except VerificationFailed:
                return None
            return descriptor
    return None


def _write(
    layout: Layout,
    tar: Path,
    work: Path,
    request: BaseRequest,
    architecture: str,
    parameters: str,
) -> BaseLayout:
    if tar.stat().st_size > MAX_TAR_BYTES:
        raise Unavailable(f"the base is larger than {MAX_TAR_BYTES} bytes", where=str(tar))
    writer = LayerWriter(work)
    with tar.open("rb") as stream:
        for chunk in without_devices(stream):
            writer.write(chunk)
    diff_id = writer.close()
    layer = store_file(layout, writer.path, LAYER_TYPE, None)
    created = rfc3339(datetime.fromtimestamp(request.epoch, UTC))
    config: dict[str, Any] = {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [_PATH], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        "history": [{"created": created, "created_by": f"mmdebstrap {request.suite}"}],
    }
    descriptor = write_image(layout, json.dumps(config, separators=(",", ":")).encode(), [layer])
    listed = Descriptor(
        descriptor.media_type,
        descriptor.digest,
        descriptor.size,
        annotations={PARAMETERS: parameters},
    )
    with layout.edit() as edit:
        edit.entries = [listed]
        edit.changed = True
    return BaseLayout(str(descriptor.digest), layer.size, False)


def without_devices(stream: BinaryIO) -> Iterator[bytes]:
    """Chunks of a tar file of mmdebstrap without the device nodes that it puts first.

    Runtimes make /dev themselves; in a stored layer a device is a trap for whatever copies or
    reads files: /dev/zero does not end.
    """
    while (header := stream.read(_BLOCK)).startswith(b"./dev/"):
        if header[_TYPE] not in b"34":
            yield header
    yield header
    while chunk := stream.read(_CHUNK):
        yield chunk


def _failure(outcome: Outcome) -> Unavailable:
    text = outcome.tail(30)
    lines = [line for line in text.splitlines() if line.startswith(("E:", "Err:"))]
    detail = (lines or text.splitlines() or [""])[-1]
    hint = "see 'mmdebstrap' and its network; run it again"
    if os.geteuid() != 0 and re.search(r"unshare|newuidmap|subuid|namespace", text):
        hint = "run as root, or give this user ranges in /etc/subuid and /etc/subgid"
    elif "no space left" in text.lower():
        hint = "free some disk space"
    return Unavailable(f"{outcome.describe()}: {detail[:300]}", hint=hint)
