"""What a severity word may mean, and which impact goes with a severity."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from models.incidents.incident import Severity

#: What an incident is when nothing speaks: someone should look, nobody is woken.
DEFAULT_SEVERITY = Severity.P2

#: Impact words, worst first; the index is the severity they belong to.
IMPACTS = ("critical", "major", "minor", "none")

#: A severity word is short; what is longer is not one.
SIGNAL_CHARS = 64


def impact_of(severity: Severity) -> str:
    """The impact that goes with a severity when nothing says more."""
    return IMPACTS[min(severity, len(IMPACTS) - 1)]


class Range(NamedTuple):
    """What a severity word may mean: from `worst` to `best`, `usual` when words say nothing."""

    worst: Severity
    best: Severity
    usual: Severity


def range_of(word: str) -> Range | None:
    """What a severity word means, None when it is none we know. "P1 - Critical", "SEV 1", "Warn" are read too."""
    return None if len(word) > SIGNAL_CHARS else _range_of(word)


@lru_cache(maxsize=4096)  # Senders use a handful of words; 4,096 long ones are 0.5 MB at most.
def _range_of(word: str) -> Range | None:
    folded = word.casefold()
    squeezed = re.sub(r"[\W_]+", "", folded)
    known = SEVERITY_WORDS.get(squeezed)
    if known is not None:
        return known
    for token in re.findall(r"[a-z]+\d*|\d+", folded):
        known = SEVERITY_WORDS.get(token)
        if known is not None:
            return known
    return None


_P0, _P1, _P2, _P3, _P4 = Severity


def _fixed(severity: Severity) -> Range:
    return Range(severity, severity, severity)


def _between(worst: Severity, best: Severity, usual: Severity) -> Range:
    return Range(worst, best, usual)


#: Severity words of the senders we know, squeezed to letters and digits: P and SEV scales as written (Azure's Sev0
#: is critical; where SEV1 is the worst, words raise it), Prometheus, syslog, Zabbix, ITU X.733, PagerDuty, Opsgenie.
SEVERITY_WORDS: dict[str, Range] = {
    **{f"p{n}": _fixed(Severity(n)) for n in range(5)},
    **{f"{n}": _fixed(Severity(n)) for n in range(5)},
    **{f"prio{n}": _fixed(Severity(n)) for n in range(5)},
    **{f"priority{n}": _fixed(Severity(n)) for n in range(5)},
    **{f"{scale}{n}": _fixed(Severity(n)) for scale in ("sev", "s", "severity") for n in (0, 2, 3, 4)},
    **{f"{scale}1": _between(_P0, _P1, _P1) for scale in ("sev", "s", "severity")},
    **{f"{scale}5": _fixed(_P4) for scale in ("p", "sev", "s", "severity", "prio", "priority", "")},
    **{word: _fixed(_P0) for word in ("disaster", "emergency", "emerg", "catastrophic", "blocker")},
    **{
        word: _between(_P0, _P1, _P1)
        for word in (
            "critical",
            "crit",
            "fatal",
            "page",
            "pager",
            "alert",
            "urgent",
            "panic",
            "severe",
            "red",
            "highest",
        )
    },
    **{word: _fixed(_P1) for word in ("high", "major")},
    **{word: _between(_P1, _P2, _P2) for word in ("error", "err", "orange", "important")},
    **{word: _fixed(_P2) for word in ("average", "medium", "moderate", "normal", "amber")},
    **{word: _between(_P2, _P3, _P2) for word in ("warning", "warn", "yellow", "degraded")},
    **{word: _between(_P2, _P3, _P3) for word in ("minor", "ticket")},
    **{word: _fixed(_P3) for word in ("low", "trivial", "lowest")},
    **{word: _between(_P3, _P4, _P4) for word in ("info", "information", "informational", "notice", "green")},
    **{
        word: _fixed(_P4)
        for word in ("none", "debug", "trace", "verbose", "ok", "okay", "cleared", "resolved", "success")
    },
}
