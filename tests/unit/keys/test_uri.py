"""Key URIs: which store, and where in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import UsageError
from secure_pipeline.keys.uri import KeyRef, VaultKey


@pytest.mark.parametrize(
    ("text", "key", "shown"),
    [
        ("vault-transit://transit/release", VaultKey("transit", "release"), None),
        ("vault-transit://ci/team/release@12", VaultKey("ci/team", "release", 12), None),
        ("hashivault://release", VaultKey("transit", "release"), "vault-transit://transit/release"),
        (
            "hashivault://release@3",
            VaultKey("transit", "release", 3),
            "vault-transit://transit/release@3",
        ),
        ("vault-kv://secret/a/b#key", VaultKey("secret", "a/b", None, "key"), None),
        ("vault-kv://secret/a@7#key", VaultKey("secret", "a", 7, "key"), None),
    ],
)
def test_a_key_in_vault_is_named_by_its_parts(text: str, key: VaultKey, shown: str | None) -> None:
    """Mount, name, version and field are read exactly, and written back alike."""
    ref = KeyRef.parse(text)
    assert ref.vault == key
    assert str(ref) == (shown or text)
    assert KeyRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    "text",
    [
        "vault-transit://release",
        "vault-transit:transit/release",
        "vault-transit:///transit/release",
        "vault-transit://transit/../sys",
        "vault-transit://transit/%2e%2e",
        "vault-transit://transit/release@0",
        "vault-transit://transit/release@-1",
        "vault-transit://transit/release@01x",
        "vault-transit://transit/release?x=1",
        "vault-transit://transit/rel ease",
        "vault-transit://transit/release\n",
        "vault-kv://secret/release",
        "vault-kv://secret#key",
        "vault-kv://secret/release#",
        "vault-kv://secret/a/../b#key",
        "hashivault://a/b",
        "hashivault://",
        "awskms://alias/release",
        "keyless:",
        "keyless:\0",
        "Keyless",
        "vault://transit/release",
        "",
    ],
)
def test_vlt_13_anything_else_is_refused_with_what_to_type(text: str) -> None:
    """No version 0, no dots, escapes or empty parts; an unknown kind is told what there is."""
    with pytest.raises(UsageError) as caught:
        KeyRef.parse(text)
    assert "vault-transit://MOUNT/KEY" in (caught.value.hint or "")


def test_only_a_file_has_a_path() -> None:
    """A key in Vault is never taken for a file."""
    with pytest.raises(UsageError, match="is not a file"):
        _ = KeyRef.parse("hashivault://release").path


@given(st.sampled_from(["vault-transit://", "vault-kv://", "hashivault://"]), st.text(max_size=60))
def test_vlt_13_what_is_accepted_holds_plain_names_only(scheme: str, rest: str) -> None:
    """Whatever is typed, an accepted URI has only plain names in it."""
    try:
        ref = KeyRef.parse(scheme + rest)
    except UsageError:
        return
    assert ref.vault
    parts = [*ref.vault.mount.split("/"), *ref.vault.path.split("/")]
    assert all(part and part.isascii() and not part.startswith(".") for part in parts)
    assert not set("".join(parts)) & set("%?# \t\n\\:@")


@pytest.mark.parametrize(
    ("text", "value"), [("keyless", ""), ("keyless:a/trust.json", "a/trust.json")]
)
def test_no_key_is_a_key_uri_too(text: str, value: str) -> None:
    """Alone it means the public instance, with a file that file's; neither is a file's key."""
    ref = KeyRef.parse(text)
    assert (ref.keyless, ref.value, ref.vault, str(ref)) == (True, value, None, text)
    with pytest.raises(UsageError):
        _ = ref.path
