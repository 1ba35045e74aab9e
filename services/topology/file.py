"""A file of services and their dependencies, YAML or JSON: of setting correlation.topology_file, and of `llm-im topology import`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from models.errors import Malformed, TooLarge, Unavailable
from models.playbook.document import read_document
from models.topology.graph import CALLS, Criticality, Dependency, Service, checked
from models.topology.messages import DeclareTopology

#: Bytes of one file: a hundred thousand dependencies in YAML, one a line.
FILE_BYTES_MAX = 16 * 1024 * 1024
#: Values of it. YAML takes 10 us for each, and JSON a tenth of that.
NODES_MAX = 1_000_000
#: Who says what the file of the settings says, for people.
ACTOR = "correlation.topology_file"
SOURCE = "file"

_Lax = msgspec.Meta(max_length=100_000)


class FileService(msgspec.Struct, forbid_unknown_fields=True):
    """A service; `depends_on` names what it needs."""

    name: str
    criticality: Criticality = Criticality.NORMAL
    depends_on: Annotated[list[str], _Lax] = []


class FileDependency(msgspec.Struct, forbid_unknown_fields=True):
    caller: str
    callee: str
    kind: str = CALLS


class TopologyFile(msgspec.Struct, forbid_unknown_fields=True):
    """All that one source says."""

    source: str = SOURCE
    services: Annotated[list[FileService], _Lax] = []
    dependencies: Annotated[list[FileDependency], _Lax] = []

    def declaration(self, actor: str) -> DeclareTopology:
        """Raises Malformed, and says which entry is wrong."""
        known = {(each.caller, each.callee) for each in self.dependencies}
        links = [
            *(Dependency(each.caller, each.callee, each.kind) for each in self.dependencies),
            *(
                Dependency(each.name, needed)
                for each in self.services
                for needed in each.depends_on
                if (each.name, needed) not in known
            ),
        ]
        services, dependencies = checked(
            [Service(each.name, each.criticality) for each in self.services], links, self.source
        )
        return DeclareTopology(self.source, services, dependencies, actor)


def read_file(path: Path) -> TopologyFile:
    """Raises OSError, Malformed, TooLarge."""
    with path.open("rb") as source:
        data = source.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise TooLarge(f"{path.name}: more than {FILE_BYTES_MAX // 1024**2} MiB")
    return parse(data, path.name)


def parse(data: bytes, name: str) -> TopologyFile:
    """What a file says. Raises Malformed that names the entry, TooLarge."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Malformed(f"{name}: expected UTF-8") from None
    plain: Any
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        plain = read_document(
            text, name, what="topology", chars_max=FILE_BYTES_MAX, nodes_max=NODES_MAX
        ).plain()
    try:
        return msgspec.convert(plain, TopologyFile)
    except msgspec.ValidationError as error:
        raise Malformed(f"{name}: {error}") from None


def reader_of(path: str) -> Callable[[], Awaitable[DeclareTopology | None]]:
    """Reads the file of the settings, "" for none. What it raises is Malformed, TooLarge, Unavailable."""

    async def read() -> DeclareTopology | None:
        if not path:
            return None
        try:
            return (await asyncio.to_thread(read_file, Path(path))).declaration(ACTOR)
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from error

    return read
