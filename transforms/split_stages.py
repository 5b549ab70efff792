"""Build in one stage, run in another: compilers, caches and development dependencies stay out of the image.

Why: What only the build needs is shipped, scanned and patched with every image; a second stage takes what runs, and nothing
else.
Refuses: Stages that others build on or name, images that start the builder's own tools, files that a RUN makes outside of
what is known, programs and libraries that the runtime image would not have, sources that compose mounts over the image, start
commands whose tools are development dependencies.
Source: Docker's documentation, "Multi-stage builds"; GoogleContainerTools/distroless, for what those images hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.facts.images import image, size_change
from optimizer.rewrite import Aspect, FileChange, Refusal, Rewrite, decide
from optimizer.split import frame, go, node, python
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.facts import Facts

STRATEGIES = (go, node, python)


class SplitStages:
    meta = Meta.of(
        __name__,
        phase=Phase.STAGES,
        may_change={
            Aspect.BASE,
            Aspect.CMD,
            Aspect.COMMANDS,
            Aspect.COPIES,
            Aspect.ENTRYPOINT,
            Aspect.ENV,
            Aspect.EXPOSE,
            Aspect.HEALTHCHECK,
            Aspect.LABEL,
            Aspect.AUTHOR,
            Aspect.STOPSIGNAL,
            Aspect.USER,
            Aspect.VOLUME,
            Aspect.WORKDIR,
        },
        changes_files={FileChange.ADDED, FileChange.BASE, FileChange.BUILD, FileChange.DEVELOPMENT, FileChange.PACKAGES},
    )

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        stage = facts.target
        base = facts.image(stage) if stage is not None else None
        if stage is None or base is None or facts.base_choice == "keep" or facts.is_windows(stage):
            return
        strategy = next((s for s in STRATEGIES if base.name in s.BASES), None)
        if strategy is None:
            return
        found = frame.obstacle(document, facts, stage) or strategy.plan(document, facts, stage)
        if isinstance(found, frame.Obstacle):
            if not found.is_silent:
                yield Refusal(self, found.reason, found.evidence)
            return
        here = facts.seen(stage.base, f"is the base that everything is shipped on; decided by: {found.decided}")
        decision = decide(strategy.BEST, (facts.context_check(), *found.checks))
        if decision.failed is not None:
            yield Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
            return
        edits, changes = frame.edits(document, facts, stage, found)
        yield Rewrite(
            self,
            summary=found.summary + (size_change(base, new) if (new := image(found.runtime)) is not None else ""),
            safety=decision.safety,
            edits=edits,
            evidence=(here, *found.evidence, *decision.evidence),
            why=found.why,
            changes=changes,
            caveats=found.caveats,
            unknown=(*decision.unknown, *strategy.UNPROVEN),
            held=decision.held,
            implies=found.implies,
            only_proven=found.only_proven,
        )
