"""A workplace that signs without a key: a private Sigstore, a policy of identities, a token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fakes.privatesigstore import IDENTITY, POD, PrivateSigstore
from fakes.workplace import Ended, Workplace
from secure_pipeline.attestations.attachments import Attachment, collect
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout


@dataclass(frozen=True)
class KeylessPlace:
    """The sample whose stages before ``sign`` have passed, and the operator's files beside it."""

    workplace: Workplace
    sigstore: PrivateSigstore
    directory: Path
    """Policy, trust configuration and token."""
    tokens: list[str] = field(default_factory=list)
    """What must appear nowhere."""

    @property
    def root(self) -> Path:
        return self.workplace.root

    @property
    def layout(self) -> Layout:
        return Layout.open(self.workplace.state / "image")

    @property
    def image(self) -> Digest:
        return Digest.parse(self.workplace.image())

    def run(self, *arguments: str, token: str | None = None, **changes: str) -> Ended:
        """Run the program with a fresh token in a file, the operator's policy and ``changes``."""
        given = self.sigstore.token() if token is None else token
        self.tokens.append(given)
        (self.directory / "token").write_text(f"{given}\n")
        return self.workplace.run(*arguments, timeout=180, **{**self.variables(), **changes})

    def copied(self, directory: Path) -> KeylessPlace:
        """A copy that a test may change."""
        root, operator = directory / "service", directory / "operator"
        _copy(self.root, root)
        shutil.copytree(self.directory, operator)
        workplace = Workplace(root, self.workplace.environment)
        return KeylessPlace(workplace, self.sigstore, operator)

    def variables(self) -> dict[str, str]:
        """The operator's variables."""
        return {
            "SECURE_PIPELINE_KEY": f"keyless:{self.directory / 'trust.json'}",
            "SECURE_PIPELINE_IDENTITY_TOKEN_FILE": str(self.directory / "token"),
            "SECURE_PIPELINE_POLICY": str(self.directory / "policy.yaml"),
        }

    def evidence(self) -> tuple[Attachment, ...]:
        """What certificates signed beside the image."""
        found = collect(self.layout, self.image)
        return tuple(item for item in found if item.certificate is not None)

    def policy(self, name: str, text: str) -> str:
        """Write a policy beside the operator's own."""
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def trusting(
        self, identity: str = IDENTITY, issuer: str | None = None, root: str = "root.json"
    ) -> str:
        """The operator's policy with this identity and a pod's instead of keys."""
        named = {
            "ci": (identity, issuer or self.sigstore.issuer.url),
            "pod": (POD, self.sigstore.cluster.url),
        }
        return identities_in((self.directory / "base.yaml").read_text(), named, root)


def keyless_place(released: Workplace, sigstore: PrivateSigstore, directory: Path) -> KeylessPlace:
    """Copy a released workplace, which nothing in it was signed for by an identity."""
    root, operator = directory / "service", directory / "operator"
    _copy(released.root, root)
    operator.mkdir()
    shutil.copy(released.environment["SECURE_PIPELINE_POLICY"], operator / "base.yaml")
    (operator / "trust.json").write_text(json.dumps(sigstore.trust_config()))
    (operator / "root.json").write_text(json.dumps(sigstore.trusted_root()))
    place = KeylessPlace(Workplace(root, released.environment), sigstore, operator)
    place.policy("policy.yaml", place.trusting())
    return place


def _copy(source: Path, root: Path) -> None:
    # Not the builder's storage: its layers hold device nodes, which a copy would read for ever.
    shutil.copytree(source, root, symlinks=True, ignore=shutil.ignore_patterns("builder"))
    (root.parent / "bases").symlink_to((source.parent / "bases").resolve())


def identities_in(text: str, named: Mapping[str, tuple[str, str]], root: str) -> str:
    """The text of a policy with identities (id to name and issuer) where its keys were."""
    entries = "".join(
        f"  - id: {name}\n    issuer: {issuer}\n    identity: {identity}\n"
        for name, (identity, issuer) in named.items()
    )
    before, _, rest = text.partition("keys:\n")
    after = rest[rest.index("\n\n") :]
    return f"{before}identities:\n{entries}\ntrust-root: {root}{after}"
