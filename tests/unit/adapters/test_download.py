"""Downloads: limits, https only, no credentials, against a real TLS server on loopback."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.download import TOTAL_SECONDS, HttpsDownload
from secure_pipeline.tools.release import Unreachable

CONTENT = bytes(range(256)) * 4096


class Handler(BaseHTTPRequestHandler):
    """Answers by path; remembers what headers came."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        base = f"https://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
        redirects = {
            "/once": f"{base}/file",
            "/relative": "/file",
            "/loop": f"{base}/loop",
            "/plain": f"http://127.0.0.1:{self.server.server_port}/file",  # type: ignore[attr-defined]
            "/local": "file:///etc/passwd",
        }
        if self.path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[self.path])
            self.end_headers()
        elif self.path == "/file":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    directory = tmp_path_factory.mktemp("tls")
    chain, private = certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    Handler.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://127.0.0.1:{httpd.server_port}", chain
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("path", ["/file", "/once", "/relative"])
def test_a_file_arrives_whole(server: tuple[str, Path], tmp_path: Path, path: str) -> None:
    """The content is written, after redirects over https too."""
    url, chain = server
    HttpsDownload(SystemClock(), chain)(url + path, tmp_path / "target", len(CONTENT))
    assert (tmp_path / "target").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/absent", "answered 404"),
        ("/loop", "more than 5 redirects"),
        ("/plain", "leads away from https"),
        ("/local", "leads away from https"),
        ("/short", "no download"),
    ],
)
def test_what_is_no_whole_https_answer_is_unreachable(
    server: tuple[str, Path], tmp_path: Path, path: str, says: str
) -> None:
    """Errors, endless redirects, a redirect off https and a cut answer raise Unreachable."""
    url, chain = server
    with pytest.raises(Unreachable, match=says):
        HttpsDownload(SystemClock(), chain)(url + path, tmp_path / "target", 1 << 30)


def test_a_file_over_the_limit_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    """A download stops at its limit instead of filling the disk."""
    url, chain = server
    with pytest.raises(Unreachable, match="larger than"):
        HttpsDownload(SystemClock(), chain)(url + "/file", tmp_path / "target", len(CONTENT) - 1)
    assert (tmp_path / "target").stat().st_size < len(CONTENT)


def test_an_unknown_authority_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    """A server whose certificate nobody trusts is not read from."""
    with pytest.raises(Unreachable, match="no download: SSLError"):
        HttpsDownload(SystemClock())(server[0] + "/file", tmp_path / "target", 1 << 30)


def test_a_plain_address_is_never_opened(server: tuple[str, Path], tmp_path: Path) -> None:
    """An http address is refused without a connection."""
    Handler.seen.clear()
    url = server[0].replace("https", "http")
    with pytest.raises(Unreachable, match="https"):
        HttpsDownload(SystemClock())(url + "/file", tmp_path / "target", 1 << 30)
    assert not Handler.seen


def test_no_credentials_are_sent(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A netrc entry for the host is not sent along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    Handler.seen.clear()
    HttpsDownload(SystemClock(), server[1])(server[0] + "/once", tmp_path / "target", 1 << 30)
    assert len(Handler.seen) == 2
    assert not any("authorization" in {name.lower() for name in seen} for seen in Handler.seen)


def test_a_query_is_not_shown_in_errors(server: tuple[str, Path], tmp_path: Path) -> None:
    """Release hosts redirect to signed addresses; the signature stays out of errors."""
    url, chain = server
    with pytest.raises(Unreachable) as caught:
        HttpsDownload(SystemClock(), chain)(f"{url}/absent?token=hunter2", tmp_path / "t", 1 << 30)
    assert "hunter2" not in str(caught.value)


def test_the_whole_download_has_a_deadline(server: tuple[str, Path], tmp_path: Path) -> None:
    """A server that drips bytes cannot hold the program for ever."""

    class Hurrying(SystemClock):
        moment = 0.0

        def monotonic(self) -> float:
            self.moment += TOTAL_SECONDS * 0.6
            return self.moment

    url, chain = server
    with pytest.raises(Unreachable, match="took over"):
        HttpsDownload(Hurrying(), chain)(url + "/file", tmp_path / "target", 1 << 30)
