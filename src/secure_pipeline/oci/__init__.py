"""OCI images: digests, references, manifests and the layout on disk."""
