"""What becomes of alerts on their way in: which are dropped, and what their labels are changed to."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from models.alerts.extract import Extractor
from models.alerts.filters import Filter
from models.alerts.matchers import MatcherTuple, parse_filters
from models.alerts.relabel import CompiledRelabel, Relabel
from models.errors import Malformed, TooLarge
from models.incidents.incident import Severity
from models.settings.values import LIVE, AbsolutePath, Section

#: Each alert that is new to a gateway is tried with all of them; a large installation has some dozens.
RULES_MAX = 500
#: Characters of a rule's name, and of a value that it sets.
NAME_MAX = 100
VALUE_MAX = 1000
#: Labels that one rule changes.
LABELS_MAX = 64

Level = Literal["P0", "P1", "P2", "P3", "P4"]

_NAME = r"^[^\x00-\x1f\x7f]+$"
_FORMAT = "Only alerts of this [format](formats.md), by its name in `llm-im formats list`. Empty: of any."


def _matchers(texts: list[str]) -> tuple[MatcherTuple, ...]:
    return tuple(parse_filters(texts))


def _checked(texts: list[str]) -> list[str]:
    try:
        _matchers(texts)
    except (Malformed, TooLarge) as error:
        raise ValueError(f'{error}; expected matchers such as env="dev"') from None
    return texts


class SentinelFilters(Section):
    """Which alerts of LLM-Sentinel are dropped: as [`ingest.filters`](relabelling.md#filters) does it for any sender."""

    min_severity: Level | None = Field(
        None, description="Alerts that are less severe are dropped.", json_schema_extra=LIVE
    )
    ignored_labels: list[str] = Field(
        [],
        description='Alerts with one of these labels are dropped, such as `"env=dev"`.',
        json_schema_extra=LIVE,
    )

    @field_validator("ignored_labels")
    @classmethod
    def _are_matchers(cls, value: list[str]) -> list[str]:
        return _checked(value)

    def filters(self) -> list[Filter]:
        """As rules; none when nothing is set."""
        if self.min_severity is None and not self.ignored_labels:
            return []
        name = "integrations.llm_sentinel.filters"
        least = None if self.min_severity is None else Severity[self.min_severity]
        return [Filter(name, "llm-sentinel", "", (), least, _matchers(self.ignored_labels))]


class FilterRule(Section):
    """One filter. It drops, of the alerts that it is about, those that are not severe enough and those with an ignored label; with neither
    `min_severity` nor `ignored_labels`, all of them."""

    name: str = Field(
        min_length=1,
        max_length=NAME_MAX,
        pattern=_NAME,
        description="Shown wherever it dropped something.",
    )
    format: str = Field("", max_length=NAME_MAX, description=_FORMAT)
    token: str = Field(
        "", max_length=NAME_MAX, description="Only alerts that came with the token of this name. Empty: any."
    )
    matchers: list[str] = Field(
        [], description='Only alerts with these labels: matchers such as `team="db"`, all of which must hold.'
    )
    min_severity: Level | None = Field(
        None, description="Those less severe are dropped. One whose severity is unknown is not."
    )
    ignored_labels: list[str] = Field(
        [],
        description='Those with one of these labels are dropped: `"env=dev"`, or any matcher, as in `\'env=~"dev|test"\'`.',
    )

    @field_validator("matchers", "ignored_labels")
    @classmethod
    def _are_matchers(cls, value: list[str]) -> list[str]:
        return _checked(value)

    @model_validator(mode="after")
    def _drops_not_everything(self) -> FilterRule:
        if self.min_severity is None and not self.ignored_labels and not self.matchers:
            raise ValueError(
                "expected min_severity, ignored_labels or matchers: without them it would drop everything"
            )
        return self

    @property
    def rule(self) -> Filter:
        least = None if self.min_severity is None else Severity[self.min_severity]
        match, ignored = _matchers(self.matchers), _matchers(self.ignored_labels)
        return Filter(self.name, self.format, self.token, match, least, ignored)


class RelabelRule(Section):
    """One rule of relabelling. It does one of: `extract`, `map`, `set` or `service`, `drop`, `rename`."""

    # `from` is a word of Python's.
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    name: str = Field(
        min_length=1, max_length=NAME_MAX, pattern=_NAME, description="Shown by `llm-im ingest try`."
    )
    format: str = Field("", max_length=NAME_MAX, description=_FORMAT)
    matchers: list[str] = Field(
        [],
        description='Only alerts with these labels: matchers such as `pod!=""`, all of which must hold.',
    )
    from_: str = Field(
        "",
        alias="from",
        max_length=NAME_MAX * 10,
        description="What `extract` and `map` read: a label, `annotations.NAME`, or `title` (summary, title or alertname).",
    )
    extract: str = Field(
        "",
        description="A regular expression for all of `from`. Its groups fill `$1` or `${name}` in `set` and `service`.",
    )
    map: AbsolutePath = Field(
        "",
        max_length=4096,
        description="Absolute path of a CSV file with a header: the first column is looked up, the others are labels.",
    )
    set: dict[str, str] = Field({}, max_length=LABELS_MAX, description="Labels and their values.")
    service: str = Field(
        "",
        max_length=VALUE_MAX,
        description="The service: the first of `grouping.service_labels` gets this value.",
    )
    drop: list[str] = Field([], max_length=LABELS_MAX, description="Labels that go.")
    rename: dict[str, str] = Field(
        {}, max_length=LABELS_MAX, description='Labels that get another name, as `old = "new"`.'
    )

    @field_validator("matchers")
    @classmethod
    def _are_matchers(cls, value: list[str]) -> list[str]:
        return _checked(value)

    @field_validator("set", "rename")
    @classmethod
    def _have_names(cls, value: dict[str, str]) -> dict[str, str]:
        for name, said in value.items():
            if not name:
                raise ValueError("expected the name of a label, it is empty")
            if len(said) > VALUE_MAX:
                raise ValueError(f"{name}: expected at most {VALUE_MAX} characters")
        return value

    @field_validator("rename")
    @classmethod
    def _to_names(cls, value: dict[str, str]) -> dict[str, str]:
        if len({*value.values()}) < len(value) or "" in value.values():
            raise ValueError("expected another new name for each label, none of them empty")
        return value

    @field_validator("extract")
    @classmethod
    def _is_regex(cls, value: str) -> str:
        try:
            Extractor(value, "extract")
        except (Malformed, TooLarge) as error:
            raise ValueError(f"expected a regular expression in RE2's syntax: {error}") from None
        return value

    @model_validator(mode="after")
    def _does_one_thing(self) -> RelabelRule:
        gives = self.set or self.service
        does = [
            word
            for word, said in (
                ("extract", self.extract),
                ("map", self.map),
                ("set or service", gives and not self.extract),
                ("drop", self.drop),
                ("rename", self.rename),
            )
            if said
        ]
        if len(does) != 1:
            found = f"not {' and '.join(does)}" if does else "and it does nothing"
            raise ValueError(
                f"expected one of extract, map, set or service, drop, rename in each rule, {found}"
            )
        if self.extract and not gives:
            raise ValueError(
                "extract: expected set or service beside it, to say which label gets what it finds"
            )
        if (self.extract or self.map) and not self.from_:
            raise ValueError(f"{does[0]}: expected from beside it, to say what it reads")
        if self.from_ and not (self.extract or self.map):
            raise ValueError("from: only extract and map read something")
        try:
            CompiledRelabel(self.rule("service"))
        except (Malformed, TooLarge) as error:
            raise ValueError(str(error)) from None
        return self

    def rule(self, service_label: str) -> Relabel:
        """As it is applied. `service_label` is the label that names the service."""
        given = {**self.set, **({service_label: self.service} if self.service else {})}
        return Relabel(
            self.name,
            self.format,
            _matchers(self.matchers),
            self.from_,
            self.extract,
            self.map,
            given,
            tuple(self.drop),
            self.rename,
        )


class Ingest(Section):
    """What becomes of alerts on their way in; see [relabelling and filters](relabelling.md)."""

    relabel: list[RelabelRule] = Field(
        [],
        max_length=RULES_MAX,
        description="Rules that change labels, in their order, before service, shard and incident are found by them.",
        json_schema_extra=LIVE,
    )
    filters: list[FilterRule] = Field(
        [],
        max_length=RULES_MAX,
        description="Which alerts are dropped, after relabelling. What ends an alert is never dropped.",
        json_schema_extra=LIVE,
    )

    @field_validator("relabel", "filters")
    @classmethod
    def _names_are_unique(
        cls, value: list[RelabelRule] | list[FilterRule]
    ) -> list[RelabelRule] | list[FilterRule]:
        names = [rule.name for rule in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"every rule needs its own name, and {twice[0]!r} is used twice")
        return value
