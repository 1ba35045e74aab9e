"""The sample messages of docs/channels.md are what the channels send."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from models.settings.all import Settings
from models.settings.secrets import READER
from services.actions.samples import RECEIVERS, put_into
from services.actions.table import ACTIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "channels.md"


EXAMPLES = re.findall(r"```toml\n(\[notify\.receivers\..*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_settings_on_the_page_are_taken(example: str) -> None:
    written = tomllib.loads(example)
    [name] = written["notify"]["receivers"]
    written["notify"]["route"] = {"receivers": [name]}

    settings = Settings.model_validate(written, context={READER: lambda place: "https://example.org/secret"})

    assert name in settings.notify.receivers and len(EXAMPLES) > len(ACTIONS)


def test_every_type_of_receiver_has_a_sample_that_is_as_it_is_sent() -> None:
    text = PAGE.read_text("utf-8")

    assert set(RECEIVERS) == set(ACTIONS)
    assert [kind for kind in RECEIVERS if f"<!-- sample {kind}, by `make docs` -->" not in text] == []
    assert put_into(text) == text, "stale: `make docs` makes it anew"
