"""Run `apt-get update` in the layer that installs.

Why: The cache keeps an old `apt-get update` while the install behind it changes, and then asks for packages that are gone; and
only one layer for both can drop the lists again.
Refuses: Instructions in between that must stay there, RUNs whose shell state or flags differ.
Source: Docker's best practices, "apt-get".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.commands import APT_LISTS, is_apt
from optimizer.layers import adjacent_runs, join_runs, why_not_joined
from optimizer.rewrite import Refusal, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts

# What may stand between the update and the install without mattering to either.
_METADATA = frozenset({"ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "VOLUME"})
_SOMETIMES = frozenset({"conditional", "fallback", "function", "loop"})


class JoinAptUpdate:
    meta = Meta.of(__name__, phase=Phase.LAYERS, may_change=())

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for run in facts.runs:
            if not _leaves_lists(facts, run):
                continue
            group = _installs_behind(facts, run)
            if group is not None:
                yield self._joined(facts, group)
            elif (late := _late_install(document, facts, run)) is not None:
                yield self._moved(document, facts, run, late)

    def _joined(self, facts: Facts, runs: list[Instruction]) -> Rewrite | Refusal:
        if reason := why_not_joined(facts, runs):
            return Refusal(self, f"update and install stay apart: {reason[0]}", (facts.seen(reason[1], "stands in the way"),))
        return Rewrite(
            self,
            summary="update and install become one layer",
            safety=Safety.SAFE,
            edits=join_runs(facts, runs),
            evidence=(
                facts.seen(runs[0], "downloads the package lists"),
                facts.seen(runs[-1], "installs from them in another layer"),
            ),
        )

    def _moved(self, document: Document, facts: Facts, run: Instruction, late: Instruction) -> Rewrite | Refusal:
        between = document.instructions[run.index + 1 : late.index]
        here = facts.seen(run, "downloads the package lists")
        hard = next((i for i in between if i.keyword not in _METADATA), None)
        if hard is not None:
            return Refusal(self, f"{hard.keyword} stands between update and install", (here, facts.seen(hard, "comes first")))
        script = facts.script(run)
        if script is None or len(script.commands) != 1 or run.lead is not None:
            return Refusal(self, "the RUN that updates does more than that", (here,))
        if (reason := why_not_joined(facts, [run, late])) is not None:
            return Refusal(self, f"update and install stay apart: {reason[0]}", (facts.seen(reason[1], "stands in the way"),))
        update = run.argument.text
        install = facts.script(late)
        assert install is not None
        if not install.is_chain:
            return Refusal(self, "the RUN that installs is more than a chain of `&&`", (facts.seen(late, "installs"),))
        at = facts.source_span(late, install.steps[0].span).start
        above, start = document.chain(late)
        return Rewrite(
            self,
            summary="the update moves into the layer that installs",
            safety=Safety.SAFE,
            edits=(document.delete(run), Edit(Span(at, at), f"{update}{above}{start}")),
            evidence=(here, facts.seen(late, "installs from them in another layer")),
        )


def _leaves_lists(facts: Facts, run: Instruction) -> bool:
    """Whether `run` downloads the lists and leaves them, or installs nothing from them itself."""
    script = facts.script(run)
    if script is None or not any(is_apt(c, "update") and _SOMETIMES.isdisjoint(c.guards) for c in script.commands):
        return False
    return not facts.deletes(run, APT_LISTS) and not facts.is_mounted(run, APT_LISTS)


def _needs_lists(facts: Facts, run: Instruction) -> bool:
    """Whether `run` installs before it updates, or without."""
    script = facts.script(run)
    first = next((c for c in (script.commands if script else ()) if is_apt(c, "install", "update")), None)
    return first is not None and is_apt(first, "install")


def _installs_behind(facts: Facts, run: Instruction) -> list[Instruction] | None:
    """`run` up to the last of the adjacent RUNs that need its lists, if the very next one does."""
    runs = adjacent_runs(facts, run)
    end = 1
    while end < len(runs) and _needs_lists(facts, runs[end]):
        end += 1
    return runs[:end] if end > 1 else None


def _late_install(document: Document, facts: Facts, run: Instruction) -> Instruction | None:
    """The first RUN further down the stage that installs from these lists, where `run` itself does not."""
    script = facts.script(run)
    if script is None or any(is_apt(c, "install") for c in script.commands):
        return None
    stage = document.stage_of(run)
    later = (i for i in stage.body if i.index > run.index and i.keyword == "RUN")
    return next((i for i in later if _needs_lists(facts, i)), None)
