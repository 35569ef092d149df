"""Signing keys and signature verification."""
