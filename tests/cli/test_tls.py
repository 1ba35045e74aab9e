"""`llm-im` as a client of https: whom it trusts, what it shows, and what it says when that is not enough."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from tests.authority import Authority, Issued
from tests.cli.incident_server import IncidentServer


class Answering(BaseHTTPRequestHandler):
    """Says whose certificate it was shown."""

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        shown = self.connection.getpeercert() or {}
        name = dict(part[0] for part in shown.get("subject", ())).get("commonName", "nobody")  # type: ignore[misc]
        body = json.dumps({"status": "ready", "degraded": [], "notifications": f"to {name}"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Issued:
    return authority.issue("anna")


@pytest.fixture(scope="module", params=[ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED], ids=["ask", "require"])
def server(authority: Authority, request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """Its URL, and whether it wants a certificate."""
    issued = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = request.param
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=made.serve_forever, args=(0.005,), daemon=True).start()
    yield f"https://127.0.0.1:{made.server_address[1]}", request.param is ssl.CERT_REQUIRED
    made.shutdown()
    made.server_close()


def called(*words: str, **env: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="llm-im", env=env)


def test_status_by_variables(
    server: tuple[str, bool], authority: Authority, client: Issued, elsewhere: Path
) -> None:
    url, needs_one = server

    stranger = called("status", "--url", url, "--json")
    trusted = called("status", "--url", url, "--json", LLM_IM_CA_FILE=str(authority.file))
    shown = called(
        "status", "--url", url, "--json",
        LLM_IM_CA_FILE=str(authority.file), LLM_IM_CERT=str(client.cert), LLM_IM_KEY=str(client.key),
    )  # fmt: skip

    assert "can't be trusted" in json.loads(stranger.stdout)["why"]
    assert "--ca-file" in json.loads(stranger.stdout)["why"]
    if needs_one:
        assert "client certificate" in json.loads(trusted.stdout)["why"]
    else:
        assert json.loads(trusted.stdout)["notifications"] == "to nobody"
    assert json.loads(shown.stdout)["notifications"] == "to anna"


@pytest.mark.parametrize("server", [ssl.CERT_REQUIRED], indirect=True)
def test_options_and_contexts_name_the_files(
    server: tuple[str, bool], authority: Authority, client: Issued, elsewhere: Path
) -> None:
    url, _ = server
    files = ["--ca-file", str(authority.file), "--cert", str(client.cert), "--key", str(client.key)]

    by_options = called("stats", "--url", url, "--json", *files)
    assert called("context", "add", "prod", "--url", url, *files).exit_code == 0
    by_context = called("stats", "--json")
    wrong = called("stats", "--url", url, "--ca-file", str(client.key))
    missing = called("stats", "--url", url, "--ca-file", "nowhere.pem")

    # The server answers all paths alike: that it answered is what counts.
    assert json.loads(by_options.stdout)["notifications"] == "to anna"
    assert json.loads(by_context.stdout)["notifications"] == "to anna"
    assert wrong.exit_code == missing.exit_code == 2
    assert str(client.key) in wrong.stderr
    assert "nowhere.pem: No such file" in missing.stderr


def test_clear_text_at_a_port_of_tls_and_tls_at_one_of_clear_text(
    server: tuple[str, bool], incidents: IncidentServer, elsewhere: Path
) -> None:
    plain = called("stats", "--url", server[0].replace("https", "http"))
    secured = called("stats", "--url", incidents.url.replace("http", "https"))

    assert "with https://" in plain.stderr
    assert "it speaks no TLS there: use http://" in secured.stderr


def test_check_names_the_file_and_what_is_wrong_with_it(elsewhere: Path) -> None:
    authority = Authority(elsewhere / "ca")
    good, late, soon = (
        authority.issue("server"),
        authority.issue("late", days=-1),
        authority.issue("soon", days=3),
    )
    locked = elsewhere / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n")
    for cert, key, said in (
        ("nowhere.pem", good.key, f"server.tls.cert_file: {elsewhere}/nowhere.pem: No such file"),
        (good.key, good.key, f"server.tls.cert_file: {good.key}: it holds no certificate"),
        (good.cert, good.cert, f"server.tls.key_file: {good.cert}: it holds no private key"),
        (good.cert, locked, f"server.tls.key_file: {locked}: it has a passphrase"),
        (good.cert, late.key, f"server.tls.key_file: {late.key}: it is not the key of the certificate"),
        (late.cert, late.key, f"server.tls.cert_file: {late.cert}: it expired on"),
        (good.cert, None, "server.tls.key_file: expected cert_file and key_file together"),
    ):
        found = _checked(cert, key)
        assert said in found.stdout, found.stdout
        assert found.exit_code == 1

    soon.key.chmod(0o644)
    noticed = _checked(soon.cert, soon.key)

    assert noticed.exit_code == 0, noticed.stdout
    assert f"every user of this machine can read {soon.key}" in noticed.stdout
    assert "in 3 days: renew it" in noticed.stdout


def _checked(cert: Path | str, key: Path | None) -> Result:
    key_line = f'key_file = "{key}"' if key else ""
    Path("llm-im.toml").write_text(f'[server.tls]\ncert_file = "{cert}"\n{key_line}\n')
    return called("config", "check")
