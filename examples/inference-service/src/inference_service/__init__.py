"""A small inference service: text generation with a conversation buffer and metrics."""
