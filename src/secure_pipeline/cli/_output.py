"""The only place, with the commands, that prints.

People's text goes to stdout, or to stderr when ``--json`` puts a document on stdout.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from secure_pipeline.errors import PipelineError

API_VERSION = "secure-pipeline/v1"


class Output:
    """Where a command writes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def stream(self) -> TextIO:
        """The stream for people's text."""
        return sys.stderr if self.as_json else sys.stdout

    @property
    def colour(self) -> bool:
        """Colour only on a terminal, and not when NO_COLOR is set."""
        return self.stream.isatty() and not os.environ.get("NO_COLOR")

    def text(self, line: str = "") -> None:
        """Write one line for people."""
        print(line, file=self.stream, flush=True)

    def warn(self, line: str) -> None:
        """Write one line that is for people even where the document is for programs."""
        print(f"warning: {_printable(line)}", file=sys.stderr, flush=True)

    def document(self, kind: str, content: dict[str, Any]) -> None:
        """With ``--json``: write the versioned document."""
        if self.as_json:
            json.dump({"apiVersion": API_VERSION, "kind": kind, **content}, sys.stdout, indent=2)
            print()

    def line(self, kind: str, content: dict[str, Any]) -> None:
        """With ``--json``: write the versioned document as one line of several."""
        if self.as_json:
            document = {"apiVersion": API_VERSION, "kind": kind, **content}
            print(json.dumps(document, separators=(",", ":"), allow_nan=False), flush=True)


def print_error(error: PipelineError) -> None:
    """Write an error in two lines: what and where, then what to type."""
    print(f"error: {_printable(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"hint: {_printable(error.hint)}", file=sys.stderr)


def _printable(text: str) -> str:
    """Keep control characters of foreign text away from the terminal (AUD-10)."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
