"""What a promotion leans on where it may be missing: evidence, when it is needed, and samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.canary.model import NoData, Sample
from secure_pipeline.errors import PipelineError
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.verify import VerifyInputs


@dataclass(frozen=True)
class Examined:
    """An image's evidence, and what was decided."""

    inputs: VerifyInputs
    result: StageResult
    run: RunContext | None


class LazyEvidence:
    """Examined when it is first needed: an abort does not wait for a registry."""

    def __init__(self, examine: Callable[[], Examined]) -> None:
        self._examine = examine

    @cached_property
    def examined(self) -> Examined:
        """Raises: like ``verify_image``."""
        return self._examine()

    @property
    def passed(self) -> bool:
        """Whether it meets the policy now. Raises: like ``verify_image``."""
        return self.examined.result.verdict is Verdict.PASS

    @property
    def objection(self) -> str | None:
        """Why it does not meet the policy now, or cannot be examined; None if it does."""
        try:
            return None if self.passed else self.examined.result.summary
        except PipelineError as error:
            return str(error)


class Blind:
    """Samples where the metrics cannot even be opened."""

    def __init__(self, error: PipelineError) -> None:
        self._error = error

    def mark(self) -> None:
        """Nothing counts anyway."""

    def sample(self) -> Sample:
        """Say why there is none."""
        return Sample(NoData(str(self._error)))
