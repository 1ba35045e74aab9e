"""Where a PostgreSQL is and what is asked of it. Made by services/stores/choice.py from the settings; imports no client.

The URL is libpq's: postgresql://user:password@host:port,host:port/database?sslmode=verify-full&target_session_attrs=read-write
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from models.errors import Malformed

#: Not quoted anywhere, so lower case only.
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_URL = re.compile(r"postgres(?:ql)?://([^/?]*)(.*)", re.DOTALL)
#: libpq repeats what it can't read, and that may be the password.
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

#: What `state.replication` may ask for, and of which server.
SYNCHRONOUS = "synchronous"
MULTI_REGION = "multi-region"


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """Everything the PostgreSQL adapters are told."""

    url: str = field(repr=False)
    schema: str = "llm_im"
    #: Connections of one process, for all that it opens.
    max_connections: int = 8
    #: Take a server that may forget what was acknowledged.
    allow_volatile: bool = False
    connect_timeout_s: float = 5.0
    timeout_s: float = 5.0
    #: What must be true of the server's copies: "", SYNCHRONOUS, MULTI_REGION.
    replication: str = ""
    #: Refuse anything but a CockroachDB.
    cockroach: bool = False

    @property
    def where(self) -> str:
        """Host, port and database, in words; nothing else of the URL."""
        parts = urlsplit(self.url)
        query = dict(parse_qsl(parts.query))
        hosts = parts.netloc.rpartition("@")[2] or query.get("host", "localhost")
        port = f":{query['port']}" if "port" in query else ""
        return f"{hosts}{port}, database {parts.path.strip('/') or query.get('dbname', 'by default')}"

    def check(self) -> PostgresOptions:
        """Itself, once everything in it can be read. Raises Malformed, which never shows the URL: it may hold a password."""
        url = _URL.fullmatch(self.url)
        if url is None or url[1].count("[") != url[1].count("]"):
            raise Malformed("state.postgres.url: expected postgresql://user:password@host:port/database")
        slash_in_password = "@" not in url[1] and "@" in url[2].partition("?")[0]
        if url[1].count("@") > 1 or slash_in_password or _BAD_PERCENT.search(self.url):
            raise Malformed(
                "state.postgres.url: within user and password write / @ : % [ ] as %2F %40 %3A %25 %5B %5D"
            )
        if not _SCHEMA.fullmatch(self.schema):
            raise Malformed(
                "state.postgres.schema_name: expected 1 to 63 lower case letters, digits or _, beginning with no digit, not"
                f" {self.schema!r}"
            )
        expected = MULTI_REGION if self.cockroach else SYNCHRONOUS
        if self.replication not in ("", expected):
            raise Malformed(
                f"state.replication: this store offers {expected!r} or nothing, not {self.replication!r}"
            )
        return self
