"""The settings reference as Markdown, generated from the model. `llm-im config schema --markdown` prints it; `make docs`
puts it between the marks in docs/configuration.md, and tests/pure/test_docs.py fails when it is stale.

    python -m services.settings.reference docs/configuration.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_origin

from models.settings.ingest import FilterRule, RelabelRule
from models.settings.keys import KEYS, Key
from models.settings.playbook_targets import Script, ServiceTarget
from models.settings.pull import AlertmanagerPull, TaxiiPull
from models.settings.receivers import RECEIVER_TYPES
from models.settings.routes import RouteSettings
from models.settings.values import Section
from services.settings.names import ALIASES, VARIABLES, variable_of
from services.settings.shown import written

#: What one of a list or table takes.
ROWS: list[tuple[str, type[Section]]] = [
    ("notify.routes, each", RouteSettings),
    *((f'notify.receivers, of type "{name}"', kind) for name, kind in RECEIVER_TYPES.items()),
    ("ingest.relabel, each", RelabelRule),
    ("ingest.filters, each", FilterRule),
    ("playbooks.services, each", ServiceTarget),
    ("playbooks.scripts, each", Script),
    ("pull.alertmanager, each", AlertmanagerPull),
    ("pull.taxii, each", TaxiiPull),
]
BEGIN = "<!-- from models/settings/ by `make docs`; change it there -->"
END = "<!-- to here -->"


def markdown() -> str:
    """A table per section of what works, one of what is not active yet, and the alternative names."""
    active = [key for key in KEYS.values() if not key.is_later]
    # A section's own settings together, though tables of it stand between them.
    sections: dict[str, list[Key]] = {}
    for key in active:
        sections.setdefault(_section_name(key), []).append(key)
    parts = [_section(name, keys) for name, keys in sections.items()]
    parts += [_rows(title, kind) for title, kind in ROWS]
    return "\n\n".join([*parts, _not_active(), _other_names()]) + "\n"


def put_into(document: str) -> str:
    """The document with the text between its marks regenerated. Raises ValueError if it has no marks."""
    before, begin, rest = document.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def _section_name(key: Key) -> str:
    return key.name.rpartition(".")[0]


def _section(name: str, keys: list[Key]) -> str:
    about = " ".join((keys[0].section.__doc__ or "").split())
    rows = [
        f"| `{key.path[-1]}` | {_default(key)} | `{variable_of(key)}` | {'reload' if key.is_live else 'restart'} "
        f"| {key.field.description} |"
        for key in keys
    ]
    head = ["| Key | Default | Environment | Changed by | Meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {name}", "", *([about, ""] if about else []), *head, *rows])


def _rows(title: str, kind: type[Section]) -> str:
    """What one of a list or table takes."""
    about = " ".join((kind.__doc__ or "").split())
    keys = [Key(field.alias or name, kind, field) for name, field in kind.model_fields.items()]
    rows = []
    for key in keys:
        if key.name == "type" and get_origin(key.field.annotation) is Literal:
            continue
        default = "required" if key.field.is_required() else _default(key)
        meaning = (key.field.description or "").replace("|", "\\|")
        rows.append(f"| `{key.name}` | {default} | {meaning} |")
    return "\n".join([f"## {title}", "", about, "", "| Key | Default | Meaning |", "|---|---|---|", *rows])


def _default(key: Key) -> str:
    if key.is_by_machine:
        return "by machine"
    value = written(key, key.field.get_default(call_default_factory=True))
    return "none" if value in (None, "none") else f"`{json.dumps(value)}`"


def _not_active() -> str:
    rows = [f"| `{key.name}` | {_takes(key)} |" for key in KEYS.values() if key.is_later]
    return "\n".join(
        [
            "## Not active yet",
            "",
            "Settings of features that are not built yet. They are checked, `llm-im config check` lists the ones you set, and",
            "they have no effect. `llm-im up` refuses to start with any setting that would turn such a feature on: a",
            "`deployment.mode` other than `standalone`, a `backend` or `cluster_nodes` in `coordination`, and every",
            "`enabled = true`.",
            "",
            "| Key | Takes |",
            "|---|---|",
            *rows,
        ]
    )


def _takes(key: Key) -> str:
    schema = key.section.model_json_schema()["properties"][key.path[-1]]
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    words = [_kind(each) for each in kinds]
    if "text" in words and "number" in words:
        words = ["duration"]
    return f"{' or '.join(words)}{'. ' + key.field.description if key.field.description else ''}"


def _kind(schema: dict[str, object]) -> str:
    if isinstance(choices := schema.get("enum"), list):
        return ", ".join(f"`{choice}`" for choice in choices)
    if "const" in schema:
        return f"`{schema['const']}`"
    words = {"string": "text", "integer": "whole number", "boolean": "`true` or `false`", "array": "list"}
    kind = str(schema.get("type"))
    return words.get(kind, kind)


def _other_names() -> str:
    def rows(names: dict[str, str]) -> Iterator[str]:
        yield from (f"| `{name}` | `{key}` |" for name, key in names.items())

    return "\n".join(
        [
            "## Other names",
            "",
            "These names are accepted too, and a notice says so. Our own name wins: if such a variable is meant for another",
            "program, set ours as well.",
            "",
            "| Key or variable | Is read as |",
            "|---|---|",
            *rows(ALIASES),
            *rows(VARIABLES),
        ]
    )


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(put_into(path.read_text("utf-8")), "utf-8")
