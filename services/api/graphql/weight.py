"""What the text of a query asks for, before it is validated. Fragments count as often as they are used, each worked out once: a short
text can stand for a billion fields. Used by engine.py, and by asked.py for the cost of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    Token,
    TokenKind,
)

from models.errors import Malformed, TooLarge
from services.api.graphql.bounds import (
    ALIASES_MAX,
    DEPTH_MAX,
    DIGITS_MAX,
    FIELDS_MAX,
    FRAGMENTS_MAX,
    ROOTS_MAX,
    SCHEMA_ALIASES_MAX,
    SCHEMA_DEPTH_MAX,
)


@dataclass(frozen=True, slots=True)
class Weight:
    """What a selection asks for."""

    fields: int = 0
    aliases: int = 0
    depth: int = 0


def check(document: DocumentNode) -> None:
    """Raises TooLarge for a document that asks for too much, Malformed for fragments that contain themselves."""
    for token in _tokens(document):
        if token.kind in (TokenKind.INT, TokenKind.FLOAT) and len(token.value or "") > DIGITS_MAX:
            raise Malformed(f"query: expected a number of at most {DIGITS_MAX} digits at line {token.line}")
    fragments = fragments_of(document)
    _refuse_over(len(fragments), FRAGMENTS_MAX, "fragments")
    scale = Scale(fragments)
    # Those that nothing uses are validated too.
    for name in fragments:
        _refuse_over(scale.of_fragment(name).fields, FIELDS_MAX, "fields")
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode):
            continue
        selections = operation.selection_set.selections
        # Before the fields at the top are gone through: fragments of fragments can make billions of them.
        found = scale.weight(selections)
        _refuse_over(found.fields, FIELDS_MAX, "fields")
        roots = [each for each in scale.roots(selections) if each.name.value != "__typename"]
        _refuse_over(len(roots), ROOTS_MAX, "fields at the top")
        of_schema = [*filter(is_of_schema, roots)]
        if of_schema and len(of_schema) < len(roots):
            raise Malformed("query: ask for the schema in a query of its own")
        _refuse_over(found.aliases, SCHEMA_ALIASES_MAX if of_schema else ALIASES_MAX, "aliases")
        _refuse_over(found.depth, SCHEMA_DEPTH_MAX if of_schema else DEPTH_MAX, "levels")


def _tokens(document: DocumentNode) -> Iterator[Token]:
    token = document.loc.start_token if document.loc else None
    while token is not None:
        yield token
        token = token.next


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    """The fragments of a document, by name."""
    return {
        each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
    }


def is_of_schema(field: FieldNode) -> bool:
    """A field of what the schema says of itself."""
    return field.name.value in ("__schema", "__type")


class Scale:
    """Weighs selections."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, Weight] = {}
        self._open: set[str] = set()

    def weight(self, selections: Sequence[SelectionNode]) -> Weight:
        """Of selections with all that is in them. Raises Malformed for a circle of fragments."""
        fields = aliases = depth = 0
        for each in selections:
            inner = self._inner(each)
            fields, aliases, depth = (
                fields + inner.fields,
                aliases + inner.aliases,
                max(depth, inner.depth),
            )
        return Weight(fields, aliases, depth)

    def of_fragment(self, name: str) -> Weight:
        """Of a fragment; of one that there is not, nothing: validation says so."""
        if name in self._open:
            raise Malformed(f"query: the fragment {name!r} contains itself")
        if name not in self._known:
            fragment = self._fragments.get(name)
            if fragment is None:
                return Weight()
            self._open.add(name)
            self._known[name] = self.weight(fragment.selection_set.selections)
            self._open.discard(name)
        return self._known[name]

    def roots(self, selections: Sequence[SelectionNode]) -> Iterator[FieldNode]:
        """The fields at the top of an operation."""
        for each in selections:
            if isinstance(each, FieldNode):
                yield each
            elif isinstance(each, FragmentSpreadNode):
                fragment = self._fragments.get(each.name.value)
                yield from self.roots(fragment.selection_set.selections) if fragment is not None else ()
            elif isinstance(each, InlineFragmentNode):
                yield from self.roots(each.selection_set.selections)

    def _inner(self, selection: SelectionNode) -> Weight:
        if isinstance(selection, FragmentSpreadNode):
            return self.of_fragment(selection.name.value)
        if isinstance(selection, InlineFragmentNode):
            return self.weight(selection.selection_set.selections)
        assert isinstance(selection, FieldNode)
        inner = self.weight(() if selection.selection_set is None else selection.selection_set.selections)
        return Weight(inner.fields + 1, inner.aliases + (selection.alias is not None), inner.depth + 1)


def _refuse_over(found: int, most: int, what: str) -> None:
    if found > most:
        raise TooLarge(f"query: {found:,} {what}, at most {most:,} are answered: ask in several queries")
