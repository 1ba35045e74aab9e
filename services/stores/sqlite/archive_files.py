"""The files of a partition's archive in SQLite: one a month (UTC) in which incidents were created. Used by
archive.py.

    archive-0007/2026-11.db    incidents created in November 2026; their ids begin with the time, so say it
    archive-0007.db            what a version before 0.2.0 left, of any month: read, searched, never added to

A file is made by the first incident of its month, and removed when all in it may be forgotten. So a whole month goes
without deleting its rows, its disk is free at once, and a month that is over stays as it is, which makes copies cheap.
Readers in other processes look into the folder each time and follow.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import apsw

from models.errors import Damaged
from models.ports import ALERTS_HEAD_BYTES, ArchivedIncident
from services.stores.sqlite.files import file_path, open_reader, open_writer, sync_directory, translated

#: What lists show and are found by is apart from the alerts: an incident may have ten thousand of them. Each index begins
#: with what it filters by, goes on in page order, and carries the other filters at its end, so that they too are tested
#: without fetching rows.
MONTH_SCHEMA = (
    """
    CREATE TABLE incidents (
        row         INTEGER PRIMARY KEY,
        incident_id BLOB    NOT NULL,
        tenant      TEXT    NOT NULL,
        service     TEXT    NOT NULL,
        state       TEXT    NOT NULL,
        severity    INTEGER NOT NULL,
        type        TEXT    NOT NULL,
        created_at  REAL    NOT NULL,
        closed_at   REAL    NOT NULL,
        updated_at  REAL    NOT NULL,
        alerts_head BLOB    NOT NULL,
        record      BLOB    NOT NULL
    );
    CREATE TABLE alerts (
        row    INTEGER PRIMARY KEY REFERENCES incidents ON DELETE CASCADE,
        alerts BLOB    NOT NULL
    );
    CREATE UNIQUE INDEX by_id ON incidents (incident_id, updated_at);
    CREATE INDEX by_time     ON incidents (tenant, created_at, incident_id, service, severity, type, updated_at);
    CREATE INDEX by_service  ON incidents (tenant, service, created_at, incident_id, severity, type, updated_at);
    CREATE INDEX by_severity ON incidents (tenant, severity, created_at, incident_id, service, type, updated_at);
    CREATE INDEX by_type     ON incidents (tenant, type, created_at, incident_id, service, severity, updated_at);
    CREATE INDEX by_update   ON incidents (tenant, updated_at, created_at, incident_id, service, severity, type);
    CREATE INDEX by_close    ON incidents (closed_at);
    """,
)
#: The file of all months that versions before 0.2.0 wrote.
OLD_SCHEMA = (
    """
    CREATE TABLE incidents (
        row         INTEGER PRIMARY KEY,
        incident_id BLOB    NOT NULL UNIQUE,
        tenant      TEXT    NOT NULL,
        service     TEXT    NOT NULL,
        state       TEXT    NOT NULL,
        severity    INTEGER NOT NULL,
        type        TEXT    NOT NULL,
        created_at  REAL    NOT NULL,
        closed_at   REAL    NOT NULL,
        record      BLOB    NOT NULL,
        alerts      BLOB    NOT NULL
    );
    CREATE INDEX by_time     ON incidents (tenant, created_at, incident_id, service, severity, type);
    CREATE INDEX by_service  ON incidents (tenant, service, created_at, incident_id, severity, type);
    CREATE INDEX by_severity ON incidents (tenant, severity, created_at, incident_id, service, type);
    CREATE INDEX by_type     ON incidents (tenant, type, created_at, incident_id, service, severity);
    CREATE INDEX by_close    ON incidents (closed_at);
    """,
    # What the first version wrote was last changed when it was closed.
    """
    ALTER TABLE incidents ADD COLUMN updated_at REAL NOT NULL DEFAULT 0;
    UPDATE incidents SET updated_at = closed_at;
    DROP INDEX by_time;
    DROP INDEX by_service;
    DROP INDEX by_severity;
    DROP INDEX by_type;
    CREATE INDEX by_time     ON incidents (tenant, created_at, incident_id, service, severity, type, updated_at);
    CREATE INDEX by_service  ON incidents (tenant, service, created_at, incident_id, severity, type, updated_at);
    CREATE INDEX by_severity ON incidents (tenant, severity, created_at, incident_id, service, type, updated_at);
    CREATE INDEX by_type     ON incidents (tenant, type, created_at, incident_id, service, severity, updated_at);
    CREATE INDEX by_update   ON incidents (tenant, updated_at, created_at, incident_id, service, severity, type);
    """,
)
_COLUMNS = "incident_id, tenant, service, state, severity, type, created_at, closed_at, updated_at, record"
_NAME = re.compile(r"(\d{4}-\d{2})\.db")
#: zlib's quickest: 1.4 kB of three alerts become 0.4 kB in 20 us; the better ones gain a thirtieth.
PACKED_BY = 1
Row = tuple[bytes, str, str, str, int, str, float, float, float, bytes, bytes]
_OLD = ""


def packed(alerts: bytes) -> bytes:
    """Alerts as a month's file holds them: those of one incident are much alike."""
    return zlib.compress(alerts, PACKED_BY)


@dataclass(frozen=True, slots=True)
class File:
    """One open file. `month` is "" for the old one; `inode` tells it from another that took its name."""

    month: str
    path: Path
    inode: int
    connection: apsw.Connection

    @property
    def whole(self) -> str:
        """SELECT of all that an ArchivedIncident is made of, to be gone on with by WHERE."""
        if self.month == _OLD:
            return f"SELECT {_COLUMNS}, alerts FROM incidents"
        return f"SELECT {_COLUMNS}, alerts FROM incidents JOIN alerts USING (row)"

    def made_of(self, row: Row) -> ArchivedIncident:
        """What a row of `whole` is. Raises Damaged when its alerts can't be unpacked."""
        incident = ArchivedIncident(*row)
        if self.month == _OLD:
            return incident
        try:
            return replace(incident, alerts=zlib.decompress(incident.alerts))
        except zlib.error as error:
            raise Damaged(
                str(self.path), 0, f"alerts of incident {incident.incident_id.hex()}: {error}"
            ) from error

    @property
    def shown(self) -> str:
        """The same with the head of the alerts alone: all that lists need."""
        head = f"substr(alerts, 1, {ALERTS_HEAD_BYTES})" if self.month == _OLD else "alerts_head"
        return f"SELECT {_COLUMNS}, {head} FROM incidents"


class Files:
    """The files of one archive that one thread has open, for reading or for writing."""

    def __init__(self, directory: str | os.PathLike[str], partition: str, *, writes: bool) -> None:
        self._old_path = file_path(directory, partition, "archive")
        self._folder = self._old_path.with_suffix("")
        self._connect: Callable[[Path, Sequence[str]], apsw.Connection | None] = (
            open_writer if writes else open_reader
        )
        self._open: dict[str, File] = {}

    def all(self, first: str = "", last: str = "9999-99") -> list[File]:
        """The old file, if there is one, then those of the months from `first` to `last`, in their order."""
        there = dict(sorted(self._there()))
        for month in [each for each, file in self._open.items() if there.get(each) != file.inode]:
            self._open.pop(month).connection.close()
        wanted = [month for month in there if month == _OLD or first <= month <= last]
        return [file for month in wanted if (file := self._file(month)) is not None]

    def to_write(self, month: str) -> File:
        """The file of a month, made if it is not there. Only where files are open for writing, and after all()."""
        file = self._file(month)
        assert file is not None  # a writer makes what is not there
        return file

    def remove(self, file: File) -> None:
        """Remove a file from the disk. A reader that has it open reads on, and finds it gone the next time."""
        with translated(str(file.path)):
            # All of it is in the file itself then: after a crash between here and the end it is there whole, or not at all.
            file.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._forget(file.month)
            for suffix in ("-wal", "-shm", ""):
                Path(f"{file.path}{suffix}").unlink(missing_ok=True)
            sync_directory(file.path.parent)

    def close(self) -> None:
        for month in list(self._open):
            self._forget(month)

    def _there(self) -> Iterator[tuple[str, int]]:
        """Month and inode of every file."""
        if self._old_path.exists():
            yield _OLD, self._old_path.stat().st_ino
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if name := _NAME.fullmatch(entry.name):
                        yield name[1], entry.inode()
        except FileNotFoundError:
            pass

    def _file(self, month: str) -> File | None:
        if (file := self._open.get(month)) is not None:
            return file
        path = self._old_path if month == _OLD else self._folder / f"{month}.db"
        with translated(str(path)):
            connection = self._connect(path, OLD_SCHEMA if month == _OLD else MONTH_SCHEMA)
            if connection is None:  # it is being made, or was removed since it was listed
                return None
            self._open[month] = file = File(month, path, path.stat().st_ino, connection)
        return file

    def _forget(self, month: str) -> None:
        if (file := self._open.pop(month, None)) is not None:
            file.connection.close()
