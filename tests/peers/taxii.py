"""medallion, OASIS' own TAXII 2.1 server, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.peers.collecting import until
from tests.ports import free_port

COLLECTION = "91a7b528-80eb-42ed-a74d-c6fbd5a26116"
USER, PASSWORD = "ann", "taxii-s3cret"

#: An object, and when it was added.
Added = tuple[dict[str, Any], str]


def indicator(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--00000000-0000-4000-8000-{number:012d}",
        "created": "2026-01-01T00:00:00.000Z",
        "modified": "2026-01-01T00:00:00.000Z",
        "name": name,
        "pattern": "[ipv4-addr:value = '198.51.100.1']",
        "pattern_type": "stix",
        "valid_from": "2026-01-01T00:00:00Z",
        **more,
    }


class Medallion:
    """Restarted, it has what it is given then: it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.collection = f"http://127.0.0.1:{self._port}/api1/collections/{COLLECTION}"

    async def start(self, objects: Sequence[Added]) -> None:
        collection = {
            "id": COLLECTION,
            "title": "Indicators",
            "can_read": True,
            "can_write": True,
            "media_types": ["application/stix+json;version=2.1"],
            "objects": [{**each, "_date_added": at} for each, at in objects],
            "manifest": [
                {"id": each["id"], "date_added": at, "version": each["modified"], "media_type": "application/stix+json;version=2.1"}
                for each, at in objects
            ],
        }  # fmt: skip
        data = {
            "api1": {
                "information": {
                    "title": "x",
                    "versions": ["application/taxii+json;version=2.1"],
                    "max_content_length": 1 << 20,
                },
                "collections": [collection],
            }
        }
        (self._folder / "data.json").write_text(json.dumps(data))
        config = {
            "backend": {
                "module": "medallion.backends.memory_backend",
                "module_class": "MemoryBackend",
                "filename": str(self._folder / "data.json"),
            },
            "users": {USER: PASSWORD},
            "taxii": {"max_page_size": 1000},
        }
        (self._folder / "config.json").write_text(json.dumps(config))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "medallion.scripts.run", "--port", str(self._port), str(self._folder / "config.json")],
                stdout=log, stderr=log,
            )  # fmt: skip
        await until(self._listens, (self._folder / "log").read_text)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            urllib.request.urlopen(self.collection, timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True


@contextlib.asynccontextmanager
async def medallion(folder: Path, objects: Sequence[Added]) -> AsyncIterator[Medallion]:
    peer = Medallion(folder)
    try:
        await peer.start(objects)
        yield peer
    finally:
        peer.kill()
