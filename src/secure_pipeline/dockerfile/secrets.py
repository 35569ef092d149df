"""What looks like a secret: names of variables, shapes of values. Values are never repeated."""

from __future__ import annotations

import re

_NAME = re.compile(
    r"(?:\A|_)(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|SECRET|CREDENTIALS?|APIKEY|KEY)"
    r"(?:_BASE64|_B64)?\Z"
    r"|(?:\A|_)(?:SECRET|PASSWORD|PRIVATE|ACCESS)_(?:ACCESS_)?KEY",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(
    r"(?:\A|_)(?:GPG|PUBLIC|PUB|SIGNING|VERIFY|CACHE|PRIMARY|SORT|REGISTRY)_?KEY\Z"
    r"|\A(?:PWD|OLDPWD|KEY)\Z",
    re.IGNORECASE,
)
_SHAPES = {
    "an AWS access key id": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{16,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Vault token": r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}",
    "a PyPI token": r"\bpypi-AgE[A-Za-z0-9_-]{30,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an Anthropic or OpenAI key": r"\bsk-[A-Za-z0-9][A-Za-z0-9_-]{30,}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY",
    "a URL with a password": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"$]{1,200}:[^\s/@'\"$]{1,200}@",
}
_VALUE = {name: re.compile(pattern) for name, pattern in _SHAPES.items()}


def secret_name(name: str) -> bool:
    """Tell whether a variable of this name would hold a secret, as DB_PASSWORD would."""
    return bool(_NAME.search(name)) and not _PUBLIC_NAME.search(name)


def secret_shape(text: str) -> str | None:
    """Say which kind of secret a text contains, or None; the text is bounded by the caller."""
    for name, pattern in _VALUE.items():
        if pattern.search(text):
            return name
    return None
