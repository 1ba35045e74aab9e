"""What senders of other formats could do to a gateway: bodies that take long, tokens that must not be kept, messages of Amazon's that
nobody signed.
"""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from models.errors import Busy, Malformed, Unauthorized
from models.ports import DeadLetter
from services.ingest.formats import sns_signature
from services.ingest.formats.sns_signature import QUESTIONS_MAX, SnsSignatures
from services.ingest.formats.values import TIME_CHARS_MAX, Fields, read_json, time_of
from tests.api.gateway_in_process import system
from tests.api.test_format_doors import CERTIFICATE, TOPIC, behind, certificate, first, post, signed, token
from tests.format_cases import raw, samples


def test_the_name_that_stands_twice_is_found_in_one_pass() -> None:
    """Compared with all others this body took eight minutes, and PagerDuty's path reads it before it knows who sends."""
    names = ",".join(f'"{number}":0' for number in range(80_000))
    with pytest.raises(Malformed, match="79999: expected this name once"):
        read_json(f'{{{names},"79999":1}}'.encode())


@pytest.mark.parametrize(
    "at", [read_json(b"1e999"), read_json(b"-1e999"), "2026-01-31T12:00:00." + "0" * TIME_CHARS_MAX]
)
def test_what_is_no_time_is_refused_in_words(at: object) -> None:
    with pytest.raises(Malformed, match="starts_at: expected a time"):
        time_of(at, "starts_at")


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["pagerduty", "opsgenie", "falco", "splunk", "stix"])
async def test_half_of_a_surrogate_pair_in_a_name_or_a_list_costs_its_alert_alone(name: str) -> None:
    body = first(name)
    text = body.decode()
    where = {
        "pagerduty": '"custom_details": {',
        "opsgenie": '"details": {',
        "falco": '"output_fields": {',
        "splunk": '"result": {',
    }
    odd = (
        text.replace('"name": "', '"name": "\\ud800', 1)
        if name == "stix"
        else text.replace(where[name], where[name] + '"\\ud800": "x", ', 1)
    )
    assert odd != text
    async with system() as ours:
        answer = await post(ours, name, odd.encode())

        assert 400 <= answer.status < 500 or b"surrogate" in answer.body, answer.body
        assert b"surrogate" in answer.body
        [letter] = await ours.letters()
        assert isinstance(letter, DeadLetter) and b"\\ud800" in letter.payload


@pytest.mark.asyncio
async def test_a_token_in_a_body_is_in_no_dead_letter() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:pagerduty", "ingest:v1")
        event = {**samples("pagerduty")["cases"][0]["body"], "routing_key": secret}
        bad = await post(ours, "pagerduty", raw({**event, "event_action": secret}))
        worse = await post(ours, "pagerduty", raw({**event, "payload": 7}))
        header = {"Authorization": f"Bearer {secret}"}
        labels = await ours.post("/v1/alerts", [{"labels": {"alertname": 7, "x": secret}}], headers=header)

        assert (bad.status, worse.status, labels.status) == (400, 400, 400)
        letters = await ours.letters(3)
        token_id = secret.split("_")[1]
        for letter in letters:
            assert isinstance(letter, DeadLetter)
            assert secret not in letter.payload.decode() + letter.reason
            assert secret[-43:] not in letter.payload.decode() + letter.reason
            assert f"llmim_{token_id}_..." in letter.payload.decode()


@pytest.mark.asyncio
async def test_a_stranger_has_no_body_read_before_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with system(auth={"required": True}) as ours:

        def reads(*_given: object) -> object:
            raise AssertionError("read for nobody")

        monkeypatch.setattr("services.ingest.formats.pagerduty.read_json", reads)
        answer = await ours.post("/v2/enqueue", {"routing_key": "llmim_0123456789ab_" + "x" * 43})

        assert answer.status == 401


# -- Amazon ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_beside_a_signed_message_nothing_unsigned_gets_in() -> None:
    forged = {**signed(), "Records": [{"Sns": {**signed(), "Message": "all is well"}}]}
    async with system(auth={"required": True}, formats={"sns_topics": [TOPIC]}) as ours:
        behind(ours, certificate())
        answer = await ours.post("/v1/events/sns", forged)

        assert answer.status == 400 and b"nothing of these is signed" in answer.body


@pytest.mark.asyncio
async def test_strangers_neither_push_certificates_out_nor_have_amazon_asked_without_end() -> None:
    going = asyncio.Event()
    asked: list[str] = []

    async def slow(url: str) -> bytes:
        asked.append(url)
        await going.wait()
        return certificate()

    signatures = SnsSignatures(slow)
    with pytest.raises(Unauthorized):
        await signatures.check(Fields(signed(SigningCertURL=CERTIFICATE + "?x")), 0.0)
    others = [CERTIFICATE.replace("0123.pem", f"{number:04}.pem") for number in range(50)]
    waiting = [
        asyncio.ensure_future(signatures.check(Fields(signed(SigningCertURL=each)), 0.0)) for each in others
    ]
    await asyncio.sleep(0)
    going.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert len(asked) == QUESTIONS_MAX
    assert sum(isinstance(each, Busy) for each in results) == len(others) - QUESTIONS_MAX


@pytest.mark.asyncio
async def test_a_certificate_that_comes_in_pieces_is_read_whole() -> None:
    whole = certificate()

    async def pieces(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for at in range(0, len(whole), 100):
            await answer.write(whole[at : at + 100])
            await asyncio.sleep(0.001)
        return answer

    app = web.Application()
    app.router.add_get("/pem", pieces)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        assert await sns_signature.get(f"http://127.0.0.1:{port}/pem") == whole
    finally:
        await runner.cleanup()
