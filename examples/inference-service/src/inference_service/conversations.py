"""The last turns of each conversation, in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Protocol

MAX_TURNS = 12
"""Turns kept for each context; an older one goes when a new one comes."""


class StoreUnavailable(Exception):
    """The store cannot be reached or does not answer as it should."""


@dataclass(frozen=True)
class Turn:
    """A prompt and the answer to it."""

    prompt: str
    answer: str


class ConversationStore(Protocol):
    """Keeps the last MAX_TURNS turns of each context."""

    def turns(self, context_id: str) -> list[Turn]:
        """The turns of a context, oldest first. Raises: StoreUnavailable."""

    def append(self, context_id: str, turn: Turn) -> int:
        """Add a turn, drop what is too old, and give the count. Raises: StoreUnavailable."""

    def check(self) -> None:
        """Raise StoreUnavailable unless the store can be used now."""


class MemoryStore:
    """A bounded number of conversations; the least recently used one goes first."""

    def __init__(self, max_contexts: int) -> None:
        self._max_contexts = max_contexts
        self._contexts: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._lock = threading.Lock()

    def turns(self, context_id: str) -> list[Turn]:
        """The turns of a context, oldest first."""
        with self._lock:
            if context_id not in self._contexts:
                return []
            self._contexts.move_to_end(context_id)
            return list(self._contexts[context_id])

    def append(self, context_id: str, turn: Turn) -> int:
        """Add a turn, drop what is too old, and give the count."""
        with self._lock:
            turns = self._contexts.setdefault(context_id, deque(maxlen=MAX_TURNS))
            self._contexts.move_to_end(context_id)
            turns.append(turn)
            if len(self._contexts) > self._max_contexts:
                self._contexts.popitem(last=False)
            return len(turns)

    def check(self) -> None:
        """Memory is always there."""
