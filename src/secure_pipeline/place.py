"""Where the repository is and where the pipeline keeps what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.config import Config
from secure_pipeline.files import sha256_bytes


@dataclass(frozen=True)
class Place:
    """Where things are. All paths are absolute."""

    root: Path
    """The repository: the directory of the configuration."""
    state: Path

    @property
    def layout(self) -> Path:
        """The OCI layout with the image and its evidence."""
        return self.state / "image"

    @property
    def files(self) -> Path:
        """The files that were signed on their own, of the run that was signed last."""
        return self.state / "files"

    @property
    def cache(self) -> Path:
        """Evidence of unchanged inputs."""
        return self.state / "cache"

    @property
    def runs(self) -> Path:
        """One directory a run."""
        return self.state / "runs"


def products(config: Config, place: Place) -> tuple[str, ...]:
    """Paths below the root that the pipeline itself writes."""
    paths = []
    if place.state.is_relative_to(place.root):
        paths.append(str(place.state.relative_to(place.root)))
    if config.test:
        paths.append(config.test.junit)
        if config.test.coverage:
            paths.append(config.test.coverage.file)
    return tuple(paths)


def digest_of_files(path: Path) -> str:
    """Digest over the files of a directory, or of one file; 'missing' where there is none."""
    if path.is_file():
        return sha256_bytes(path.read_bytes())
    names = sorted(p for p in path.rglob("*") if p.is_file())
    if not names:
        return "missing"
    lines = [f"{p.relative_to(path)} {sha256_bytes(p.read_bytes())}" for p in names]
    return sha256_bytes("\n".join(lines).encode())
