"""Edits to the shell scripts of RUN: a command appended, a flag added, several RUNs joined into one layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.edit import Edit, Span
from optimizer.dockerfile.shell import CHANGES_SHELL, read_script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command, Script
    from optimizer.facts import Facts

# What must stay in a shell, or a layer, of its own: it replaces the shell, or leaves something running behind it.
_ALONE = frozenset(
    """exec wait service systemctl pg_ctl pg_ctlcluster apachectl apache2ctl supervisord mysqld mysqld_safe mariadbd
    postgres mongod redis-server nginx httpd apache2 sshd cron crond memcached rabbitmq-server dockerd su runuser
    gosu setpriv coproc setsid""".split()
)
# Expansions and commands of a shell that set variables without an assignment.
_ASSIGNS = re.compile(r":?=[^}\s]*\}|\(\(|\[\[|\bprintf\s+-v|\bbuiltin\b")
_DETACHES = re.compile(r"--(daemonize|daemon|detach|fork|background)$|-daemon$")
# Programs of the base system that no install puts in another folder of the PATH. A shell remembers where it found a program.
_STABLE = frozenset(
    """apt apt-get apk yum dnf microdnf dpkg rm mkdir rmdir mv cp ln ls cat chmod chown tar gzip unzip find sed grep test [ [[
    true : echo printf touch sudo install curl wget""".split()
)
_INSTRUCTION_COMMENT = re.compile(
    r"\s*#+\s*(RUN|COPY|ADD|ENV|ARG|WORKDIR|USER|FROM|EXPOSE|VOLUME|CMD|ENTRYPOINT)\s|\s*#.*(\\|&&)\s*$"
)
MAX_COMMANDS = 12


def append_command(facts: Facts, run: Instruction, command: str) -> Edit | None:
    """Run `command` at the end of `run`, if all before it succeeded; None where the script has no such end."""
    script = facts.script(run)
    if script is None or not facts.is_editable(run) or not script.steps or script.tail == "&":
        return None
    last = script.steps[-1]
    inside = [c for c in script.commands if last.span.contains(c.span)]
    if any(c.name in ("exit", "exec", "return") for c in inside) or "<<" in script.text[last.span.start : last.span.end]:
        return None
    joiner = _joiner(facts, run, script, is_negated=any("negated" in c.guards for c in inside))
    if joiner is None:
        return None
    at = facts.source_span(run, last.span).end
    above, start = facts.document.chain(run, joiner)
    return Edit(Span(at, at), f"{above}{start}{command}")


def run_behind(facts: Facts, run: Instruction, command: Command, text: str) -> Edit | None:
    """Run `text` right behind the statement of `run` that `command` stands in, if that succeeded; None where nothing can
    stand there.

    In the middle of a script it must neither hide a failure nor make one count that did not: the operator that follows, and
    `set -e`, decide how it is joined.
    """
    script = facts.script(run)
    if script is None or not facts.is_editable(run) or not script.steps:
        return None
    index = script.step_of(command)
    while index + 1 < len(script.steps) and script.steps[index + 1].joiner == "||":
        index += 1  # behind the last of the alternatives
    if index + 1 == len(script.steps):
        return append_command(facts, run, text)
    step, following = script.steps[index], script.steps[index + 1].joiner
    inside = [c for c in script.commands if step.span.contains(c.span)]
    is_odd = any(c.name in ("exit", "exec", "return") or "negated" in c.guards for c in inside)
    if following == "&" or is_odd or "<<" in script.text[step.span.start : step.span.end]:
        return None
    stops = script.expects_errexit or facts.state(run).has_errexit
    joiner = ";" if stops and following != "&&" else "&&"
    at = facts.source_span(run, step.span).end
    above, start = facts.document.chain(run, joiner)
    source = facts.document.source
    if run.heredocs and following == "\n" and step.joiner in ("", "\n"):
        line = source.line(source.line_index(at))
        return Edit(Span(at, at), f"{source.newline}{line[: len(line) - len(line.lstrip())]}{text}")
    if source.line_index(at) == source.line_index(facts.source_span(run, script.steps[index + 1].span).start):
        above, start = (" && ", "") if joiner == "&&" else ("; ", "")  # the author goes on in the same line
    return Edit(Span(at, at), f"{above}{start}{text}")


def as_run(command: Command, text: str) -> str:
    """`text` with the `sudo` and its options that `command` was run with, if it was."""
    is_sudo = bool(command.words) and command.words[0].text == "sudo"
    return " ".join([*(word.raw for word in command.words[: command.head]), text]) if is_sudo else text


def commands_in(text: str) -> tuple[str, ...]:
    """The commands of a script of our own making, as the contract writes them. Raises ValueError if it cannot be read."""
    script = read_script(text)
    if script is None:
        raise ValueError(f"not a readable script: {text}")
    return tuple(str(command) for command in script.commands)


def _joiner(facts: Facts, run: Instruction, script: Script, *, is_negated: bool) -> str | None:
    """What to put between a script's last statement and one more command, so that a failure still ends the RUN.

    Under `set -e` a loop or a group on the left of `&&` would go on behind a failure: there only a `;` will do, and that only
    where the statement stands alone. None where neither works.
    """
    last = script.steps[-1]
    if not (script.expects_errexit or facts.state(run).has_errexit):
        return "&&"
    is_switched_off = any(c.name == "set" and any(arg.startswith("+") for arg in c.args) for c in script.commands)
    if last.joiner == ";" and not is_negated and not is_switched_off:
        return ";"
    return "&&" if script.ends_plainly else None


def insert_words(
    facts: Facts, run: Instruction, command: Command, index: int, options: tuple[str, ...], names: tuple[str, ...] = ()
) -> tuple[tuple[Edit, ...], str]:
    """Put `options` and then `names` in front of word `index` of `command`; with the edits, the command as it then reads.

    Options stay on the line of the word before; names get a line of their own where the list has one line a name.
    """
    words = [word.raw for word in command.words]
    redirects = [f"{r.operator}{r.target or ''}" for r in command.redirects]
    text = " ".join([*command.assignments, *words[:index], *options, *names, *words[index:], *redirects])
    source = facts.document.source
    before = facts.source_span(run, command.words[index - 1].span).end
    if index == len(words):
        return (Edit(Span(before, before), "".join(f" {word}" for word in (*options, *names))),), text
    after = facts.source_span(run, command.words[index].span).start
    gap = source.text[before:after]
    if "\n" not in gap:
        return (Edit(Span(after, after), "".join(f"{word} " for word in (*options, *names))),), text
    edits = [Edit(Span(before, before), "".join(f" {option}" for option in options))] if options else []
    if names and re.search(r"^[ \t]*#", gap, re.MULTILINE):  # the comment is about the first name: stay in front of it
        index_below = source.line_index(before) + 1
        line, text_below = source.line_starts[index_below], source.line(index_below)
        indent = text_below[: len(text_below) - len(text_below.lstrip(" \t"))]
        edits.append(Edit(Span(line, line), "".join(f"{indent}{n} {facts.document.escape}{source.newline}" for n in names)))
    elif names:
        edits.append(Edit(Span(after, after), "".join(f"{name}{_line_break(facts, after)}" for name in names)))
    return tuple(edits), text


def _line_break(facts: Facts, at: int) -> str:
    """A continuation, and the white space that stands in front of `at`."""
    document = facts.document
    start = document.source.line_starts[document.source.line_index(at)]
    return f" {document.escape}{document.source.newline}{document.source.text[start:at]}"


def flag_after(facts: Facts, run: Instruction, command: Command, subcommand: str, flag: str) -> tuple[tuple[Edit, ...], str]:
    """Put `flag` behind `subcommand`; with the edits, the command as it then reads."""
    index = next(i for i, word in enumerate(command.words) if word.text == subcommand and i > command.head)
    return insert_words(facts, run, command, index + 1, (flag,))


def remove_step(facts: Facts, run: Instruction, command: Command) -> Edit | None:
    """Take out the step that is just `command`, with the `&&` behind it; None where it is not such a step or a comment is
    in the way."""
    script = facts.script(run)
    if script is None or not facts.is_editable(run):
        return None
    index = next((i for i, step in enumerate(script.steps) if step.span == command.span), None)
    if index is None or index + 1 >= len(script.steps) or script.steps[index + 1].joiner != "&&":
        return None
    if script.steps[index].joiner not in ("", "&&"):
        return None
    start = facts.source_span(run, script.steps[index].span).start
    end = facts.source_span(run, script.steps[index + 1].span).start
    if re.search(r"^\s*#", facts.document.source.text[start:end], re.MULTILINE):
        return None
    return Edit(Span(start, end), "")


# -------------------------------------------------------------------- joining RUNs


def adjacent_runs(facts: Facts, run: Instruction) -> list[Instruction]:
    """`run` and the RUNs directly behind it, nothing but comments and blank lines between, that could share its layer."""
    found = [run]
    while (following := facts.document.neighbour(found[-1])) is not None and following.keyword == "RUN":
        found.append(following)
    return found


def why_not_joined(facts: Facts, runs: list[Instruction]) -> tuple[str, Instruction] | None:
    """What stands against making one layer of `runs`, and where; None if nothing does."""
    total = 0
    for index, run in enumerate(runs):
        is_last = index == len(runs) - 1
        script = facts.script(run)
        if run.exec_form is not None or run.heredocs:
            return "a RUN in exec form or with a heredoc cannot be joined", run
        if script is None or not facts.is_editable(run):
            return "its shell script cannot be read", run
        total += len(script.commands)
        if _flags(run) != _flags(runs[0]):
            return "its flags differ", run
        if reason := _needs_own_shell(facts, run):
            return reason, run
        if index > 0 and _commented_out(facts, runs[index - 1], run):
            return "a commented-out instruction stands between, which nobody could switch on again", run
        if index > 0 and run.pragmas:
            return "the comment above it speaks to a linter about this RUN alone", run
        if reason := _why_alone(facts, run, script, is_last=is_last):
            return reason, run
    if total > MAX_COMMANDS:
        return f"one RUN of {total} commands would be hard to read", runs[-1]
    if read_script(" && ".join(run.value.rstrip("; ") for run in runs)) is None:
        return "joined, their scripts could not be read any more", runs[-1]
    return None


def _commented_out(facts: Facts, above: Instruction, below: Instruction) -> bool:
    """Whether a comment between two instructions is an instruction itself, or a piece of a script."""
    source = facts.document.source
    lines = (source.line(n) for n in range(source.line_index(above.span.end) + 1, source.line_index(below.span.start)))
    return any(_INSTRUCTION_COMMENT.match(line) for line in lines)


def _why_alone(facts: Facts, run: Instruction, script: Script, *, is_last: bool) -> str | None:
    if not script.steps:
        return "it runs nothing"
    if any(_starts_something(c) for c in script.commands) or script.tail == "&":
        return "it starts something that must end with its own shell"
    if any(c.name is None for c in script.commands):
        return "what it runs is only known when it runs"
    if is_last:
        return None
    if script.comments:
        return "it ends in a comment that would swallow what follows"
    if "<<" in script.text:
        return "it holds a heredoc"
    if script.expects_errexit or (facts.state(run).has_errexit and not script.is_plain_chain):
        return "it relies on `set -e`, which does not hold on the left of `&&`"
    return None


def _needs_own_shell(facts: Facts, run: Instruction) -> str | None:
    """Why each RUN must get a shell, or a mount, of its own."""
    state = facts.state(run)
    if any(re.match(r"-[a-z]*[li]|--login", word) for word in state.shell[1:]) or {"BASH_ENV", "ENV"} & state.variables.keys():
        return "its shell reads start-up files anew, which the RUN before it may have written"
    if any(m.kind == "tmpfs" or {m.options.get("rw"), m.options.get("readwrite")} & {"", "true"} for m in run.mounts):
        return "each RUN gets that mount anew"
    return None


def _starts_something(command: Command) -> bool:
    """Whether a command leaves a program running, or hands on to one that nothing here can look into."""
    if command.name in _ALONE or "background" in command.guards or any(w.text == "nohup" for w in command.words[:1]):
        return True
    is_init_script = (command.words[command.head].text or "").startswith("/etc/init.d/") if command.words else False
    return is_init_script or any(_DETACHES.search(arg) for arg in command.args)


def join_runs(facts: Facts, runs: list[Instruction]) -> tuple[Edit, ...]:
    """One RUN for all of `runs`, of which `why_not_joined` has nothing to say; comments between them stay."""
    above, start = facts.document.chain(runs[0])
    brackets = [_brackets(facts, run, runs[index + 1 :]) for index, run in enumerate(runs)]
    ends = [_ends(facts, run) for run in runs]
    first, last = ends[0][0], ends[-1][1]
    edits = [Edit(Span(first, first), brackets[0][0])] if brackets[0][0] else []
    for index in range(1, len(runs)):
        comments = _comment_lines(facts, ends[index - 1][1], ends[index][0])
        text = f"{brackets[index - 1][1]}{above}{comments}{start}{brackets[index][0]}"
        edits.append(Edit(Span(ends[index - 1][1], ends[index][0]), text))
    if brackets[-1][1]:
        edits.append(Edit(Span(last, last), brackets[-1][1]))
    return tuple(edits)


def _flags(run: Instruction) -> list[tuple[str, str | None]]:
    return [(flag.name, flag.value) for flag in run.flags]


def _brackets(facts: Facts, run: Instruction, later: list[Instruction]) -> tuple[str, str]:
    """What to put around a script so that those behind it neither share its state nor change how it ends."""
    script = facts.script(run)
    assert script is not None
    own = [c for c in script.commands if "subshell" not in c.guards]
    changes_state = _ASSIGNS.search(script.text) is not None or any(
        c.name in CHANGES_SHELL or c.guards & {"function", "loop"} for c in own
    )
    remembers = _programs(facts, [run]) & _programs(facts, later) - _STABLE
    if later and (changes_state or remembers):
        nested = script.text.lstrip().startswith("(")  # `((` would be arithmetic
        return ("( ", ")") if nested else ("(", ")")
    if script.is_chain:
        return "", ""
    return ("{ ", " }") if script.tail == ";" else ("{ ", "; }")


def _programs(facts: Facts, runs: list[Instruction]) -> set[str]:
    """The programs that the scripts of `runs` look up in the PATH, without those that run just to empty a cache."""
    scripts = [script for run in runs if (script := facts.script(run)) is not None]
    return {c.name for script in scripts for c in script.commands if c.name and "cache" not in c.args}


def _ends(facts: Facts, run: Instruction) -> tuple[int, int]:
    """Where in the file the first statement of a script starts and the last one ends."""
    script = facts.script(run)
    assert script is not None
    first = facts.source_span(run, script.steps[0].span).start
    end = len(script.text.rstrip()) if script.tail == ";" and not script.comments else script.steps[-1].span.end
    return first, facts.source_span(run, Span(script.steps[-1].span.start, end)).end


def _comment_lines(facts: Facts, start: int, end: int) -> str:
    """The comment lines between two places in the file, as they stand."""
    source = facts.document.source
    lines = range(source.line_index(start) + 1, source.line_index(end))
    found = [source.line(i).rstrip("\r\n") for i in lines if source.line(i).lstrip().startswith("#")]
    return "".join(f"{text}{source.newline}" for text in found)


def apt_layer(facts: Facts, packages: Iterable[str]) -> str:
    """A RUN that installs Debian packages and leaves no lists behind, without a last newline."""
    document = facts.document
    end = f" && {document.escape}{document.source.newline}    "
    names = " ".join(sorted(packages))
    return f"RUN apt-get update{end}apt-get install -y --no-install-recommends {names}{end}rm -rf /var/lib/apt/lists/*"
