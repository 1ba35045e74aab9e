"""Serves the page for people at `/` and `/ui/...`: plain files of services/web/static, from memory. Called by the gateway.

In front of the guard: the files are the same for everybody and hold nothing; what they show they ask of the API, with the reader's own
token. Behind the doors for alerts, so that a page costs them nothing. `/ui/files/DIGEST/...` is a file for ever, as the digest is of all
files together; every other path below `/ui` is the page itself, which shows what the path names.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from services.api.answers import packing_of
from services.api.problems import problem
from services.ingest.body import Receive, Scope, Send

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
PREFIX = "/ui"
FILES = f"{PREFIX}/files"
INCIDENT = re.compile(f"{PREFIX}/incidents/([0-9a-fA-F-]{{36}})")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
#: Nothing of others, nothing inline, no text made into HTML (the last two), no frames, no forms that leave by themselves.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
#: The page is asked for again each time and is then a 304; a file's URL changes when any of them does.
FRESH, FOR_EVER = b"no-cache", b"public, max-age=31536000, immutable"
#: In the page: where the files are, and where the list of modules goes, which a browser then loads at once instead of one after the other.
PLACE, MODULES = "{{files}}", "{{modules}}"


@dataclass(frozen=True, slots=True)
class Stored:
    """One file as it is sent, plain and packed."""

    content_type: bytes
    keep: bytes
    plain: bytes
    packed: bytes
    tag: str


class WebPage:
    """ASGI for what takes() says yes to."""

    def __init__(self, is_on: bool = True) -> None:
        """`is_on`: else only links to an incident are answered, which notifications bring: they lead to what the API says of it."""
        self._is_on = is_on
        self._stored: Mapping[str, Stored] = {}
        self._index = ""
        self._loading = asyncio.Lock()

    @staticmethod
    def takes(scope: Scope) -> bool:
        """Whether a request is for the page or one of its files."""
        path = str(scope["path"])
        return scope["type"] == "http" and (path in ("/", PREFIX) or path.startswith(f"{PREFIX}/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = str(scope["method"]), str(scope["path"])
        if method not in ("GET", "HEAD"):
            refused = problem(
                405, "method-not-allowed", "Method not allowed", f"{path} takes GET, not {method}", path
            )
            refused.headers["Allow"] = "GET,HEAD"
            await refused(scope, receive, send)
            return
        if not self._is_on and (incident := INCIDENT.fullmatch(path)):
            headers = [(b"location", f"/v1/incidents/{incident[1]}".encode()), (b"cache-control", FRESH)]
            await send({"type": "http.response.start", "status": 307, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        found = await self._find(path) if self._is_on else None
        if found is None:
            await problem(404, "not-found", "Not found", f"there is no {path}", path)(scope, receive, send)
            return
        await _answer(found, method, dict(scope["headers"]), send)  # type: ignore[call-overload]

    async def _find(self, path: str) -> Stored | None:
        if not self._stored:
            # At the first request, in a thread: a gateway that restarts has no time for it, and alerts wait for nothing.
            async with self._loading:
                if not self._stored:
                    self._stored = await asyncio.to_thread(load)
        if path.startswith(f"{FILES}/"):
            return self._stored.get(path)
        return self._stored[PREFIX]


def load(folder: Path = FOLDER) -> dict[str, Stored]:
    """All files by their paths, and the page as `/ui`."""
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in _files(folder)}
    whole = blake2b(digest_size=8)
    for name, content in contents.items():
        whole.update(b"%d %d %b%b" % (len(name), len(content), name.encode(), content))
    place = f"{FILES}/{whole.hexdigest()}"
    index = contents.pop(INDEX).decode()
    modules = "\n".join(
        f'<link rel="modulepreload" href="{place}/{name}">' for name in contents if name.endswith(".js")
    )
    page = index.replace(MODULES, modules).replace(PLACE, place).encode()
    return {
        PREFIX: _stored(INDEX, page, FRESH),
        **{f"{place}/{name}": _stored(name, content, FOR_EVER) for name, content in contents.items()},
    }


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in TYPES)


def _stored(name: str, content: bytes, keep: bytes) -> Stored:
    tag = blake2b(content, digest_size=8).hexdigest()
    packed = gzip.compress(content, 9, mtime=0)
    return Stored(TYPES[Path(name).suffix].encode(), keep, content, packed, tag)


async def _answer(found: Stored, method: str, headers: Mapping[bytes, bytes], send: Send) -> None:
    is_packed = (
        packing_of(headers.get(b"accept-encoding", b"").decode("latin-1").replace("zstd", "")) == "gzip"
    )
    body = found.packed if is_packed else found.plain
    # The packed one has other bytes, and so another strong tag.
    tag = f'"{found.tag}-gz"' if is_packed else f'"{found.tag}"'
    answer = [
        *HEADERS,
        (b"etag", tag.encode()),
        (b"cache-control", found.keep),
        (b"vary", b"Accept-Encoding"),
    ]
    if _is_known(tag, headers.get(b"if-none-match", b"").decode("latin-1")):
        await send({"type": "http.response.start", "status": 304, "headers": answer})
        await send({"type": "http.response.body", "body": b""})
        return
    answer += [(b"content-type", found.content_type), (b"content-length", str(len(body)).encode())]
    if is_packed:
        answer.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": 200, "headers": answer})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def _is_known(tag: str, if_none_match: str) -> bool:
    """Whether a browser has it already (RFC 9110, 13.1.2: weak tags count too)."""
    tags = re.findall(r'\*|"[^"]*"', if_none_match)
    return "*" in tags or tag in tags
