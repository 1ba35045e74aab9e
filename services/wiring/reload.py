"""Settings changed while it runs: which may be, and what each kind of process is then told.

A gateway takes the request (services/api/v1/config.py), the control actor stores the event, and every process takes it
over from the control log within a second or two. What needs a restart is refused by name, and then nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from models.control.events import SettingsChanged
from models.errors import Conflict
from models.settings.all import Settings
from models.settings.keys import KEYS
from models.settings.secrets import masks_of
from models.settings.values import Section
from services.settings.names import FLAGS
from services.settings.shown import masked, masked_json, written
from services.wiring.actors import given_while_running

T = TypeVar("T", bound=Section)


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, as one would write it before and after."""

    key: str
    before: object
    after: object


def wanted_over(running: Settings, wanted: Settings) -> Settings:
    """`wanted`, with what it leaves out of flags and secrets as it runs: a file does not speak against what only the
    command line said, and who sends a few settings by hand need not know the webhook."""
    for key in KEYS.values():
        if (key.is_secret or key.name in FLAGS) and not _says(wanted, key.path):
            wanted = _with(wanted, key.path, key.of(running))
    # What runs has as many as the slot map says, whatever is written.
    return _with(wanted, ("state", "partitions"), running.state.partitions)


def _says(section: Section, path: tuple[str, ...]) -> bool:
    for name in path[:-1]:
        if name not in section.model_fields_set:
            return False
        section = getattr(section, name)
    return path[-1] in section.model_fields_set


def _with(section: T, path: tuple[str, ...], value: object) -> T:
    name, rest = path[0], path[1:]
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})


def compare(running: Settings, wanted: Settings) -> list[Change]:
    """What a change leads to. Raises Conflict that names what would need a restart."""
    running, wanted = masked(running), masked(wanted)
    different = [key for key in KEYS.values() if key.of(running) != key.of(wanted) and not key.is_later]
    fixed = [key.name for key in different if not key.is_live]
    if masks_of(wanted.notify.receivers) - masks_of(running.notify):
        # No log may hold a secret, and processes get theirs when they start.
        fixed.append("notify.receivers (a secret that was not there at the start)")
    elif not fixed and bool(running.notify.why_off) != bool(wanted.notify.why_off):
        fixed.append("notify.receivers (the first one, or none any more)")
    if fixed:
        raise Conflict(
            f"{', '.join(fixed)}: changed, and that needs a restart (llm-im down, then llm-im up); "
            "nothing was changed"
        )
    return [
        Change(key.name, written(key, key.of(running)), written(key, key.of(wanted))) for key in different
    ]


def refuse_other(running: str, wanted: Settings) -> None:
    """For who starts something into what runs by `running` (masked_json). Raises Conflict that names what differs: what
    lives keeps its settings, what is started anew would go by others. Another number of gateways is no other setting to
    those that run: starting again is how there come to be more, or fewer."""
    now = Settings.model_validate_json(running)
    wanted = _with(wanted, ("server", "gateways"), now.server.gateways)
    if now.notify.enabled != wanted.notify.enabled:
        # Said by a flag, and no other flag must be forgotten with such effect: half of it would tell people.
        runs, asked = ("on", "off") if now.notify.enabled else ("off", "on")
        raise Conflict(
            f"it runs with notifications {runs}, this start wants them {asked}; first: llm-im down"
        )
    if changes := compare(now, wanted_over(now, wanted)):
        raise Conflict(
            f"{', '.join(change.key for change in changes)}: changed since it was started; first: llm-im config reload, "
            "or llm-im down"
        )


def event_of(start: str, actor: str, changes: list[Change], settings: Settings) -> SettingsChanged:
    """What the control log holds of a change, and hands to every process."""
    return SettingsChanged(
        start,
        actor,
        {change.key: str(change.after) for change in changes},
        masked_json(settings),
        b"",
        b"",
        settings.logging.level,
        given_while_running(settings),
    )
