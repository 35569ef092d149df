"""in-toto statements, DSSE envelopes, Sigstore bundles and the seal."""
