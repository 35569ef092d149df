"""What a run leaves on disk: ``runs/<id>/`` with results, reports and the dashboard.

Each stage's result is one atomic file, written when the stage is over, so that a run killed
at any point holds only whole results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.errors import ConfigError, Unavailable, UsageError, VerificationFailed
from secure_pipeline.files import read_bounded, sha256_bytes, write_atomic
from secure_pipeline.records import InvalidRecord, decode, encode
from secure_pipeline.stages.result import Report, StageResult

_EXPECTED = re.compile(r"[a-z]{1,20}=sha256:[0-9a-f]{64}\Z")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
MAX_RESULT_BYTES = 64 << 20
MAX_REPORT_BYTES = 256 << 20


@dataclass(frozen=True)
class RunHeader:
    """The identity of a run, written first."""

    id: str
    started: datetime
    name: str
    commit: str | None
    tree: str
    uncommitted: bool
    config_digest: str
    policy_digest: str
    builder_id: str


@dataclass(frozen=True)
class StoredReport:
    """A report's name in a stored result; its bytes lie beside it."""

    name: str
    media_type: str
    sha256: str


@dataclass(frozen=True)
class StoredResult:
    """A stage result as stored, with where it was first made."""

    result: StageResult
    reports: tuple[StoredReport, ...]
    origin: str
    """Id of the run that executed the stage; another run may reuse it."""


class Run:
    """One directory ``runs/<id>``."""

    def __init__(self, directory: Path, expected: Mapping[str, str] | None = None) -> None:
        """``expected``: stage to the digest that its result must have, told by who ran it."""
        self.directory = directory
        self.id = directory.name
        self._expected = expected or {}

    @property
    def header(self) -> RunHeader:
        """The stored header. Raises: ConfigError if it is missing or damaged."""
        path = self.directory / "run.json"
        try:
            return decode(RunHeader, strictjson.loads(read_bounded(path, MAX_RESULT_BYTES)))
        except (InvalidRecord, strictjson.InvalidJson) as error:
            raise ConfigError(f"damaged: {error}", where=str(path)) from error

    def save(self, result: StageResult, origin: str | None = None) -> None:
        """Write reports, then the result."""
        for report in result.reports:
            self.write_report(result.stage, report)
        write_atomic(self._path(result.stage), dump_result(result, origin or self.id))

    def write_report(self, stage: str, report: Report) -> None:
        """Write one report file."""
        write_atomic(self.directory / "reports" / stage / report.name, report.content)

    def load(self, stage: str) -> StoredResult | None:
        """The stored result of a stage with its reports' bytes, or None.

        Raises: ConfigError if it is damaged or a report was altered; VerificationFailed if it
        is not the expected one.
        """
        path = self._path(stage)
        if not path.is_file() and stage not in self._expected:
            return None
        data = read_bounded(path, MAX_RESULT_BYTES)
        if self._expected.get(stage) not in (None, f"sha256:{sha256_bytes(data)}"):
            raise VerificationFailed(
                f"not the result that {stage} ended with, which is {self._expected[stage]}",
                where=str(path),
                hint="somebody else wrote it: look at who can write there, and run again",
            )
        reports = self.directory / "reports" / stage
        try:
            return parse_result(
                data,
                lambda report: read_bounded(reports / report.name, MAX_REPORT_BYTES),
            )
        except InvalidRecord as error:
            raise ConfigError(f"damaged: {error}", where=str(path)) from error

    def save_document(self, name: str, document: dict[str, Any]) -> Path:
        """Write a JSON document of the run and return its path."""
        path = self.directory / name
        write_atomic(path, json.dumps(document, indent=2).encode() + b"\n")
        return path

    def _path(self, stage: str) -> Path:
        return self.directory / "stages" / f"{stage}.json"


class RunStore:
    """The directory that holds all runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self, header: RunHeader) -> Run:
        """Start a run. Raises: UsageError for an id that is not a plain name."""
        run = self._run(header.id)
        if not (run.directory / "run.json").exists():
            run.save_document("run.json", encode(header))
        return run

    def open(self, run_id: str) -> Run:
        """An existing run. Raises: UsageError if there is none."""
        run = self._run(run_id)
        if not (run.directory / "run.json").is_file():
            raise UsageError(f"there is no run {run_id}", hint=f"see {self.directory}")
        return run

    def exists(self, run_id: str) -> bool:
        """Tell whether a run of that id was started."""
        return (self._run(run_id).directory / "run.json").is_file()

    def all(self) -> tuple[Run, ...]:
        """All runs with a sound header, oldest first by their start."""
        found: list[tuple[datetime, Run]] = []
        for directory in self.directory.iterdir() if self.directory.is_dir() else ():
            run = Run(directory)
            try:
                found.append((run.header.started, run))
            except ConfigError:
                continue
        return tuple(run for _, run in sorted(found, key=lambda item: (item[0], item[1].id)))

    def _run(self, run_id: str) -> Run:
        if not RUN_ID.match(run_id):
            raise UsageError(f"{run_id!r} is not a run id", hint="letters, digits, '.', '_', '-'")
        return Run(self.directory / run_id)


def dump_result(result: StageResult, origin: str) -> bytes:
    """Serialise a result; report bytes are replaced by their digests."""
    stored = StoredResult(
        result=replace(result, reports=()),
        reports=tuple(
            StoredReport(r.name, r.media_type, sha256_bytes(r.content)) for r in result.reports
        ),
        origin=origin,
    )
    return json.dumps(encode(stored), ensure_ascii=False).encode()


def result_digest(stored: StoredResult) -> str:
    """``sha256:…`` of a result as ``Run.save`` writes it."""
    return f"sha256:{sha256_bytes(dump_result(stored.result, stored.origin))}"


def parse_expected(words: Iterable[str]) -> dict[str, str]:
    """Stage to digest, of words ``STAGE=sha256:DIGEST``. Raises: UsageError."""
    expected: dict[str, str] = {}
    for word in words:
        stage, _, digest = word.partition("=")
        if not _EXPECTED.match(word) or stage in expected:
            raise UsageError(
                f"{word[:120]!r} is no expected result, or one too many",
                hint="--expect STAGE=sha256:DIGEST, each stage once",
            )
        expected[stage] = digest
    return expected


def parse_result(data: bytes, read_report: Any) -> StoredResult:
    """Rebuild a result, checking every report against its digest. Raises: InvalidRecord."""
    try:
        stored = decode(StoredResult, strictjson.loads(data, limit=MAX_RESULT_BYTES))
    except strictjson.InvalidJson as error:
        raise InvalidRecord(str(error)) from error
    reports = []
    for report in stored.reports:
        try:
            content = read_report(report)
        except (ConfigError, Unavailable) as error:
            raise InvalidRecord(f"report {report.name}: {error}") from error
        if sha256_bytes(content) != report.sha256:
            raise InvalidRecord(f"report {report.name} was altered")
        reports.append(Report(report.name, report.media_type, content))
    return replace(stored, result=replace(stored.result, reports=tuple(reports)))
