"""Say that a base stands on a release whose packages are gone, and name the nearest tag that does not.

Why: When a distribution's release has ended, its packages leave the servers; from then on every install in the build fails,
and no flaw is mended any more.
Refuses: Nothing is written: another release, or another version of the language, is a decision of the maintainers.
Source: `distributions.toml`, read off the projects' announcements; docker-library/official-images, for the tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optimizer.contract import plain_entry
from optimizer.dockerfile.edit import Edit
from optimizer.facts.archives import fetches, gone_since
from optimizer.facts.images import living, release_of
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts


class UseLivingRelease:
    meta = Meta.of(__name__, phase=Phase.BASE, may_change={Aspect.BASE})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002
        for stage in facts.built:
            since = gone_since(facts, stage) if stage.parent is None and not facts.is_windows(stage) else None
            if since is not None:
                yield self._proposal(facts, stage, since)

    def _proposal(self, facts: Facts, stage: Stage, since: str) -> Rewrite | Refusal:
        base = facts.image(stage)
        release = release_of(base) if base is not None else None
        assert release is not None
        ended = f", supported until {release.ends}" if release.ends else ""
        seen = [facts.seen(stage.base, f"is {release.distribution} {release.name}{ended}")]
        fetching = _first_fetch(facts, stage)
        if fetching is not None:
            seen.append(facts.seen(fetching, "asks for them, and fails"))
        reference = living(facts.reference(stage) or "")
        what = f"{release.distribution} {release.name} is gone from the servers since {since}"
        if reference is None or "$" in stage.image or "@" in stage.image:
            near = f"; the nearest tag on a living release is {reference}" if reference is not None else ""
            return Refusal(self, f"{what}{near}", tuple(seen))
        before = plain_entry(stage.base)
        return Rewrite(
            self,
            summary=f"{stage.image} -> {reference}: {what}{', so that the build fails' if fetching is not None else ''}",
            safety=Safety.SHOW,
            edits=(Edit(stage.base.words[0].span, reference),),
            evidence=tuple(seen),
            changes=(Change(Aspect.BASE, removed=(before,), added=(before.replace(stage.image, reference, 1),)),),
            unknown=("whether the application works on that release, or with that version",),
        )


def _first_fetch(facts: Facts, root: Stage) -> Instruction | None:
    """The first RUN on a base that installs packages of the distribution, or asks for their lists."""
    return next((run for run in facts.runs_on(root) if any(fetches(c) for c in facts.commands(run))), None)
