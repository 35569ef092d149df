"""Reading a builder's output: which step runs, which came from the cache, what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from secure_pipeline.dockerfile.parser import Dockerfile
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.ports import BuildStep

MAX_LOG_BYTES = 16 << 20
_STEP = re.compile(r"(?:\[(\d{1,4})/\d{1,4}\] )?STEP (\d{1,5})/\d{1,5}: (.*)")
_CACHED = re.compile(r"--> Using cache [0-9a-f]{12,64}")
_PULLED = re.compile(r"(Trying to pull|Getting image source|Copying blob)")


class Redactor:
    """Hides secret values in text that is kept."""

    def __init__(self, secrets: Iterable[str]) -> None:
        lines = {line.strip() for secret in secrets for line in (secret, *secret.splitlines())}
        self._values = sorted((line for line in lines if len(line) >= 4), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with every value replaced."""
        for value in self._values:
            text = text.replace(value, "***")
        return text


class StepLog:
    """Collects buildah's lines: the log, and the steps with their times."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        clock: Callable[[], float],
        redact: Redactor,
        on_event: OnEvent,
    ) -> None:
        self._dockerfile = dockerfile
        self._clock = clock
        self._redact = redact
        self._on_event = on_event
        self._started = 0.0
        self._cached = False
        self.steps: list[BuildStep] = []
        self.current: tuple[str, int | None] | None = None
        """Text and Dockerfile line of the step that runs."""
        self.log = bytearray()

    def line(self, raw: str) -> None:
        """Take one line of output."""
        text = self._redact(raw)
        if len(self.log) < MAX_LOG_BYTES:
            self.log += text.encode()[: 1 << 16] + b"\n"
        match = _STEP.match(text)
        if match:
            self.finish()
            self._start(match)
        elif _CACHED.match(text):
            self._cached = True
        elif _PULLED.match(text):
            self._cached = False
        self._on_event(Progress("build", text[:500], detail=not match))

    def finish(self) -> None:
        """The running step, if any, is over and went well."""
        if self.current:
            text, line = self.current
            seconds = max(0.0, self._clock() - self._started)
            self.steps.append(BuildStep(text, line, self._cached, seconds))
            self.current = None

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of the log."""
        text = bytes(self.log[-(1 << 16) :]).decode("utf-8", "replace")
        return tuple(text.strip().splitlines()[-lines:])

    def _start(self, match: re.Match[str]) -> None:
        stage = int(match[1] or 1) - 1
        self.current = (match[3][:2000], self._line_of(stage, int(match[2]) - 1, match[3]))
        self._started = self._clock()
        self._cached = match[3].startswith("FROM ")

    def _line_of(self, stage: int, step: int, text: str) -> int | None:
        """The Dockerfile line of a step; ONBUILD triggers of a base have none."""
        stages = self._dockerfile.stages
        if len(stages) <= stage:
            return None
        instructions = stages[stage].instructions
        keyword = text.split(None, 1)[0].upper()
        if step < len(instructions) and instructions[step].keyword == keyword:
            return instructions[step].line
        same = [item.line for item in instructions if item.text.split() == text.split()]
        return same[0] if len(same) == 1 else None
