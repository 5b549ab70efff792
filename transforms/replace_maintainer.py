"""Turn MAINTAINER into a label.

Why: MAINTAINER is deprecated since Docker 1.13; a label can be read back and filtered by.
Refuses: A stage that already sets the label `maintainer`.
Source: Docker's reference, build check MaintainerDeprecated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts


class ReplaceMaintainer:
    meta = Meta.of(
        __name__,
        phase=Phase.METADATA,
        may_change={Aspect.AUTHOR, Aspect.LABEL},
        settles=("DL4000", "MaintainerDeprecated"),
    )

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for instruction in document.instructions:
            if instruction.keyword != "MAINTAINER" or facts.is_windows(document.stage_of(instruction)):
                continue
            if label := _label(document, instruction):
                yield Refusal(self, "the stage sets the label already", (facts.seen(label, "sets it"),))
                continue
            if other := _other(document, instruction):
                reason = "the stage names several: the last one counts, and a label would leave the field to another"
                yield Refusal(self, reason, (facts.seen(other, "names another"),))
                continue
            value = _quoted(instruction.value, document.escape)
            yield Rewrite(
                self,
                summary="MAINTAINER becomes a label",
                safety=Safety.SAFE,
                edits=(document.replace(instruction, f"LABEL maintainer={value}"),),
                evidence=(facts.seen(instruction, "uses the deprecated instruction"),),
                changes=(
                    Change(Aspect.AUTHOR, removed=(" ".join(instruction.value.split()),)),
                    Change(Aspect.LABEL, added=(f"maintainer={value}",)),
                ),
                caveats=("the image's Author field stays empty",),
            )


def _label(document: Document, instruction: Instruction) -> Instruction | None:
    stage = document.stage_of(instruction)
    labels = [i for i in stage.body if i.keyword == "LABEL" and any(p.name.strip("\"'") == "maintainer" for p in i.pairs)]
    return next(iter(labels), None)


def _other(document: Document, instruction: Instruction) -> Instruction | None:
    """Another MAINTAINER of the same stage."""
    stage = document.stage_of(instruction)
    return next((i for i in stage.body if i.keyword == "MAINTAINER" and i is not instruction), None)


def _quoted(value: str, escape: str) -> str:
    """`value` in double quotes; MAINTAINER expands no variables, so a `$` in it is literal."""
    inner = value[1:-1].replace(escape + value[:1], "")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" and value[0] not in inner
    value = value[1:-1] if is_quoted else value
    for char in (escape, '"', "$"):
        value = value.replace(char, escape + char)
    return f'"{value}"'
