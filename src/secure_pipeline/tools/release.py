"""Install an official release file whose sha256 is pinned."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Protocol

from secure_pipeline.errors import Unavailable
from secure_pipeline.files import sha256_file
from secure_pipeline.tools.pins import Release

MAX_DOWNLOAD_BYTES = 1 << 30
MAX_EXECUTABLE_BYTES = 1 << 30


class Unreachable(Unavailable):
    """A source did not answer; another source may."""


class Download(Protocol):
    """Fetches one https address into a file."""

    def __call__(self, url: str, target: Path, limit: int) -> None:
        """Write what ``url`` answers, at most ``limit`` bytes, to ``target``.

        Raises: Unreachable.
        """


def install_release(release: Release, executable: Path, download: Download) -> None:
    """Download the file, prove its digest, and put the program at ``executable``.

    Raises: Unreachable if it cannot be fetched; Unavailable if it is another file. A wrong
    digest is no reason to try another source: somebody should look at it.
    """
    archive = executable.with_name("download")
    try:
        download(release.url, archive, MAX_DOWNLOAD_BYTES)
        digest = sha256_file(archive)
        if digest != release.sha256:
            raise Unavailable(
                f"the file has the digest sha256:{digest}, pinned is sha256:{release.sha256}",
                where=release.url,
                hint="nothing was installed; do not use that file, and report this",
            )
        if release.member is None:
            archive.rename(executable)
        else:
            _extract(archive, release.member, executable)
    finally:
        archive.unlink(missing_ok=True)
    executable.chmod(0o755)


def _extract(archive: Path, member: str, executable: Path) -> None:
    """Copy the one regular file wanted; names in the archive never become paths here."""
    try:
        with tarfile.open(archive) as content:
            entry = content.getmember(member)
            source = content.extractfile(entry) if entry.isreg() else None
            if source is None or entry.size > MAX_EXECUTABLE_BYTES:
                raise Unavailable(f"{member!r} is not a regular file", where=str(archive))
            with executable.open("wb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise Unavailable(f"the archive cannot be read: {error}", where=str(archive)) from error
