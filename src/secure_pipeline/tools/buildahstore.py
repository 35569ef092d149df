"""Buildah's storage of our own: how it is called, locked, recovered, filled and emptied.

Nothing of the user's is read: no credentials, no containers.conf, no short names. As root
each call runs in its own mount and process namespace and dies with its parent, so that
kill -9 leaves no mount, no process and no lock behind; what it leaves in the storage is
removed before the next build.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from secure_pipeline import strictjson
from secure_pipeline.errors import Inconclusive, PipelineError, Unavailable, VerificationFailed
from secure_pipeline.files import canonical_json, read_bounded, write_atomic
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import LAYER_TYPE, Image, unpacked_digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.tools.buildjob import local_name
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool
from secure_pipeline.tools.process import Command, OnLine, Outcome, Processes

SHORT_SECONDS = 120.0
IMPORT_SECONDS = 900.0
_LOCK_POLL_SECONDS = 0.1
_POLICY = {"default": [{"type": "insecureAcceptAnything"}]}
_REGISTRIES = 'unqualified-search-registries = []\nshort-name-mode = "disabled"\n'


@dataclass(frozen=True)
class StoredImage:
    """An image in the storage."""

    id: Digest
    """Digest of its config."""
    config: bytes
    manifest: str
    """Digest of its manifest where it was pulled from."""


class BuildahStore:
    """One storage directory; everything but ``exclusive`` needs the lock held."""

    def __init__(
        self,
        tool: LocatedTool,
        processes: Processes,
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.path = directory
        self.work = directory / "work"
        self._tool = tool
        self._processes = processes
        self._environment = dict(environment or {})
        self._driver = ""
        self._runroot = self.work / "run"

    @contextmanager
    def exclusive(self, seconds: float) -> Iterator[None]:
        """Hold the storage alone, cleaned of what a killed build left.

        Raises: Unavailable after ``seconds`` of waiting, or if the disk refuses.
        """
        try:
            for path in (self.path.parent, self.path):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._refuse_shared()
            with (self.path / "lock").open("ab") as stream:
                self._acquire(stream.fileno(), seconds)
                self._recover()
                try:
                    yield
                    (self.path / "building").unlink(missing_ok=True)
                finally:
                    shutil.rmtree(self.work, ignore_errors=True)
        except OSError as error:
            raise Unavailable(
                f"the build storage cannot be used: {error.strerror}", where=str(self.path)
            ) from error

    def run(
        self,
        *arguments: str,
        seconds: float = SHORT_SECONDS,
        on_line: OnLine | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Outcome:
        """Run one buildah command to its end."""
        command = Command(
            argv=(*_confinement(), str(self._tool.path), *self._global_flags(), *arguments),
            cwd=self.path,
            env=self._variables(),
            timeout=seconds,
            secrets=secrets,
        )
        return replace(self._processes.run(command, on_line), argv=(str(self._tool.path),))

    def must(self, *arguments: str, seconds: float = SHORT_SECONDS) -> bytes:
        """Run a command that has to succeed.

        Raises: Unavailable, Inconclusive when it was killed or timed out.
        """
        outcome = self.run(*arguments, seconds=seconds)
        if outcome.ok:
            return outcome.stdout
        raise failure(outcome, arguments[0])

    def image(self, name: str) -> StoredImage | None:
        """Look an image up by name or id; its config is checked against its id."""
        outcome = self.run("inspect", "--type", "image", name)
        if outcome.timed_out or outcome.returncode < 0:
            raise failure(outcome, "inspect")
        if not outcome.ok:
            return None
        try:
            document = strictjson.loads(outcome.stdout)
            config = str(document["Config"]).encode()
            identity = Digest(document["FromImageID"])
            manifest = str(document["FromImageDigest"])
        except (strictjson.InvalidJson, KeyError, TypeError) as error:
            raise Inconclusive(f"buildah describes {name} in an unknown way: {error}") from None
        if Digest.of(config) != identity:
            raise VerificationFailed(f"the storage holds another config for {identity}", where=name)
        return StoredImage(identity, config, manifest)

    def add_base(self, layout: Layout, image: Image) -> str:
        """Bring an image of a layout into the storage, if it is not there; return its name.

        Raises: VerificationFailed if a layer is not what the config says.
        """
        name = local_name(image)
        stored = self.image(name)
        if stored is None:
            self._import(layout, image, name)
            stored = self.image(name)
        if stored is None or stored.id != image.manifest.config.digest:
            raise VerificationFailed("the storage holds another base image", where=name)
        return name

    def push(self, identity: Digest, target: Path, present: tuple[Digest, ...]) -> None:
        """Write an image to a new layout, without the layers (diff ids) in ``present``.

        Those are represented by empty files, which buildah does not look into.
        """
        blobs = target / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for diff_id in present:
            (blobs / diff_id.hex).touch()
        self.must(
            "push", "-q", "--signature-policy", str(self.policy), identity.hex, f"oci:{target}:x",
            seconds=IMPORT_SECONDS,
        )  # fmt: skip

    def remember(self, diff_id: Digest, layer: Descriptor) -> None:
        """Note how a layer was packed, so that it need not be packed again."""
        document = {"digest": str(layer.digest), "size": layer.size}
        write_atomic(self.path / "layers" / f"{diff_id.hex}.json", canonical_json(document))

    def remembered(self, diff_id: Digest) -> Descriptor | None:
        """How a layer was packed before; whoever uses it checks that the blob is there."""
        path = self.path / "layers" / f"{diff_id.hex}.json"
        try:
            value = strictjson.loads(read_bounded(path, 4096))
            return Descriptor(LAYER_TYPE, Digest.parse(value["digest"]), int(value["size"]))
        except (PipelineError, strictjson.InvalidJson, KeyError, TypeError, ValueError):
            return None

    @property
    def policy(self) -> Path:
        """File that admits images; what is admitted is decided by digests, before."""
        return self.path / "policy.json"

    def temporary(self, name: str) -> Path:
        """A new directory that goes away with the build."""
        path = self.work / f"{name}-{token_hex(8)}"
        path.mkdir(mode=0o700)
        return path

    def _refuse_shared(self) -> None:
        """A cache that another user can write could hold poisoned layers (BLD-07)."""
        for path in (self.path, self.path.parent):
            info = path.stat()
            if info.st_uid != os.geteuid() or info.st_mode & 0o022:
                raise Unavailable(
                    "the build storage can be written by others, so its layers cannot be trusted",
                    where=str(path),
                    hint="remove it; it is made again with the right mode",
                )

    def _acquire(self, handle: int, seconds: float) -> None:
        for _ in range(int(seconds / _LOCK_POLL_SECONDS) + 1):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self._processes.check()
                time.sleep(_LOCK_POLL_SECONDS)
        raise Unavailable(
            f"another build held the storage for {seconds:.0f} s",
            where=str(self.path),
            hint="wait for it, or use another --state directory",
        )

    def _recover(self) -> None:
        """Remove what a killed build left; a storage that does not answer is thrown away."""
        marker = self.path / "building"
        killed = marker.exists()
        shutil.rmtree(self.work, ignore_errors=True)
        for directory in (self._runroot, self.work / "tmp", self.work / "home"):
            directory.mkdir(parents=True, mode=0o700)
        for name, text in (
            ("policy.json", json.dumps(_POLICY)),
            ("registries.conf", _REGISTRIES),
            ("auth.json", "{}"),
            ("containers.conf", ""),
        ):
            if not (self.path / name).exists():
                write_atomic(self.path / name, text.encode())
        (self.path / "registries.d").mkdir(exist_ok=True)
        self._driver = self._choose_driver()
        if killed and not self.run("rm", "--all").ok:
            shutil.rmtree(self.path / "root", ignore_errors=True)
        marker.touch()

    def _choose_driver(self) -> str:
        """Overlay where the kernel has it: vfs copies the whole base for every step."""
        root = self.path / "root"
        for driver in ("overlay", "vfs"):
            if (root / f"{driver}-images").exists():
                return driver
        self._driver = "overlay"
        if self.run("images", "-q").ok:
            return "overlay"
        shutil.rmtree(root, ignore_errors=True)
        return "vfs"

    def _global_flags(self) -> tuple[str, ...]:
        return (
            "--root", str(self.path / "root"),
            "--runroot", str(self._runroot),
            "--storage-driver", self._driver,
            "--registries-conf", str(self.path / "registries.conf"),
            "--registries-conf-dir", str(self.path / "registries.d"),
            "--cgroup-manager", "cgroupfs",
        )  # fmt: skip

    def _variables(self) -> dict[str, str]:
        return {
            "PATH": SYSTEM_PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.work / "home"),
            "TMPDIR": str(self.work / "tmp"),
            "XDG_RUNTIME_DIR": str(self._runroot),
            "XDG_DATA_HOME": str(self.work / "home"),
            "CONTAINERS_CONF": str(self.path / "containers.conf"),
            "REGISTRY_AUTH_FILE": str(self.path / "auth.json"),
            **self._environment,
        }

    def _import(self, layout: Layout, image: Image, name: str) -> None:
        for layer, diff_id in zip(image.manifest.layers, image.diff_ids, strict=True):
            path = layout.path / "blobs" / "sha256" / layer.digest.hex
            layout.check_blob(layer.digest, layer.size)
            if "gzip" in layer.media_type and unpacked_digest(path) != diff_id:
                raise VerificationFailed(f"is not the layer {diff_id}", where=str(path))
        view = self.work / "base" / image.descriptor.digest.hex
        view.mkdir(parents=True)
        (view / "blobs").symlink_to(layout.path / "blobs")
        (view / "oci-layout").write_bytes((layout.path / "oci-layout").read_bytes())
        index = {"schemaVersion": 2, "manifests": [image.descriptor.to_json()]}
        (view / "index.json").write_text(json.dumps(index))
        # buildah names the image after this path, and few absolute paths are image names.
        place = str(view.relative_to(self.path))
        arguments = ("--signature-policy", str(self.policy), f"oci:{place}")
        identity = self.must("pull", "-q", *arguments, seconds=IMPORT_SECONDS).decode().strip()
        self.must("tag", identity, name)
        self.run("untag", identity, f"localhost/{place}")


def failure(outcome: Outcome, verb: str) -> Unavailable | Inconclusive:
    """The error that a failed call stands for."""
    message = f"buildah {verb}: {outcome.describe()}"
    if outcome.timed_out or outcome.returncode < 0:
        return Inconclusive(message, hint="run it again")
    detail = next((line for line in reversed(outcome.tail().splitlines()) if line.strip()), "")
    if "no space left on device" in outcome.tail(40).lower():
        return Unavailable("the disk is full", hint="free some disk space and build again")
    return Unavailable(f"{message}: {detail[:300]}", hint=_hint(outcome.tail(40)))


def _hint(text: str) -> str:
    if "newuidmap" in text or "user namespace" in text.lower():
        return "run as root, or give this user ranges in /etc/subuid and /etc/subgid"
    return "see the build log; 'secure-pipeline doctor' checks the tools"


def _confinement() -> tuple[str, ...]:
    """Die with the parent; as root also leave no mount and no process behind."""
    wrapper: list[str] = []
    setpriv = shutil.which("setpriv", path=SYSTEM_PATH)
    unshare = shutil.which("unshare", path=SYSTEM_PATH)
    if setpriv:
        wrapper += [setpriv, "--pdeathsig", "KILL", "--"]
    if unshare and os.geteuid() == 0:
        wrapper += [unshare, "--mount", "--propagation", "private", "--pid", "--fork",
                    "--kill-child", "--mount-proc", "--"]  # fmt: skip
    return tuple(wrapper)
