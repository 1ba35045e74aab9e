"""What the answer of a receiver means, for every channel by HTTP (http_call.py):

    2xx              taken
    400, 413, 422    final: the receiver speaks of this body, which will not change
    all else         try again; Retry-After goes along as retry_after_s. Also 401, 403 and 404: a token is rotated, an
                     ingress is reloaded, and minutes later the same request is taken
Redirects are not followed: a notification must not wander to another host. Only 5xx, 408 and trouble after the
connection was made may have reached somebody anyway (ActionResult.reached). No secret leaves this file: a detail names
scheme, host and port only, and what the receiver says is cut and cleaned of the URL's parts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from models.ports import ActionResult
from services.actions.outbound import Answer, CallFailed, CallRefused, place_of

#: Characters of a refusal that are kept as its detail: enough for "invalid_token" or a JSON error.
DETAIL_CHARS = 200
#: A Retry-After over a day counts as a day: a notification not accepted for that long is given up anyway.
MAX_RETRY_AFTER_S = 86_400.0
#: Statuses that concern this one body: malformed, too large, not understood.
FINAL = frozenset({400, 413, 422})
#: Request timeout: a proxy in front may have passed it on. All other 3xx and 4xx mean that it was not accepted.
REQUEST_TIMEOUT = 408
#: Parts of a URL shorter than this are not secrets, and removing them would mangle the detail.
_SECRET_CHARS = 4
#: Path parts are secret only when they are long: "alerts" is a place, a chat webhook's 24 letters are a password.
_SECRET_PATH_CHARS = 12


def result_of(
    url: str, answer: Answer, secrets: Iterable[str] = (), *, final: frozenset[int] = FINAL
) -> ActionResult:
    """What an answer from `url` means (above), without the URL's secrets and `secrets` in what it tells. `final`: the statuses
    that no further try changes."""
    status = answer.status
    answered = f"{place_of(url)} answered {status}"
    if 200 <= status < 300:
        return ActionResult(ok=True, detail=answered)
    if 300 <= status < 400:
        return ActionResult(ok=False, detail=f"{answered}: a redirect, which is not followed", reached=False)
    cleaned = cleaned_of_secrets(answer.text, (*secrets_of(url), *secrets))
    return ActionResult(
        ok=False,
        detail=f"{answered}: {cleaned}" if cleaned else answered,
        final=status in final,
        retry_after_s=seconds_of(answer.headers.get("retry-after")),
        reached=status >= 500 or status == REQUEST_TIMEOUT,
    )


def result_of_error(error: CallFailed | CallRefused) -> ActionResult:
    """What no answer means. A refused address stays refused until somebody changes the settings."""
    if isinstance(error, CallRefused):
        return ActionResult(ok=False, detail=str(error), final=True, reached=False)
    return ActionResult(ok=False, detail=str(error), reached=error.reached)


def cleaned_of_secrets(said: str, secrets: Iterable[str]) -> str:
    """One line of what a receiver said, at most DETAIL_CHARS, with *** for each secret."""
    # Cleaned before it is cut, or a secret across the cut would stay in part; decoded before it is cleaned,
    # because receivers echo URLs in other encodings than they got.
    said = unquote(said).replace("\\/", "/")
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            said = said.replace(secret, "***")
    line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return line[:DETAIL_CHARS]


def seconds_of(retry_after: str | None) -> float:
    """Retry-After in seconds, given as a number or a date; 0 when absent or unreadable."""
    if not retry_after:
        return 0.0
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(round(wait_s, 1), 0.0), MAX_RETRY_AFTER_S)


def secrets_of(url: str) -> tuple[str, ...]:
    """The parts of a URL that must not be shown, as written and decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return (url,)
    found = {url, parts.query, parts.username or "", parts.password or "", parts.fragment}
    found.update(value for _, value in parse_qsl(parts.query))
    found.update(part for part in parts.path.split("/") if len(part) >= _SECRET_PATH_CHARS)
    found |= {decoded for part in found for decoded in (unquote(part), unquote_plus(part))}
    return tuple(part for part in found if len(part) >= _SECRET_CHARS)
