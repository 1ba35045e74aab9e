"""`llm-im incidents report`, `export` and `llm-im analytics` against a whole system."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.api.for_verbs import opened
from tests.api.gateway_in_process import system
from tests.command_line import CommandLine

pytestmark = pytest.mark.asyncio


async def test_what_is_written_down_from_the_command_line(tmp_path: Path) -> None:
    async with system() as ours:
        identity = await opened(ours)
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}")

        file = tmp_path / "incidents.parquet"
        table = await run("analytics", "--by", "service")
        figures = await run("analytics", "--label", "team", "--window", "30d", "-o", "json")
        wide = await run("analytics", "-o", "csv")
        rows = await run("incidents", "export", "--window", "1d")
        lines = await run("incidents", "export", "-f", "ndjson")
        parquet = (await run.said("incidents", "export", "-f", "parquet", "--to", str(file))).out
        refused = await run("incidents", "export", "-f", "parquet", code=2)
        text = await run("incidents", "report", identity)
        page = await run("incidents", "report", identity, "-f", "html")
        body = await run("incidents", "report", identity, "--json")
        missing = await run("incidents", "report", "01a20993-901b-7483-ab53-7cb8d1609881", code=5)

        title = json.loads(body)["incident"]["title"]
        assert text.startswith("# P") and title in text and "## Timeline\n\n| When |" in text
        assert page.startswith("<!doctype html>\n") and page.endswith("</html>\n")
        assert "there is no incident" in missing

        assert table.splitlines()[0].split()[:2] == ["GROUP", "INCIDENTS"]
        assert [line.split()[:2] for line in table.splitlines()[1:]] == [["api", "1"], ["all", "1"]]
        assert json.loads(figures)["groups"][0]["key"] == ""
        assert len(wide.splitlines()) == 3
        [row] = csv.DictReader(rows.splitlines())
        assert (row["id"], row["service"], json.loads(row["labels"])) == (
            identity,
            "api",
            json.loads(body)["incident"]["labels"],
        )
        assert [json.loads(line)["id"] for line in lines.splitlines()] == [identity]
        import polars  # half a second, in each worker that only collects this

        frame = polars.read_parquet(file)
        assert frame["id"].to_list() == [identity]
        assert frame.schema["created_at"] == polars.Datetime("ms", "UTC")
        assert parquet == "" and "--to FILE" in refused
