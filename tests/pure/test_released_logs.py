"""A log of every released version replays with the present code, to the state it had then."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from models.control.control import ControlState
from models.partition.frames import NO_DIGEST, Frame
from models.partitions import decode_frame, every_event
from models.shard.shard import Shard
from tests.data.logs.make import HERE, summary, write
from tests.scenario import SETTINGS

VERSIONS = sorted(folder for folder in HERE.iterdir() if (folder / "log.jsonl").is_file())
EVERY_NAME = {event.__name__ for event in every_event()}


def frames(folder: Path) -> dict[str, list[Frame]]:
    """The decoded frames of each partition, their digest chain checked."""
    found: dict[str, list[Frame]] = {}
    for line in (folder / "log.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        before = found.setdefault(row["partition"], [])
        digest = before[-1].digest if before else NO_DIGEST
        before.append(decode_frame(row["partition"], base64.b64decode(row["frame"]), row["seq"], digest))
    return found


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_the_log_of_a_released_version_comes_to_the_same_state(folder: Path) -> None:
    shard = Shard("shard/0000", SETTINGS)
    for frame in frames(folder)["shard/0000"]:
        for event in frame.events:
            shard.apply(event, frame.now)

    assert json.loads(json.dumps(summary(shard))) == json.loads((folder / "summary.json").read_text("utf-8"))


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_the_control_log_of_a_released_version_gives_its_slot_map(folder: Path) -> None:
    state = ControlState()
    for frame in frames(folder)["control"]:
        for event in frame.events:
            state.apply(event, frame.now)

    assert state.slots is not None
    assert state.slots.partitions == 2


def test_every_event_there_is_occurs_in_a_kept_log() -> None:
    """A new event type needs a new log: `python -m tests.data.logs.make` after raising the version."""
    occurring = {
        type(event).__name__
        for folder in VERSIONS
        for partition in frames(folder).values()
        for frame in partition
        for event in frame.events
    }

    assert occurring == EVERY_NAME


def test_the_maker_still_writes_every_event(tmp_path: Path) -> None:
    write(tmp_path)

    occurring = {
        type(event).__name__
        for found in frames(tmp_path).values()
        for frame in found
        for event in frame.events
    }

    assert occurring == EVERY_NAME
