"""Digests and image references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import ExitCode, UsageError, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference

HEX = "0123456789abcdef" * 4


@given(st.binary(max_size=64))
def test_digest_reads_what_it_writes(data: bytes) -> None:
    """Any digest survives its text form."""
    assert Digest.parse(str(Digest.of(data))) == Digest.of(data)


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", HEX, f"sha256:{HEX.upper()}", f"sha256:{HEX}0", f"sha256:{HEX[:-1]}",
     f"sha512:{HEX}{HEX}", f" sha256:{HEX}", f"sha256:{HEX}\n", f"sha256:../{HEX[3:]}"],
)  # fmt: skip
def test_other_digest_spellings_refuse(text: str) -> None:
    """Only sha256 with 64 lower-case hex digits is a digest."""
    with pytest.raises(VerificationFailed):
        Digest.parse(text)


@pytest.mark.parametrize("name", ["app", "team/app", "registry.example:5000/team/my-app_1.x"])
def test_reference_by_digest_is_read(name: str) -> None:
    """A name with a digest is an image, and is written as it was read."""
    reference = ImageReference.parse(f"{name}@sha256:{HEX}")
    assert (reference.name, reference.digest.hex) == (name, HEX)
    assert str(reference) == f"{name}@sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    ["app", "app:1.0", "localhost:5000/app", "localhost:5000/app:latest",
     f"app:1.0@sha256:{HEX}"],
)  # fmt: skip
def test_reg_01_a_tag_is_refused_with_a_hint(text: str) -> None:
    """A tag can move between stages, so it is a usage error even beside a digest."""
    with pytest.raises(UsageError) as caught:
        ImageReference.parse(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "@sha256:" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [f"@sha256:{HEX}", f"App@sha256:{HEX}", f"a//b@sha256:{HEX}", f"../x@sha256:{HEX}",
     f"app@sha256:{HEX}@sha256:{HEX}", f"app@md5:{HEX[:32]}", f"app@{HEX}",
     f"{'a' * 256}@sha256:{HEX}", f"app\n@sha256:{HEX}"],
)  # fmt: skip
def test_malformed_references_refuse(text: str) -> None:
    """A reference that is not exactly name@sha256:hex is a usage error."""
    with pytest.raises(UsageError):
        ImageReference.parse(text)


@given(st.text(max_size=120))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    """No text makes the parser fail in another way than a usage error."""
    try:
        reference = ImageReference.parse(text)
    except UsageError:
        return
    assert str(reference) == text
