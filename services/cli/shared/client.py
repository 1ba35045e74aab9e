"""HTTP to the running system, with the stdlib: a client library would cost more time to import than the call takes.

Failures say what to do next; a problem document (RFC 9457) is told by its detail. Every POST has an Idempotency-Key, so
that one sent again after a lost answer happens once.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import socket
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from services.cli.shared.exits import ExitCode, Failure, code_of

#: Longer than a gateway holds a request for a restarting shard (5 s) by far, shorter than a person's patience.
TIMEOUT_S = 30.0
#: A busy server names a time to wait; past this a person would rather know.
RETRY_MAX_S = 10.0
#: Of an answer that is not ours, this much is shown.
_SHOWN_CHARS = 200

#: Who answered this process, for who can make nothing of it (services/cli/main.py).
_answered: deque[str] = deque(maxlen=1)

#: Unix sockets at which a system of this machine is reached in place of its URL, by that (services/cli/shared/where.py).
_sockets: dict[str, str] = {}

Query = Sequence[tuple[str, str]]
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status."""

    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        """The body as JSON, None when it is not."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def problem(self) -> str:
        """What the answer says is wrong."""
        body = self.json()
        if isinstance(body, dict):
            for name in ("detail", "message", "title"):
                if isinstance(body.get(name), str) and body[name]:
                    return str(body[name])
        if isinstance(body, str) and body:
            return body
        text = self.body.decode("utf-8", "replace").strip()
        return text[:_SHOWN_CHARS] or "no reason given"

    @property
    def retry_after_s(self) -> float:
        """How long to wait before asking again."""
        try:
            return min(RETRY_MAX_S, max(0.1, float(self.headers.get("retry-after", "1"))))
        except ValueError:
            return 1.0


@dataclass(frozen=True, slots=True)
class Trust:
    """Files for https: the authorities that we believe ("": those of this machine), and our own certificate with its key."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises Failure, which names a file that can't be used."""
        named = self.ca_file
        try:
            made = ssl.create_default_context(cafile=named or None)
            if named := self.cert_file:
                # A key with a passphrase: nobody is asked in the middle of a script.
                made.load_cert_chain(named, self.key_file or None, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise Failure(
                f"can't use {named}{' with its key' if named == self.cert_file else ''}: {_reason(error)}",
                ExitCode.USAGE,
            ) from error
        return made


def reach(url: str, at: str) -> None:
    """Call what is asked under this URL from now on at a unix socket of this machine."""
    _sockets[url] = at


class _AtSocket(http.client.HTTPConnection):
    """HTTP over a unix socket that only this user can open."""

    def __init__(self, at: str, host: str, port: int | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._at = at

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._at)


class Client:
    """Calls one server. Each call is a connection of its own, so an answer never waits behind a dead one."""

    def __init__(
        self, url: str, timeout_s: float = TIMEOUT_S, token: str = "", trust: Trust | None = None
    ) -> None:
        if "@" in url.partition("://")[2].partition("/")[0]:
            # Before anything repeats it: errors and lists of contexts show the URL.
            raise Failure(
                "the URL must not contain a user name or password; give a token with --token-file or LLM_IM_TOKEN",
                ExitCode.USAGE,
            )
        try:
            self._scheme, self._host, self._port, self._prefix = _parts_of(url)
        except ValueError:
            raise Failure(
                f"{url!r} is not a valid URL; expected something like http://127.0.0.1:8080", ExitCode.USAGE
            ) from None
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._token = token
        self._trust = trust or Trust()
        self._context: ssl.SSLContext | None = None

    def get(self, path: str, query: Query = ()) -> Reply:
        """The answer to a GET, whatever its status. Raises Failure when there is none."""
        return self._call("GET", _target(path, query))

    def post(self, path: str, body: bytes, content_type: str, headers: Headers | None = None) -> Reply:
        """The answer to a POST, whatever its status. Raises Failure when there is none."""
        given = {"Content-Type": content_type, "Idempotency-Key": str(uuid.uuid4()), **(headers or {})}
        return self._call("POST", path, body, given)

    def get_json(self, path: str, query: Query = ()) -> Any:
        """The JSON of a 200. Raises Failure with the problem of any other answer."""
        reply = self._again(lambda: self.get(path, query))
        body = reply.json()
        if reply.status == http.client.OK and body is not None:
            return body
        raise self.failure(reply)

    def post_json(self, path: str, body: object, headers: Headers | None = None) -> Reply:
        """The answer to a POST of JSON, whatever its status. A lost answer, and a 503 that names a time to wait, are
        tried once more with the same Idempotency-Key."""
        data = json.dumps(body).encode()
        given = {"Idempotency-Key": str(uuid.uuid4()), **(headers or {})}
        return self._again(lambda: self.post(path, data, "application/json", given))

    def put_json(self, path: str, body: object) -> Reply:
        """The answer to a PUT of JSON, whatever its status; it may be done twice. Raises Failure when there is none."""
        data = json.dumps(body).encode()
        return self._again(lambda: self._call("PUT", path, data, {"Content-Type": "application/json"}))

    def delete(self, path: str) -> Reply:
        """The answer to a DELETE, whatever its status. Raises Failure when there is none."""
        return self._call("DELETE", path)

    @contextlib.contextmanager
    def stream(self, path: str, query: Query, headers: Headers, silence_s: float) -> Iterator[Any]:
        """The response to a GET that does not end; it is read by lines. Raises Failure when there is none, and
        OSError while it is read once `silence_s` have passed without a byte."""
        connection = self._connection(silence_s)
        try:
            with self._told(silence_s):
                connection.request("GET", self._prefix + _target(path, query), None, self._headers(headers))
                response = connection.getresponse()
            _answered.append(self.url)
            yield response
        finally:
            connection.close()

    def failure(self, reply: Reply, hint: str = "") -> Failure:
        """The refusal in `reply`, and what to do about it."""
        if not hint and reply.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            which = "another" if self._token else "a"
            hint = f"give {which} token: --token-file, LLM_IM_TOKEN_FILE, LLM_IM_TOKEN, or llm-im context add"
        words = f"{self.url} answered {reply.status}: {reply.problem}"
        return Failure(words + (f"; {hint}" if hint else ""), code_of(reply.status))

    def _again(self, call: Callable[[], Reply]) -> Reply:
        """`call` once, and once more if that may help and can't double."""
        try:
            reply = call()
        except Lost:
            return call()
        if reply.status == http.client.SERVICE_UNAVAILABLE and "retry-after" in reply.headers:
            time.sleep(reply.retry_after_s)
            reply = call()
        return reply

    def _identity(self) -> dict[str, str]:
        """Who calls: a token proves it; without one it is only said."""
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        try:
            name = getpass.getuser()
        except (OSError, KeyError):  # a container's user without a name
            return {}
        return {"X-Actor": name} if name.isascii() and name.isprintable() else {}

    def _headers(self, given: Headers) -> dict[str, str]:
        return {**self._identity(), **given}

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if at := _sockets.get(self.url):
            return _AtSocket(at, self._host, self._port, timeout_s)
        if self._scheme != "https":
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        if self._context is None:
            self._context = self._trust.context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)

    def _call(
        self, method: str, target: str, body: bytes | None = None, headers: Headers | None = None
    ) -> Reply:
        connection = self._connection(self._timeout_s)
        try:
            with self._told(self._timeout_s):
                connection.request(method, self._prefix + target, body, self._headers(headers or {}))
                answer = connection.getresponse()
                _answered.append(self.url)
                return Reply(
                    answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
                )
        finally:
            connection.close()

    @contextlib.contextmanager
    def _told(self, timeout_s: float) -> Iterator[None]:
        """What can go wrong on the way, as Failures that say what to do."""
        try:
            yield
        except TimeoutError as error:
            raise Failure(
                f"{self.url} did not answer within {timeout_s:g} s; check it with: llm-im status",
                ExitCode.DEGRADED,
            ) from error
        except ConnectionRefusedError as error:
            raise Failure(
                f"cannot reach {self.url}: connection refused, nothing listens there. Is the address right (--url, --context)? On its machine: llm-im status",
                ExitCode.NOT_RUNNING,
            ) from error
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected) as error:
            raise Lost(
                f"{self.url} closed the connection without an answer; try again{self._if_tls()}"
            ) from error
        except http.client.IncompleteRead as error:
            raise Lost(f"{self.url} closed the connection in the middle of an answer; try again") from error
        except http.client.HTTPException as error:
            raise Failure(f"{self.url} does not speak HTTP: {type(error).__name__} {error}") from error
        except ssl.SSLCertVerificationError as error:
            raise Failure(
                f"the certificate of {self.url} can't be trusted: {error.verify_message}; name the authority that issued it with "
                "--ca-file, LLM_IM_CA_FILE or the context",
                ExitCode.NOT_RUNNING,
            ) from error
        except ssl.SSLError as error:
            raise Failure(
                f"no TLS with {self.url}: {_reason(error)}{self._if_refused(error)}", ExitCode.NOT_RUNNING
            ) from error
        except socket.gaierror as error:
            raise Failure(
                f"cannot reach {self.url}: no such host; check --url, LLM_IM_URL or the context",
                ExitCode.NOT_RUNNING,
            ) from error
        except OSError as error:
            raise Failure(
                f"cannot reach {self.url}: {error.strerror or error}", ExitCode.NOT_RUNNING
            ) from error

    def _if_tls(self) -> str:
        """A server that expects TLS says nothing to who does not begin it, and may say nothing to who has no certificate."""
        if self._scheme == "https":
            return (
                ""
                if self._trust.cert_file
                else f" (or, if it wants a client certificate, with {_CERTIFICATE})"
            )
        return " (or, if it expects TLS, with https://)"

    def _if_refused(self, error: ssl.SSLError) -> str:
        said = str(error.reason or "").upper()
        if "WRONG_VERSION" in said or "HTTP_REQUEST" in said:
            return "; it speaks no TLS there: use http://"
        which = "another" if self._trust.cert_file else "a"
        if "CERTIFICATE" in said or "ALERT" in said:
            return f"; it wants {which} client certificate: {_CERTIFICATE}"
        return f"; it may want {which} client certificate: {_CERTIFICATE}" if "EOF" in str(error) else ""


#: What gives one.
_CERTIFICATE = "--cert and --key, LLM_IM_CERT and LLM_IM_KEY, or the context"


def _reason(error: OSError | ValueError) -> str:
    reason = getattr(error, "reason", None)
    if reason:
        return str(reason).lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error)


class Lost(Failure):
    """The connection ended before the answer: the request may have been heard or not."""


def last_answered() -> str:
    """The URL whose answer came last; "" before one came."""
    return _answered[-1] if _answered else ""


def _parts_of(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path of what can be called. Raises ValueError."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    host.encode("idna")  # a UnicodeError is a ValueError
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not _printable(host)
        # An IPv6 address is in brackets: only behind them is a colon a port's.
        or (port is None and parts.netloc.rpartition("]")[2].endswith(":"))
        or not (parts.path.isascii() and _printable(parts.path))
        or parts.query
        or parts.fragment
    ):
        raise ValueError
    return parts.scheme, host, port, parts.path.rstrip("/")


def _printable(text: str) -> bool:
    return text.isprintable() and " " not in text


def _target(path: str, query: Query) -> str:
    return path + (f"?{urlencode(query)}" if query else "")
