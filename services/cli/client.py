"""HTTP to the running system, with the stdlib: a client library would cost more time to import than the call takes.

Failures say what to do next; a problem document (RFC 9457) is told by its detail.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from services.cli.exits import ExitCode, Failure
from services.cli.where import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, token_of

#: Longer than a gateway holds a request for a restarting shard (5 s) by far, shorter than a person's patience.
TIMEOUT_S = 30.0
#: Of an answer that is not ours, this much is shown.
_SHOWN_CHARS = 200

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
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


class Client:
    """Calls one server. Each call is a connection of its own, so an answer never waits behind a dead one.

    Presents the API token of `token_file`, else of the environment (where.token_of), when there is one and the call is
    not `anonymous`.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = TIMEOUT_S,
        *,
        token_file: Path | None = None,
        anonymous: bool = False,
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or (port is None and ":" in parts.netloc[-6:])
        ):
            raise Failure(
                f"{url!r} is no URL to call; expected something like http://127.0.0.1:8080", ExitCode.USAGE
            )
        self.url = url.rstrip("/")
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        token = None if anonymous else token_of(token_file)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def get(self, path: str, query: Query = ()) -> Reply:
        """The answer to a GET, whatever its status. Raises Failure when there is none."""
        return self._call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: bytes, content_type: str) -> Reply:
        """The answer to a POST, whatever its status. Raises Failure when there is none."""
        return self._call("POST", path, body, {"Content-Type": content_type})

    def get_json(self, path: str, query: Query = ()) -> Any:
        """The JSON of a 200. Raises Failure with the problem of any other answer."""
        reply = self.get(path, query)
        body = reply.json()
        if reply.status == http.client.OK and body is not None:
            return body
        raise self.failure(reply)

    def delete(self, path: str) -> Reply:
        """The answer to a DELETE, whatever its status. Raises Failure when there is none."""
        return self._call("DELETE", path)

    def failure(self, reply: Reply) -> Failure:
        """What to raise for an answer that is none."""
        code = ExitCode.DEGRADED if reply.status in (429, 503) else ExitCode.FAILED
        words = f"{self.url} answered {reply.status}: {reply.problem}"
        if reply.status == http.client.UNAUTHORIZED and not self._headers:
            words = f"{self.url} wants a token: --token-file, {TOKEN_FILE_VARIABLE} or {TOKEN_VARIABLE}"
        return Failure(words, code)

    def _call(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        kind = http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, self._prefix + target, body, {**self._headers, **(headers or {})})
            answer = connection.getresponse()
            return Reply(
                answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
            )
        except TimeoutError as error:
            raise Failure(
                f"{self.url} did not answer within {self._timeout_s:g} s; ask how it is: llm-im status",
                ExitCode.DEGRADED,
            ) from error
        except ConnectionRefusedError as error:
            raise Failure(
                f"cannot reach {self.url}: connection refused; is it running? try: llm-im up",
                ExitCode.NOT_RUNNING,
            ) from error
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected) as error:
            raise Failure(f"{self.url} closed the connection without an answer; try again") from error
        except http.client.HTTPException as error:
            raise Failure(f"{self.url} does not speak HTTP: {type(error).__name__} {error}") from error
        except socket.gaierror as error:
            raise Failure(
                f"cannot reach {self.url}: no such host; check --url or LLM_IM_URL", ExitCode.NOT_RUNNING
            ) from error
        except OSError as error:
            raise Failure(
                f"cannot reach {self.url}: {error.strerror or error}", ExitCode.NOT_RUNNING
            ) from error
        finally:
            connection.close()
