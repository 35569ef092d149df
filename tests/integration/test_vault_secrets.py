"""Secrets appear nowhere: output, reports, ledger, state, children, also when things go wrong."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.faultproxy import Exchange, Reply
from fakes.vaultplace import FETCHED, PLAIN_PEM, TRANSIT, VaultPlace, vault_places
from fakes.workplace import Ended
from secure_pipeline.wiring import locate_tool

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-secrets")]

SHIM = """#!/bin/sh
tr '\\0' '\\n' < /proc/$$/cmdline >> {record}
tr '\\0' '\\n' < /proc/$$/environ >> {record}
exec {program} "$@"
"""


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, shared: Path
) -> Iterator[tuple[VaultPlace, VaultPlace]]:
    """A workplace that is ready to be signed, with two Vaults."""
    with vault_places(tmp_path_factory.mktemp("vaults"), shared) as made:
        yield made


@pytest.fixture
def place(places: tuple[VaultPlace, VaultPlace], tmp_path: Path) -> Iterator[VaultPlace]:
    """A copy beside the Vault behind faults, which therefore sees every secret on its way."""
    made = places[1].copied(tmp_path)
    assert made.proxy
    made.proxy.rules.clear()
    made.proxy.seen.clear()
    yield made
    made.proxy.rules.clear()


def secrets_of(place: VaultPlace) -> list[str]:
    """What is known to be secret, and what Vault was seen to be sent: tokens and secret-ids."""
    assert place.proxy
    found = set(place.secrets)
    for seen in place.proxy.seen:
        found |= {seen.headers["x-vault-token"]} if "x-vault-token" in seen.headers else set()
        body = json.loads(seen.body) if seen.body.startswith(b"{") else {}
        found |= {body[name] for name in ("secret_id", "token") if name in body}
    assert place.proxy.seen
    encoded = {base64.b64encode(text.encode()).decode().rstrip("=")[:-1] for text in found}
    return sorted(found | encoded)


def written(place: VaultPlace) -> Iterator[tuple[str, bytes]]:
    """Every file that the program wrote or could have written."""
    for directory in (place.workplace.state, place.root):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()


def assert_nowhere(place: VaultPlace, ended: Ended, record: Path) -> None:
    """None of the secrets is in what the program said, wrote, or gave to its children."""
    places = [("stdout", ended.out.encode()), ("stderr", ended.err.encode()), *written(place)]
    if record.exists():
        places.append(("children", record.read_bytes()))
    for secret in secrets_of(place):
        assert len(secret) >= 8
        for where, data in places:
            assert secret.encode() not in data, where


def shimmed(tmp_path: Path, place: VaultPlace) -> tuple[dict[str, str], Path]:
    """A PATH whose git and trivy note how they are started."""
    record, directory = tmp_path / "children.txt", tmp_path / "shims"
    directory.mkdir()
    for name in ("git", "skopeo"):
        program = shutil.which(name, path="/usr/bin:/bin")
        if program:
            shim = directory / name
            shim.write_text(SHIM.format(record=record, program=program))
            shim.chmod(0o755)
    path = f"{directory}:{place.workplace.environment['PATH']}"
    assert Path(sys.executable).is_file()
    assert locate_tool("git")
    return {"PATH": path}, record


@pytest.mark.parametrize("key", [TRANSIT, FETCHED, PLAIN_PEM])
def test_vlt_02_secrets_are_nowhere_when_all_goes_well(
    place: VaultPlace, tmp_path: Path, key: str
) -> None:
    """Tokens, secret-ids, keys and passwords are in no output, file, argument or variable."""
    path, record = shimmed(tmp_path, place)
    signed = place.run("--debug", "sign", "--json", SECURE_PIPELINE_KEY=key, **path)
    assert signed.code == 0, signed.text
    assert record.stat().st_size > 0
    assert_nowhere(place, signed, record)


def _echo(exchange: Exchange) -> None:
    """An error that repeats all it was sent."""
    texts = [*exchange.seen.headers.values(), exchange.seen.body.decode(), exchange.seen.path]
    body = json.dumps({"errors": texts}).encode()
    exchange.reply(Reply(500, (("Content-Type", "application/json"),), body))


def _garbage(exchange: Exchange) -> None:
    """The real answer, broken in the middle of its JSON."""
    reply = exchange.forward()
    body = reply.body[:-3]
    headers = tuple(item for item in reply.headers if item[0].lower() != "content-length")
    exchange.reply(Reply(200, headers, body))


def _wrong_types(exchange: Exchange) -> None:
    """The real answer with every text put into a list."""
    reply = exchange.forward()

    def wrap(value: object) -> object:
        if isinstance(value, dict):
            return {name: wrap(item) for name, item in value.items()}
        return [value] if isinstance(value, str) else value

    body = json.dumps(wrap(json.loads(reply.body or b"{}"))).encode()
    headers = tuple(item for item in reply.headers if item[0].lower() != "content-length")
    exchange.reply(Reply(200, headers, body))


PATHS = {
    TRANSIT: ["/wrapping/lookup", "/wrapping/unwrap", "/approle/login", "/transit/sign/"],
    PLAIN_PEM: ["/secret/data/"],
    FETCHED: ["/secret/data/"],
}


@pytest.mark.parametrize("fault", [_echo, _garbage, _wrong_types])
@pytest.mark.parametrize(
    ("key", "path"), [(key, path) for key, paths in PATHS.items() for path in paths]
)
def test_vlt_02_secrets_are_nowhere_when_vault_goes_wrong(
    place: VaultPlace, tmp_path: Path, key: str, path: str, fault: object
) -> None:
    """With errors that echo, broken JSON and wrong types, and tracebacks on, nothing leaks."""
    assert place.proxy
    for method in ("GET", "POST", "PUT"):
        place.proxy.on(method, path, fault)  # type: ignore[arg-type]
    commands = [["sign"]] if "/sign/" in path else [["sign"], ["--debug", "keys", "show", key]]
    for command in commands:
        process = place.workplace.start(*command, **place.variables(key))
        out, err = process.communicate(timeout=120)
        assert process.returncode in (3, 4, 11), err
        assert ("Traceback" in err) == ("--debug" in command)
        assert_nowhere(place, Ended(process.returncode, out, err), tmp_path / "none")


@pytest.mark.parametrize("value", ["one-line-sentinel-secret", "\n".join(["sentinel-line"] * 3)])
def test_vlt_02_a_secret_that_is_no_key_is_not_shown(
    place: VaultPlace, tmp_path: Path, value: str
) -> None:
    """A field of KV that holds something else is refused without being quoted."""
    for shape in (
        value,
        base64.b64encode(value.encode()).decode(),
        f"-----BEGIN PRIVATE KEY-----\n{value}\n-----END PRIVATE KEY-----\n",
        f"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
        f"{base64.b64encode(value.encode()).decode()}\n"
        "-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
    ):
        place.vault.api("POST", "secret/data/release-odd", {"data": {"key": shape}})
        place.secrets.extend(line for line in shape.splitlines() if "-----" not in line)
        variables = place.variables("vault-kv://secret/release-odd#key")
        process = place.workplace.start("--debug", "sign", **variables)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 3, err
        assert_nowhere(place, Ended(process.returncode, out, err), tmp_path / "none")


def test_vlt_14_a_fetched_key_is_never_on_a_disk(place: VaultPlace, tmp_path: Path) -> None:
    """Core dumps are off in the process that holds a key, and no temporary file has it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    signed = place.run("sign", SECURE_PIPELINE_KEY=PLAIN_PEM, TMPDIR=str(temporary))
    assert signed.code == 0, signed.text
    for path in temporary.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in secrets_of(place)), path
