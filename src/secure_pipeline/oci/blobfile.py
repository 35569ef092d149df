"""Files of a layout: opened only if they are plain, written whole or not at all (REG-14)."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from secure_pipeline.errors import Unavailable, VerificationFailed


@contextmanager
def incoming(directory: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside the blobs that is gone afterwards unless it was published."""
    try:
        handle, name = tempfile.mkstemp(dir=directory, prefix=".incoming-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream, temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(
            f"cannot write: {error.strerror}", where=str(directory), hint="free some disk space"
        ) from error


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file, never through a symbolic link, never waiting on a FIFO."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise VerificationFailed("missing", where=str(path)) from None
    except OSError as error:
        raise VerificationFailed(f"cannot be read: {error.strerror}", where=str(path)) from None
    stream = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        stream.close()
        raise VerificationFailed("not a regular file", where=str(path))
    return stream
