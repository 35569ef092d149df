"""Where the files that ship beside the code are: pinned tools, policies, rules."""

from __future__ import annotations

from pathlib import Path

from secure_pipeline.errors import Unavailable

_PACKAGE = Path(__file__).resolve().parent


def data_path(name: str) -> Path:
    """Return the directory ``name`` ("tools", "policies") of this installation.

    In a wheel it is inside the package, in a checkout at the top of the repository.
    Raises: Unavailable if the installation lacks it.
    """
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent.parent / name):
        if candidate.is_dir():
            return candidate
    raise Unavailable(
        f"this installation has no {name!r} files",
        where=str(_PACKAGE / "_data" / name),
        hint="install secure-pipeline again",
    )
