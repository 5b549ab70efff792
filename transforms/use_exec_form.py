"""Write CMD and ENTRYPOINT as a JSON array.

Why: Without a shell in between the program is process 1 and gets the stop signal itself, and no shell is needed in the image.
Refuses: Variables, wildcards, `&&`, pipes, redirections, builtins, an own SHELL, and an ENTRYPOINT beside which CMD or run
arguments would begin to count.
Source: Docker's build check JSONArgsRecommended; hadolint DL3025.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.contract import exec_entry
from optimizer.facts.commands import apt_install, is_certain_install, option_value, written
from optimizer.facts.manifests import Application
from optimizer.facts.node import installs_by_name, named_packages
from optimizer.facts.packages import is_base_program, node_package_of_program, package_of, python_package_of_program
from optimizer.facts.places import PROGRAMS
from optimizer.facts.python_packages import is_install, requirements
from optimizer.facts.state import DEFAULT_SHELL
from optimizer.rewrite import Aspect, Change, Check, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.rewrite import Evidence

# Programs that only pass their arguments on: `tini -- program`.
_INITS = frozenset({"tini", "dumb-init", "catatonit"})
_BUILTINS = frozenset(
    """. : [ alias bg break cd command continue eval exit export fg hash let local read return set shift source test times trap
    type ulimit umask unalias unset wait""".split()
)
_COMPILERS = frozenset({"gcc", "g++", "cc", "c++", "clang", "clang++", "rustc"})


class UseExecForm:
    meta = Meta.of(
        __name__,
        phase=Phase.COMMANDS,
        may_change={Aspect.CMD, Aspect.ENTRYPOINT},
        settles=("DL3025", "JSONArgsRecommended"),
    )

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for stage in document.stages:
            for keyword in ("ENTRYPOINT", "CMD"):
                instruction = stage.last(keyword)
                if instruction is None or instruction.exec_form is not None or facts.is_windows(stage):
                    continue
                yield self._proposal(document, facts, instruction)

    def _proposal(self, document: Document, facts: Facts, instruction: Instruction) -> Rewrite | Refusal:
        words = _argv(facts, instruction)
        if isinstance(words, str):
            return Refusal(self, words, (facts.seen(instruction, "needs the shell"),))
        decision = decide(Safety.SAFE, _checks(document, facts, instruction, words))
        here = facts.seen(instruction, "is a plain command: the shell would only start it")
        if decision.failed:
            return Refusal(
                self, decision.failed.claim, (facts.seen(instruction, "is in shell form"), *decision.failed.evidence)
            )
        keyword = instruction.keyword
        return Rewrite(
            self,
            summary=f"{keyword} starts {words[0]} without a shell in between",
            safety=decision.safety,
            edits=(document.replace(instruction, f"{_keyword(document, instruction)} {_array(words)}"),),
            evidence=(here, *decision.evidence),
            changes=(Change(Aspect[keyword], removed=(" ".join(instruction.value.split()),), added=(exec_entry(words),)),),
            unknown=decision.unknown,
            held=decision.held,
        )


def _keyword(document: Document, instruction: Instruction) -> str:
    """The keyword as its author wrote it."""
    written = document.raw(instruction)[: len(instruction.keyword)]
    return written if written.upper() == instruction.keyword else instruction.keyword


def _array(words: tuple[str, ...]) -> str:
    return json.dumps(list(words), ensure_ascii=False)


def _argv(facts: Facts, instruction: Instruction) -> tuple[str, ...] | str:
    """The words that the shell would start, or why it takes a shell to know them."""
    script = facts.script(instruction)
    if facts.state(instruction).shell != DEFAULT_SHELL:
        return "SHELL is not the default one, and may do more than start the program"
    if instruction.line.inner_comments:
        return "comments stand between its lines"
    if script is None or len(script.steps) != 1 or len(script.commands) != 1 or script.tail or script.comments:
        return "it is more than one plain command"
    command = script.commands[0]
    if command.guards or command.redirects or command.assignments or script.steps[0].kind != "command":
        return "it uses redirections, variables or operators of the shell"
    words = command.words[1:] if command.words[0].text == "exec" else command.words
    if words is not command.words and words and words[0].raw.startswith("-"):
        return "exec has options, which only the shell knows"
    if any(not word.is_plain for word in words):
        return "it holds a variable or a wildcard, which only a shell expands"
    argv = tuple(word.text or "" for word in words)
    if not argv or argv[0] in _BUILTINS:
        return "it starts with a builtin of the shell"
    return argv


def _checks(document: Document, facts: Facts, instruction: Instruction, words: tuple[str, ...]) -> Iterator[Check]:
    yield _is_program(facts, instruction, words[0])
    stage = document.stage_of(instruction)
    entrypoint = next((e for s in stage.ancestry if (e := s.last("ENTRYPOINT")) is not None), None)
    if instruction.keyword == "ENTRYPOINT":
        others = [s for s in document.stages if stage in s.ancestry]
        if command := next((c for s in others if (c := s.last("CMD")) is not None), None):
            seen = facts.seen(command, "would become its arguments")
            yield Check("a shell-form ENTRYPOINT ignores CMD; in exec form it would not", holds=False, evidence=(seen,))
        yield Check("nobody passes arguments to the container (in shell form they are ignored)", holds=None)
        return
    if entrypoint is not None:
        yield _passes_on(facts, entrypoint)
        return
    base = facts.image(stage)
    known = base is not None and base.entrypoint in ("", "passes")
    yield Check("the base image has no ENTRYPOINT, or one that starts what it is given", holds=known or None)


def _passes_on(facts: Facts, entrypoint: Instruction) -> Check:
    words = entrypoint.exec_form
    if words == ():
        return Check("ENTRYPOINT is empty", holds=True)
    if words and posixpath.basename(words[0]) in _INITS:
        words = _behind_init(words)
    seen = (facts.seen(entrypoint, "gets the words of CMD"),)
    if words is None:
        return Check("ENTRYPOINT is in shell form: it ignores CMD", holds=False, evidence=seen)
    if words == ():
        return Check("ENTRYPOINT starts what it is given", holds=True, evidence=seen)
    if words and re.search(r"\.sh$|entrypoint", words[0]):
        return Check("the entrypoint script does the same with other words", holds=None, evidence=seen)
    return Check(
        "ENTRYPOINT gets CMD's words as arguments: `/bin/sh -c ...` and the plain words differ",
        holds=False,
        evidence=seen,
    )


def _behind_init(words: tuple[str, ...]) -> tuple[str, ...]:
    """What an init process is told to start before it gets to CMD; empty where it starts CMD itself."""
    rest = words[words.index("--") + 1 :] if "--" in words else words[1:]
    return tuple(word for index, word in enumerate(rest) if index > 0 or not word.startswith("-"))


def _is_program(facts: Facts, instruction: Instruction, word: str) -> Check:
    """Whether the first word is a program that can be started without a shell."""
    stage = facts.document.stage_of(instruction)
    base, name = facts.image(stage), posixpath.basename(word)
    is_named = "/" not in word or posixpath.dirname(word) in PROGRAMS
    if base is not None and is_named and (name in base.programs or (base.manager == "apt" and is_base_program(name))):
        return Check(f"the image {base.name} has the program {name}", holds=True)
    if (seen := _installed(facts, instruction, name)) is not None and is_named:
        return Check(f"{name} is installed as a program", holds=True, evidence=(seen,))
    if (seen := _compiled(facts, stage, instruction, word)) is not None:
        return Check(f"{name} is compiled in this file: a program, not a script", holds=True, evidence=(seen,))
    path = facts.state(instruction).path(word) if "/" in word else None
    for copy in facts.copies(stage):
        source = copy.locate(path) if path else None
        data = facts.context.read_bytes(source) if source else None
        if source and data is not None:
            seen = facts.seen_in(source, "is what it starts")
            starts = data.startswith((b"#!", b"\x7fELF"))
            runs = starts and facts.context.is_executable(source)
            holds = runs if starts else False
            return Check(f"{source} can be started without a shell (first line and mode)", holds=holds, evidence=(seen,))
    return Check(f"{word} is a program, not a script that only a shell can start", holds=None)


def _installed(facts: Facts, instruction: Instruction, name: str) -> Evidence | None:
    """The line that installs a package of Debian, Python or npm with that program; a script of theirs has a first line and a
    mode that let it start."""
    base = facts.image(facts.document.stage_of(instruction))
    debian, python = package_of(name, base.release if base is not None else None), python_package_of_program(name)
    for run in facts.up_to(instruction, "RUN"):
        application = Application(facts, run)
        for placed in facts.placed(run) or ():
            command = placed.command
            install = apt_install(command) if is_certain_install(command) else None
            if install is not None and debian is not None and debian in install.packages:
                return facts.seen_command(run, command, f"installs {debian}")
            if python is not None and is_install(placed) and command.is_unconditional:
                asked = (one for one in requirements(application, placed) or () if one.name == python)
                if (found := next(asked, None)) is not None:
                    return found.seen
            named = named_packages(command) if installs_by_name(command) and command.is_unconditional else ()
            if any(word.partition("@")[0] == node_package_of_program(name) for word in named):
                return facts.seen_command(run, command, f"installs {name}")
    return None


def _compiled(facts: Facts, stage: Stage, instruction: Instruction, word: str) -> Evidence | None:
    """The line that compiles what is started: `go build`, or a compiler of C that is told to make that very file."""
    found = facts.application(stage).compiled.get(posixpath.basename(word))
    path = facts.state(instruction).path(word)
    runs = tuple(facts.up_to(instruction, "RUN"))
    if any(touched.path == path for run in runs for touched in written(facts.placed(run) or ())):
        return None  # what is written over it may be a script, which only a shell starts without a first line
    if found is not None:
        return found
    for run in runs:
        for placed in facts.placed(run) or ():
            made = option_value(placed.command.args, "-o") if placed.command.name in _COMPILERS else None
            if made is not None and path is not None and placed.path(made) == path:
                return facts.seen_command(run, placed.command, "compiles it")
    return None
