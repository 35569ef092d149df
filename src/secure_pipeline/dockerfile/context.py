"""The build context: what a builder is sent, hashed and looked at first (BLD-08)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.dockerfile.checks import SECRET_IN_CONTEXT, Refusal
from secure_pipeline.dockerfile.ignore import IgnoreFile
from secure_pipeline.errors import ConfigError

MAX_FILES = 200_000
MAX_BYTES = 4 << 30
_CHUNK = 1 << 20
_KEY_HEADER = re.compile(rb"^-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----", re.MULTILINE)
_NPM_TOKEN = re.compile(rb"_(?:authToken|password|auth)\s*=\s*[^\s$]")
_KEY_SUFFIXES = (".pem", ".key", ".p8", ".pk8", ".ppk")
_STORE_SUFFIXES = (".p12", ".pfx", ".jks", ".keystore", ".kdbx")
_SECRET_NAMES = frozenset(
    ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".netrc", ".pypirc", ".git-credentials",
     ".vault-token", ".pgpass", ".my.cnf")
)  # fmt: skip
_SECRET_PATHS = (".aws/credentials", ".docker/config.json", ".kube/config", ".config/gcloud")
_SAMPLE_SUFFIXES = (".example", ".sample", ".template", ".dist", ".tmpl")


@dataclass(frozen=True)
class Context:
    """What is sent."""

    digest: str
    """``sha256:…`` over mode, content and path of everything sent."""
    files: int
    size: int
    """Bytes."""
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    """Things that are better ignored, such as .git."""


def examine(root: Path, ignore: IgnoreFile) -> Context:
    """Hash and look at every file of the context that is not ignored.

    Raises: ConfigError when it is no directory or over 200 000 files or 4 GiB.
    """
    if not root.is_dir():
        raise ConfigError("the build context is no directory", where=str(root))
    digest = hashlib.sha256()
    refusals: list[Refusal] = []
    notes: list[str] = []
    files = size = 0
    for path, info in _walk(root, "", ignore):
        mode, content, head = _read(root / path, info)
        digest.update(f"{mode} {content} ".encode() + os.fsencode(path) + b"\0")
        files += 1
        size += info.st_size if stat.S_ISREG(info.st_mode) else 0
        if files > MAX_FILES or size > MAX_BYTES:
            raise ConfigError(
                f"the build context is larger than {MAX_FILES} files or {MAX_BYTES} bytes",
                where=str(root),
                hint="list what the image does not need in .dockerignore",
            )
        if reason := _secret(path, head, info):
            refusals.append(_refusal(path, reason))
        if path.rpartition("/")[2] == ".git":
            notes.append(f"{path} is sent to the builder; list it in .dockerignore")
    return Context(f"sha256:{digest.hexdigest()}", files, size, tuple(refusals), tuple(notes))


def _walk(root: Path, below: str, ignore: IgnoreFile) -> Iterator[tuple[str, os.stat_result]]:
    """Paths that are sent, parents first, in the order of their names."""
    pending = [below]
    while pending:
        directory = pending.pop()
        try:
            entries = sorted(os.scandir(root / directory), key=lambda entry: entry.name)
        except OSError as error:
            raise ConfigError(
                f"cannot read: {error.strerror}", where=str(root / directory)
            ) from error
        folders = []
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            ignored = ignore.ignores(path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if not ignored:
                yield path, entry.stat(follow_symlinks=False)
            if is_folder and (not ignored or ignore.has_exceptions):
                folders.append(path)
        pending += reversed(folders)


def _read(path: Path, info: os.stat_result) -> tuple[str, str, bytes]:
    """Mode as in git, hex digest, and the first bytes; no link is followed (BLD-06)."""
    if stat.S_ISLNK(info.st_mode):
        return "120000", hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest(), b""
    if not stat.S_ISREG(info.st_mode):
        return ("040000" if stat.S_ISDIR(info.st_mode) else "special"), "-", b""
    hasher = hashlib.sha256()
    head = b""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            while chunk := stream.read(_CHUNK):
                head = head or chunk
                hasher.update(chunk)
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror}", where=str(path)) from error
    return ("100755" if info.st_mode & stat.S_IXUSR else "100644"), hasher.hexdigest(), head


def _secret(path: str, head: bytes, info: os.stat_result) -> str | None:
    """Say why a file looks like a secret, or None."""
    if not stat.S_ISREG(info.st_mode) or not head:
        return None
    name = path.rpartition("/")[2].lower()
    if name == ".env" or (name.startswith(".env.") and not name.endswith(_SAMPLE_SUFFIXES)):
        return "holds environment variables, most often secrets"
    if name in _SECRET_NAMES or any(f"/{path}".endswith(f"/{known}") for known in _SECRET_PATHS):
        return "is a file of credentials"
    if name.endswith(_STORE_SUFFIXES):
        return "is a store of keys"
    if (name.endswith(_KEY_SUFFIXES) or "." not in name) and _KEY_HEADER.search(head):
        return "is a private key"
    return "holds a token" if name == ".npmrc" and _NPM_TOKEN.search(head) else None


def _refusal(path: str, reason: str) -> Refusal:
    shown = "".join(c if c.isprintable() else "?" for c in path[:200])
    return Refusal(
        SECRET_IN_CONTEXT,
        None,
        f"{shown} {reason}, and would be sent to the builder",
        f"add {shown} to .dockerignore",
        shown,
    )
