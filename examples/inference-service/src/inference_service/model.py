"""A word-level bigram model: small, but the same input always gives the same text."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import resources

_HISTORY_WEIGHT = 4
"""How much likelier a following word is when the conversation already used it."""


class BigramModel:
    """Chooses each word by the one before it, preferring words of the conversation."""

    def __init__(self, text: str) -> None:
        words = text.split()
        if not words:
            raise ValueError("the training text is empty")
        followers: dict[str, list[str]] = defaultdict(list)
        # The text is read as a ring, so that every word has a follower.
        for word, following in zip(words, [*words[1:], words[0]], strict=True):
            followers[word].append(following)
        self._followers = dict(followers)
        self._openings = sorted({w for w in words if w[0].isupper()} or {words[0]})

    @classmethod
    def bundled(cls) -> BigramModel:
        """The model of the text that comes with the service."""
        path = resources.files("inference_service") / "corpus.txt"
        return cls(path.read_text(encoding="utf-8"))

    def generate(self, history: Sequence[str], prompt: str) -> Iterator[str]:
        """Give words without end; equal history and prompt give equal words."""
        # Each part has its length before it: ["ab"] and ["a", "b"] are different.
        parts = [part.encode("utf-8", "surrogatepass") for part in (*history, prompt)]
        seed = hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()
        choice = random.Random(seed)  # noqa: S311 - repeatable on purpose, keeps no secret
        known = {word for part in (*history, prompt) for word in part.split()}
        word = self._open(prompt, choice)
        while True:
            yield word
            candidates = self._followers[word]
            weights = [_HISTORY_WEIGHT if c in known else 1 for c in candidates]
            word = choice.choices(candidates, weights)[0]

    def _open(self, prompt: str, choice: random.Random) -> str:
        """Go on from the prompt's last word where the text has it, else open a sentence."""
        last = prompt.split()[-1:]
        if last and last[0] in self._followers:
            return choice.choice(self._followers[last[0]])
        return choice.choice(self._openings)
