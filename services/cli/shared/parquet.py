"""Rows as a Parquet file, by polars: the extra `parquet`, imported when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from services.cli.shared.exits import ExitCode, Failure

_MISSING = "Parquet needs polars, which is not installed: pip install 'llm-incident-manager[parquet]', or take csv or ndjson"


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of /v1/analytics/rows. Times become timestamps in UTC, labels JSON. Raises Failure without polars, OSError."""
    try:
        import polars as pl
    except ImportError as error:
        raise Failure(_MISSING, ExitCode.FAILED) from error
    text, number, whole, yes = pl.String, pl.Float64, pl.Int64, pl.Boolean
    time = pl.Datetime("ms", "UTC")
    schema: dict[str, Any] = {
        "id": text, "title": text, "service": text, "severity": text, "type": text, "state": text,
        "created_at": time, "resolved_at": time, "closed_at": time,
        "detect_s": number, "notify_s": number, "acknowledge_s": number, "resolve_s": number,
        "alerts": whole, "reopened": whole, "answered": yes, "told": yes, "muted": yes, "noise": yes,
        "resolution_method": text, "repaired_by": text, "labels": text,
    }  # fmt: skip
    columns = {name: [_value(row[name], kind is time, name) for row in rows] for name, kind in schema.items()}
    with path.open("wb") as file:
        pl.DataFrame(columns, schema=schema).write_parquet(file)


def _value(value: Any, is_time: bool, name: str) -> Any:
    if is_time:
        return None if value is None else datetime.fromisoformat(value)
    return json.dumps(value, sort_keys=True) if name == "labels" else value
