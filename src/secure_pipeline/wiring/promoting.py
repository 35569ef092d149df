"""One promotion from its checks to its signed verdict: what ``promote`` does, in order."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.attestations.predicates import PROMOTION, QUARANTINE
from secure_pipeline.attestations.promotion import promotion_predicate
from secure_pipeline.attestations.quarantine import MAX_NAME, one_line, quarantine_predicate
from secure_pipeline.audit.recording import recorded
from secure_pipeline.canary.controller import Identity
from secure_pipeline.canary.sampling import Sampler
from secure_pipeline.canary.story import Ending, Phase, PromotionRecord
from secure_pipeline.canary.target import LoadedTarget
from secure_pipeline.errors import (
    ExitCode,
    PipelineError,
    Unavailable,
    UsageError,
)
from secure_pipeline.events import ignore
from secure_pipeline.files import write_atomic
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import AnySigner, SecretUse
from secure_pipeline.report.promotion_html import promotion_page
from secure_pipeline.report.promotion_json import record_document
from secure_pipeline.runs import RUN_ID
from secure_pipeline.stages import promotion_preflight as preflight
from secure_pipeline.stages.promote import (
    STAGE,
    OnMoment,
    PromoteInputs,
    PromotePorts,
    promote,
)
from secure_pipeline.stages.promotion_journal import Journal, KnownGood, Quarantined, Saved
from secure_pipeline.stages.promotion_watch import Sampling, Watcher
from secure_pipeline.stages.quarantine import signed_statements
from secure_pipeline.stages.result import Evidence, StageResult
from secure_pipeline.stages.verify import examine
from secure_pipeline.tools.process import Processes
from secure_pipeline.wiring.auditing import ledger_path, open_ledger
from secure_pipeline.wiring.keyless import Trust
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.promotionevidence import Blind, Examined, LazyEvidence
from secure_pipeline.wiring.promotiontargets import Place
from secure_pipeline.wiring.signing import Warn, opened_signer, publish_statements
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import VerifyTarget, verify_inputs

PROMOTIONS = "promotions"
"""Directory beside the ledger."""


@dataclass(frozen=True)
class PromoteRequest:
    """What ``promote`` was asked for."""

    image: str | None
    """None with ``abort`` only."""
    target: LoadedTarget
    layout: Path | None
    key: str
    """URI of the key that signs verdicts."""
    trusted: tuple[Path, ...] = ()
    trust: Trust = Trust()
    accept_baseline: bool = False
    abort: bool = False
    wait: float = 0.0
    """Seconds to wait for another promotion of the target."""
    engine_run: str | None = None
    """The run of an engine that this is part of; the verdict names it."""

    def __post_init__(self) -> None:
        """Raises: UsageError."""
        if self.engine_run is not None and not RUN_ID.match(self.engine_run):
            raise UsageError(
                f"{self.engine_run[:80]!r} is no name of a run",
                hint="letters, digits, '.', '_', '-'; at most 64",
            )


@dataclass(frozen=True)
class Promoted:
    """How it ended: refused, or with a record."""

    image: ImageReference
    refused: StageResult | None
    """The verification, if the evidence was refused: then nothing was moved."""
    record: PromotionRecord | None
    folder: Path | None
    """Where the record, all looks and the report are."""
    unsigned: PipelineError | None = None
    """Why the verdict could not be signed and attached; another try does only that."""

    @property
    def code(self) -> ExitCode:
        """0 only for a promotion whose verdict is signed and attached."""
        if self.record is None:
            return self.refused.code if self.refused else ExitCode.BUG
        if self.record.phase is Phase.ABORTED:
            interrupted = self.record.ending.cause == "interrupted"
            return ExitCode.INTERRUPTED if interrupted else ExitCode.ROLLED_BACK
        return self.unsigned.exit_code if self.unsigned else ExitCode.PASS


class Promoter:
    """Promotes; opened once for one target."""

    def __init__(
        self,
        request: PromoteRequest,
        options: Options,
        world: World,
        stores: Stores,
        processes: Processes,
        warn: Warn,
        tell: Callable[[str], None],
    ) -> None:
        """Open everything but the network. ``tell``: takes lines for people.

        Raises: UsageError, ConfigError, Unavailable.
        """
        self._request = request
        self._options = options
        self._world = world
        self._stores = stores
        self._warn = warn
        self._tell = tell
        self._key = KeyRef.parse(request.key)
        self._place = Place(request.target.target, world, processes)
        ledger = ledger_path(options, world)
        self._ledger = open_ledger(ledger)
        self._journal = Journal(ledger.parent / PROMOTIONS, request.target.target.name)
        self._clock = SystemClock()

    @property
    def unfinished(self) -> bool:
        """Whether a promotion is under way, or was left by a program that ended.

        Raises: Inconclusive.
        """
        return self._journal.unfinished() is not None

    def run(self, on_moment: OnMoment, stopped: Callable[[], Ending | None]) -> Promoted:
        """Promote, or take up and end what an earlier program left.

        Raises: UsageError, ConfigError, PolicyDenied, VerificationFailed, Inconclusive,
        Unavailable; after traffic has moved only Unavailable, for a router that does not obey.
        """
        with self._alone(stopped):
            found = self._journal.unfinished()
            image = self._image(found)
            evidence = LazyEvidence(partial(self._examined, image))
            if found is not None:
                inputs = self._again(found, image, evidence)
            elif evidence.passed:
                inputs = self._fresh(image, evidence)
            else:
                return Promoted(image, evidence.examined.result, None, None)
            record = self._promote(inputs, evidence, on_moment, stopped)
            return self._finish(record, evidence)

    @contextmanager
    def _alone(self, stopped: Callable[[], Ending | None]) -> Iterator[None]:
        """Hold the target; wait for it only as long as was asked."""
        until = self._clock.monotonic() + self._request.wait
        while True:
            with self._journal.lock() as mine:
                if mine:
                    yield
                    return
            if self._clock.monotonic() >= until or stopped():
                raise Unavailable(
                    "another promotion of this target is under way",
                    where=self._request.target.target.name,
                    hint="--wait 30m waits for its end",
                )
            time.sleep(0.5)

    def _image(self, found: Saved | None) -> ImageReference:
        if found is not None:
            return ImageReference.parse(found.image)
        if self._request.image is None:
            raise UsageError(
                f"no promotion of {self._request.target.target.name} is unfinished",
                hint="nothing has to be rolled back",
            )
        return ImageReference.parse(self._request.image)

    def _examined(self, image: ImageReference) -> Examined:
        request = self._request
        target = VerifyTarget(
            str(image), None, request.layout, request.trusted, trust=request.trust
        )
        inputs = verify_inputs(target, self._options, self._world, self._stores)
        result, answer = examine(inputs, self._clock, ignore)
        return Examined(inputs, result, answer.run)

    def _source(
        self, image: ImageReference, evidence: LazyEvidence, other: ImageReference
    ) -> Source:
        """Where an image is: the promoted one where its evidence is."""
        if other == image:
            return evidence.examined.inputs.source
        return self._stores.source(other.name, self._request.layout)

    def _fresh(self, image: ImageReference, evidence: LazyEvidence) -> PromoteInputs:
        """Everything that has to hold before traffic moves, and the key that will sign."""
        target = self._request.target
        preflight.check_memory(image, self._journal.quarantined())
        roles = preflight.roles(self._place.router, target.target.slots)
        good = None if self._request.accept_baseline else self._journal.known_good()
        sampler = Sampler(target.target, roles.canary, self._place.metrics)
        checks = preflight.Checks(
            self._place.identifier(partial(self._source, image, evidence)),
            self._place.healthy,
        )
        preflight.check_slots(roles, image, good, checks)
        readiness = sampler.examine()
        preflight.check_metrics(readiness.problems)
        for note in readiness.notes:
            self._tell(note)
        with self._signer(evidence.examined.inputs.policy):
            pass
        known = good.image if good else self._place.described(roles.baseline)
        now = self._clock.now()
        name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        return PromoteInputs(name, image, target, roles.canary, roles.baseline, known)

    def _again(self, found: Saved, image: ImageReference, evidence: LazyEvidence) -> PromoteInputs:
        """What an earlier program left: go on with the same thing only, else roll back."""
        request, abort = self._request, None
        if request.abort:
            abort = Ending("asked", "asked for with --abort")
        elif request.image is not None and ImageReference.parse(request.image) != image:
            abort = Ending("restarted", f"{request.image} was asked for while this was unfinished")
        elif found.target_digest != request.target.digest:
            abort = Ending("restarted", "the target's file changed while this was unfinished")
        elif found.state.phase in (Phase.WATCHING, Phase.PROMOTING):
            why = evidence.objection
            abort = Ending("restarted", f"the evidence does not pass: {why}") if why else None
        return PromoteInputs(
            found.id,
            image,
            request.target,
            found.canary,
            found.baseline,
            found.baseline_image,
            found,
            abort,
        )

    def _promote(
        self,
        inputs: PromoteInputs,
        evidence: LazyEvidence,
        on_moment: OnMoment,
        stopped: Callable[[], Ending | None],
    ) -> PromotionRecord:
        target = inputs.target.target
        identify = self._place.identifier(partial(self._source, inputs.image, evidence))

        def identity() -> Identity:
            if identify is None:
                return Identity(True, "not checked")
            return identify(inputs.canary, inputs.image)

        details = {"target": target.name, "canary": inputs.canary, "promotion": inputs.id}
        use = SecretUse("promote", STAGE, str(inputs.image), None, details)
        with recorded(self._ledger, use) as ended, ThreadPoolExecutor(1) as executor:
            watcher = Watcher(
                self._sampler(inputs.canary),
                identity,
                executor,
                self._clock,
                target.analysis.interval.total_seconds(),
            )
            ports = PromotePorts(
                self._place.router,
                watcher,
                self._place.healthy,
                self._journal,
                self._clock,
                time.sleep,
                stopped,
            )
            record = promote(inputs, ports, on_moment)
            ended |= {"result": record.phase.value, "cause": record.ending.cause}
            if record.phase is Phase.ABORTED:
                ended["outcome"] = "failed"
        return record

    def _sampler(self, canary: str) -> Sampling:
        try:
            return Sampler(self._place.target, canary, self._place.metrics)
        except PipelineError as error:  # what is only rolled back needs no metrics
            return Blind(error)

    def _finish(self, record: PromotionRecord, evidence: LazyEvidence) -> Promoted:
        """Remember on disk first, then sign and attach; only then it is over."""
        folder = self._journal.folder(record.id)
        try:
            self._remember(record)
            document = json.dumps(record_document(record), indent=2, allow_nan=False)
            write_atomic(folder / "promotion.json", document.encode() + b"\n")
            write_atomic(folder / "report.html", promotion_page(record))
            self._sign(record, evidence)
            if record.phase is Phase.ABORTED:
                self._journal.set_quarantined(str(record.image.digest), None)
            self._journal.close()
        except PipelineError as error:
            return Promoted(record.image, None, record, folder, error)
        return Promoted(record.image, None, record, folder)

    def _remember(self, record: PromotionRecord) -> None:
        """What this machine knows even if nothing can be signed."""
        image, ending = str(record.image), record.ending
        if record.phase is Phase.PROMOTED:
            self._journal.set_known_good(KnownGood(record.canary, image, record.finished))
            return
        entry = Quarantined(
            image,
            ending.cause,
            ending.why,
            record.finished,
            self._place.target.name,
            record.id,
        )
        self._journal.set_quarantined(str(record.image.digest), entry)

    def _sign(self, record: PromotionRecord, evidence: LazyEvidence) -> None:
        """The verdict, and the quarantine that follows from an abort, in one go."""
        image, examined = record.image, evidence.examined
        verdict = Evidence(PROMOTION, promotion_predicate(record, self._request.engine_run))
        use = SecretUse("sign", STAGE, str(image), None, {"key": str(self._key)})
        with (
            recorded(self._ledger, use) as ended,
            self._signer(examined.inputs.policy) as signer,
        ):
            envelopes = signed_statements(image, [verdict], examined.run, signer)
            if record.phase is Phase.ABORTED:
                item = Evidence(QUARANTINE, _quarantine(record, Digest.of(envelopes[0].payload)))
                envelopes += signed_statements(image, [item], examined.run, signer)
            ended["statements"] = len(envelopes)
            with recorded(self._ledger, SecretUse("push", STAGE, str(image))):
                source = examined.inputs.source
                publish_statements(source, image, envelopes, signer, self._clock)

    def _signer(self, policy: LoadedPolicy) -> AbstractContextManager[AnySigner]:
        return opened_signer(STAGE, self._key, policy, self._options, self._world, self._warn)


def _quarantine(record: PromotionRecord, promotion: Digest) -> dict[str, Any]:
    return quarantine_predicate(
        reason=one_line(record.ending.why),
        cause=one_line(record.ending.cause, MAX_NAME),
        target=record.target.target.name,
        promotion=promotion,
        by=STAGE,
        time=record.finished,
    )
