"""Prove a rewritten Dockerfile: build, run and compare both images, find what breaks, and measure what is won.

The builds run one after the other; looking into an image and running it happens meanwhile, so that verification costs little
more than the builds themselves.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.engine import Outcome, optimize
from optimizer.facts import Facts
from optimizer.facts.started import How
from optimizer.verify import behaviour, snapshot
from optimizer.verify.behaviour import Behaviour, Observer
from optimizer.verify.bisect import Bisection, Failed
from optimizer.verify.builders import inspect
from optimizer.verify.commands import BuilderError
from optimizer.verify.compare import Comparison
from optimizer.verify.difference import Area, Difference, Image, failures
from optimizer.verify.images import described, image_config
from optimizer.verify.packages import system_packages
from optimizer.verify.scan import Scan, scan
from optimizer.verify.session import append

if TYPE_CHECKING:
    from concurrent.futures import Future

    from optimizer.batch import FileResult
    from optimizer.rewrite import Key
    from optimizer.verify.bisect import Dropped
    from optimizer.verify.builders import Build, Recipe
    from optimizer.verify.images import ImageConfig
    from optimizer.verify.session import Session

_NEARLY = 0.5  # seconds less than the runtime waits before it kills: a program that had to be killed cannot stop any slower
_MAKES_LAYERS = ("RUN", "COPY", "ADD", "WORKDIR", "/bin/sh -c")
HINTS: dict[str, tuple[str, ...]] = {
    "read-only": ("--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - in the container
    "no capabilities": ("--cap-drop", "ALL"),
}


class Verdict(Enum):
    """What came of a proof."""

    PROVEN = "proven"
    FAILED = "failed"
    NOT_COMPARABLE = "not comparable"
    NOTHING = "nothing to prove"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image: the instruction that made it, its size in bytes, and whether it came with the base."""

    made_by: str
    size: int
    is_of_base: bool = False


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of one image; None where it was not.

    `size` and `wasted` in bytes; `packages` of the distribution; `cold_seconds` of a build without the cache; after an edit of
    one source `steps` of `total` ran again, in `edit_seconds`.
    """

    size: int
    layers: tuple[Layer, ...]
    packages: int | None
    wasted: int
    cold_seconds: float | None = None
    steps: int | None = None
    total: int | None = None
    edit_seconds: float | None = None
    scan: Scan | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of verifying one file.

    `reason` and `log`: why nothing can be claimed, or what failed to build; `differences`: announced ones and failures;
    `hints`: whether the image also runs in a stricter way; `edited`: the file whose edit was measured; `dropped`: the rewrites
    that were left out; `seconds` of all, `build_seconds` of the builds among them.
    """

    path: str
    verdict: Verdict
    outcome: Outcome
    builder: str
    reason: str = ""
    log: tuple[str, ...] = ()
    before: Measures | None = None
    after: Measures | None = None
    differences: tuple[Difference, ...] = ()
    behaviours: tuple[Behaviour, Behaviour] | None = None
    hints: dict[str, bool] = field(default_factory=dict)
    edited: str | None = None
    dropped: tuple[Dropped, ...] = ()
    seconds: float = 0.0
    build_seconds: float = 0.0

    @property
    def settles(self) -> bool:
        """Whether anything can be claimed: the images were compared, or there is nothing to compare."""
        return self.verdict is not Verdict.NOT_COMPARABLE

    @property
    def failures(self) -> tuple[Difference, ...]:
        return failures(self.differences)


@dataclass(slots=True)
class _Built:
    """An image that was built, and what is found out about it meanwhile."""

    outcome: Outcome
    recipe: Recipe
    tag: str
    build: Build
    described: dict[str, Any]
    image: Image | None = None
    behaviour: Behaviour | None = None
    differences: tuple[Difference, ...] = ()
    hints: dict[str, bool] = field(default_factory=dict)
    again: Build | None = None
    is_cold: bool = True

    @property
    def config(self) -> ImageConfig:
        return image_config(self.described)


def nothing_to_prove(result: FileResult) -> Proof | None:
    """The proof of a file in which nothing is rewritten, for which no builder is needed; None for any other."""
    if result.outcome is None or result.is_changed:
        return None
    return Proof(result.path, Verdict.NOTHING, result.outcome, "", reason="nothing to rewrite")


def prove(session: Session, result: FileResult, *, drops: bool) -> Proof:
    """Verify what was made of one file. With `drops` the rewrites that break it are left out, and what remains is proven.

    Raises BuilderError where the builder cannot go on.
    """
    return _Prover(session, result).prove(drops=drops)


class _Prover:
    def __init__(self, session: Session, result: FileResult) -> None:
        assert result.outcome is not None
        assert result.context is not None
        self.session = session
        self.result = result
        self.first = result.outcome
        self.context = result.context
        self.settings = result.settings
        self.started = session.commands.now()
        self.built_before = session.build_seconds
        self._copied: Future[Path] | None = None
        self.edit = self._entry_file() if session.options.edit is None else self._named_file(session.options.edit)

    # ---------------------------------------------------------------- the course of it

    def prove(self, *, drops: bool) -> Proof:
        self.original = self._build(Outcome(self.first.before, self.first.before), "the original", is_cold=True)
        if not self.original.build.is_built:
            if (pull := self.original.build.failed_pull) is not None:
                raise BuilderError(pull)
            return self._not_comparable("the original does not build", self.original.build.log.tail())
        self.observer = Observer(self.session.builder, self.session.options, self.original.tag)
        looking = self.session.pool.submit(self._look, self.original)
        watching = self.session.pool.submit(self._watch_original)
        if self.edit is not None:
            self._copied = self.session.pool.submit(self.session.copied_context, self.context)
        candidate = self._build(self.first, "the rewritten image", is_cold=True)
        looking.result()
        watching.result()
        assert self.original.behaviour is not None
        reason = behaviour.why_not_comparable(self.original.behaviour, self.original.config, self.session.options.http)
        if reason is not None:
            return self._not_comparable(reason, self.original.behaviour.output)
        failed = self._examine(candidate, is_final=True)
        if failed is None or not drops:
            return self._finished(candidate, failed, ())
        return self._bisect(candidate, failed)

    def _bisect(self, candidate: _Built, failed: Failed) -> Proof:
        bisection = Bisection(self._optimized, self._check)
        outcome = bisection.settle(candidate.outcome, failed)
        dropped = tuple(bisection.dropped)
        if not outcome.is_changed:
            return self._proof(Verdict.NOTHING, outcome, reason="no rewrite holds", dropped=dropped)
        candidate = self._build(outcome, "what holds", is_cold=True)
        return self._finished(candidate, self._examine(candidate, is_final=True), dropped)

    def _optimized(self, without: frozenset[Key], at_most: int | None = None) -> Outcome:
        return optimize(self.first.before, self.context, self.settings, without=without, at_most=at_most)

    def _check(self, outcome: Outcome) -> Failed | None:
        names = f"the first {len(outcome.applied)} rewrites" if len(outcome.applied) > 1 else "the first rewrite"
        return self._examine(self._build(outcome, f"looking for the guilty one: {names}", is_cold=False), is_final=False)

    # ---------------------------------------------------------------- one image

    def _build(self, outcome: Outcome, what: str, *, is_cold: bool) -> _Built:
        recipe = self.session.recipe(outcome, self.context, self.settings.target)
        tag, build = self.session.build(recipe, f"building {what}", is_cold=is_cold)
        found = described(self.session.builder, tag) if build.is_built else {}
        return _Built(outcome, recipe, tag, build, found, is_cold=is_cold)

    def _look(self, built: _Built) -> None:
        """Take in the files of an image."""
        files = snapshot.take(self.session.builder, built.tag, built.described)
        files.base = self._base_layers(built, built.config.layers)
        built.image = Image(built.tag, built.config, files)

    def _base_layers(self, built: _Built, layers: tuple[str, ...]) -> int:
        """How many of an image's layers came with its base: those that the base has, or, where that is not here, all but those
        of our own instructions."""
        facts = Facts(built.outcome.after, self.context, self.settings.target)
        assert facts.target is not None
        reference = facts.reference(facts.target)
        if reference == "scratch":
            return 0
        base = inspect(self.session.builder, "image", "inspect", reference) if reference else None
        own = tuple(((base or {}).get("RootFS") or {}).get("Layers") or ())
        if own and layers[: len(own)] == own:
            return len(own)
        count = sum(1 for stage in facts.shipped for instruction in stage.body)
        newest = self._history(built.tag)[:count]
        return max(len(layers) - sum(1 for layer in newest if layer is not None), 0)

    def _watch_original(self) -> None:
        self.original.behaviour = self.observer.observe(self.original.tag, self.original.config)

    def _examine(self, built: _Built, *, is_final: bool) -> Failed | None:
        """What is wrong with a rewritten image. When it `is_final`, it is measured too."""
        if not built.build.is_built:
            why = built.build.failed_pull or "it does not build"
            built.differences = (Difference(Area.BUILD, why),)
            return Failed(built.differences, built.build.log.tail())
        looking = self.session.pool.submit(self._compare, built)
        watching = self.session.pool.submit(self._watch, built, with_hints=is_final)
        if is_final:
            self._rebuild(self.original)
            self._rebuild(built)
        self.session.on_progress("comparing the images")
        found = looking.result()
        self.session.on_progress("running the images")
        ways = watching.result()
        built.differences = (*found, *(Difference(Area.BEHAVIOUR, way) for way in ways))
        wrong = failures(built.differences)
        assert built.behaviour is not None
        speaks = any(failure.area is Area.BEHAVIOUR for failure in wrong)
        return Failed(wrong, built.behaviour.output[-12:] if speaks else ()) if wrong else None

    def _compare(self, built: _Built) -> tuple[Difference, ...]:
        self._look(built)
        assert self.original.image is not None
        assert built.image is not None
        facts = cache(partial(self._facts_after, built.outcome))
        return tuple(Comparison(self.original.image, built.image, built.outcome.applied, facts).differences())

    def _facts_after(self, outcome: Outcome, count: int) -> Facts:
        """The facts about the document after the first `count` rewrites of an outcome."""
        if count in (0, len(outcome.applied)):
            document, files = (self.first.before, ()) if count == 0 else (outcome.after, outcome.files)
        else:
            kept = {rewrite.key for rewrite in outcome.applied}
            without = frozenset(rewrite.key for rewrite in self.first.applied if rewrite.key not in kept)
            part = self._optimized(without, count)
            document, files = part.after, part.files
        context = self.context.with_files({file.path: file.text for file in files}) if files else self.context
        return Facts(document, context, self.settings.target)

    def _watch(self, built: _Built, *, with_hints: bool) -> tuple[str, ...]:
        """Run the rewritten image like the original; what it does otherwise."""
        before = self.original.behaviour
        assert before is not None
        stops = before.stop_seconds is not None and before.stop_seconds < self.session.commands.patience.stop - _NEARLY
        after = self.observer.observe(built.tag, built.config, like=before, stops=stops)
        built.behaviour = after
        compares_body = self.session.options.body
        again = None
        if behaviour.may_vary(before, after):
            again = self.observer.observe(self.original.tag, self.original.config, like=before, is_brief=True)
        found = tuple(behaviour.differences(before, after, again, compares_body=compares_body))
        if with_hints and not found:
            both = tuple(word for options in HINTS.values() for word in options)
            bears_both = self._works(built, both)
            built.hints = {name: bears_both or self._works(built, options) for name, options in HINTS.items()}
        return found

    def _works(self, built: _Built, options: tuple[str, ...]) -> bool:
        """Whether the image also does its job when it is run with more restrictive options."""
        before = self.original.behaviour
        assert before is not None
        wait = self.session.commands.patience.hint
        strict = self.observer.observe(built.tag, built.config, *options, like=before, is_brief=True, wait=wait)
        return behaviour.works(before, strict)

    # ---------------------------------------------------------------- what is won

    def _named_file(self, name: str) -> str:
        """The file `--edit` names, below the build context: as seen from there, or from the current folder."""
        root = self.context.root
        seen = Path(os.path.normpath(Path(name).absolute()))
        below = seen.relative_to(root).as_posix() if root is not None and seen.is_relative_to(root) else None
        for path in (name, below):
            if path is not None and not path.startswith("/") and self.context.is_file(path):
                return path
        raise BuilderError(f"--edit: expected a file that the builder gets, found {name}")

    def _entry_file(self) -> str | None:
        """The source, below the build context, that the image starts; else what a developer would edit most likely."""
        facts = Facts(self.first.before, self.context, self.settings.target)
        if facts.target is None:
            return None
        paths = (s.what for s in facts.application(facts.target).started if s.how in (How.NODE, How.PYTHON) and s.what)
        copies = tuple(copy for stage in facts.shipped for copy in facts.copies(stage))
        found = [source for path in paths for copy in copies if (source := copy.locate(path)) and self.context.is_file(source)]
        return found[-1] if found else facts.cache.entry_file()  # what prepares the start comes before what stays

    def _rebuild(self, built: _Built) -> None:
        """Build once more, after an edit of one source: blank lines, which break no language. Each edit is another one, since
        the builder's cache goes by content."""
        if self._copied is None or self.edit is None or built.again is not None:
            return
        recipe = replace(built.recipe, context=self._copied.result())
        text = "".join(random.choice(("\n", " \n")) for _ in range(40))  # noqa: S311 - no secret
        append(recipe.context / self.edit, text)
        name = "the original" if built is self.original else "the rewritten image"
        _, built.again = self.session.build(recipe, f"building {name} after an edit of {self.edit}", is_cold=False)

    def _history(self, tag: str) -> tuple[Layer | None, ...]:
        """What made an image, newest first: a layer, or None for what only sets something."""
        found: list[Layer | None] = []
        for made_by, size in self.session.builder.history(tag):
            is_layer = size > 0 or (made_by.startswith(_MAKES_LAYERS) and "#(nop)" not in made_by)
            found.append(Layer(made_by, size) if is_layer else None)
        return tuple(found)

    def _measures(self, built: _Built) -> Measures | None:
        image = built.image
        if image is None:
            return None
        made = [layer for layer in reversed(self._history(built.tag)) if layer is not None]
        layers = tuple(replace(layer, is_of_base=number < image.files.base) for number, layer in enumerate(made))
        packages = system_packages(image.files)
        again = built.again if built.again is not None and built.again.is_built else None
        return Measures(
            image.config.size,
            layers,
            None if packages is None else len(packages),
            image.files.wasted,
            built.build.seconds if built.is_cold else None,
            again.steps if again else None,
            again.total if again else None,
            again.seconds if again else None,
            scan(self.session, built.tag) if self.session.options.scan else None,
        )

    # ---------------------------------------------------------------- the result

    def _finished(self, built: _Built, failed: Failed | None, dropped: tuple[Dropped, ...]) -> Proof:
        assert self.original.behaviour is not None
        ways = (self.original.behaviour, built.behaviour) if built.behaviour is not None else None
        return self._proof(
            Verdict.PROVEN if failed is None else Verdict.FAILED,
            built.outcome,
            log=failed.log if failed is not None else (),
            before=self._measures(self.original),
            after=self._measures(built),
            differences=built.differences,
            behaviours=ways,
            hints=built.hints,
            edited=self.edit,
            dropped=dropped,
        )

    def _not_comparable(self, reason: str, log: tuple[str, ...]) -> Proof:
        return self._proof(Verdict.NOT_COMPARABLE, self.first, reason=reason, log=log[-12:])

    def _proof(self, verdict: Verdict, outcome: Outcome, **found: Any) -> Proof:
        seconds = self.session.commands.now() - self.started
        builds = self.session.build_seconds - self.built_before
        return Proof(self.result.path, verdict, outcome, self.session.version, seconds=seconds, build_seconds=builds, **found)
