"""The words that the built-in rules know: what each says of severity, type and impact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from models.incidents.incident import IncidentType

#: Labels whose value may name the type itself ("security", "latency"), and whose words count as words do.
TYPE_LABELS = ("incident_type", "type", "category", "alert_type", "class", "scope", "domain", "kind")
#: Labels whose values say what the alert is about; their words count as the description's do.
TOPIC_LABELS = ("component", "area", "topic", "tags", "categories", "reason", "subsystem", "event", "check")

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
TYPES: tuple[IncidentType, ...] = (
    _T.SECURITY,
    _T.COMPLIANCE,
    _T.DATA,
    _T.AVAILABILITY,
    _T.PERFORMANCE,
    _T.INFRASTRUCTURE,
    _T.APPLICATION,
)


class Meaning(NamedTuple):
    """What one term says: how severe, which type (index into TYPES) and how strongly, which impact if any."""

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
                    types[term] = (TYPES.index(kind), weight)
    for index, terms in _IMPACT_TERMS.items():
        for term in _each(terms):
            impact[term] = index
    return {
        term: Meaning(severity.get(term, 0.0), *types.get(term, (0, 0.0)), impact.get(term))
        for term in severity.keys() | types.keys() | impact.keys()
    }


LEXICON: dict[str, Meaning] = _lexicon()
WORDS = frozenset(term for term in LEXICON if " " not in term)
PAIRS: dict[tuple[str, str], str] = {
    (parts[0], parts[1]): term for term in LEXICON if len(parts := term.split(" ")) == 2
}
PAIR_STARTS = frozenset(first for first, _ in PAIRS)
TOPICS = (*TYPE_LABELS, *TOPIC_LABELS)
TOPIC_SET = frozenset(TOPICS)
