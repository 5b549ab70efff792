"""The outcome as a review for a person at a terminal."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from optimizer.rewrite import Safety

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.batch import FileResult
    from optimizer.engine import Outcome
    from optimizer.rewrite import Evidence, Refusal, Rewrite

_NAME_WIDTH = 22


def render(result: FileResult, *, verbose: bool = False, written: bool = False, proven: bool = False) -> str:
    """What was done to one file, why, on what it rests, what was held back and what was not done; with a last newline.

    `written`, or `proven`: what is said of how to go on.
    """
    if result.error is not None:
        error = result.error
        return f"{result.path}:{error.line}:{error.column}: {error.message}\n"
    if result.left_alone is not None:
        found = result.left_alone
        return f"{result.path}  left alone: {found.reason} (line {found.line}: {found.excerpt[:60]})\n"
    outcome = result.outcome
    if outcome is None:
        return ""
    lines = [
        *(f"{result.path}: error: {error}" for error in outcome.errors),
        *_review(result.path, outcome, verbose=verbose),
    ]
    if outcome.is_changed and not written:
        unsafe = "--unsafe " if any(rewrite.safety < Safety.SAFE for rewrite in outcome.applied) else ""
        path = shlex.quote(result.path)
        proof = "" if proven else f"      Prove it: dockeropt verify {path}"
        lines += ["", f"Write it: dockeropt fix -w {'--verify ' if proven else unsafe}{path}{proof}"]
    return "\n".join(lines) + "\n"


def _review(path: str, outcome: Outcome, *, verbose: bool) -> Iterator[str]:
    if not outcome.applied and not outcome.held_back and not verbose:
        why = f" ({len(outcome.refused)} not done: -v says why)" if outcome.refused else ""
        yield f"{path}  nothing to rewrite{why}"
        return
    yield f"{path}  {_counts(outcome)}"
    for alike in _groups(outcome.applied):
        yield ""
        yield from _rewrite(alike, verbose=verbose)
    if outcome.held_back or outcome.refused:
        yield ""
    yield from (_held_back(rewrite) for rewrite in outcome.held_back)
    for refusal in outcome.refused:
        yield from _refusal(refusal, verbose=verbose)
    if outcome.reruns is not None and outcome.reruns[0] != outcome.reruns[1]:
        before, after = outcome.reruns
        yield ""
        yield (
            f"rebuild    after an edit to {before.file}: {after.steps} of {after.total} steps run again "
            f"(before: {before.steps} of {before.total}), by the cache model"
        )


def _counts(outcome: Outcome) -> str:
    counts = [_plural(len(outcome.applied), "rewrite")]
    counts += [f"{len(outcome.held_back)} held back"] if outcome.held_back else []
    counts += [f"{len(outcome.refused)} not done"] if outcome.refused else []
    return ", ".join(counts)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _groups(rewrites: tuple[Rewrite, ...]) -> Iterator[list[Rewrite]]:
    """The rewrites, those that say the same of several places together."""
    found: dict[tuple[object, ...], list[Rewrite]] = {}
    for rewrite in rewrites:
        key = (rewrite.name, rewrite.summary, rewrite.reason, rewrite.caveats, rewrite.unknown)
        found.setdefault(key, []).append(rewrite)
    yield from found.values()


def _rewrite(alike: list[Rewrite], *, verbose: bool) -> Iterator[str]:
    first = alike[0]
    yield f"{first.name.ljust(_NAME_WIDTH)} {first.summary}"
    yield f"    why   {first.reason}"
    yield from _evidence("seen", tuple(dict.fromkeys(item for rewrite in alike for item in rewrite.evidence)))
    yield from (f"    note  {caveat}" for caveat in first.caveats)
    if first.unknown:
        yield f"    unsafe, since unknown: {'; '.join(first.unknown)}"
    if verbose:
        yield from (f"    held  {claim}" for claim in dict.fromkeys(c for rewrite in alike for c in rewrite.held))
        if first.transform.meta.settles:
            yield f"    rules {', '.join(first.transform.meta.settles)}"


def _evidence(word: str, found: tuple[Evidence, ...]) -> Iterator[str]:
    width = max((len(str(item.at)) for item in found), default=0)
    for index, item in enumerate(found):
        head = word if index == 0 else " " * len(word)
        yield f"    {head}  {str(item.at).ljust(width)}  {item.claim}"


def _held_back(rewrite: Rewrite) -> str:
    name = rewrite.name.ljust(_NAME_WIDTH)
    if rewrite.only_proven:
        how = "--verify writes it, if it is proven"
    elif rewrite.safety is Safety.UNSAFE:
        how = "--unsafe applies it, --verify settles it"
    else:
        how = "Too uncertain to write"
    return f"held back  {name} {rewrite.summary}. Unknown: {'; '.join(rewrite.unknown)}. {how}"


def _refusal(refusal: Refusal, *, verbose: bool) -> Iterator[str]:
    name = refusal.name.ljust(_NAME_WIDTH)
    where = dict.fromkeys(str(item.at) for item in refusal.evidence)
    places = f" ({', '.join(where)})" if where and not verbose else ""
    yield f"not done   {name} {refusal.reason}{places}"
    if verbose:
        yield from _evidence("seen", refusal.evidence)
