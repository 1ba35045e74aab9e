"""Secrets that are written as the place where they are, `{ env = "NAME" }` or `{ file = "/path" }`, so that the settings file holds none.
Used by services/settings/load.py, for every setting that is a secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from models.settings.secrets import PLACES

#: A secret is a line, or a key of some lines.
FILE_MAX_BYTES = 64 * 1024
_EXPECTED = 'expected the secret as text, or the place where it is: { env = "NAME" } or { file = "/path" }'


def read_secret(place: Mapping[str, object]) -> str:
    """The secret at a place, without the line break that ends a file. Raises ValueError, which names the place and never what is there."""
    if len(place) != 1:
        raise ValueError(_EXPECTED)
    [(kind, where)] = place.items()
    if kind not in PLACES or not isinstance(where, str) or not where:
        raise ValueError(_EXPECTED)
    return _variable(where) if kind == "env" else _file(where)


def _variable(name: str) -> str:
    text = os.environ.get(name, "")
    if not text:
        raise ValueError(f"expected the secret in the environment variable {name}, which is not set or empty")
    return text


def _file(name: str) -> str:
    path = Path(name)
    if not path.is_absolute():
        raise ValueError(f"expected the absolute path of a file, not {name[:200]!r}")
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
        text = data.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(
            f"expected the secret in the file {name[:200]}, which can't be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"expected the secret in the file {name[:200]} as text in UTF-8") from None
    if not text or len(data) > FILE_MAX_BYTES:
        raise ValueError(f"expected a secret of 1 to {FILE_MAX_BYTES:,} bytes in the file {name[:200]}")
    return text
