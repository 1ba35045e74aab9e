"""What may leave a Worker: bounded outputs and captures, plain data, and no secret that the settings hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from models.playbook.work import CAPTURE_MAX, OUTPUTS_MAX, Capture, Done, IncidentEffect, is_plain
from services.playbooks.kind import DETAIL_MAX, failed

#: Captures of one answer, and all their text together: what one action records for people.
CAPTURES_MAX = 8
#: Shorter ones are no secrets, and taking them out would mangle the text.
_SECRET_CHARS = 6
#: What stands for a secret that was taken out.
_MASK = "***"
_NOTE = "[cut]"


class Bounds:
    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets` are taken out of all that leaves."""
        self._secrets = sorted(
            {each for each in secrets if len(each) >= _SECRET_CHARS}, key=len, reverse=True
        )

    def applied(self, done: Done) -> Done:
        if not is_plain(done.items):
            return failed(
                "an item of its loop can't be kept: nested too deep, or no plain text or number",
                final=True,
                reached=False,
            )
        captures, left = [], CAPTURE_MAX
        for each in done.captures[:CAPTURES_MAX]:
            text, cut = _cut(self.clean(each.text), left)
            captures.append(Capture(each.name[:200], each.media_type[:100], text, each.cut or cut))
            left -= len(text.encode("utf-8", "surrogatepass"))
        return msgspec.structs.replace(
            done,
            detail=self.clean(done.detail)[:DETAIL_MAX],
            decided=self.clean(done.decided)[:DETAIL_MAX],
            outputs=self._outputs(done.outputs),
            captures=tuple(captures),
            effects=tuple(
                IncidentEffect(each.what, self.clean(each.value), each.due_at, self.clean(each.ref))
                for each in done.effects
            ),
        )

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, _MASK)
        # Half a character, as a template can write, can't be sent.
        return text if text.isascii() else text.encode("utf-8", "replace").decode()

    def _outputs(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """As JSON within OUTPUTS_MAX: what does not fit is left out, and `cut` says so."""
        kept: dict[str, Any] = {}
        size, cut = 2, False
        for name, value in outputs.items():
            try:
                if not is_plain(value):
                    raise ValueError
                encoded = msgspec.json.encode(value)
            except (TypeError, ValueError, RecursionError):
                kept[name] = _NOTE
                cut = True
                continue
            size += len(encoded) + len(name) + 4
            if size > OUTPUTS_MAX:
                size -= len(encoded)
                kept[name] = _NOTE
                cut = True
                continue
            kept[name] = self._cleaned(msgspec.json.decode(encoded))
        if cut:
            kept["cut"] = True
        return kept

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, dict):
            return {name: self._cleaned(each) for name, each in value.items()}
        return [self._cleaned(each) for each in value] if isinstance(value, list) else value


def _cut(text: str, limit: int) -> tuple[str, bool]:
    """At most `limit` bytes of it, whole characters, and whether that is less."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode("utf-8"), False
    return encoded[: max(limit, 0)].decode("utf-8", "ignore"), True
