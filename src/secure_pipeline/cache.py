"""Evidence of unchanged inputs, reused: a content-addressed store of stage results.

An entry's name is the digest of everything the stage's answer depends on. Only PASS is kept.
Report bytes lie in a blob store by digest and are checked when read; a damaged entry is no
entry. Anyone who can write here can plant results: release builds keep this directory away
from pull-request jobs (BLD-07), and ``run --no-cache`` does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secure_pipeline.errors import ConfigError
from secure_pipeline.files import digest_of, read_bounded, sha256_bytes, write_atomic
from secure_pipeline.records import InvalidRecord
from secure_pipeline.runs import (
    MAX_REPORT_BYTES,
    MAX_RESULT_BYTES,
    StoredResult,
    dump_result,
    parse_result,
)
from secure_pipeline.stages.result import StageResult, Verdict


class Cache:
    """The store under ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @staticmethod
    def key(stage: str, inputs: Mapping[str, Any]) -> str:
        """Name of the entry for these inputs (JSON values only)."""
        return digest_of({"stage": stage, "inputs": dict(inputs)})

    def put(self, key: str, result: StageResult, origin: str) -> None:
        """Keep a PASS; anything else is not kept."""
        if result.verdict is not Verdict.PASS:
            return
        for report in result.reports:
            path = self._blob(sha256_bytes(report.content))
            if not path.exists():
                write_atomic(path, report.content)
        write_atomic(self._entry(result.stage, key), dump_result(result, origin))

    def get(self, stage: str, key: str) -> StoredResult | None:
        """The entry, or None when there is none that can be trusted to be whole."""
        try:
            stored = parse_result(
                read_bounded(self._entry(stage, key), MAX_RESULT_BYTES),
                lambda report: read_bounded(self._blob(report.sha256), MAX_REPORT_BYTES),
            )
        except (ConfigError, InvalidRecord):
            return None
        if stored.result.stage != stage or stored.result.verdict is not Verdict.PASS:
            return None
        return stored

    def _entry(self, stage: str, key: str) -> Path:
        return self.directory / stage / f"{key}.json"

    def _blob(self, digest: str) -> Path:
        return self.directory / "blobs" / digest[:2] / digest
