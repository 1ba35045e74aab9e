"""Amazon SNS over HTTPS: CloudWatch alarms, EventBridge events, and any other message. With `formats.sns_topics` Amazon's signature is
asked for instead of a token, and a subscription to one of these topics is confirmed; nothing is ever asked of another host than
sns.REGION.amazonaws.com.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from models.errors import Malformed, Unauthorized
from services.ingest.arrival import Sender
from services.ingest.formats.answers import Answer, encode_json
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.reading import Reading
from services.ingest.formats.received import received
from services.ingest.formats.sns_signature import SnsSignatures
from services.ingest.formats.values import Fields, read_json
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name
from services.ingest.submit import Receipt

_CONFIRM = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
STATES = ("alarm", "ok", "insufficient_data")
#: Dimensions of a metric that say which service it is of, best first.
_SERVICES = (
    "ServiceName",
    "FunctionName",
    "DBInstanceIdentifier",
    "LoadBalancer",
    "ApiName",
    "ClusterName",
    "QueueName",
    "TopicName",
    "InstanceId",
)


class SnsFormat(WebhookFormat):
    name = "sns"
    path = "/v1/events/sns"
    summary = "Amazon SNS: CloudWatch alarms, EventBridge events, any message"
    shape = "Type, TopicArn, Message; or AlarmName; or Records with Sns; or detail, source and detail-type"
    severities = {"alarm": "P1", "insufficient_data": "P3", "": "P3"}
    prepares = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._topics = frozenset(shared.settings.formats.sns_topics)
        self.is_signed = bool(self._topics)
        self.signatures = SnsSignatures()

    def takes_type(self, content_type: str, headers: Mapping[bytes, bytes]) -> bool:
        # SNS says text/plain of its JSON.
        return content_type in self.content_types or b"x-amz-sns-message-type" in headers

    def verify(self, request: Request) -> Sender:
        """Whether the message is of our topics; that Amazon says so is seen in prepare(), which may have to ask for a certificate."""
        topic = Fields(read_json(request.body)).text("TopicArn")
        if topic not in self._topics:
            raise Unauthorized(f"TopicArn: expected one of formats.sns_topics, got {topic[:120] or 'none'}")
        return Sender("sns")

    async def prepare(self, request: Request) -> None:
        if not self._topics and self.knows(request):
            return
        message = Fields(self.read_ahead(request))
        kind = message.text("Type")
        if self._topics:
            await self.signatures.check(message, request.received_at)
            if kind == "SubscriptionConfirmation":
                await self.signatures.confirm(message)
        elif kind == "SubscriptionConfirmation":
            raise Malformed(
                f"TopicArn: {message.text('TopicArn')[:120]} is not in formats.sns_topics: a subscription is confirmed only for "
                "a topic that the settings name. Name it, then have SNS ask again"
            )

    def rereads(self) -> Iterable[bytes]:
        return (b"x-amz-sns-message-type",)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        sent = Fields(body)
        if sent.text("Type") in _CONFIRM:
            return []
        if "Records" in sent:
            if self._topics:
                raise Malformed("Records: expected a message as SNS signs it; nothing of these is signed")
            return self.each(sent.members("Records"), self._record)
        return self.each([(body, "")], self._message)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if not reading.count:
            return Answer(
                200, b"application/json", encode_json({"format": self.name, "message": "confirmed"})
            )
        return await received(reading, receipt, self.name)

    def _record(self, record: Fields) -> Iterator[Draft]:
        if "Sns" not in record:
            raise Malformed(f"{record.path('Sns')}: expected a message of SNS, as Lambda gets it")
        yield self._message(record.inner("Sns"))

    def _message(self, message: Fields) -> Draft:
        inner: object = message.get("Message")
        if isinstance(inner, str) and inner.lstrip().startswith("{"):
            inner = read_json(message.text("Message").encode())
        if "Message" not in message:
            inner = message.values  # delivered raw, or an event of EventBridge by itself
        if not isinstance(inner, dict):
            return self._words(message)
        alarm = Fields(inner, "" if inner is message.values else message.path("Message"))
        if "AlarmName" in alarm:
            return self._alarm(alarm)
        if "detail-type" in alarm:
            return self._event(alarm)
        if alarm.values is message.values:
            message.need("Message")
        return self._words(message)

    def _alarm(self, alarm: Fields) -> Draft:
        state, at = alarm.one_of("NewStateValue", STATES, "ALARM"), alarm.time("StateChangeTime")
        trigger = alarm.inner("Trigger") if isinstance(alarm.get("Trigger"), dict) else alarm
        sizes = dict(_dimensions(trigger))
        name = alarm.need("AlarmName")
        service = next((sizes[each] for each in _SERVICES if sizes.get(each)), "") or next(
            iter(sizes.values()), ""
        )
        return self.alert(
            name,
            service or trigger.text("Namespace"),
            title=alarm.text("AlarmDescription") or f"{name}: {state.upper()}",
            text=alarm.text("NewStateReason", "AlarmDescription"),
            severity=alarm.text("Priority") or state.upper(),
            resolved=state == "ok",
            labels={
                "account": alarm.text("AWSAccountId"),
                "region": alarm.text("Region"),
                "namespace": trigger.text("Namespace"),
            },
            notes={
                "arn": alarm.text("AlarmArn"),
                "metric": trigger.text("MetricName"),
                "state": state,
                **sizes,
            },
            starts=at if state != "ok" else 0.0,
            ends=at if state == "ok" else 0.0,
        )

    def _event(self, event: Fields) -> Draft:
        detail, kind = event.inner("detail"), event.need("detail-type")
        state = (
            detail.text("state.value")
            if isinstance(detail.get("state"), dict)
            else detail.text("state", "status")
        )
        resources = [each.rpartition(":")[2].rpartition("/")[2] for each in event.texts("resources")]
        name = detail.text("alarmName") or kind
        return self.alert(
            name,
            detail.text("application", "service", "pipeline", "project-name") or next(iter(resources), ""),
            title=f"{name}: {state}" if state else name,
            text=detail.text("state.reason")
            if isinstance(detail.get("state"), dict)
            else detail.text("reason", "description"),
            severity=state,
            resolved=state.lower() in ("ok", "success", "succeeded", "resolved", "closed"),
            labels={
                "account": event.text("account"),
                "region": event.text("region"),
                "aws_source": event.text("source"),
            },
            notes={"event_id": event.text("id"), "resources": ", ".join(resources), **detail.pairs()},
            starts=event.time("time") if state.lower() not in ("ok", "success", "succeeded") else 0.0,
        )

    def _words(self, message: Fields) -> Draft:
        text = (
            message.text("Message")
            if isinstance(message.get("Message"), str)
            else message.pairs("Message").get("message", "")
        )
        topic = message.text("TopicArn").rpartition(":")[2]
        subject = message.text("Subject") or text.partition("\n")[0]
        return self.alert(
            stable_name(subject) or topic,
            topic,
            title=subject or message.need("Subject"),
            text=text,
            labels={"topic": message.text("TopicArn")},
            notes={"message_id": message.text("MessageId")},
            starts=message.time("Timestamp"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if b"x-amz-sns-message-type" in headers:
            return True
        if not isinstance(body, dict):
            return False
        records, message = body.get("Records"), body.get("Message")
        first = records[0] if isinstance(records, list) and records else None
        return (
            {"TopicArn", "Type"} <= body.keys()
            or (isinstance(first, dict) and "Sns" in first)
            or (isinstance(message, dict) and "AlarmName" in message)
            or "AlarmName" in body
            or {"detail-type", "detail", "source"} <= body.keys()
        )


def _dimensions(trigger: Fields) -> Iterator[tuple[str, str]]:
    """The dimensions of a metric, or of the metrics that an expression is made of."""
    metrics = trigger.objects("Metrics") if isinstance(trigger.get("Metrics"), list) else iter(())
    found = [each.inner("MetricStat").inner("Metric") for each in metrics if "MetricStat" in each]
    for one in [trigger, *found]:
        for each in one.objects("Dimensions"):
            yield each.text("name", "Name"), each.text("value", "Value")
