"""Answers a request: history, generation with its measurements, and the new turn."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from inference_service.conversations import ConversationStore, Turn
from inference_service.metrics import Metrics
from inference_service.model import BigramModel
from inference_service.request import GenerateRequest
from inference_service.settings import Settings


class Busy(Exception):
    """As many requests as allowed are being answered."""


class InjectedFault(Exception):
    """FAULT_ERROR_RATE asked for this failure."""


@dataclass(frozen=True)
class Answer:
    """A complete answer."""

    text: str
    tokens: int
    turns: int
    """Turns now kept for the context."""
    finish_reason: str
    """'length', or 'timeout' when the answer was cut."""


class Service:
    """The application without HTTP."""

    def __init__(
        self,
        settings: Settings,
        model: BigramModel,
        store: ConversationStore,
        metrics: Metrics,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._model = model
        self._store = store
        self._chance = chance
        self._slots = threading.BoundedSemaphore(settings.max_generations)

    def check(self) -> None:
        """Raise StoreUnavailable when requests could not be answered."""
        self._store.check()

    def generate(self, request: GenerateRequest, on_token: Callable[[str], None]) -> Answer:
        """Answer; ``on_token`` sees each token as it is made.

        The turn is kept only when the answer is complete.
        Raises: Busy, InjectedFault, StoreUnavailable; whatever ``on_token`` raises.
        """
        if not self._slots.acquire(blocking=False):
            raise Busy
        try:
            with self.metrics.running():
                return self._answer(request, on_token)
        finally:
            self._slots.release()

    def _answer(self, request: GenerateRequest, on_token: Callable[[str], None]) -> Answer:
        if self._chance() < self.settings.fault_error_rate:
            raise InjectedFault
        turns = self._store.turns(request.context_id)
        history = [part for turn in turns for part in (turn.prompt, turn.answer)]
        words, finish_reason = self._tokens(history, request, on_token)
        text = " ".join(words)
        count = self._store.append(request.context_id, Turn(request.prompt, text))
        return Answer(text, len(words), count, finish_reason)

    def _tokens(
        self, history: list[str], request: GenerateRequest, on_token: Callable[[str], None]
    ) -> tuple[list[str], str]:
        delay = self.settings.token_delay + self.settings.fault_latency
        source = self._model.generate(history, request.prompt)
        words: list[str] = []
        started = time.monotonic()
        deadline = started + self.settings.generation_timeout
        while len(words) < request.max_tokens:
            if started >= deadline:
                return words, "timeout"
            word = next(source)
            if delay:
                time.sleep(delay)
            # The client's reading is not part of a token's latency, its sending is not either.
            self.metrics.token(time.monotonic() - started)
            words.append(word)
            on_token(word)
            started = time.monotonic()
        return words, "length"
