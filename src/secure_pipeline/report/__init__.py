"""One result, rendered as text, JSON, SARIF."""
