"""Scans an image with Trivy: no network, no credentials, nothing of the repository's own.

Runs on a private copy of the layout (tools/scanview.py) with a private cache, in an empty
directory, so that no .trivyignore, trivy.yaml or trivy-secret.yaml of anybody is found
(SCN-09). What counts is the report, never the exit code alone (SCN-05).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from secure_pipeline import shape
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.findings import Finding, Kind
from secure_pipeline.oci.digest import Digest
from secure_pipeline.ports import Clock, ScanReport, ScanRequest
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Command, Outcome, Processes
from secure_pipeline.tools.scanview import View, open_view
from secure_pipeline.tools.trivycoverage import uncovered
from secure_pipeline.tools.trivydb import CONTENT, METADATA, DatabaseSource, PreparedDatabase
from secure_pipeline.tools.trivyreport import MAX_REPORT_BYTES, TrivyReport, parse_report

ACCEPTED_EXITS = (0,)
"""Exit codes of 0.72 that can come with a whole report when no --exit-code is given."""
_ALWAYS = (
    *("--skip-db-update", "--skip-java-db-update", "--skip-check-update"),
    *("--skip-vex-repo-update", "--skip-version-check", "--disable-telemetry"),
    *("--offline-scan", "--no-progress"),
)
_LOG_BYTES = 4 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Trivy:
    """The scanner port, done by Trivy."""

    tool: LocatedTool
    processes: Processes
    database: DatabaseSource
    work: Path
    """Directory for the private copies; on the layout's file system they are links."""
    clock: Clock

    def scan(self, request: ScanRequest, on_event: OnEvent) -> ScanReport:
        """Scan one image.

        Raises: Unavailable (database), Inconclusive (no complete report, database changed),
        VerificationFailed (the layout's content is not what its digests say).
        """
        database = self.database.prepare(on_event)
        self.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.work, prefix="scan.") as temporary:
            return _Scan(self, request, database, Path(temporary).resolve(), on_event).run()


class _Scan:
    """One scan in its own directory."""

    def __init__(
        self,
        trivy: Trivy,
        request: ScanRequest,
        database: PreparedDatabase,
        work: Path,
        on_event: OnEvent,
    ) -> None:
        self.trivy, self.request, self.database = trivy, request, database
        self.work, self.on_event = work, on_event
        for name in ("home", "tmp", "empty", "cache/db", "secrets"):
            (work / name).mkdir(parents=True)

    def run(self) -> ScanReport:
        started = self.trivy.clock.now()
        # (1) a private layout and a private database
        self._say("checking the layout")
        view = open_view(self.request.layout, self.request.digest, self.work / "view")
        for name in (CONTENT, METADATA):
            (self.work / "cache" / "db" / name).symlink_to(self.database.directory / name)
        # (2) packages and settings of the image; secrets of all its layers beside that
        self._say(f"scanning {len(view.layers)} layers")
        with ThreadPoolExecutor(2) as pool:
            secrets = pool.submit(self._secrets, view)
            report = self._packages(view)
            hidden = secrets.result()
        # (3) the database is still the one it was
        self.database.recheck(self.work / "cache" / "db")
        finished = self.trivy.clock.now()
        # (4) bills of materials from the same report, so that nothing is scanned twice
        cyclonedx, spdx = self._bills(report)
        return ScanReport(
            tool=self.trivy.tool.identity,
            database=self.database.record,
            artifact_digest=report.artifact_name.rpartition("@")[2],
            os=" ".join(report.os).strip() if report.os else None,
            os_end_of_life=report.end_of_life,
            packages=sum(report.packages.values()),
            findings=_merge(report.findings, hidden),
            started=started,
            finished=finished,
            cyclonedx=cyclonedx,
            spdx=spdx,
            raw=_presentable(report.document, self.request),
            uncovered=uncovered(report.os, report.packages, self.database.buckets),
        )

    def _packages(self, view: View) -> TrivyReport:
        arguments = ["--scanners", "vuln", "--image-config-scanners", "misconfig"]
        arguments += ["--list-all-pkgs", "--cache-dir", str(self.work / "cache")]
        report = self._image(view, view.digest, arguments, "packages")
        _check_identity(report, view.digest, str(view.config.digest), _diff_ids(view))
        return report

    def _secrets(self, view: View) -> tuple[Finding, ...]:
        """Look for secrets in settings and every layer, deleted files included (BLD-01).

        Of two findings of one rule at one path Trivy keeps the upper layer's. So where a
        layer holds any, each layer is looked at alone as well.
        """
        merged = self._secrets_of(view, view.twin, _diff_ids(view), "all")
        if len(view.layers) < 2 or not any(item.layer for item in merged):
            return merged
        found = list(merged)
        for number, layer in enumerate(view.layers):
            single = view.single(layer)
            found += self._secrets_of(view, single, (str(layer.diff_id),), str(number))
        return tuple(found)

    def _secrets_of(
        self, view: View, digest: Digest, diff_ids: tuple[str, ...], name: str
    ) -> tuple[Finding, ...]:
        arguments = ["--scanners", "secret", "--image-config-scanners", "secret"]
        arguments += ["--cache-dir", str(self.work / "secrets")]
        report = self._image(view, digest, arguments, f"secrets-{name}")
        _check_identity(report, digest, None, diff_ids)
        return tuple(item for item in report.findings if item.kind is Kind.SECRET)

    def _image(self, view: View, digest: Digest, arguments: list[str], name: str) -> TrivyReport:
        output = self.work / f"{name}.json"
        seconds = self.request.timeout.total_seconds()
        argv = ["image", "--input", f"{view.path}@{digest}", "--format", "json", *_ALWAYS]
        argv += [*arguments, "--timeout", f"{seconds:.0f}s", "--output", str(output)]
        outcome = self._run(argv)
        report = self._read(parse_report, _output(output, outcome), outcome)
        if report.version != self.trivy.tool.version:
            raise Inconclusive(f"the report is of trivy {report.version}", where=str(output))
        return report

    def _bills(self, report: TrivyReport) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        source = self.work / "bill.json"
        source.write_bytes(json.dumps(_bill_source(report.document, self.request)).encode())
        cyclonedx, spdx = (self._convert(source, form) for form in ("cyclonedx", "spdx-json"))
        if cyclonedx.get("bomFormat") != "CycloneDX" or "spdxVersion" not in spdx:
            raise Inconclusive("trivy gave no bill of materials")
        return cyclonedx, spdx

    def _convert(self, source: Path, form: str) -> Mapping[str, Any]:
        output = self.work / f"bill.{form}"
        outcome = self._run(["convert", "--format", form, "--output", str(output), str(source)])

        def parse(data: bytes) -> dict[str, Any]:
            return shape.parse_object(data, form, limit=MAX_REPORT_BYTES)

        return self._read(parse, _output(output, outcome), outcome)

    def _run(self, arguments: list[str]) -> Outcome:
        outcome = self.trivy.processes.run(
            Command(
                argv=(str(self.trivy.tool.path), *arguments),
                cwd=self.work / "empty",
                env={
                    "HOME": str(self.work / "home"),
                    "TMPDIR": str(self.work / "tmp"),
                    "PATH": os.defpath,
                    "LC_ALL": "C.UTF-8",
                },
                timeout=self.request.timeout.total_seconds() + 5,
                output_limit=_LOG_BYTES,
                network=False,
            ),
            lambda line: self.on_event(Progress("scan", line, detail=True)),
        )
        if outcome.timed_out or outcome.returncode not in ACCEPTED_EXITS:
            raise Inconclusive(
                f"{outcome.describe()}: {_cause(outcome)}", hint="nothing was decided: scan again"
            )
        return outcome

    @staticmethod
    def _read(parse: Callable[[bytes], T], data: bytes, outcome: Outcome) -> T:
        try:
            return parse(data)
        except VerificationFailed as error:
            raise Inconclusive(
                f"{outcome.describe()}, but its report is not whole: {error}"
            ) from None

    def _say(self, message: str) -> None:
        self.on_event(Progress("scan", message))


def _check_identity(
    report: TrivyReport, digest: Digest, config: str | None, diff_ids: tuple[str, ...]
) -> None:
    """The report names the image that was asked for, and so do the parts it read (SCN-11)."""
    named = report.artifact_name.rpartition("@")[2]
    if named != str(digest) or report.diff_ids != diff_ids or config not in (None, report.image_id):
        raise Inconclusive(
            f"trivy reports on {named or 'nothing'} with {len(report.diff_ids)} layers, "
            f"asked for was {digest} with {len(diff_ids)}"
        )


def _diff_ids(view: View) -> tuple[str, ...]:
    return tuple(str(layer.diff_id) for layer in view.layers)


def _merge(first: tuple[Finding, ...], second: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """All findings once, the worst first, in an order that does not change."""
    unique = {item.fingerprint: item for item in (*first, *second)}
    ordered = sorted(
        unique.values(),
        key=lambda item: (item.kind.value, item.package or str(item.location), item.rule),
    )
    return tuple(sorted(ordered, key=lambda item: item.severity, reverse=True))


def _output(path: Path, outcome: Outcome) -> bytes:
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise Inconclusive(f"report over {MAX_REPORT_BYTES} bytes", where=str(path))
        return path.read_bytes()
    except OSError:
        raise Inconclusive(f"{outcome.describe()} and wrote no report") from None


def _cause(outcome: Outcome) -> str:
    lines = [line for line in outcome.tail(30).splitlines() if "FATAL" in line or "ERROR" in line]
    return (lines or outcome.tail(1).splitlines() or ["no message"])[-1][-400:]


def _presentable(document: dict[str, Any], request: ScanRequest) -> dict[str, Any]:
    """The report under the image's own name, not under that of our private copy."""
    name = f"{request.name}@{request.digest}"
    old = document["ArtifactName"]
    results = [
        {**item, "Target": item["Target"].replace(old, name)} for item in document["Results"]
    ]
    return {**document, "ArtifactName": name, "Results": results}


def _bill_source(document: dict[str, Any], request: ScanRequest) -> dict[str, Any]:
    """The packages alone, under the image's name and digest."""
    shown = _presentable(document, request)
    results = [
        {key: item[key] for key in ("Target", "Class", "Type", "Packages") if key in item}
        for item in shown["Results"]
        if item.get("Packages")
    ]
    metadata = {**shown["Metadata"], "RepoDigests": [shown["ArtifactName"]]}
    return {**shown, "Metadata": metadata, "Results": results}
