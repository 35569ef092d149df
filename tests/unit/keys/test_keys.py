"""Key references, key files and bound algorithms."""

import base64
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from nacl.secret import SecretBox

from fakes.evidence import public_key, signer
from secure_pipeline.errors import ConfigError, PipelineError, UsageError
from secure_pipeline.keys import local
from secure_pipeline.keys.local import generate, load, password_from, public_path_of
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.verify import PublicKey, load_public_key
from secure_pipeline.policy.document import Algorithm

MESSAGE = b"message"
P256 = Algorithm.ECDSA_P256_SHA256


@pytest.fixture(autouse=True)
def _cheap_scrypt(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Files of the tests use few rounds; the real ones are tested once below."""
    if "real" not in request.node.name:
        monkeypatch.setattr(local, "_SCRYPT", {"N": 2048, "r": 8, "p": 1})


def pem_of(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def key_file(
    label: str = "ENCRYPTED SIGSTORE PRIVATE KEY", password: str = "x", **change: Any
) -> bytes:
    """A key file made here, by the format's description, with members replaced."""
    der = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    params = {"N": 2048, "r": 8, "p": 1}
    salt, nonce = b"s" * 32, b"n" * 24
    key = hashlib.scrypt(password.encode(), salt=salt, n=2048, r=8, p=1, dklen=32)
    kdf = {"name": "scrypt", "params": params, "salt": base64.b64encode(salt).decode()}
    document = {
        "kdf": kdf | change.pop("kdf", {}),
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()}
        | change.pop("cipher", {}),
        "ciphertext": base64.b64encode(
            SecretBox(key).encrypt(change.pop("der", der), nonce).ciphertext
        ).decode(),
    } | change
    body = base64.encodebytes(json.dumps(document).encode()).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def test_a_file_reference_is_read() -> None:
    """file: takes the path as it stands."""
    reference = KeyRef.parse("file:keys/a b.key")
    assert (reference.path, str(reference)) == (Path("keys/a b.key"), "file:keys/a b.key")


@pytest.mark.parametrize("text", ["", "release.key", "file:", "awskms:///x", "FILE:x", "file:a\0b"])
def test_an_unknown_reference_is_a_usage_error(text: str) -> None:
    """A key of an unknown kind, or none, is refused with what to type."""
    with pytest.raises(UsageError) as caught:
        KeyRef.parse(text)
    assert "file:" in (caught.value.hint or "")


def test_the_real_parameters_are_those_of_cosign(tmp_path: Path) -> None:
    """A generated file has cosign's label and scrypt cost, and opens with its password only."""
    public = generate(tmp_path / "release.key", "secret")
    text = (tmp_path / "release.key").read_text()
    assert text.startswith("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    document = json.loads(base64.b64decode("".join(text.splitlines()[1:-1])))
    assert document["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert load(tmp_path / "release.key", "secret").public_key_der == public.der


def test_a_generated_pair_signs_and_verifies(tmp_path: Path) -> None:
    """The private file signs what the public file verifies; modes are 0600 and 0644."""
    path = tmp_path / "release.key"
    generate(path, "secret")
    public = load_public_key("release", (tmp_path / "release.pub").read_bytes(), P256)
    signature = load(path, "secret").sign(MESSAGE)
    assert public.verify(MESSAGE, signature)
    assert not public.verify(MESSAGE + b"!", signature)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "release.pub").stat().st_mode) == 0o644
    assert sorted(os.listdir(tmp_path)) == ["release.key", "release.pub"]


@pytest.mark.parametrize("name", ["release.key", "release.pub"])
@pytest.mark.parametrize("link", [False, True])
def test_generate_overwrites_nothing(tmp_path: Path, name: str, link: bool) -> None:
    """A file, or a dangling link, in place of either half is kept, and no half is written."""
    if link:
        (tmp_path / name).symlink_to(tmp_path / "missing")
    else:
        (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        generate(tmp_path / "release.key", "secret")
    assert os.listdir(tmp_path) == [name]
    assert link or (tmp_path / name).read_bytes() == b"precious"


def test_an_empty_password_generates_nothing(tmp_path: Path) -> None:
    """A key that anyone could open is not made."""
    with pytest.raises(UsageError, match="empty password"):
        generate(tmp_path / "release.key", "")
    assert not list(tmp_path.iterdir())


def test_the_older_label_is_read(tmp_path: Path) -> None:
    """Keys that cosign wrote before it changed its label still open."""
    path = tmp_path / "old.key"
    path.write_bytes(key_file("ENCRYPTED COSIGN PRIVATE KEY", "p"))
    assert load(path, "p").algorithm == P256.value


def test_a_wrong_password_is_a_usage_error_without_the_password(tmp_path: Path) -> None:
    """The refusal names the file and the variable to set, never the password."""
    path = tmp_path / "release.key"
    path.write_bytes(key_file())
    with pytest.raises(UsageError) as caught:
        load(path, "hunter2")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert "SECURE_PIPELINE_KEY_PASSWORD" in (caught.value.hint or "")


BROKEN = {
    "empty": b"",
    "plain key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "two labels": key_file().replace(b"END ENCRYPTED SIGSTORE", b"END ENCRYPTED COSIGN"),
    "two keys": key_file() * 2,
    "no JSON": b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n"
    b"-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
    "other derivation": key_file(kdf={"name": "pbkdf2"}),
    "other cipher": key_file(cipher={"name": "aes"}),
    "short nonce": key_file(cipher={"nonce": "AAAA"}),
    "no salt": key_file(kdf={"salt": None}),
    "ciphertext is a number": key_file(ciphertext=5),
    "no key inside": key_file(der=b"nothing"),
    "cost is no power of two": key_file(kdf={"params": {"N": 2047, "r": 8, "p": 1}}),
    "cost is 0": key_file(kdf={"params": {"N": 0, "r": 8, "p": 1}}),
    "memory without bound": key_file(kdf={"params": {"N": 1 << 30, "r": 8, "p": 1}}),
    "time without bound": key_file(kdf={"params": {"N": 1 << 18, "r": 8, "p": 16}}),
    "negative p": key_file(kdf={"params": {"N": 2048, "r": 8, "p": -1}}),
    "cost is true": key_file(kdf={"params": {"N": True, "r": 8, "p": 1}}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_key_file_is_a_configuration_error(tmp_path: Path, case: str) -> None:
    """A key file that is malformed, or asks for absurd work, is refused by name."""
    path = tmp_path / "broken.key"
    path.write_bytes(BROKEN[case])
    with pytest.raises(ConfigError) as caught:
        load(path, "x")
    assert "broken.key" in str(caught.value)


def test_a_missing_key_is_a_configuration_error(tmp_path: Path) -> None:
    """A key that is not there is named."""
    with pytest.raises(ConfigError, match=r"none\.key"):
        load(tmp_path / "none.key", "x")


@given(st.binary(max_size=200))
def test_any_file_is_a_key_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """No bytes make the reader fail in another way."""
    path = tmp_path_factory.mktemp("k") / "any.key"
    path.write_bytes(data)
    with pytest.raises(PipelineError):
        load(path, "x")


def test_the_password_comes_from_two_variables_in_order() -> None:
    """Ours wins over cosign's; unset is not the same as empty."""
    assert password_from({"COSIGN_PASSWORD": "b", "SECURE_PIPELINE_KEY_PASSWORD": "a"}) == "a"
    assert password_from({"COSIGN_PASSWORD": "b"}) == "b"
    assert password_from({"COSIGN_PASSWORD": ""}) == ""
    assert password_from({}) is None


def test_the_public_half_lies_beside_the_key() -> None:
    """release.key goes with release.pub; another name gets .pub added."""
    assert public_path_of(Path("a/release.key")) == Path("a/release.pub")
    assert public_path_of(Path("a/my.release")) == Path("a/my.release.pub")


def test_a_signer_does_not_show_its_key() -> None:
    """The text form of a signer holds no key material."""
    assert repr(signer()) == "LocalSigner(ecdsa-p256-sha256)"


KEYS = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "k256": ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa": rsa.generate_private_key(65537, 2048),
}
FITS = {
    "p256": Algorithm.ECDSA_P256_SHA256,
    "p384": Algorithm.ECDSA_P384_SHA384,
    "ed25519": Algorithm.ED25519,
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("algorithm", Algorithm)
def test_sig_22_a_key_fits_one_algorithm_only(name: str, algorithm: Algorithm) -> None:
    """Any other curve or kind of key than the policy binds is refused when it is loaded."""
    if FITS.get(name) is algorithm:
        assert load_public_key(name, pem_of(KEYS[name]), algorithm).algorithm is algorithm
    else:
        with pytest.raises(ConfigError, match=algorithm.value):
            load_public_key(name, pem_of(KEYS[name]), algorithm)


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA384(), hashes.SHA512()])
def test_sig_22_another_hash_does_not_verify(digest: hashes.HashAlgorithm) -> None:
    """An ECDSA signature over another hash is not one of this algorithm."""
    key = KEYS["p256"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    public = load_public_key("k", pem_of(key), P256)
    assert not public.verify(MESSAGE, key.sign(MESSAGE, ec.ECDSA(digest)))
    assert public.verify(MESSAGE, key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())))


def test_sig_22_an_hmac_with_the_public_key_does_not_verify() -> None:
    """The public key is no shared secret."""
    public = public_key()
    for secret in (public.der, public.pem):
        assert not public.verify(MESSAGE, hashlib.blake2b(MESSAGE, key=secret[:64]).digest())


@given(st.binary(max_size=80))
def test_no_bytes_are_a_signature_by_chance(signature: bytes) -> None:
    """Malformed signatures are refused, never an error of another kind."""
    assert not public_key().verify(MESSAGE, signature)


@pytest.mark.parametrize("zero", ["3006020100020100", "3006020101020100", "30060201000201 01"])
def test_degenerate_signatures_do_not_verify(zero: str) -> None:
    """R or s of zero proves nothing."""
    assert not public_key().verify(MESSAGE, bytes.fromhex(zero))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem_of(KEYS["p256"]) * 2,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"x" * 100_000,
    ],
    ids=["nothing", "no key", "two keys", "certificate", "large"],
)
def test_what_is_not_one_public_key_is_refused(pem: bytes) -> None:
    """Empty, broken, double or huge PEM is a configuration error."""
    with pytest.raises(ConfigError):
        load_public_key("k", pem, P256)
    with pytest.raises(ConfigError):
        PublicKey("k", P256, pem)
