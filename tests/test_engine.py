"""The engine: what it applies, what it holds back, and how it distrusts every transform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer import BuildContext, Document, Settings, optimize
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts import Facts
from optimizer.rewrite import Aspect, Change, Check, CompanionFile, Decision, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase, Transform, all_transforms

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = BuildContext(None)


def meta(name: str, *may_change: Aspect) -> Meta:
    return Meta(name, Phase.METADATA, frozenset(may_change), ("XX1",), name, "because", name)


class Replace:
    """A transform that replaces one text by another, and says of it whatever it is told to say."""

    def __init__(self, old: str, new: str, *changes: Change, name: str = "replace", safety: Safety = Safety.SAFE) -> None:
        self.meta = meta(name, *(change.aspect for change in changes))
        self.old, self.new, self.changes, self.safety = old, new, changes, safety

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        text = document.source.text
        at = text.find(self.old)
        while at != -1:
            instruction = next(i for i in document.instructions if i.span.end > at)
            yield Rewrite(
                self,
                summary=f"{self.old} at {at}",
                safety=self.safety,
                edits=(Edit(Span(at, at + len(self.old)), self.new),),
                evidence=(facts.seen(instruction, "here"),),
                changes=self.changes,
                unknown=("whether it helps",) if self.safety < Safety.SAFE else (),
            )
            at = text.find(self.old, at + 1)


def run(text: str, *transforms: Transform, unsafe: bool = False) -> tuple[str, tuple[str, ...]]:
    outcome = optimize(Document.parse(text.encode()), NOWHERE, Settings(unsafe=unsafe), transforms)
    return outcome.after.source.text, outcome.errors


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("gcr.io/distroless/static", "the image's"),
        ("gcr.io/distroless/static:nonroot", "the image's"),
        ("postgres:16", "the image's"),
        ("python:3.12", "the image's"),
        ("node:22-slim", ""),
        ("node:24", ""),
    ],
)
def test_what_a_new_base_sets_is_a_promise_too(new: str, words: str) -> None:
    change = Change(Aspect.BASE, removed=("node:22",), added=(new,))
    text, errors = run("FROM node:22\nRUN a\n", Replace("node:22\n", f"{new}\n", change))
    assert text == f"FROM {'node:22' if words else new}\nRUN a\n"
    assert any(words in error for error in errors) if words else not errors


def test_edits_that_overlap_are_a_bug_that_is_named() -> None:
    class Twice(Replace):
        def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
            seen = (facts.seen(document.instructions[0], "here"),)
            yield Rewrite(self, "s", Safety.SAFE, (Edit(Span(0, 4), "from"), Edit(Span(2, 5), "x")), seen)

    text, errors = run("FROM x\n", Twice("a", "b"))
    assert text == "FROM x\n"
    assert "overlap" in errors[0]


def test_a_declared_change_is_applied() -> None:
    change = Change(Aspect.COMMANDS, removed=("old",), added=("new",))
    assert run("FROM x\nRUN old\n", Replace("old", "new", change)) == ("FROM x\nRUN new\n", ())


@pytest.mark.parametrize(
    ("text", "old", "new", "words"),
    [
        ("FROM x\nRUN old\n", "old", "new", 'the commands run changed: "old" became "new"'),
        ("FROM x\nUSER old\n", "old", "new", "the user changed"),
        ("FROM x\nENV a=old\n", "old", "new", "the environment changed"),
        ("FROM old\nRUN a\n", "old", "new", "the base image changed"),
        ("FROM x\nCOPY a b\nCOPY c d\n", "a b\nCOPY c d", "c d\nCOPY a b", "what is copied where changed"),
        ("FROM x\nRUN a\nUSER u\nRUN b\n", "USER u\nRUN b", "RUN b\nUSER u", "runs or stands elsewhere"),
        ("FROM x\nCMD old\n", "old", '["old"]', "the command changed"),
        ("FROM x\n# old\nRUN a\n", "# old\n", "", 'the comment "# old" is lost'),
        ("FROM x\nRUN a\n", "RUN a", "RUNN a", "cannot be read"),
        ("FROM x\nRUN a\n", "RUN a\n", "", '"a" is gone'),
        ("FROM x\nRUN a\n", "RUN a", "RUN a && b && a", '"b" is new'),
    ],
)
def test_an_undeclared_change_is_dropped_and_named(text: str, old: str, new: str, words: str) -> None:
    after, errors = run(text, Replace(old, new))
    assert after == text
    assert len(errors) == 1
    assert errors[0].startswith("replace: left out")
    assert words in errors[0]


def test_a_change_of_an_aspect_that_the_transform_may_not_touch_is_dropped() -> None:
    guilty = Replace("old", "new", Change(Aspect.USER, removed=("old",), added=("new",)))
    guilty.meta = meta("guilty")
    after, errors = run("FROM x\nUSER old\n", guilty)
    assert after == "FROM x\nUSER old\n"
    assert "may not change the user" in errors[0]


def test_a_declared_change_that_does_not_come_is_an_error() -> None:
    lying = Replace("old", "new", Change(Aspect.COMMANDS, removed=("old",), added=("new", "more")))
    assert "was to come and is missing" in run("FROM x\nRUN old\n", lying)[1][0]


def test_of_a_batch_only_the_guilty_is_dropped() -> None:
    change = Change(Aspect.COMMANDS, removed=("old",), added=("new",))
    after, errors = run("FROM x\nRUN old\nUSER old\nRUN old\n", Replace("old", "new", change))
    assert after == "FROM x\nRUN new\nUSER old\nRUN new\n"
    assert len(errors) == 1


def test_rewrites_that_undo_one_another_leave_the_original() -> None:
    there = Replace("a1", "b1", Change(Aspect.COMMANDS, removed=("a1",), added=("b1",)), name="there")
    back = Replace("b1", "a1", Change(Aspect.COMMANDS, removed=("b1",), added=("a1",)), name="back")
    after, errors = run("FROM x\nRUN a1\n", there, back)
    assert after == "FROM x\nRUN a1\n"
    assert "go in a circle" in errors[0]


def test_a_rewrite_that_never_ends_leaves_the_original() -> None:
    class Growing(Replace):
        parity = 0

        def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
            self.changes = (Change(Aspect.ENV, added=(f"k{len(document.instructions)}=1",)),)
            self.meta = meta("growing", Aspect.ENV)
            if len(document.instructions) % 2 == self.parity:
                self.old, self.new = "\nRUN", f"\nENV k{len(document.instructions)}=1\nRUN"
                yield from super().rewrites(document, facts)

    even, odd = Growing("", ""), Growing("", "")
    odd.parity = 1
    after, errors = run("FROM x\nRUN a\n", even, odd)
    assert after == "FROM x\nRUN a\n"
    assert "does not come to an end" in errors[0]


def test_what_is_unsafe_waits_for_the_word() -> None:
    change = Change(Aspect.COMMANDS, removed=("old",), added=("new",))
    unsure = Replace("old", "new", change, safety=Safety.UNSAFE)
    document = Document.parse(b"FROM x\nRUN old\n")
    outcome = optimize(document, NOWHERE, Settings(), [unsure])
    assert not outcome.is_changed
    assert [rewrite.unknown for rewrite in outcome.held_back] == [("whether it helps",)]
    assert run("FROM x\nRUN old\n", unsure, unsafe=True)[0] == "FROM x\nRUN new\n"
    assert run("FROM x\nRUN old\n", Replace("old", "new", change, safety=Safety.SHOW), unsafe=True)[0] == "FROM x\nRUN old\n"


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\n# dockeropt: ignore=replace # why\nRUN old\n",
        "FROM x\n# dockeropt ignore=other,replace\nRUN old\n",
        "FROM x\n# hadolint ignore=XX1\nRUN old\n",
        "FROM x\n# tally ignore=hadolint/XX1;reason=x\nRUN old\n",
        "FROM x\n# tally ignore=all\nRUN old\n",
        "# check=skip=XX1;error=true\nFROM x\nRUN old\n",
        "# check=skip=all\nFROM x\nRUN old\n",
        "FROM x\nRUN old\n# dockeropt: global ignore=replace\n",
    ],
)
def test_a_comment_switches_a_transform_off(text: str) -> None:
    change = Change(Aspect.COMMANDS, removed=("old",), added=("new",))
    outcome = optimize(Document.parse(text.encode()), NOWHERE, Settings(), [Replace("old", "new", change)])
    assert not outcome.is_changed
    assert "switched off" in outcome.refused[0].reason


def test_a_comment_about_something_else_switches_nothing_off() -> None:
    change = Change(Aspect.COMMANDS, removed=("old",), added=("new",))
    assert run("FROM x\n# hadolint ignore=YY2\nRUN old\n", Replace("old", "new", change))[0].endswith("RUN new\n")


def test_deciding_by_evidence() -> None:
    yes, no, unknown = Check("a", holds=True), Check("b", holds=False), Check("c", holds=None)
    assert decide(Safety.SAFE, [yes]) == Decision(Safety.SAFE, None, (), (), ("a",))
    assert decide(Safety.SAFE, [yes, unknown, unknown]).safety is Safety.UNSAFE
    assert decide(Safety.UNSAFE, [unknown]).safety is Safety.SHOW
    assert decide(Safety.SAFE, [unknown, no]).failed is no


def test_a_rewrite_needs_evidence_and_something_to_do() -> None:
    transform = Replace("a", "b")
    facts = Facts(Document.parse(b"FROM x\n"), NOWHERE)
    seen = (facts.seen(facts.document.instructions[0], "x"),)
    with pytest.raises(ValueError, match="without evidence"):
        Rewrite(transform, "s", Safety.SAFE, (Edit(Span(0, 0), "x"),), ())
    with pytest.raises(ValueError, match="changes nothing"):
        Rewrite(transform, "s", Safety.SAFE, (), seen)
    assert Rewrite(transform, "s", Safety.SAFE, (), seen, files=(CompanionFile("a", "b"),)).reason == "because"


class PluggedIn(Replace):
    def __init__(self) -> None:
        super().__init__("a", "b", name="plugged-in")


def test_plug_ins_are_found_by_their_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("mine", "tests.test_engine:PluggedIn", "dockeropt.transforms")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [point] if group == point.group else [])
    all_transforms.cache_clear()
    try:
        names = [t.meta.name for t in all_transforms()]
        phase = [t.meta.name for t in all_transforms() if t.meta.phase == PluggedIn().meta.phase]
        assert phase[-1] == "plugged-in", names
        twice = [point, point]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: twice if group else [])
        all_transforms.cache_clear()
        with pytest.raises(ValueError, match="two transforms are called plugged-in"):
            all_transforms()
    finally:
        all_transforms.cache_clear()


def test_a_transform_without_a_why_is_refused() -> None:
    with pytest.raises(ValueError, match="Why:"):
        Meta.of("tests.test_engine", phase=Phase.LAYOUT)


def test_the_public_names_are_a_handful() -> None:
    import optimizer

    assert optimizer.__all__ == ["BuildContext", "Document", "Outcome", "Settings", "optimize"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = optimizer.nothing
