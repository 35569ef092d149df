"""YAML and comments as exports write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml


def documents(comment: Iterable[str], values: Sequence[dict[str, Any]]) -> str:
    """Return YAML documents under a comment; keys stay in the order given."""
    texts = [
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
        for value in values
    ]
    return "".join(f"# {_one_line(line)}\n" for line in comment) + "---\n".join(texts)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, and text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
