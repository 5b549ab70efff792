"""Start from the slim variant of the same base image.

Why: The full image carries compilers, headers and tools that nothing here uses; the slim one has the same version on the same
release of the distribution without them.
Refuses: Variants that do not exist, packages that are compiled, tools that RUN, the entrypoint, the health check or the sources
need and that cannot be installed by name, tags that a build argument or a digest decides, images of somebody else.
Source: docker-library/official-images, for the variants that exist; Docker's best practices, "Choose the right base image".
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from optimizer.contract import plain_entry
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.archives import fetches
from optimizer.facts.commands import apt_install, apt_package_index, is_certain_install
from optimizer.facts.images import Image, architectures, image, size_change, variant
from optimizer.facts.slim import Missing, SlimNeeds
from optimizer.facts.state import is_root
from optimizer.layers import apt_layer, commands_in, insert_words
from optimizer.rewrite import Aspect, Change, Check, Evidence, FileChange, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts

_HARMLESS = frozenset({"apt-get", "apt", "set", "export", "rm", "mkdir", ""})
_BEFORE_INSTALL = frozenset({"ARG", "ENV", "LABEL", "MAINTAINER", "SHELL", "WORKDIR"})
# Programs of Java's development kit, and those that take it.
_DEVELOPMENT_KIT = frozenset(
    """javac jshell jlink jdeps jcmd jps jstat jstack jmap jinfo jhsdb jdb jconsole jar mvn mvnw gradle gradlew ant sbt
    lein""".split()
)


class UseSlimBase:
    meta = Meta.of(
        __name__,
        phase=Phase.BASE,
        may_change={Aspect.BASE, Aspect.COMMANDS},
        changes_files={FileChange.BASE, FileChange.PACKAGES},
    )

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        if facts.target is None or facts.base_choice not in ("auto", "slim"):
            return
        root = facts.shipped[-1]
        base = facts.image(root)
        if base is None or base.kind not in ("full", "jdk") or facts.is_windows(root) or not facts.starts_something:
            return  # an image that starts nothing is a base, or a box of tools: nobody can tell what of it is used
        kind = "jre" if base.name == "eclipse-temurin" else "slim"
        here = facts.seen(root.base, f"starts from the {'development kit' if kind == 'jre' else 'full image'}")
        reference, reason = variant(root.image, kind)
        if "$" in root.image:
            yield Refusal(self, "a build argument decides which image it starts from", (here,))
        elif not reference:
            if base.name in ("openjdk", "php", "golang") or "is one of several kinds" in reason or "digest" in reason:
                yield Refusal(self, reason, (here,))
        elif (new := image(reference)) is not None:
            yield self._proposal(document, facts, root, base, new, reference)

    def _proposal(
        self, document: Document, facts: Facts, root: Stage, base: Image, new: Image, reference: str
    ) -> Rewrite | Refusal:
        assert facts.target is not None
        here = facts.seen(root.base, f"{base.name}:{base.tag} on {base.release or base.distribution}")
        if new.kind == "jre":
            missing = Missing(checks=list(_jdk_checks(document, facts)))
        else:
            missing = SlimNeeds(facts, facts.target, base, facts.runs_on(root)).look()
        decision = decide(Safety.SAFE, (facts.context_check(), *_variant_checks(facts, base, new), *missing.checks))
        if decision.failed is not None:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
        edits = [Edit(root.base.words[0].span, reference)]
        changes = [
            Change(
                Aspect.BASE,
                removed=(plain_entry(root.base),),
                added=(plain_entry(root.base).replace(root.image, reference, 1),),
            )
        ]
        if missing.packages:
            placed = _install(document, facts, root, missing)
            if placed is None:
                needs = next(iter(missing.packages))
                return Refusal(
                    self, f"{needs} would have to be installed where the user is not root", (here, missing.packages[needs])
                )
            edits += placed[0]
            changes.append(placed[1])
        return Rewrite(
            self,
            summary=_summary(base, new, root.image, reference, missing),
            safety=decision.safety,
            edits=tuple(edits),
            evidence=(here, *_distinct(missing), *decision.evidence),
            why=_why(new),
            changes=tuple(changes),
            unknown=decision.unknown,
            held=decision.held,
        )


def _why(new: Image) -> str:
    if new.kind == "jre":
        return "Nothing here compiles or inspects Java: running it takes the runtime alone."
    return "The full image carries compilers, headers and tools that nothing here uses."


def _summary(base: Image, new: Image, old: str, reference: str, missing: Missing) -> str:
    added = f"; {' and '.join(sorted(missing.packages))} installed by name" if missing.packages else ""
    return f"{old} -> {reference}{size_change(base, new)}{added}"


def _distinct(missing: Missing) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(seen.at, f"{seen.claim}: {package} is not in the slim image, so it is installed", seen.excerpt)
        for package, seen in missing.packages.items()
    )


def _variant_checks(facts: Facts, base: Image, new: Image) -> Iterator[Check]:
    wanted = {p.removeprefix("linux/") for service in facts.services for p in service.platforms}
    known = architectures(base.name, new.kind)
    if wanted and known is not None:
        exists = wanted <= set(known)
        claim = f"the {new.kind} variant {'exists' if exists else 'does not exist'} for {', '.join(sorted(wanted))}"
        yield Check(claim, holds=exists)
    if base.release != new.release:
        yield Check("the slim variant is built on another release of the distribution", holds=False)


def _jdk_checks(document: Document, facts: Facts) -> Iterator[Check]:
    assert facts.target is not None
    for run in (i for i in document.instructions if i.keyword == "RUN" and document.stage_of(i) in facts.shipped):
        seen = facts.seen(run, "runs in the image")
        words = ((command.name or "", *command.args) for command in facts.commands(run))
        if any(map(_takes_development_kit, words)):
            yield Check("the development kit is needed", holds=False, evidence=(replace(seen, claim="needs it"),))
        else:
            yield Check("nothing in the build needs the development kit", holds=None, evidence=(seen,))
    for started in facts.application(facts.target).started:
        if _takes_development_kit((posixpath.basename(started.what or ""), *started.words)):
            yield Check("the development kit is needed", holds=False, evidence=(started.seen,))
    yield Check("the program neither compiles Java nor attaches to another (JSP, Groovy, an agent)", holds=None)


def _takes_development_kit(words: tuple[str, ...]) -> bool:
    """Whether a command starts a program of the development kit, an agent, or Java on a source file."""
    words = tuple(piece for word in words for piece in word.split())  # `sh -c "javac Main.java"`
    names = {posixpath.basename(word) for word in words}
    is_source = "java" in names and any(word.endswith(".java") for word in words)
    told = any(word.startswith("-javaagent") or "spring-boot:run" in word for word in words)
    return bool(names & _DEVELOPMENT_KIT) or is_source or told


def _is_by_root(facts: Facts, instruction: Instruction) -> bool:
    user = facts.state(instruction).user
    return user is None or is_root(user)


def _goes_above(facts: Facts, instruction: Instruction) -> bool:
    """Whether an instruction may, or must, stand above the layer that installs what is missing."""
    if instruction.keyword == "ENV":
        return all(pair.name != "PATH" or "$" in (pair.value or "") for pair in instruction.pairs)
    is_setting = instruction.keyword == "COPY" and instruction.destination.startswith("/etc/apt/")
    commands = facts.commands(instruction)
    tells_apt = bool(commands) and "/etc/apt/" in instruction.value and not any(map(fetches, commands))
    return instruction.keyword in _BEFORE_INSTALL or is_setting or tells_apt


def _install(document: Document, facts: Facts, root: Stage, missing: Missing) -> tuple[list[Edit], Change] | None:
    """Edits that install what is missing: names added to the first install of the stage, or a layer of its own; None where
    that would have to happen as another user than root."""
    for run in root.body:
        if run.keyword != "RUN":
            continue
        script = facts.script(run)
        for command in script.commands if script is not None and facts.is_editable(run) else ():
            install = apt_install(command)
            if install is None and command.name not in _HARMLESS:
                break  # it may take what is missing, above the install
            if install is None or not is_certain_install(command) or not install.packages:
                continue
            if not _is_by_root(facts, run):
                continue
            names = tuple(sorted(missing.packages))
            index = apt_package_index(command)
            edits, text = insert_words(facts, run, command, index, (), names)
            return list(edits), Change(Aspect.COMMANDS, removed=(str(command),), added=(text,))
        break  # an install further down would come too late for this RUN
    at = next((i for i in root.body if not _goes_above(facts, i)), None)
    if at is not None and not _is_by_root(facts, at):
        return None
    text = apt_layer(facts, missing.packages)
    change = Change(Aspect.COMMANDS, added=commands_in(text.removeprefix("RUN ").replace(document.escape + "\n", "\n")))
    if at is not None:
        return [document.insert_before(at, text)], change
    end = document.source.line_end(document.source.line_index(root.instructions[-1].span.end))
    return [Edit(Span(end, end), text + document.source.newline)], change
