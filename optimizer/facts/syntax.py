"""Trees of tree-sitter: walking them, and the text that a node stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node


def walk(node: Node) -> Iterator[Node]:
    """`node` and all nodes below it, in the order of the text, without recursion."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        yield here
        waiting += reversed(here.children)


def text_of(node: Node | None) -> str:
    """The text of a node; "" for none."""
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""


def arguments_of(call: Node) -> list[Node]:
    """The arguments of a call, without comments."""
    found = call.child_by_field_name("arguments")
    return [child for child in found.named_children if child.type != "comment"] if found is not None else []
