"""Files of a run's image, each with a bundle of its own beside it, for whoever has no image.

They are taken out of the very image whose evidence was sealed just before, and must be what the
build named. Their statements are about the files and no part of the image's set: the seal lists
what is attached to the image, and the image's own provenance names the files by digest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.author import Author
from secure_pipeline.attestations.fileform import file_provenance
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed
from secure_pipeline.files import (
    fsync_directory,
    locked_directory,
    read_bounded,
    sha256_bytes,
    sha256_file,
    write_atomic,
)
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.imagefiles import BUNDLE_SUFFIX, MAX_FILES, ImageFile, take_files
from secure_pipeline.oci.layout import Layout
from secure_pipeline.stages.result import Evidence, StageResult
from secure_pipeline.stages.sign import SignInputs

FIGURE = "files"


@dataclass(frozen=True)
class SignedFile:
    """A file with the bundle beside it."""

    file: ImageFile
    envelope: dsse.Envelope
    bundle: bytes

    def to_json(self) -> dict[str, Any]:
        """As the result of ``sign`` names it."""
        return {**self.file.to_json(), "bundle": f"sha256:{sha256_bytes(self.bundle)}"}


class FileSigning:
    """The files of one run, on their way into ``directory``."""

    def __init__(self, inputs: SignInputs, directory: Path) -> None:
        """Read which files the build named. Raises: VerificationFailed."""
        self.inputs = inputs
        self.directory = directory
        self._new = directory.with_name(f".{directory.name}.new")
        self._built = next(result for result in inputs.results if result.stage == "build")
        self.files = _named(self._built)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the files out of the image; put them in place of those of the run before at the end.

        ``directory`` then holds exactly these and their bundles, or is not there if there are none.
        Raises: VerificationFailed if the image holds others than the build named; Unavailable.
        """
        with locked_directory(self.directory.parent):
            try:
                shutil.rmtree(self._new, ignore_errors=True)
                self._new.mkdir()
                self._take()
                yield
                _put_in_place(self._new, self.directory)
            except OSError as error:
                where = str(self.directory)
                raise Unavailable(f"cannot write: {error.strerror}", where=where) from error
            finally:
                shutil.rmtree(self._new, ignore_errors=True)

    def sign(self, file: ImageFile, author: Author) -> SignedFile:
        """Sign one file and put the bundle beside it; a bundle that is there already is kept.

        Raises: VerificationFailed, Unavailable, and what the author raises.
        """
        statement = parse_statement(self._payload(file))
        signed = self._present(file, author, statement.payload)
        if signed is None:
            (envelope,) = author.sign([statement])
            data = envelope.proof or bundle.make_bundle(envelope.raw, author.der)
            signed = SignedFile(file, envelope, data)
        write_atomic(self._new / f"{file.name}{BUNDLE_SUFFIX}", signed.bundle)
        return signed

    def _take(self) -> None:
        if not self.files:
            return
        layout, digest = Layout.open(self.inputs.layout), self.inputs.image.digest
        found = take_files(layout, digest, [file.path for file in self.files], self._new)
        if found != self.files:
            raise VerificationFailed(
                "the image holds other files than its build named", where=str(self.inputs.image)
            )

    def _payload(self, file: ImageFile) -> bytes:
        built = _provenance(self._built)
        evidence = file_provenance(built, file, self.inputs.image)
        predicate = predicates.bind(
            evidence, self.inputs.context, self._built.started, self._built.finished
        )
        return make_statement(file.name, file.digest, evidence.predicate_type, predicate)

    def _present(self, file: ImageFile, author: Author, payload: bytes) -> SignedFile | None:
        """What an earlier, interrupted signing of this run left."""
        path = self.directory / f"{file.name}{BUNDLE_SUFFIX}"
        if not path.is_file():
            return None
        try:
            data = read_bounded(path, bundle.MAX_BUNDLE_BYTES)
            read = bundle.read_bundle(data)
            envelope = bundle.proven(data) if read.certificate else read.envelope
        except (ConfigError, VerificationFailed):
            return None
        if envelope.payload != payload or not author.signed(envelope):
            return None
        return SignedFile(file, envelope, data)


def are_there(result: StageResult, directory: Path) -> bool:
    """Tell whether the files of a signed run and their bundles lie where ``sign`` put them."""
    expected: dict[str, str] = {}
    for file, item in zip(_named(result), result.figures.get(FIGURE, ()), strict=True):
        expected[file.name] = str(file.digest)
        expected[f"{file.name}{BUNDLE_SUFFIX}"] = str(item.get("bundle"))
    try:
        found = {name: f"sha256:{sha256_file(directory / name)}" for name in expected}
    except OSError:
        return False
    return found == expected


def _named(result: StageResult) -> tuple[ImageFile, ...]:
    """The files that a result names, as ``ImageFile.to_json`` wrote them."""
    where = f"result of {result.stage}"
    figures = {FIGURE: list(result.figures.get(FIGURE, ()))}
    return tuple(
        ImageFile(
            path=shape.member(item, "path", str, where),
            digest=Digest.parse(shape.member(item, "digest", str, where)),
            size=shape.member(item, "size", int, where),
        )
        for item in shape.objects(figures, FIGURE, where, limit=MAX_FILES)
    )


def _provenance(built: StageResult) -> Evidence:
    found = [item for item in built.evidence if item.predicate_type == predicates.PROVENANCE]
    if len(found) != 1:
        raise VerificationFailed(f"{len(found)} provenance statements", where="result of build")
    return found[0]


def _put_in_place(new: Path, directory: Path) -> None:
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if os.path.lexists(directory):
        directory.rename(old)
    if any(new.iterdir()):
        new.rename(directory)
    fsync_directory(directory.parent)
    shutil.rmtree(old, ignore_errors=True)
