"""Who may send to the formats of other senders: tokens where these senders can put one, signatures instead of tokens, Amazon's
certificate, further paths and their methods.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from models.errors import Busy
from services.ingest.formats.sns import SnsFormat
from services.ingest.formats.sns_signature import SnsSignatures
from tests.api.gateway_in_process import Reply, System, system
from tests.format_cases import WEBHOOKS, raw, samples

TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123.pem"


def first(name: str) -> bytes:
    return raw(samples(name)["cases"][0]["body"])


async def post(ours: System, name: str, body: bytes, query: str = "", **headers: str) -> Reply:
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    return await ours.post(WEBHOOKS[name].path + query, body, headers=given)


async def token(ours: System, *scopes: str) -> str:
    admin = await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})
    by_admin = {"Authorization": f"Bearer {admin.json['token']}"}
    made = await ours.post("/v1/tokens", {"name": "sender", "scopes": list(scopes)}, headers=by_admin)
    return str(made.json["token"])


@pytest.mark.asyncio
async def test_a_token_is_taken_where_a_sender_can_put_one() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:datadog", "ingest:pagerduty", "ingest:opsgenie")
        routed = {**json.loads(first("pagerduty")), "routing_key": secret}
        answers = {
            "bearer": await post(ours, "datadog", first("datadog"), Authorization=f"Bearer {secret}"),
            "query": await post(ours, "datadog", first("datadog"), f"?token={secret}"),
            "routing key": await post(ours, "pagerduty", raw(routed)),
            "header before routing key": await post(
                ours, "pagerduty", first("pagerduty"), Authorization=f"Bearer {secret}"
            ),
            "genie key": await post(ours, "opsgenie", first("opsgenie"), Authorization=f"GenieKey {secret}"),
            "none": await post(ours, "datadog", first("datadog")),
            "no routing key of ours": await post(ours, "pagerduty", first("pagerduty")),
            "another scope": await post(ours, "grafana", first("grafana"), f"?token={secret}"),
            "no event at all": await post(ours, "pagerduty", b"{"),
        }

        assert {how: answer.status for how, answer in answers.items()} == {
            "bearer": 202, "query": 202, "routing key": 202, "header before routing key": 202, "genie key": 202,
            "none": 401, "no routing key of ours": 401, "another scope": 403, "no event at all": 401,
        }  # fmt: skip


def github(body: bytes) -> dict[str, str]:
    return {"X_Hub_Signature_256": "sha256=" + hmac.new(b"s3", body, hashlib.sha256).hexdigest()}


def sentry(body: bytes) -> dict[str, str]:
    return {"Sentry_Hook_Signature": hmac.new(b"s3", body, hashlib.sha256).hexdigest()}


def pagerduty(body: bytes) -> dict[str, str]:
    right = hmac.new(b"s3", body, hashlib.sha256).hexdigest()
    return {"X_PagerDuty_Signature": f"v1={'0' * 64},v1={right}"}


SIGNED = {
    "github": ("github_secret", github),
    "sentry": ("sentry_secret", sentry),
    "pagerduty-webhook": ("pagerduty_secret", pagerduty),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SIGNED)
async def test_with_its_secret_a_signature_stands_for_the_token_and_nothing_else_does(name: str) -> None:
    setting, sign = SIGNED[name]
    body = first(name)
    async with system(auth={"required": True}, formats={setting: "s3"}) as ours:
        signed = await post(ours, name, body, **sign(body))
        forged = await post(ours, name, body, **sign(body + b" "))
        unsigned = await post(ours, name, body)

        assert signed.status == 202
        for refused, words in ((forged, b"is not that of this body"), (unsigned, b"is missing")):
            assert refused.status == 401
            assert words in refused.body
            assert "www-authenticate" not in refused.headers
    async with system(formats={setting: "s3"}) as ours:
        by_shape = await ours.post("/v1/events", body)
        assert by_shape.status == 401


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(days: int = 1) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def signed(version: str = "1", **changes: str) -> dict[str, Any]:
    """A message of SNS as Amazon signs it."""
    message = {
        **samples("sns")["cases"][1]["body"],
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
        **changes,
    }
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if message["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    digest = hashes.SHA256() if version == "2" else hashes.SHA1()
    message["Signature"] = base64.b64encode(KEY.sign(text.encode(), padding.PKCS1v15(), digest)).decode()
    return message


class Amazon:
    """What stands behind its addresses, and which of them were asked for."""

    def __init__(self, pem: bytes) -> None:
        self.pem = pem
        self.asked: list[str] = []

    async def get(self, url: str) -> bytes:
        self.asked.append(url)
        if not self.pem:
            raise Busy("sns.eu-west-1.amazonaws.com can't be asked")
        return self.pem


def behind(ours: System, pem: bytes) -> Amazon:
    amazon = Amazon(pem)
    form = ours.gateway.station.shared.formats["sns"]
    assert isinstance(form, SnsFormat)
    form.signatures = SnsSignatures(amazon.get)
    return amazon


CONFIRMATION = {
    "Type": "SubscriptionConfirmation", "Token": "t", "Message": "You have chosen to subscribe",
    "SubscribeURL": f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t",
}  # fmt: skip


@pytest.mark.asyncio
async def test_what_amazon_signed_for_a_topic_of_ours_needs_no_token_and_nothing_else_is_taken() -> None:
    forged = {**signed(), "Message": "something else"}
    async with system(auth={"required": True}, formats={"sns_topics": [TOPIC]}) as ours:
        amazon = behind(ours, certificate())
        answers = {
            "version 1": await ours.post("/v1/events/sns", signed()),
            "version 2": await ours.post("/v1/events/sns", signed("2", MessageId="m2")),
            "forged": await ours.post("/v1/events/sns", forged),
            "another topic": await ours.post("/v1/events/sns", signed(TopicArn=TOPIC + "2")),
            "unsigned": await ours.post("/v1/events/sns", {**signed(), "Signature": ""}),
            "elsewhere": await ours.post("/v1/events/sns", signed(SigningCertURL="https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef0123.pem")),
            "by http": await ours.post("/v1/events/sns", signed(SigningCertURL=CERTIFICATE.replace("https", "http"))),
            "another port": await ours.post("/v1/events/sns", signed(SigningCertURL=CERTIFICATE.replace(".com/", ".com:8443/"))),
            "a user": await ours.post("/v1/events/sns", signed(SigningCertURL=CERTIFICATE.replace("sns.", "a@sns."))),
            "another file": await ours.post("/v1/events/sns", signed(SigningCertURL="https://sns.eu-west-1.amazonaws.com/?x.pem")),
        }  # fmt: skip

        assert {how: answer.status for how, answer in answers.items()} == {
            how: 202 if how.startswith("version") else 401 for how in answers
        }
        assert amazon.asked == [CERTIFICATE]


@pytest.mark.asyncio
async def test_a_subscription_is_confirmed_for_a_topic_of_ours_alone() -> None:
    elsewhere = {**CONFIRMATION, "SubscribeURL": "https://evil.example/?Action=ConfirmSubscription"}
    async with system(formats={"sns_topics": [TOPIC]}) as ours:
        amazon = behind(ours, certificate())
        confirmed = await ours.post("/v1/events/sns", signed(**CONFIRMATION))
        refused = await ours.post("/v1/events/sns", signed(**elsewhere))

        assert (confirmed.status, confirmed.json) == (200, {"format": "sns", "message": "confirmed"})
        assert refused.status == 401
        assert amazon.asked == [CERTIFICATE, CONFIRMATION["SubscribeURL"]]
    async with system() as ours:
        amazon = behind(ours, certificate())
        unknown = await ours.post("/v1/events/sns", signed(**CONFIRMATION))

        assert unknown.status == 400 and b"is not in formats.sns_topics" in unknown.body
        assert not amazon.asked


@pytest.mark.asyncio
async def test_a_certificate_that_is_old_or_cannot_be_had_lets_nothing_in() -> None:
    async with system(formats={"sns_topics": [TOPIC]}) as ours:
        behind(ours, certificate(days=-1))
        old = await ours.post("/v1/events/sns", signed())
        behind(ours, b"")
        away = await ours.post("/v1/events/sns", signed())
        behind(ours, b"<html>")
        other = await ours.post("/v1/events/sns", signed())

        assert (old.status, away.status, other.status) == (401, 503, 401)
        assert int(away.headers["retry-after"]) >= 1


@pytest.mark.asyncio
async def test_opsgenies_further_paths_answer_as_opsgenie_does_and_take_nothing_else() -> None:
    async with system() as ours:
        created = await ours.post("/v2/alerts", first("opsgenie"))
        state = await ours.get(f"/v2/alerts/requests/{created.json['requestId']}")
        alert_id = state.json["data"]["alertId"]
        nothing = await ours.get("/v2/alerts/requests/43a29c5c-3dbf-4fa4-9c26-f4f71023e120")
        put = await ours.request("PUT", f"/v2/alerts/{alert_id}/close", [b""], [])
        noted = await ours.get(f"/v2/alerts/{alert_id}/notes")
        tiny = await ours.post("/v2/alerts/7/close?identifierType=tiny", {})
        assert len(await ours.alerts()) == 1
        deleted = await ours.request("DELETE", f"/v2/alerts/{alert_id}", [b""], [])

        assert state.json["data"]["status"] == "Created alert"
        assert (nothing.status, tiny.status, deleted.status) == (404, 422, 202)
        assert (put.status, put.headers["allow"]) == (405, "POST")
        assert (noted.status, noted.headers["allow"]) == (405, "POST")
        for answer in (nothing, put, tiny, noted):
            assert set(answer.json) == {"message", "took", "requestId"}
        assert not await ours.alerts()


@pytest.mark.asyncio
async def test_two_triggers_without_a_dedup_key_are_two_alerts_and_each_key_ends_its_own() -> None:
    event = {
        key: value for key, value in samples("pagerduty")["cases"][0]["body"].items() if key != "dedup_key"
    }
    async with system() as ours:
        keys = [(await ours.post("/v2/enqueue", event)).json["dedup_key"] for _ in range(2)]
        assert len(set(keys)) == 2 and len(await ours.alerts()) == 2

        await ours.post(
            "/v2/enqueue",
            {"routing_key": event["routing_key"], "event_action": "resolve", "dedup_key": keys[0]},
        )

        [left] = await ours.alerts()
        assert left["labels"]["dedup_key"] == keys[1]


@pytest.mark.asyncio
async def test_a_gateway_that_did_not_take_the_trigger_finds_what_a_resolve_ends() -> None:
    async with system() as ours:
        await ours.post("/v2/enqueue", first("pagerduty"))
        # As after a restart, or in another gateway.
        ours.gateway.station.shared.open_alerts._labels.clear()

        answer = await ours.post("/v2/enqueue", samples("pagerduty")["cases"][4]["body"])

        assert answer.status == 202
        assert not await ours.alerts()


@pytest.mark.asyncio
async def test_a_taxii_client_finds_the_collection_that_it_may_add_to() -> None:
    async with system() as ours:
        discovery = await ours.get("/taxii2/")
        root = discovery.json["default"]
        asked = [await ours.get(f"{root}{rest}") for rest in ("", "collections/")]
        [collection] = asked[1].json["collections"]
        one = await ours.get(f"{root}collections/{collection['id']}/")
        added = await ours.post(
            f"{root}collections/{collection['id']}/objects/",
            {"objects": samples("taxii")["cases"][0]["body"]["objects"]},
            content_type="application/taxii+json;version=2.1",
        )
        nothing = await ours.post(f"{root}collections/{collection['id']}/objects/", b"{")
        reading = await ours.get(f"{root}collections/{collection['id']}/objects/")

        assert {answer.status for answer in (discovery, *asked, one)} == {200}
        assert {answer.headers["content-type"] for answer in (discovery, *asked, one, added, nothing)} == {
            "application/taxii+json;version=2.1"
        }
        assert one.json == collection and collection["can_write"] and not collection["can_read"]
        assert (added.status, nothing.status, reading.status) == (202, 400, 405)
        assert nothing.json["http_status"] == "400"
        assert len(await ours.alerts()) == 1
