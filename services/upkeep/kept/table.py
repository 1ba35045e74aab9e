"""The store ports beside logs: KEPT. A new one is its file and a line here, its name in the rows of the partitions that have it
(models/partitions.py), and its adapters (services/stores). Ask kept_by() and every_port().

A log is no row: it is what a partition is, and each command begins with it. Neither are dead letters: one store has those of all
partitions, and backups leave them out (services/upkeep/copying.py).
"""

from __future__ import annotations

from models.partitions import kind_of
from services.upkeep.kept.archive import KeptArchive
from services.upkeep.kept.delivery_ids import KeptDeliveryIds
from services.upkeep.kept.port import AnyPort

KEPT: tuple[AnyPort, ...] = (KeptArchive(), KeptDeliveryIds())


def every_port() -> tuple[AnyPort, ...]:
    return KEPT


def kept_by(partition: str) -> list[AnyPort]:
    """The ports that a partition has beside its log. Raises Broken for one of a kind that is not known."""
    keeps = kind_of(partition).keeps
    return [each for each in KEPT if each.name in keeps]


def counts() -> dict[str, int]:
    """What is counted of all ports, from 0."""
    return {each.counted: 0 for each in KEPT}
