"""What the shard asks before a run begins (models/playbook/check.py). Only in memory: the question changes nothing, and another
process asks it anew."""

from __future__ import annotations

from typing import Any

from models.incidents.incident import id_text
from models.playbook.check import check_of, to_check
from models.playbook.playbook import Playbook
from models.playbook.work import REFUSED, Check, Done

#: The place of such a question.
CHECK = "check"


class RunChecks:
    """Of each incident the one run that may begin next."""

    def __init__(self) -> None:
        self._asking: dict[bytes, tuple[str, Playbook, int, str]] = {}
        self._refused: dict[bytes, tuple[str, str]] = {}

    def why_refused(self, incident: bytes, number: int, book: Playbook, by: str) -> str | None:
        """Why a run is refused, "" when it is not. None: that is being asked."""
        if not to_check(book):
            return ""
        key = f"{id_text(incident)}.check-{number}.{book.digest}"
        known = self._refused.get(incident)
        if known is not None and known[0] == key:
            return known[1]
        self._asking[incident] = key, book, number, by
        return None

    def key(self, incident: bytes) -> str:
        """The key of what is being asked, "" when nothing is."""
        return self._asking[incident][0] if incident in self._asking else ""

    def question(self, incident: bytes, about: dict[str, Any]) -> Check:
        return check_of(*self._asking[incident][:2], about, *self._asking[incident][2:])

    def answered(self, incident: bytes, key: str, done: Done) -> bool:
        """Whether this was waited for. What could not be found out is no refusal: each action is asked about again before it is done."""
        if not key or self.key(incident) != key:
            return False
        del self._asking[incident]
        why = (done.detail or "refused") if done.status == REFUSED else ""
        self._refused[incident] = key, why
        return True

    def drop(self, incident: bytes) -> str:
        """The run began, or does not begin. The key of what was being asked."""
        key = self.key(incident)
        self._asking.pop(incident, None)
        self._refused.pop(incident, None)
        return key

    def clear(self) -> None:
        self._asking.clear()
        self._refused.clear()
