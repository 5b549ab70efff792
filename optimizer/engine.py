"""The loop: transforms propose, the engine applies what is admissible, parses again and checks the contract. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.contract import breaches, broken_promises, contract
from optimizer.dockerfile.edit import OverlappingEditsError
from optimizer.dockerfile.pragmas import Pragma, pragma
from optimizer.dockerfile.scan import DockerfileError
from optimizer.facts import Facts
from optimizer.guards import objection
from optimizer.rewrite import Refusal, Rewrite, Safety
from optimizer.settings import Settings
from optimizer.transform import Transform, all_transforms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.edit import Span
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.cache import Rerun
    from optimizer.facts.context import BuildContext
    from optimizer.rewrite import CompanionFile, Evidence, Key

MAX_SWEEPS = 20
Snapshot = tuple[str, tuple["CompanionFile", ...]]


@dataclass(frozen=True)
class Outcome:
    """What came of one Dockerfile.

    `errors` are bugs: a rewrite that broke the contract and was dropped, or a loop that did not end, whereupon the original
    stands. `reruns` holds what an edit to the entry file re-runs before and after, where there is such a file.
    """

    before: Document
    after: Document
    applied: tuple[Rewrite, ...] = ()
    held_back: tuple[Rewrite, ...] = ()
    refused: tuple[Refusal, ...] = ()
    errors: tuple[str, ...] = ()
    files: tuple[CompanionFile, ...] = ()
    reruns: tuple[Rerun, Rerun] | None = field(default=None)

    @property
    def is_changed(self) -> bool:
        return self.before.source.text != self.after.source.text or bool(self.files)


def optimize(
    document: Document,
    context: BuildContext,
    settings: Settings | None = None,
    transforms: Iterable[Transform] | None = None,
    *,
    without: Iterable[Key] = (),
    at_most: int | None = None,
) -> Outcome:
    """Rewrite `document`, which is built in `context`.

    `transforms` defaults to all that are known; the rewrites whose keys are in `without` are left out; with `at_most` only that
    many are made, the first ones. Never raises for what is in the document: what breaks is left out and named.
    """
    chosen = Settings() if settings is None else settings
    known = all_transforms() if transforms is None else tuple(transforms)
    wanted = tuple(t for t in known if chosen.wants(t.meta.name))
    return _Run(document, context, chosen, wanted, frozenset(without), at_most).outcome()


class _EndlessError(Exception):
    """The rewrites undo one another."""


class _Run:
    def __init__(
        self,
        document: Document,
        context: BuildContext,
        settings: Settings,
        transforms: tuple[Transform, ...],
        without: frozenset[Key],
        at_most: int | None,
    ) -> None:
        self.before = document
        self.facts = Facts(document, context, settings.target, settings.base)
        self.settings = settings
        self.transforms = transforms
        self.applied: list[Rewrite] = []
        self.held_back: list[Rewrite] = []
        self.refused: list[Refusal] = []
        self.errors: list[str] = []
        self.files: dict[str, CompanionFile] = {}
        self.dropped: set[Key] = set(without)
        self.at_most = at_most

    @property
    def document(self) -> Document:
        return self.facts.document

    def outcome(self) -> Outcome:
        first = self.facts
        seen = {self._snapshot()}
        try:
            self._settle(seen)
        except _EndlessError as error:
            return Outcome(self.before, self.before, errors=(f"{error}; the original was kept. This is a bug in dockeropt",))
        return Outcome(
            self.before,
            self.document,
            tuple(self.applied),
            tuple(self.held_back),
            _distinct(self.refused),
            tuple(self.errors),
            tuple(self.files.values()),
            self._reruns(first),
        )

    def _settle(self, seen: set[Snapshot]) -> None:
        """Sweep until a sweep changes nothing. Raises _EndlessError."""
        for _ in range(MAX_SWEEPS):
            if not self._sweep(seen):
                return
        raise _EndlessError("rewriting does not come to an end")

    def _snapshot(self) -> Snapshot:
        return self.document.source.text, tuple(self.files.values())

    def _sweep(self, seen: set[Snapshot]) -> bool:
        """Run every transform until it has nothing more to do; whether anything changed. Raises _EndlessError on a circle."""
        self.held_back, self.refused = [], []
        start = self._snapshot()
        for transform in self.transforms:
            before = self._snapshot()
            while self._apply(transform):
                after = self._snapshot()
                if after == before:
                    continue  # a rewrite was dropped: the others get their turn
                if after in seen:
                    raise _EndlessError(f"the rewrites go in a circle at {transform.meta.name}")
                seen.add(after)
                before = after
        return self._snapshot() != start

    def _apply(self, transform: Transform) -> bool:
        """Apply one transform's admissible rewrites, as far as they do not overlap; whether there were any."""
        facts = self.facts
        admissible: list[Rewrite] = []
        held: list[Rewrite] = []
        refused: list[Refusal] = []
        for proposal in transform.rewrites(self.document, facts):
            if isinstance(proposal, Refusal):
                refused.append(proposal)
            elif (ignored := self._ignored(proposal, facts)) is not None:
                refused.append(ignored)
            elif proposal.key in self.dropped:
                continue
            elif (found := objection(facts, proposal)) is not None:
                refused.append(Refusal(transform, *found))
            elif self._is_wanted(proposal):
                admissible.append(proposal)
            else:
                held.append(proposal)
        batch = _compatible(admissible)
        if self.at_most is not None:
            batch = batch[: self.at_most - len(self.applied)]
        if batch and self._commit(batch, facts):
            return True
        self.held_back += held
        self.refused += refused
        return False

    def _is_wanted(self, rewrite: Rewrite) -> bool:
        """Whether the settings ask for rewrites of that tier."""
        is_sure_enough = rewrite.safety >= (Safety.UNSAFE if self.settings.unsafe else Safety.SAFE)
        return is_sure_enough and (self.settings.proof or not rewrite.only_proven)

    def _commit(self, batch: list[Rewrite], facts: Facts) -> bool:
        """Apply a batch, or, where it breaks the contract, its rewrites one by one without the guilty."""
        wrong = self._try(batch, facts)
        if not wrong:
            return True
        if len(batch) > 1:  # one at a time: the spans of the others move, and the next pass proposes them again
            return self._commit(batch[:1], facts)
        self.errors.append(f"{batch[0].name}: left out, since {wrong[0]}. This is a bug in dockeropt")
        self.dropped.add(batch[0].key)
        return True

    def _try(self, batch: list[Rewrite], facts: Facts) -> list[str]:
        """Apply `batch` if the result can be read and keeps the contract; else what is wrong."""
        edits = [edit for rewrite in batch for edit in rewrite.edits]
        files = {file.path: file for rewrite in batch for file in rewrite.files}
        try:
            document = self.document.edited(edits) if edits else self.document
        except (DockerfileError, OverlappingEditsError) as error:
            return [f"the result cannot be read: {error}"]
        context = facts.context.with_files({f.path: f.text for f in files.values()}) if files else facts.context
        after = Facts(document, context, self.settings.target, self.settings.base)
        wrong = breaches(contract(facts), contract(after), batch) + _lost_comments(self.document, document)
        wrong += broken_promises(facts, after, batch)
        if not wrong:
            self.facts = after
            self.files |= files
            self.applied += batch
        return wrong

    # ---------------------------------------------------------------- pragmas

    def _ignored(self, rewrite: Rewrite, facts: Facts) -> Refusal | None:
        """A refusal where the author switched this rewrite off beside one of the instructions that it touches."""
        names = rewrite.transform.meta.answers_to
        for instruction in self.document.instructions:
            here = {item.at.line for item in rewrite.evidence} if not rewrite.edits else set()
            beside = self.document.source.origin(instruction.span.start) in here
            if beside or any(_touches(edit.span, instruction.span) for edit in rewrite.edits):
                for found in instruction.pragmas:
                    if found.covers(names):
                        return Refusal(rewrite.transform, "switched off by a comment", (_seen(facts, instruction, found),))
        if any(found.covers(names) for found in _global_pragmas(self.document)):
            return Refusal(rewrite.transform, "switched off for the whole file by a comment", rewrite.evidence[:1])
        return None

    def _reruns(self, first: Facts) -> tuple[Rerun, Rerun] | None:
        file = first.cache.entry_file()
        return None if file is None else (first.cache.rerun(file), self.facts.cache.rerun(file))


def _touches(edit: Span, span: Span) -> bool:
    """Whether an edit changes an instruction, or appends to it."""
    return edit.start <= span.end and span.start <= edit.end


def _seen(facts: Facts, instruction: Instruction, found: Pragma) -> Evidence:
    return facts.seen(instruction, f"the comment above it says ignore={','.join(sorted(found.names))}")


def _compatible(rewrites: list[Rewrite]) -> list[Rewrite]:
    """The rewrites, in their order, without those that touch what an earlier one touches."""
    batch: list[Rewrite] = []
    for rewrite in rewrites:
        spans = [edit.span for edit in rewrite.edits]
        taken = [edit.span for other in batch for edit in other.edits]
        paths = {file.path for other in batch for file in other.files}
        if any(a.overlaps(b) for a in spans for b in taken) or any(file.path in paths for file in rewrite.files):
            continue
        batch.append(rewrite)
    return batch


def _lost_comments(before: Document, after: Document) -> list[str]:
    left = list(after.comments)
    lost = []
    for comment in before.comments:
        if comment in left:
            left.remove(comment)
        else:
            lost.append(f'the comment "{comment}" is lost')
    return lost


def _global_pragmas(document: Document) -> tuple[Pragma, ...]:
    found = [p for comment in document.comments if (p := pragma(comment, 0)) is not None and p.is_global]
    for directive in document.directives:
        if directive.name == "check" and (match := re.search(r"skip=([\w,\s]+)", directive.value)):
            names = frozenset(name.strip().lower() for name in match[1].split(","))
            found.append(Pragma(names, directive.line, is_global=True))
    return tuple(found)


def _distinct(refusals: list[Refusal]) -> tuple[Refusal, ...]:
    found = {(r.name, r.reason, r.evidence[:1]): r for r in refusals}
    return tuple(found.values())
