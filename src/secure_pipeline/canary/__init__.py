"""Canary promotion without I/O: the target, the samples, the statistics, the state machine."""
