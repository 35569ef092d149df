"""Reading BuildKit's plain progress: steps run side by side, each line carries its number."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from secure_pipeline.dockerfile.parser import Dockerfile, Stage
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.ports import BuildStep
from secure_pipeline.tools.buildsteps import MAX_LOG_BYTES, Redactor

_LINE = re.compile(r"#(\d{1,6}) (.*)")
_HEAD = re.compile(r"\[(?:(\S+) )?(\d{1,5})/(\d{1,5})\] (.*)")
_DONE = re.compile(r"DONE ([0-9]{1,7}(?:\.[0-9]{1,6})?)s\Z")
_COUNTED = frozenset(("FROM", "RUN", "COPY", "ADD", "WORKDIR"))
"""Instructions that BuildKit executes; the others only change the config."""
MAX_STEPS = 20_000


@dataclass(frozen=True)
class _Step:
    """A step as far as it was seen."""

    text: str
    line: int | None
    cached: bool = False
    seconds: float = 0.0
    finished: bool = False
    reason: str = ""


class BuildKitLog:
    """Collects BuildKit's lines: the log, the steps with their times, the one that failed."""

    def __init__(self, dockerfile: Dockerfile, redact: Redactor, on_event: OnEvent) -> None:
        self._dockerfile = dockerfile
        self._redact = redact
        self._on_event = on_event
        self._steps: dict[str, _Step] = {}
        self.log = bytearray()

    def line(self, raw: str) -> None:
        """Take one line of output."""
        text = self._redact(raw)
        if len(self.log) < MAX_LOG_BYTES:
            self.log += text.encode()[: 1 << 16] + b"\n"
        match = _LINE.match(text)
        new = match is not None and self._take(match[1], match[2])
        self._on_event(Progress("build", text[:500], detail=not new))

    def steps(self) -> tuple[BuildStep, ...]:
        """Finished steps in the order of the Dockerfile."""
        finished = [step for step in self._steps.values() if step.finished]
        finished.sort(key=lambda step: step.line or 0)
        return tuple(BuildStep(s.text, s.line, s.cached, s.seconds) for s in finished)

    @property
    def failed(self) -> _Step | None:
        """The step that failed, or None."""
        return next((step for step in self._steps.values() if step.reason), None)

    def _take(self, number: str, text: str) -> bool:
        """Tell whether a step began with this line."""
        head = _HEAD.match(text)
        step = self._steps.get(number)
        if head and step is None and len(self._steps) < MAX_STEPS:
            line = self._line_of(head[1], int(head[2]) - 1, head[4])
            self._steps[number] = _Step(head[4][:2000], line)
            return True
        if step is None:
            return False
        if text == "CACHED":
            self._steps[number] = replace(step, cached=True, finished=True)
        elif done := _DONE.match(text):
            local = step.text.startswith("FROM ")
            seconds = float(done[1])
            self._steps[number] = replace(step, cached=local, seconds=seconds, finished=True)
        elif text.startswith("ERROR: "):
            self._steps[number] = replace(step, reason=text.removeprefix("ERROR: ") or "failed")
        return False

    def _line_of(self, name: str | None, position: int, text: str) -> int | None:
        stage = self._stage(name)
        if stage is None:
            return None
        counted = [item for item in stage.instructions if item.keyword in _COUNTED]
        keyword = text.split(None, 1)[0].upper()
        if position < len(counted) and counted[position].keyword == keyword:
            return counted[position].line
        same = [item.line for item in counted if item.text.split() == text.split()]
        return same[0] if len(same) == 1 else None

    def _stage(self, name: str | None) -> Stage | None:
        stages = self._dockerfile.stages
        if name is None:
            return stages[0] if len(stages) == 1 else None
        unnamed = re.match(r"stage-(\d{1,4})\Z", name)
        for stage in stages:
            if stage.name == name or (unnamed and stage.index == int(unnamed[1])):
                return stage
        return None
