"""Counts the steps of a regular expression: what a backtracking matcher tries until it has an answer.

The matcher of `re` says nothing of its work, and time depends on the machine. This one takes the same parsed expression
and makes the same choices in the same order; it knows only what exclude patterns are made of.
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from typing import Any

_parser: Any = importlib.import_module("re._parser")
_SINGLE = {"LITERAL", "NOT_LITERAL", "IN", "ANY"}


class _Matcher:
    def __init__(self, text: bytes) -> None:
        self.steps = 0
        self._text = text

    def ends(self, nodes: list[Any], at: int, place: int) -> Iterator[int]:
        """Where a match of the nodes from `at` on may end, the preferred first."""
        while at < len(nodes) and str(nodes[at][0]) in _SINGLE:
            self.steps += 1
            if not self._is_one(nodes[at], place):
                return
            at, place = at + 1, place + 1
        if at == len(nodes):
            yield place
            return
        for end in self._node(nodes[at], place):
            yield from self.ends(nodes, at + 1, end)

    def _node(self, node: Any, place: int) -> Iterator[int]:
        self.steps += 1
        name, argument = str(node[0]), node[1]
        if name == "AT":
            if place == len(self._text):
                yield place
        elif name == "ATOMIC_GROUP":
            yield from self._first(argument, place)
        elif name == "ASSERT_NOT":
            if not list(self._first(argument[1], place)):
                yield place
        elif name == "SUBPATTERN":
            yield from self.ends(list(argument[3]), 0, place)
        elif name == "BRANCH":
            for choice in argument[1]:
                yield from self.ends(list(choice), 0, place)
        else:
            yield from self._repeated(name, *argument, place=place)

    def _first(self, nodes: Any, place: int) -> Iterator[int]:
        for end in self.ends(list(nodes), 0, place):
            yield end
            return

    def _repeated(self, name: str, least: int, most: Any, nodes: Any, *, place: int) -> Iterator[int]:
        inner = list(nodes)
        assert (least, str(most)) == (0, "MAXREPEAT"), "in exclude patterns, nothing is counted"
        if len(inner) == 1 and str(inner[0][0]) in _SINGLE:
            ends = self._run(name, inner[0], place)
            yield from (itertools.islice(ends, 1) if name == "POSSESSIVE_REPEAT" else ends)
            return
        assert name in {"MAX_REPEAT", "MIN_REPEAT"}, name
        if name == "MIN_REPEAT":
            yield place
        for end in self.ends(inner, 0, place):
            yield from self._repeated(name, least, most, nodes, place=end)
        if name == "MAX_REPEAT":
            yield place

    def _run(self, name: str, node: Any, place: int) -> Iterator[int]:
        """As many as there are, then fewer; or as few as possible, then more."""
        end = place
        if name == "MIN_REPEAT":
            yield end
        while self._is_one(node, end):
            self.steps += 1
            end += 1
            if name == "MIN_REPEAT":
                yield end
        if name != "MIN_REPEAT":
            for one in range(end, place - 1, -1):
                self.steps += 1
                yield one

    def _is_one(self, node: Any, place: int) -> bool:
        if place >= len(self._text):
            return False
        name, argument, byte = str(node[0]), node[1], self._text[place]
        if name == "ANY":
            return True
        if name == "IN":
            found = any(_holds(item, byte) for item in argument)
            return found != (str(argument[0][0]) == "NEGATE")
        return bool(byte == argument) == (name == "LITERAL")


def _holds(item: Any, byte: int) -> bool:
    name, argument = str(item[0]), item[1]
    if name == "RANGE":
        return bool(argument[0] <= byte <= argument[1])
    return name == "LITERAL" and bool(byte == argument)


def count_steps(expression: re.Pattern[bytes], text: bytes) -> tuple[bool, int]:
    """Whether the expression matches the text from its start, and how many steps that takes."""
    matcher = _Matcher(text)
    nodes = list(_parser.parse(expression.pattern, expression.flags))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return any(True for _ in matcher.ends(nodes, 0, 0)), matcher.steps
    finally:
        sys.setrecursionlimit(limit)
