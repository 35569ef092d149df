"""The sign stage between its intent and its conclusion, and the ledger's head beside the image.

Whoever cuts entries off the ledger afterwards is caught by the head: it is signed evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secure_pipeline.attestations.author import author
from secure_pipeline.audit import checkpoint
from secure_pipeline.audit.entry import Outcome, Value
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.recording import recorded
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.oci.layout import Layout
from secure_pipeline.ports import AnySigner, Clock, SecretUse
from secure_pipeline.stages import sign
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.signfiles import FIGURE, FileSigning, SignedFile

_FILE = "file:"
_ENDED = ("keyId", "identity", "issuer", "certificate", "logIndex", "seal", "statements")
"""What the ledger keeps of a signing: the key, or instead of one the identity."""


@dataclass(frozen=True)
class Recording:
    """What the sign stage records, and where."""

    ledger: FileLedger
    key: str
    """URI of the signing key."""
    anchor: Path | None
    """File that the ledger's signed head is added to, besides the image's evidence."""


def sign_recorded(
    inputs: sign.SignInputs,
    files: Path,
    recording: Recording,
    open_signer: Callable[[], AnySigner],
    clock: Clock,
    on_event: OnEvent,
) -> StageResult:
    """Sign as ``stages.sign`` does, each step recorded before it happens; then the files.

    ``files``: directory for the files that the build named, with their bundles; they are in the
    figure ``files``.
    Raises: Unavailable if something cannot be recorded, and then nothing is signed; like
    ``stages.sign.sign`` and ``FileSigning``.
    """
    ledger, run = recording.ledger, inputs.context.run_id
    use = SecretUse("sign", sign.STAGE, str(inputs.image), run, {"key": recording.key})
    with recorded(ledger, use) as details:
        signer = _opened(recording, run, open_signer)
        result = sign.sign(inputs, signer, clock, on_event)
        details.update(_outcome(result))
    if result.verdict is Verdict.PASS:
        signed = _sign_files(FileSigning(inputs, files), recording, signer, on_event)
        figures = {**result.figures, FIGURE: [item.to_json() for item in signed]}
        more = f"; {len(signed)} files signed" if signed else ""
        result = replace(result, figures=figures, summary=result.summary + more)
        on_event(Progress(sign.STAGE, "anchoring the ledger"))
        _anchor(inputs, recording, signer, clock)
    return result


def _sign_files(
    signing: FileSigning, recording: Recording, signer: AnySigner, on_event: OnEvent
) -> list[SignedFile]:
    """Sign each file of the run; only all of them come into their place."""
    signed: list[SignedFile] = []
    who = author(signer)
    with signing.taken():
        for file in signing.files:
            on_event(Progress(sign.STAGE, f"signing {file.name}"))
            run = signing.inputs.context.run_id
            subject = f"{file.name}@{file.digest}"
            use = SecretUse("sign", sign.STAGE, subject, run, {"key": recording.key})
            with recorded(recording.ledger, use) as details:
                made = signing.sign(file, who)
                details.update(_ended(who.figures([made.envelope])))
            signed.append(made)
    return signed


def _opened(recording: Recording, run: str, open_signer: Callable[[], AnySigner]) -> AnySigner:
    """Open the key. One in a file is decrypted here; other stores record what they do."""
    if not recording.key.startswith(_FILE):
        return open_signer()
    use = SecretUse("fetch", sign.STAGE, recording.key, run)
    with recorded(recording.ledger, use) as details:
        signer = open_signer()
        details["keyId"] = author(signer).figures([])["key"]
    return signer


def _outcome(result: StageResult) -> dict[str, Value]:
    if result.verdict is not Verdict.PASS:
        return {"outcome": Outcome.REFUSED.value, "reason": result.summary}
    return _ended(result.figures)


def _ended(figures: Mapping[str, Any]) -> dict[str, Value]:
    known = {"keyId": figures.get("key"), **figures}
    return {name: known[name] for name in _ENDED if known.get(name) is not None}


def _anchor(inputs: sign.SignInputs, recording: Recording, signer: AnySigner, clock: Clock) -> None:
    """Sign the head, which holds all of this run so far, and put it where it is safe."""
    use = SecretUse("sign", sign.STAGE, "ledger", inputs.context.run_id, {"key": recording.key})
    with recorded(recording.ledger, use) as details:
        head = recording.ledger.head()
        envelope = checkpoint.sign_head(head, inputs.image, inputs.context, signer, clock)
        layout = Layout.open(inputs.layout)
        checkpoint.attach_head(layout, inputs.image, envelope, signer, clock)
        if recording.anchor is not None:
            checkpoint.keep(recording.anchor, envelope)
        details |= {"seq": head.seq, "hash": head.hash}
