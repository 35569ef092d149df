"""The readers, by name, and the report over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from secure_pipeline.errors import ExitCode, UsageError
from secure_pipeline.interop import admission, cosign, github
from secure_pipeline.interop.model import Answer, Verdict, every
from secure_pipeline.interop.sight import Sight
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.reference import ImageReference

READERS: dict[str, Callable[[Sight, PublicKey | None], Verdict]] = {
    "cosign-2": cosign.cosign_2,
    "cosign-3": cosign.cosign_3,
    "policy-controller": admission.policy_controller,
    "kyverno": admission.kyverno_cosign,
    "kyverno-bundle": admission.kyverno_bundle,
    "kyverno-ivp": admission.kyverno_ivp,
    "conforma": cosign.conforma,
    "gh": github.gh,
}
"""Name to rules."""


@dataclass(frozen=True)
class InteropReport:
    """What all readers that were asked for say of one image."""

    image: ImageReference
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    def code(self, required: Sequence[str]) -> ExitCode:
        """PASS if every required reader accepts all; 11 if one would not, 14 if one may not."""
        answers = [item.accepted for item in self.verdicts if item.reader in required]
        if not required or every(answers) is Answer.YES:
            return ExitCode.PASS
        refused = every(answers) is Answer.NO
        return ExitCode.VERIFICATION if refused else ExitCode.INCONCLUSIVE

    def to_json(self) -> dict[str, Any]:
        """Return the JSON members."""
        return {
            "image": str(self.image),
            "readers": [item.to_json() for item in self.verdicts],
            "notes": list(self.notes),
        }


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of readers, each once. Raises: UsageError for one that is not known."""
    for name in names:
        if name not in READERS:
            raise UsageError(f"no reader {name[:40]!r} is known", hint=f"one of: {_all()}")
    return tuple(dict.fromkeys(names))


def report(
    image: ImageReference, sight: Sight, key: PublicKey | None, names: Sequence[str]
) -> InteropReport:
    """Ask each named reader's rules, or all, about what was seen beside the image."""
    chosen = tuple(names) or tuple(READERS)
    verdicts = tuple(READERS[name](sight, key) for name in chosen)
    return InteropReport(image, verdicts, tuple(_notes(sight)))


def _notes(sight: Sight) -> list[str]:
    notes = []
    if sight.api is Answer.UNKNOWN:
        notes.append("a layout is no registry: readers are shown what 'copy' puts into one")
    if sight.is_index:
        notes.append(
            "the digest is an index: readers that are given one platform's own digest find nothing"
        )
    hidden = len(sight.referrers) - len(sight.seen)
    if hidden:
        notes.append(
            f"{hidden} referrers are only under the fallback tag, or beyond the first page of the"
            " registry's list, where most readers do not look; 'copy' to this registry again"
        )
    return notes


def _all() -> str:
    return ", ".join(READERS)
