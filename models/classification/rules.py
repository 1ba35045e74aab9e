"""Rules classification: severity, type and impact of an incident from its labels, source and words.

Called by actors/classifier.py. The settings' rules are asked first, then the built-in ones; of severity, type
and impact each is taken from the first rule that gives it, and the verdict's `by` names those rules.

The built-in rules, in order:
    label   a severity word (Classify.signals, else the labels of SEVERITY_LABELS) gives a range, words place it
            within the range: Prometheus' "critical" is P0 or P1. Of several the most severe counts.
            A label of TYPE_LABELS may name the type, the label `impact` the impact.
    words   weighted terms of title, alert name, description and source (the vocabulary below), title double. The
            service's own name is no evidence.
    default P2, Unknown.
Impact is a word for how much of the service its users have lost: "critical" (all of it or all of them), "major"
(a part is gone), "minor" (it works, worse than it should), "none" (nobody notices; planned or over).
Unless a rule or label says it, it follows the severity (P0 .. P2, then none).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from models.alerts.patterns import Budget, Pattern, rule_pattern
from models.errors import TooLarge
from models.incidents.incident import IncidentType, Severity
from models.shard.effects import Classify
from models.shard.messages import Classification

#: How sure a verdict's severity is, by what gave it. Rough figures, not fitted: a label is the author's own word
#: (the same alert name has the same severity in 3 of 4 repositories), words are right a little over half the time.
CONFIDENCE_RULE = 0.95
CONFIDENCE_LABEL = 0.9
CONFIDENCE_WORDS = 0.6
CONFIDENCE_DEFAULT = 0.3

#: What an incident is when nothing speaks: someone should look, nobody is woken.
DEFAULT_SEVERITY = Severity.P2

#: Impact words, worst first; the index is the severity they belong to.
IMPACTS = ("critical", "major", "minor", "none")

#: Labels that carry a severity word when the incident has no signals, as senders name them.
SEVERITY_LABELS = ("severity", "priority", "level", "sev", "urgency", "criticality", "alert_severity")
#: Labels whose value may name the type itself ("security", "latency"), and whose words count as words do.
TYPE_LABELS = ("incident_type", "type", "category", "alert_type", "class", "scope", "domain", "kind")
#: Labels whose values say what the alert is about; their words count as the description's do.
TOPIC_LABELS = ("component", "area", "topic", "tags", "categories", "reason", "subsystem", "event", "check")

#: Characters read of a title and of a description, so that a 10 MB label costs no more than a long one.
#: 3,000 characters of description take about 0.2 ms; real ones have 50 to 300.
TITLE_CHARS = 400
DESCRIPTION_CHARS = 1500
#: A severity word is short; what is longer is not one.
SIGNAL_CHARS = 64
#: Terms, and rules given up, named in `by`.
TERMS_NAMED = 3


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A settings rule, ready to ask. It applies when all its conditions hold."""

    name: str
    labels: tuple[tuple[str, Pattern], ...]
    words: Pattern | None
    source: Pattern | None
    severity: Severity | None
    type: IncidentType | None
    impact: str | None
    budget: Budget

    def applies(self, effect: Classify, text: str) -> bool:
        """`text` is what `words` searches. Raises TooLarge when its patterns need more than WORK_MAX steps for this."""
        self.budget.renew()
        for name, pattern in self.labels:
            # An absent label reads as empty, as in Prometheus matchers.
            if not pattern.matches(effect.labels.get(name, "")):
                return False
        if self.source is not None and not self.source.matches(effect.source):
            return False
        return self.words is None or self.words.matches(text)


def compile_rule(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    words: str | None = None,
    source: str | None = None,
    severity: str | None = None,
    type: str | None = None,
    impact: str | None = None,
) -> CompiledRule:
    """A CompiledRule from the plain values of models.settings.classification.Rule (`compile_rule(**rule.model_dump())`).

    `labels` and `source` must match all of the value, case counts; `words` is searched in alert name, title and
    description, case does not. Raises ValueError naming the rule when a value is none or an expression is wrong.
    """
    budget = Budget(f"classification rule {name!r}")
    try:
        return CompiledRule(
            name=name,
            labels=tuple((label, rule_pattern(text, budget)) for label, text in (labels or {}).items()),
            words=None if words is None else rule_pattern(words, budget, search=True),
            source=None if source is None else rule_pattern(source, budget),
            severity=None if severity is None else Severity[severity],
            type=None if type is None else IncidentType(type),
            impact=impact,
            budget=budget,
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"classification rule {name!r}: {error}") from error


class Classifier:
    """Settings rules, then the built-in ones. Same question, same answer; never raises for what senders say.

    A settings rule's regular expression takes time linear in the text (models/alerts/patterns.py). One that was made to explode
    is given up for that incident: the rule does not apply, and the verdict's `by` says so.
    """

    def __init__(self, rules: Sequence[CompiledRule] = (), *, builtin: bool = True) -> None:
        self._rules = tuple(rules)
        self._builtin = builtin

    def classify(self, effect: Classify) -> Classification:
        """One incident's verdict. `by` reads "severity: <rule>; type: <rule>; impact: <rule>"."""
        severity: Severity | None = None
        type_: IncidentType | None = None
        impact: str | None = None
        severity_by = type_by = impact_by = "default"
        given_up: list[str] = []
        confidence = CONFIDENCE_DEFAULT

        if self._rules:
            text = _text_of(effect)
            for rule in self._rules:
                try:
                    if not rule.applies(effect, text):
                        continue
                except TooLarge:
                    given_up.append(rule.name)
                    continue
                if severity is None and rule.severity is not None:
                    severity, severity_by, confidence = rule.severity, rule.name, CONFIDENCE_RULE
                if type_ is None and rule.type is not None:
                    type_, type_by = rule.type, rule.name
                if impact is None and rule.impact is not None:
                    impact, impact_by = rule.impact, rule.name
                if severity is not None and type_ is not None and impact is not None:
                    break

        if self._builtin and (severity is None or type_ is None or impact is None):
            reading = _read(effect)
            if severity is None:
                severity, severity_by, confidence = _severity(effect, reading)
            if type_ is None:
                type_, type_by = _type(effect, reading)
            if impact is None:
                impact, impact_by = _impact(effect, reading, severity)

        if severity is None:
            severity = DEFAULT_SEVERITY
        if impact is None:
            impact, impact_by = impact_of(severity), "severity"
        return Classification(
            incident_id=effect.incident_id,
            severity=severity,
            type=type_ if type_ is not None else IncidentType.UNKNOWN,
            impact=impact,
            by=f"severity: {severity_by}; type: {type_by}; impact: {impact_by}{_named(given_up)}",
            confidence=confidence,
            asked=effect.asked,
        )


def _named(given_up: list[str]) -> str:
    return f"; gave up: {', '.join(given_up[:TERMS_NAMED])}" if given_up else ""


def failed_verdict(incident_id: bytes, asked: int, reason: str) -> Classification:
    """The verdict of an incident that could not be read or classified: the defaults, sure of nothing."""
    return Classification(
        incident_id=incident_id,
        severity=DEFAULT_SEVERITY,
        type=IncidentType.UNKNOWN,
        impact=impact_of(DEFAULT_SEVERITY),
        by=f"error: {reason}",
        confidence=0.0,
        asked=asked,
    )


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


# ---- built-in rules ----


class _Reading(NamedTuple):
    """The terms found in an incident's words. `severity` is None when no term spoke of it."""

    severity: Severity | None
    severity_terms: tuple[str, ...]
    type: IncidentType | None
    type_terms: tuple[str, ...]
    impact: str | None
    impact_term: str


def _severity(effect: Classify, reading: _Reading) -> tuple[Severity, str, float]:
    words = list(effect.signals)
    # The labels are the first series' own, so they speak only when no signal does.
    if not any(map(range_of, words)):
        words = [effect.labels[name] for name in SEVERITY_LABELS if name in effect.labels]
    best: tuple[Severity, Severity, str] | None = None
    for word in words:
        meaning = range_of(word)
        if meaning is not None:
            # Ties are broken by the word itself, so that the order of signals does not show in `by`.
            candidate = (_place(meaning, reading.severity), meaning.usual, word)
            best = candidate if best is None else min(best, candidate)
    if best is not None:
        return best[0], f"label ({best[2]})", CONFIDENCE_LABEL
    if reading.severity is not None:
        return reading.severity, f"words ({', '.join(reading.severity_terms)})", CONFIDENCE_WORDS
    return DEFAULT_SEVERITY, "default", CONFIDENCE_DEFAULT


def _place(meaning: Range, by_words: Severity | None) -> Severity:
    """Where in a range the words put it. Words of the middle (P2) neither raise nor lower."""
    if by_words is None or by_words == DEFAULT_SEVERITY:
        return meaning.usual
    return max(meaning.worst, min(meaning.best, by_words))


def _type(effect: Classify, reading: _Reading) -> tuple[IncidentType, str]:
    for name in TYPE_LABELS:
        value = effect.labels.get(name)
        if value:
            named = TYPE_NAMES.get(value.casefold()) if len(value) <= SIGNAL_CHARS else None
            if named is not None:
                return named, f"label ({name})"
    if reading.type is not None:
        return reading.type, f"words ({', '.join(reading.type_terms)})"
    return IncidentType.UNKNOWN, "default"


def _impact(effect: Classify, reading: _Reading, severity: Severity) -> tuple[str, str]:
    value = effect.labels.get("impact")
    if value:
        meaning = range_of(value)
        if meaning is not None:
            return impact_of(meaning.usual), "label (impact)"
    if reading.impact is not None:
        return reading.impact, f"words ({reading.impact_term})"
    return impact_of(severity), "severity"


# ---- reading words ----

#: One token: p99, an acronym with or without plural, a word of a CamelCase name, a number such as 429 or 5xx.
#: No branch can match what a neighbour repeats, so it is linear in the text.
_TOKEN = re.compile(r"[pP]\d+|[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+[a-z]*")

#: Templates that rules leave in their texts when they are read unrendered: "{{ $labels.node }}" says nothing.
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")


def _text_of(effect: Classify) -> str:
    return "\n".join(
        (
            effect.labels.get("alertname", "")[:TITLE_CHARS],
            effect.title[:TITLE_CHARS],
            effect.description[:DESCRIPTION_CHARS],
        )
    )


def _read(effect: Classify) -> _Reading:
    labels = effect.labels
    name = labels.get("alertname", "")
    title = effect.title[:TITLE_CHARS]
    head = title if name in ("", effect.title) else f"{name[:TITLE_CHARS]} . {title}"
    if effect.source:
        head = f"{head} . {effect.source[:TITLE_CHARS]}"
    body = effect.description
    if not body:
        notes = effect.annotations
        body = notes.get("description") or notes.get("message") or notes.get("summary") or ""
    body = body[:DESCRIPTION_CHARS]
    if not _TOPIC_SET.isdisjoint(labels):
        for topic in _TOPICS:
            if topic in labels:
                body = f"{body} . {labels[topic][:TITLE_CHARS]}"

    if effect.service not in ("", name):
        # "after-migration is down" says nothing of a migration. A service that has its name from the alert speaks for it.
        own = re.compile(rf"(?<![\w-]){re.escape(effect.service)}(?![\w-])", re.IGNORECASE)
        head, body = own.sub(" . ", head), own.sub(" . ", body)
    if "{{" in body or "{{" in head:
        head, body = _TEMPLATE.sub(" ", head), _TEMPLATE.sub(" ", body)
    in_head = _terms(head)
    return _weighed(in_head, _terms(body) - in_head)


@lru_cache(
    maxsize=4096
)  # The rules of an installation use some hundred sets of terms; a set is under a kilobyte.
def _weighed(in_head: frozenset[str], in_body: frozenset[str]) -> _Reading:
    score = 0.0
    types = [0.0] * len(_TYPES)
    severity_terms: list[tuple[float, str]] = []
    type_terms: list[tuple[float, int, str]] = []
    impact: tuple[int, str] | None = None
    for terms, factor in ((in_head, 2.0), (in_body, 1.0)):
        for term in terms:
            meaning = LEXICON[term]
            if meaning.severity:
                score += meaning.severity * factor
                severity_terms.append((-abs(meaning.severity) * factor, term))
            if meaning.weight:
                types[meaning.type] += meaning.weight * factor
                type_terms.append((-meaning.weight * factor, meaning.type, term))
            # What is over or planned harms nobody now, however wide it was: "none" outranks "critical".
            if meaning.impact is not None and (
                impact is None or (-meaning.impact, term) < (-impact[0], impact[1])
            ):
                impact = (meaning.impact, term)

    severity_terms.sort()
    top = max(types)
    kind = types.index(top) if top > 0 else -1
    type_terms.sort()
    return _Reading(
        severity=_severity_of(score) if severity_terms else None,
        severity_terms=tuple(term for _, term in severity_terms[:TERMS_NAMED]),
        type=_TYPES[kind] if kind >= 0 else None,
        type_terms=tuple([term for _, of, term in type_terms if of == kind][:TERMS_NAMED]),
        impact=None if impact is None else IMPACTS[impact[0]],
        impact_term="" if impact is None else impact[1],
    )


def _terms(text: str) -> frozenset[str]:
    """The terms of LEXICON in a text: single words and neighbouring pairs."""
    # Case decides where CamelCase is split, so it is lowered after that: once, as a whole.
    tokens = " ".join(_TOKEN.findall(text)).lower().split(" ")
    found = _WORDS.intersection(tokens)
    if not _PAIR_STARTS.isdisjoint(tokens):
        found = found.union([_PAIRS[pair] for pair in _PAIRS.keys() & set(pairwise(tokens))])
    return found


def _severity_of(score: float) -> Severity:
    for least, severity in _SEVERITY_FROM:
        if score >= least:
            return severity
    return Severity.P4


#: A score of at least this much is this severe (a title counts double). 2 is where real rules begin to be called
#: critical by half their authors (benchmarks/classify_quality.py); the others are round numbers on either side.
_SEVERITY_FROM = (
    (8.0, Severity.P0),
    (2.0, Severity.P1),
    (-2.5, Severity.P2),
    (-6.0, Severity.P3),
)

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

_T = IncidentType

#: What a type label may say.
TYPE_NAMES: dict[str, IncidentType] = {
    **{kind.value.lower(): kind for kind in IncidentType if kind is not IncidentType.UNKNOWN},
    **{
        word: _T.INFRASTRUCTURE for word in ("infra", "hardware", "network", "storage", "gpu", "node", "host")
    },
    **{
        word: _T.APPLICATION
        for word in ("app", "application error", "software", "error", "errors", "model quality")
    },
    **{
        word: _T.SECURITY
        for word in ("threat", "attack", "intrusion", "vulnerability", "prompt injection", "jailbreak")
    },
    **{word: _T.DATA for word in ("data quality", "data loss", "drift", "backup", "replication")},
    **{word: _T.PERFORMANCE for word in ("latency", "capacity", "saturation", "cost", "throughput")},
    **{word: _T.AVAILABILITY for word in ("uptime", "outage", "health", "heartbeat", "downtime")},
    **{word: _T.COMPLIANCE for word in ("audit", "policy", "governance", "privacy", "regulatory")},
}

# ---- vocabulary ----
# CamelCase is split, so what is written NVLink or PCIe is met as "nv link", "pc ie" too.
# Weights are set by hand from what the words mean to people on call, in steps of a half, not fitted by a program.
# Words that one kind of source uses all day and others for harmless things ("execution", "does not") stay weak or out.
# A term is a word or two ("data loss"). "word~" stands for its regular forms (word, words, worded, wording).
# LLM operations: what an attacker or a leak does (prompt injection, PII) is Security; broken promises on content
# and spending rules are Compliance; drift of data or embeddings is Data; wrong answers are Application;
# time to first token, token rates, KV cache, provider rate limits and token cost are Performance (use of a
# limited resource); GPUs are Infrastructure.

#: Severity: what raises (a title counts double; _SEVERITY_FROM turns the sum into a level) and what lowers.
_RAISES_AND_LOWERS: dict[float, str] = {
    5.0: """data loss|complete outage|full outage|total outage|major outage|global outage|ransomware|all down
        |completely down|site down|completely unavailable|severely degraded|data breach|catastrophic|disaster
        |split brain|all users|all customers|all models|all regions|widespread|lost quorum""",
    3.0: """breach~|emergency|rootkit|backdoor~|webshell|data corruption|cryptominer|coinminer|mimikatz
        |no leader|quorum lost|container escape|cryptojacking""",
    2.0: """down|outage~|unavailable|unreachable|offline|dead|panic~|fatal|corrupt~|corruption|critical|exhausted
        |not responding|read only|disappeared|absent|malware|trojan|exploit~|exploitation|expired|lost|inoperative
        |pii leak|exfiltration|credential leak|secret leak|secrets leak|unrecoverable|irrecoverable|power failure
        |not working|no data|out of|crash~|critically|shutdown|nonoperational|destroyed|uncorrectable|overheating
        |remote code|publicly accessible|public access|unable|broken|cannot""",
    1.0: """fail~|failure~|missing|unhealthy|refused|rejected|full|stopped|blocked|stall~|stalled|not ready
        |not running|stuck|oom|abort~|prompt injection|jailbreak~|injection|privilege escalation|escalation|dump~
        |dumping|miner|mining|ddos|brute force|exposed|public|leak~|leaked|deadlock~|overflow~|violation~|panicked
        |disconnected|not connected|never|severe|severely|impacted|root|alarm|fault~|stale|no longer
        |not synced|unauthenticated|unauthorized|lateral movement|tamper~|disaster recovery""",
    0.5: "error~|exceeded|too many|timeout~|timed out|killed|degraded|degradation|disabled|dropped|drops|lag~|loss",
    -0.5: "high|slow|latency|increased|elevated|delay~|delayed|usage|utilization|queue|restart~|restarting",
    -1.0: """almost|soon|near|approaching|potential|potentially|possible|possibly|unusual|suspicious|mismatch
        |partial|partially|intermittent|some users|small percentage|imbalance|imbalanced|flapping|skew|low|reboot~
        |rebooted|pending|throttl~|throttling|throttled|reconnaissance|discovery|enumeration|predicted|forecast
        |above|below|over|outdated version|inconsistent|fluctuat~|logging|tagging|tags""",
    -2.0: """non critical|not critical|warning~|warn|change~|changed|deprecated|deprecation|outdated|unused|obsolete|update available
        |updates available|upgrade available|new version|toner|notice|cosmetic|retry|retries|experimental|idle|package updates|added|version changed|recently restarted
        |underutilized|not optimal|recommended|recommendation""",
    -3.0: "info|informational|information|maintenance|scheduled|watchdog|test alert|drill|debug|advisory",
}

#: Type: what speaks for it.
_SPEAKS_FOR: dict[IncidentType, dict[float, str]] = {
    _T.SECURITY: {
        4.0: """prompt injection|jailbreak~|pii|exfiltration|malware|ransomware|backdoor~|exploit~|exploitation|rootkit
            |privilege escalation|lateral movement|brute force|intrusion~|webshell|phishing|mimikatz|attacker~|attack~
            |adversary|adversaries|malicious|cve|botnet|command injection|sql injection|remote code|ddos|breach~
            |credential dumping|unauthorized|reverse shell|container escape|threat~|vulnerability|vulnerabilities
            |security|mitre|suspicious|obfuscat~|obfuscated|obfuscation|data leak|secret leak|api key|tamper~
            |evasion|trojan|virus|spoofing|miner|mining|leaked key|leaked credential|leaked credentials""",
        2.0: """guardrail~|moderation|injection|credential~|password~|privileged|impersonat~|impersonation|hijack~|hack~|firewall|login failure|failed login|failed logins|access denied|forbidden|authentication|shellcode|payload
            |powershell|registry|cmdline|commandline|rogue|certificate~|tls|ssl|x 509|sensitive|untrusted|anonymous|spyware
            |unexpected process|shell|ssh|certificate expired|detects|setuid|sudo|persistence""",
        1.0: """secret~|token theft|root|user account|anomalous|spawned|process creation|dll|execution|executed|binary
            |registry""",
    },
    _T.COMPLIANCE: {
        4.0: """compliance|compliant|noncompliant|non compliant|gdpr|hipaa|pci dss|soc 2|audit~|auditing|policy violation
            |policy violations|retention policy|data residency|cis benchmark|regulatory|governance|consent
            |budget exceeded|content policy|data retention|ai act|license violation|best practice|best practices""",
        3.0: """encryption|encrypted|encrypt|key rotation|mfa|publicly accessible|least privilege|toxicity|toxic|bias
            |public access|is enabled|not enabled|are enabled|logging enabled|customer managed|log retention|at rest
            |in transit|deletion protection|minimum tls|not restricted|is restricted|audit log""",
        1.5: """ensure|policy|policies|enabled|rotation|iam|restricted|tagged|kms|versioning|is configured
            |are configured|should be|should not|unapproved|approval""",
    },
    _T.DATA: {
        4.0: """data loss|data corruption|corrupt~|corruption|data quality|data drift|model drift|embedding drift|drift
            |feature drift|schema drift|stale data|data freshness|backup failed|backup failure|replication lag|checksum
            |backup|backups|restore|inconsistent data|duplicate data|data pipeline|unsynced|of sync""",
        2.0: """replication|replica lag|under replicated|underreplicated|wal|snapshot~|schema|freshness|data|dataset~
            |embedding~|ingestion|index corruption|migration~|archive|archiving|archived|consistency|scrub|rag index
            |vector store|data node|lost blocks|missing blocks|shard~|vacuum|bloat|stale""",
    },
    _T.AVAILABILITY: {
        4.0: """down|outage~|unavailable|unreachable|offline|unavailability|downtime|not responding|not reachable
            |not available|unresponsive|service disruption|disruption|no leader|quorum|lost quorum|split brain
            |uptime|availability|error budget|burn rate""",
        3.0: """absent|disappeared|not ready|not running|not connected|cannot connect|connection refused|unhealthy
            |heartbeat|disconnected|not healthy|target missing|dead|no data|missing instance|stopped responding
            |health check|healthcheck|ping|unable to|not up|no response|paused""",
        1.5: "missing|stopped|failover|no|lost|degraded|exited|insufficient replicas|replicas mismatch|inactive|status",
    },
    _T.PERFORMANCE: {
        4.0: """latency|latencies|slow|response time|throughput|time to|first token|ttft|inter token|tokens per|kv cache
            |rate limit|rate limited|rate limiting|429|429s|429 from|token cost|token usage|cost spike|token budget
            |batch queuing|queue depth|saturation|saturated|throttl~|throttling|throttled|p99|p95|p90|p50|percentile
            |slow queries|slow query|response times|processing delays""",
        3.0: """cpu|load average|high load|usage|utilization|utilisation|iowait|high memory|memory usage|memory pressure
            |too many|almost full|filling|swap|backlog|duration|cache hit|hit rate|hit ratio|contention|steal
            |of memory|running out|low memory|heap|gc|bandwidth|inference time|connections|too long|exhaustion
            |time high|degraded performance|performance|high number|bottleneck|starvation|capacity|fill|full""",
        1.5: """memory|disk|high|queue~|pending|timeout~|spike|lag|lagging|waiting|pressure|limit|threads|evict~
            |evictions|eviction|delay~|delayed|load|space|low|consumption|contextswitch|cost|quota|cardinality|inodes
            |descriptors|fd|growing|long|used|fragmentation|exceeds|percent|ratio|buffer""",
    },
    _T.INFRASTRUCTURE: {
        4.0: """hardware|fan|temperature|overheating|power supply|psu|voltage|raid|smart|battery|ups|chassis|xid|ecc|nvlink|nv link
            |pcie|pc ie|cuda|gpu|gpus|dimm|packet loss|interface~|kubelet|hypervisor|disk failure|power failure|humidity|mtu
            |link down|port down|bgp|ospf|vpn|switch|router|fibre|optical|bmc|ipmi|node down|toner|sensor|osd|osds""",
        2.0: """node~|host~|disk~|network~|dns|etcd|ntp|clock|volume~|filesystem|vm|vms|device~|kernel|systemd|power|rack
            |nodepool|machine~|persistentvolume|load balancer|firmware|drive~|storage|pool|mount|cluster~|carp|link
            |bonding|conntrack|zfs|vdev|array|pgs|hardwarecorrupted|edac|scaling|autoscaler|cni""",
    },
    _T.APPLICATION: {
        4.0: """exception~|5xx|500s|503s|error rate|error rates|elevated errors|increased errors|stack trace|traceback
            |hallucinat~|hallucination~|context length|context window|context overflow|tool call|failed requests
            |crash looping|crashloop|deployment failed|pipeline failed|bad request|invalid response|malformed output
            |4xx|regression|segfault|nullpointer|wrong answers|http errors|login|logins""",
        3.0: """error~|fail~|failure~|crash~|crashing|panic~|request~|job~|pipeline~|build|deploy~|deployment|rollout
            |reconcil~|reconciliation|reload~|config|configuration|query|queries|consumer~|producer~|version|plugin
            |sync|synced|webhook~|restart~|restarted|restarting|rejected|compaction|compactor|rule|rules|scrape
            |ingester|evaluation~|worker~|task~|broker~|partition~|topic~|message~|connector~|operator|controller
            |tenant~|handler|controller|stuck|deadlock~|deadlocks|loop|leak|release~""",
        1.5: """pod~|container~|service~|api|app|application|client~|server~|model~|session~|transaction~|table~|database
            |cache|log~|bug|issue~|writes|reads|blocks|chunks|stream~|exporter|endpoint~|mismatch|invalid|unexpected
            |certificate|http|proxy|dropped|dropping|retry|retries|thread~|kafka|blocked""",
    },
}

#: Impact: words that say it outright (index into IMPACTS).
_IMPACT_TERMS: dict[int, str] = {
    0: "all users|all customers|all models|all regions|complete outage|full outage|total outage|global outage|widespread",
    3: """maintenance|scheduled|test alert|drill|no impact|not impacted|is resolved|was resolved|been resolved|now resolved
        |fully resolved|been restored|fully restored|has recovered|have recovered|fully recovered|been mitigated""",
}

#: When two types weigh the same, the one that must not be missed comes first.
_TYPES: tuple[IncidentType, ...] = (
    _T.SECURITY,
    _T.COMPLIANCE,
    _T.DATA,
    _T.AVAILABILITY,
    _T.PERFORMANCE,
    _T.INFRASTRUCTURE,
    _T.APPLICATION,
)


class Meaning(NamedTuple):
    """What one term says: how severe, which type (index into _TYPES) and how strongly, which impact if any."""

    severity: float
    type: int
    weight: float
    impact: int | None


def _forms(term: str) -> Iterable[str]:
    if not term.endswith("~"):
        return (term,)
    stem = term[:-1]
    if stem.endswith("e"):
        return (stem, f"{stem}s", f"{stem}d", f"{stem[:-1]}ing")
    if stem.endswith("y"):
        return (stem, f"{stem[:-1]}ies", f"{stem[:-1]}ied", f"{stem}ing")
    if stem.endswith(("s", "x", "ch", "sh")):
        return (stem, f"{stem}es", f"{stem}ed", f"{stem}ing")
    return (stem, f"{stem}s", f"{stem}ed", f"{stem}ing")


def _each(terms: str) -> Iterable[str]:
    for term in terms.split("|"):
        yield from _forms(" ".join(term.split()))


def _lexicon() -> dict[str, Meaning]:
    severity: dict[str, float] = {}
    types: dict[str, tuple[int, float]] = {}
    impact: dict[str, int] = {}
    for weight, terms in _RAISES_AND_LOWERS.items():
        for term in _each(terms):
            severity.setdefault(term, weight)
    for kind, weights in _SPEAKS_FOR.items():
        for weight, terms in weights.items():
            for term in _each(terms):
                if weight > types.get(term, (0, 0.0))[1]:
                    types[term] = (_TYPES.index(kind), weight)
    for index, terms in _IMPACT_TERMS.items():
        for term in _each(terms):
            impact[term] = index
    return {
        term: Meaning(severity.get(term, 0.0), *types.get(term, (0, 0.0)), impact.get(term))
        for term in severity.keys() | types.keys() | impact.keys()
    }


LEXICON: dict[str, Meaning] = _lexicon()
_WORDS = frozenset(term for term in LEXICON if " " not in term)
_PAIRS: dict[tuple[str, str], str] = {
    (parts[0], parts[1]): term for term in LEXICON if len(parts := term.split(" ")) == 2
}
_PAIR_STARTS = frozenset(first for first, _ in _PAIRS)
_TOPICS = (*TYPE_LABELS, *TOPIC_LABELS)
_TOPIC_SET = frozenset(_TOPICS)
