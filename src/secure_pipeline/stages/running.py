"""``verify running``: whether what runs is, by digest, a build whose evidence meets the policy.

Reads the runtime, the image's index and manifests and its evidence; changes nothing.
docs/stages/verify-running.md lists the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from secure_pipeline.errors import (
    ExitCode,
    Inconclusive,
    Unavailable,
    UsageError,
    VerificationFailed,
)
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.decision import Decision, Outcome, Rule, allow, unsure, wrong
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.policy.rules import Answer
from secure_pipeline.policy.trust import OperatorIdentity, TrustedSigner, trusted_signers
from secure_pipeline.ports import Clock, IdentityVerifier, RunningContainer, Runtime
from secure_pipeline.stages.running_image import RULE, Running, belongs
from secure_pipeline.stages.verify import VerifyInputs, check_evidence

STAGE = "verify running"
MAX_NAMES = 16
"""Names of one container's image that are looked up."""
MAX_FILES = 20
"""Changed executables that are named, a rule each."""
ROUNDS = 3
"""Listings, when containers change while they are looked at."""


class Standing(Enum):
    """How a container stands."""

    MATCH = "MATCH"
    """Proven to be a build whose evidence meets the policy."""
    MISMATCH = "MISMATCH"
    """Proven to be something else, changed, or denied by the policy."""
    UNREACHABLE = "UNREACHABLE"
    """Neither can be told."""


_STANDINGS = {
    Outcome.ALLOW: Standing.MATCH,
    Outcome.DENY: Standing.MISMATCH,
    Outcome.UNDETERMINED: Standing.UNREACHABLE,
}


@dataclass(frozen=True)
class Candidate:
    """A build that a container may be, and the store to read it from."""

    image: ImageReference
    source: Callable[[], Source] = field(compare=False)
    """Raises: UsageError for a name that is none; ConfigError; Unavailable."""


@dataclass(frozen=True)
class RunningInputs:
    """What containers must be."""

    policy: LoadedPolicy
    candidates: Callable[[RunningContainer], Sequence[Candidate]]
    """The builds that a container may be: see ``stages.running_candidates``."""
    operator_keys: tuple[tuple[bytes, Algorithm], ...] = ()
    """Public keys (PEM) that the operator trusts besides the policy's."""
    operator_identity: OperatorIdentity | None = None
    """An identity that the operator trusts besides the policy's."""
    identity_verifier: IdentityVerifier | None = None
    """Checks what identities signed; without it they prove nothing."""
    drift: bool = True
    """Whether executables are compared with the image."""
    run_id: str | None = None
    """The run whose evidence counts; the one sealed last if None."""


@dataclass(frozen=True)
class Judged:
    """The evidence of one build."""

    candidate: Candidate
    inputs: VerifyInputs
    answer: Answer


@dataclass(frozen=True)
class ContainerCheck:
    """One container, and every rule that was evaluated about it."""

    container: RunningContainer
    decision: Decision
    judged: Judged | None = None
    """None if it is not shown to be any build."""

    @property
    def standing(self) -> Standing:
        """MATCH only if every rule allows."""
        return _STANDINGS[self.decision.outcome]

    @property
    def image(self) -> ImageReference | None:
        """The build that it is."""
        return self.judged.inputs.image if self.judged else None

    @property
    def run(self) -> str | None:
        """The run that made the build."""
        run = self.judged.answer.run if self.judged else None
        return run.run_id if run else None


@dataclass(frozen=True)
class RunningReport:
    """One look at everything asked for."""

    time: datetime
    policy: LoadedPolicy
    checks: tuple[ContainerCheck, ...]

    @property
    def standing(self) -> Standing:
        """The worst of all; without containers nothing matches."""
        return _STANDINGS[self._all.outcome]

    @property
    def code(self) -> ExitCode:
        """11 if anything is proven wrong, else 12 if the policy forbids, else 14, else 0."""
        return self._all.code

    @property
    def _all(self) -> Decision:
        return Decision(tuple(rule for check in self.checks for rule in check.decision.rules))


def verify_running(
    inputs: RunningInputs, runtimes: Sequence[Runtime], clock: Clock, on_event: OnEvent
) -> RunningReport:
    """Check every container of the runtimes once.

    Containers are listed again at the end: what started meanwhile is checked too, and what is
    gone counts no more, unless it is proven wrong.
    Raises: UsageError (no such container, none runs), ConfigError (a key of the policy, VEX),
    Unavailable (no answer from a runtime), Inconclusive.
    """
    now = clock.now()
    look = _Look(inputs, trusted_signers(inputs.policy, inputs.operator_keys), now)
    found: dict[RunningContainer, ContainerCheck] = {}
    present = {each: runtime for runtime in reversed(runtimes) for each in runtime.containers()}
    unconfirmed: tuple[Rule, ...] = ()
    for _ in range(ROUNDS):
        for container, runtime in present.items():
            if container not in found:
                on_event(Progress(STAGE, container.place))
                found[container] = look.check(container, runtime)
        try:
            present = _again(runtimes)
        except (Unavailable, Inconclusive) as error:
            unconfirmed = (unsure("stable", f"not listed again: {error}", hint=error.hint),)
            break
        if found.keys() >= present.keys():
            break
    late = [container for container in present if container not in found]
    checks = [
        replace(check, decision=Decision((*check.decision.rules, *unconfirmed)))
        for container, check in found.items()
        if container in present or check.standing is Standing.MISMATCH
    ] + [ContainerCheck(container, Decision((_LATE,))) for container in late]
    if not checks:
        raise UsageError("what ran is gone", hint="look again")
    return RunningReport(now, inputs.policy, tuple(checks))


_LATE = unsure("stable", "started while others were looked at", hint="look again")


def _again(runtimes: Sequence[Runtime]) -> dict[RunningContainer, Runtime]:
    """What is there now; what has gone from a runtime is no error any more."""
    present = {}
    for runtime in reversed(runtimes):
        try:
            present.update(dict.fromkeys(runtime.containers(), runtime))
        except UsageError:
            continue
    return present


class _Look:
    """One look, at one time; what two containers share is read once."""

    def __init__(
        self, inputs: RunningInputs, signers: tuple[TrustedSigner, ...], now: datetime
    ) -> None:
        self.inputs = inputs
        self.signers = signers
        self.now = now
        self._belonging: dict[tuple[ImageReference, Running], Rule] = {}
        self._judged: dict[ImageReference, Judged] = {}

    def check(self, container: RunningContainer, runtime: Runtime) -> ContainerCheck:
        # (1) what really runs, as the runtime says; never what was asked for (REG-06)
        try:
            digest = Digest.parse(container.image.rpartition("@")[2])
        except VerificationFailed:
            why = f"the runtime names no image that can be told ({container.image[:80]!r})"
            return ContainerCheck(container, Decision((unsure(RULE, why),)))
        running = Running(digest, container.image_is_config, container.platform)
        # (2) the build it belongs to, from bytes
        builds, rules = self._builds(container, running)
        if not builds:
            return ContainerCheck(container, Decision((*_alive(container), *rules)))
        # (3) the evidence for exactly that build
        judged = _weightiest([self._judge(candidate) for candidate in builds])
        # (4) what was changed since it started
        rules = (
            *_alive(container),
            builds[judged.candidate],
            *judged.answer.decision.rules,
            *self._drift(container, runtime),
        )
        return ContainerCheck(container, Decision(rules), judged)

    def _builds(
        self, container: RunningContainer, running: Running
    ) -> tuple[dict[Candidate, Rule], tuple[Rule, ...]]:
        """The candidates that it belongs to, each with its rule; else why there is none."""
        candidates = self.inputs.candidates(container)
        if not candidates:
            why = f"runs {running.digest}, and nothing says which build that should be"
            hint = "pass --image NAME@sha256:DIGEST, or --layout DIRECTORY"
            return {}, (unsure(RULE, why, hint=hint),)
        rules = {each: self._belongs(each, running) for each in candidates}
        proven = {e: rule for e, rule in rules.items() if rule.outcome is Outcome.ALLOW}
        # What cannot be told about one of them leaves open whether it is that one.
        cannot = [rule for rule in rules.values() if rule.outcome is Outcome.UNDETERMINED]
        return proven, tuple(cannot or rules.values())[:MAX_NAMES]

    def _belongs(self, candidate: Candidate, running: Running) -> Rule:
        key = (candidate.image, running)
        if key not in self._belonging:
            try:
                rule = belongs(candidate.source(), candidate.image.digest, running)
            except (UsageError, Unavailable) as error:
                rule = unsure(RULE, str(error), hint=error.hint)
            self._belonging[key] = rule
        return self._belonging[key]

    def _judge(self, candidate: Candidate) -> Judged:
        if candidate.image not in self._judged:
            inputs = VerifyInputs(
                source=candidate.source(),
                image=candidate.image,
                policy=self.inputs.policy,
                operator_keys=self.inputs.operator_keys,
                operator_identity=self.inputs.operator_identity,
                identity_verifier=self.inputs.identity_verifier,
                run_id=self.inputs.run_id,
            )
            try:
                answer = check_evidence(inputs, self.signers, self.now)
            except Unavailable as error:
                rule = unsure("attachments", str(error), hint=error.hint)
                answer = Answer(Decision((rule,)), None)
            self._judged[candidate.image] = Judged(candidate, inputs, answer)
        return self._judged[candidate.image]

    def _drift(self, container: RunningContainer, runtime: Runtime) -> tuple[Rule, ...]:
        if not self.inputs.drift:
            return (allow("drift", "not looked for: --no-drift"),)
        if not container.running:
            return (allow("drift", "nothing runs any more"),)
        try:
            changed = runtime.drift(container)
        except (Inconclusive, Unavailable) as error:
            return (unsure("drift", str(error), hint=error.hint),)
        if changed is None and not container.read_only:
            why = "executables that were changed in it cannot be seen from here"
            return (
                unsure(
                    "drift", why, hint="make its root file system read-only, or pass --no-drift"
                ),
            )
        if changed is None:
            return (allow("drift", "its root file system is read-only"),)
        if not changed:
            return (allow("drift", "no executable differs from the image"),)
        rules = [wrong("drift", f"{file.path} was {file.change}") for file in changed[:MAX_FILES]]
        if len(changed) > MAX_FILES:
            rules.append(wrong("drift", f"{len(changed) - MAX_FILES} more executables differ"))
        return tuple(rules)


def _alive(container: RunningContainer) -> tuple[Rule, ...]:
    """What has not started yet can still become anything; what ended is judged as it was."""
    if container.running or container.started:
        return ()
    return (unsure("running", "it has not started", hint="look again when it runs"),)


def _weightiest(judged: Sequence[Judged]) -> Judged:
    """The evidence that counts, of all places that have the build.

    What trusted keys signed and the policy denies outweighs everything; a place without such
    statements outweighs nothing, so that nobody decides by leaving them out.
    """

    def weight(one: Judged) -> int:
        answer = one.answer
        if answer.decision.outcome is Outcome.DENY:
            return 0 if answer.used else 3
        return 1 if answer.decision.outcome is Outcome.ALLOW else 2

    return min(judged, key=weight)
