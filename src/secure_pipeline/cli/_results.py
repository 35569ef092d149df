"""Small files that an engine takes over as the results of its task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secure_pipeline.errors import UsageError
from secure_pipeline.runs import result_digest

if TYPE_CHECKING:
    from secure_pipeline.run import RunOutcome

MAX_BYTES = 1024
"""Of all files together. Tekton has 4096 for a whole task, its own words included."""


def write_results(directory: Path, outcome: RunOutcome, image: str | None) -> None:
    """Write what one stage found, a file a value, without a newline at the end.

    ``VERDICT``; ``RESULT_DIGEST`` of the stored result, for ``--expect`` of a later stage;
    where there is an image, ``IMAGE`` (``NAME@sha256:…``) and its two parts as Tekton Chains
    reads them, ``IMAGE_URL`` and ``IMAGE_DIGEST``. Nothing is written if it does not fit.
    Raises: UsageError, Unavailable.
    """
    from secure_pipeline.files import write_atomic

    (stage,) = outcome.stages
    values = {"VERDICT": stage.stored.result.verdict.value if stage.stored else "ERROR"}
    if stage.stored:
        values["RESULT_DIGEST"] = result_digest(stage.stored)
    if image:
        values["IMAGE"] = image
        values["IMAGE_URL"], _, values["IMAGE_DIGEST"] = image.rpartition("@")
    size = sum(len(value.encode()) for value in values.values())
    if size > MAX_BYTES:
        raise UsageError(f"the results have {size} bytes", hint=f"at most {MAX_BYTES}")
    for name, value in values.items():
        write_atomic(directory / name, value.encode())
