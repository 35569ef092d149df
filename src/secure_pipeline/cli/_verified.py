"""What ``verify`` prints: all rules of one image or file, or one line each of several images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode

if TYPE_CHECKING:
    from secure_pipeline.oci.reference import ImageReference
    from secure_pipeline.stages.result import StageResult


def show_one(output: Output, image: ImageReference, result: StageResult) -> ExitCode:
    """Print every rule and the verdict; return its exit code."""
    _rules(output, f"image {image}", result)
    output.document("Verification", _document(image, result))
    return result.code


def show_file(output: Output, path: str, result: StageResult) -> ExitCode:
    """Print every rule of a file and the verdict; return its exit code."""
    _rules(output, f"file {path}", result)
    named = {name: result.figures[name] for name in ("digest", "signedName", "run", "image")}
    output.document("FileVerification", {"file": path, **named, **_verdict(result)})
    return result.code


def _rules(output: Output, title: str, result: StageResult) -> None:
    from secure_pipeline.report import to_text

    output.text(title)
    for line in to_text.decision_lines(result.figures.get("decision", ())):
        output.text(line)
    output.text(f"{result.verdict.value}: {result.summary}")


def show_many(output: Output, results: Iterable[tuple[ImageReference, StageResult]]) -> ExitCode:
    """Print a line an image as it is decided; return the worst exit code of all."""
    documents: list[dict[str, Any]] = []
    codes: list[ExitCode] = []
    for image, result in results:
        output.text(f"{result.verdict.value} {image}: {result.summary}")
        if output.as_json:
            documents.append(_document(image, result))
        codes.append(result.code)
    passed = codes.count(ExitCode.PASS)
    output.text(f"{passed} of {len(codes)} images verified")
    output.document("Verifications", {"exitCode": int(_worst(codes)), "images": documents})
    return _worst(codes)


def _worst(codes: list[ExitCode]) -> ExitCode:
    """Proven wrong before denied before undecided; no image at all is no success."""
    order = (ExitCode.VERIFICATION, ExitCode.DENIED, ExitCode.INCONCLUSIVE, ExitCode.PASS)
    others = [code for code in codes if code not in order]
    return next((code for code in (*others, *order) if code in codes), ExitCode.INCONCLUSIVE)


def _document(image: ImageReference, result: StageResult) -> dict[str, Any]:
    from secure_pipeline.records import encode

    vsa = encode(result.evidence[0].predicate) if result.evidence else None
    return {"image": str(image), **_verdict(result), "vsa": vsa}


def _verdict(result: StageResult) -> dict[str, Any]:
    from secure_pipeline.records import encode

    return {
        "verdict": result.verdict.value,
        "exitCode": int(result.code),
        "summary": result.summary,
        "reasons": list(result.reasons),
        "decision": encode(result.figures.get("decision", ())),
    }
