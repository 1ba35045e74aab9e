"""What a row of ACTIONS says (services/actions/table.py): how a responder opens a receiver of that type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.ports import Channel


@dataclass(frozen=True, slots=True)
class ActionKind:
    """One type of receiver.

    `open` makes the channel of the receiver called `name`, in a responder's process, from that receiver's settings (the
    fields of its class in models/settings/channels/, secrets in plain text) and `external_url`, which links begin with. It
    connects to nothing yet. A receiver whose settings changed is opened anew.
    """

    open: Callable[[str, Mapping[str, Any]], Channel]
