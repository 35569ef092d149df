"""A packed run is taken over whole, or not at all."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from secure_pipeline.errors import UsageError, VerificationFailed
from secure_pipeline.files import sha256_file
from secure_pipeline.handover import pack, unpack
from secure_pipeline.oci.digest import Digest
from secure_pipeline.place import Place


def place(directory: Path, files: dict[str, str]) -> Place:
    state = directory / ".secure-pipeline"
    for name, text in files.items():
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(text)
    return Place(directory, state)


def header(started: str, commit: str = "c") -> str:
    return f'{{"id": "r", "started": "{started}", "commit": "{commit}"}}'


ANALYZED = {"runs/r/run.json": header("1"), "runs/r/stages/analyze.json": "{}"}
BUILT = {
    "runs/r/run.json": header("2"),
    "runs/r/stages/build.json": "{}",
    "image/index.json": "{}",
    "image/blobs/sha256/aa": "blob",
    "files/a.whl": "signed",
    "files/a.whl.sigstore.json": "{}",
    "ledger.jsonl": "one\n",
}
KEPT = {"runs/other/run.json": "{}", "cache/x": "x", "builder/x": "x", ".gitignore": "*"}


def archive(path: Path, *members: tarfile.TarInfo) -> Digest:
    with tarfile.open(path, "w") as tar:
        for member in members:
            member.size = 1 if member.isreg() else 0
            tar.addfile(member, io.BytesIO(b"x") if member.isreg() else None)
    return Digest(sha256_file(path))


def contents(state: Path) -> dict[str, str]:
    return {p.relative_to(state).as_posix(): p.read_text() for p in state.rglob("*") if p.is_file()}


def test_what_ran_side_by_side_is_put_together(tmp_path: Path) -> None:
    """Two halves of a run become one; only the run, the image, its files and the ledger move."""
    target = place(tmp_path / "c", {})
    for name, files in (("a", ANALYZED), ("b", {**BUILT, **KEPT})):
        file = tmp_path / f"{name}.tar"
        unpack(target, file, pack(place(tmp_path / name, files), "r", file))
    assert contents(target.state) == {**BUILT, **ANALYZED}


def test_the_same_state_is_the_same_file(tmp_path: Path) -> None:
    """No time, no owner and no order of a disk gets into the digest."""
    digests = {
        pack(place(tmp_path / name, dict(files)), "r", tmp_path / f"{name}.tar")
        for name, files in (("a", BUILT.items()), ("b", reversed(BUILT.items())))
    }
    assert len(digests) == 1


def test_another_digest_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """A file that somebody exchanged is not unpacked."""
    pack(place(tmp_path / "a", BUILT), "r", tmp_path / "a.tar")
    target = place(tmp_path / "b", {})
    with pytest.raises(VerificationFailed, match="the digest is"):
        unpack(target, tmp_path / "a.tar", Digest("0" * 64))
    assert not target.state.exists()


def test_a_run_that_is_not_there_is_not_packed(tmp_path: Path) -> None:
    """A wrong id is a usage error, and no file is left."""
    with pytest.raises(UsageError):
        pack(place(tmp_path / "a", BUILT), "q", tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("runs/r/stages/analyze.json", '{"verdict": "PASS"}'),
        ("runs/r/run.json", header("3", commit="other")),
        ("runs/r/run.json", "{}"),
        ("image/index.json", "{ }"),
        ("image/index.json", "{}\n"),
        ("files/a.whl", "other"),
    ],
)
def test_what_is_there_is_not_replaced(tmp_path: Path, name: str, text: str) -> None:
    """Another content of the same file, or a run of another commit, is an alarm."""
    file = tmp_path / "a.tar"
    digest = pack(place(tmp_path / "a", {**BUILT, **ANALYZED}), "r", file)
    target = place(tmp_path / "b", {name: text})
    with pytest.raises(VerificationFailed, match="other content"):
        unpack(target, file, digest)


@pytest.mark.parametrize(
    "name",
    [
        "../escaped", "/etc/passwd", "runs/../../x", "runs/r", "runs/./r/x", "runs//r/x", "cache/x",
        "image", "image/.hidden", "files", "files/../x", ".gitignore", "runs/-r/x",
        "ledger.jsonl/x", "",
    ],
)  # fmt: skip
def test_only_files_of_a_run_are_unpacked(tmp_path: Path, name: str) -> None:
    """No path leads out of the state directory or into the cache."""
    digest = archive(tmp_path / "a.tar", tarfile.TarInfo(name))
    target = place(tmp_path / "b", {})
    with pytest.raises(VerificationFailed, match="no file of a run"):
        unpack(target, tmp_path / "a.tar", digest)
    assert not target.state.exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    """A link under a good name could lead anywhere."""
    member = tarfile.TarInfo("image/blobs")
    member.type, member.linkname = kind, "/etc"
    with pytest.raises(VerificationFailed, match="no file of a run"):
        unpack(place(tmp_path / "b", {}), tmp_path / "a.tar", archive(tmp_path / "a.tar", member))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """A cut or foreign file gives an error in words."""
    file = tmp_path / "a.tar"
    file.write_bytes(b"no archive" * 100)
    with pytest.raises(VerificationFailed, match="not a packed run"):
        unpack(place(tmp_path / "b", {}), file, Digest(sha256_file(file)))
