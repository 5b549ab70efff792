"""Copy the dependency manifests before the install, and the sources after it.

Why: BuildKit runs a step again when a file that an earlier COPY brought has changed; with the sources behind the install, an
edit to them leaves the installed dependencies in the cache.
Refuses: Installs that read more than manifests (local paths in requirements or package.json, lifecycle scripts, `pip install
.`, Go workspaces and vendored modules), files that are not in the build context, COPYs that cannot move past what stands in
between.
Source: Docker's documentation, "Optimize cache usage in builds".
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.contract import copy_entry, copy_text
from optimizer.dockerfile.edit import Edit, Span
from optimizer.dockerfile.shell import CHANGES_SHELL
from optimizer.facts.commands import deleted
from optimizer.facts.copies import AWKWARD
from optimizer.facts.installs import install_inputs
from optimizer.facts.manifests import Application, Inputs, NeedsSources
from optimizer.facts.sources import meets, reads_no_sources
from optimizer.layers import commands_in
from optimizer.reorder import empties_cache, owner_given, source_copies, sources_in, why_not_past, why_read
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.copies import Copy
    from optimizer.rewrite import Evidence


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A manifest, the container path that it has to be at, and the COPY that brings it so far.

    A new COPY with the flags of the old one gives files and folders the same owner, whatever USER is (tried with Docker 28).
    """

    source: str
    path: str
    bringer: Copy


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do about one install. `owner`: whom a RUN in between gives the late COPYs' files to."""

    run: Instruction
    inputs: Inputs
    command: Placed
    late: tuple[Copy, ...]
    wanted: tuple[_Wanted, ...]
    cut: int | None
    owner: str | None = None


class CopyManifestsFirst:
    meta = Meta.of(__name__, phase=Phase.LAYOUT, may_change={Aspect.COPIES, Aspect.COMMANDS})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for stage in facts.built:
            if facts.is_windows(stage):
                continue
            for run in stage.body:
                found = self._look(document, facts, stage, run) if run.keyword == "RUN" else None
                if found is not None:
                    yield found
                    break  # what stands behind it is looked at again when this one is done

    def _look(self, document: Document, facts: Facts, stage: Stage, run: Instruction) -> Rewrite | Refusal | None:
        copies = tuple(c for c in facts.copies(stage) if c.instruction.index < run.index)
        if not copies or not facts.is_editable(run):
            return None
        plan = _plan(facts, run, copies)
        if plan is None:
            return None
        here = facts.seen(run, "installs after the sources are copied")
        if isinstance(plan, NeedsSources):
            late = source_copies(facts, copies, ())
            if plan.is_missing and (odd := next((c for c in late if c.placements is None), None)) is not None:
                return Refusal(self, odd.unknown, (here, facts.seen(odd.instruction, "comes before the install")))
            return Refusal(self, plan.reason, (here, *plan.evidence)) if late else None
        if (obstacle := _obstacle(document, facts, plan)) is not None:
            return Refusal(self, obstacle[0], (here, *obstacle[1]))
        return self._rewrite(document, facts, plan)

    def _rewrite(self, document: Document, facts: Facts, plan: _Plan) -> Rewrite | None:
        edits, changes = _edits(document, facts, plan)
        after = facts.after(edits)
        file = _edited_file(facts, plan)
        before, then = facts.cache.rerun(file), after.cache.rerun(file)
        if then.steps > before.steps:
            return None  # a cut RUN can cost more steps than it saves
        decision = decide(Safety.SAFE, (facts.context_check(), *plan.inputs.checks))
        return Rewrite(
            self,
            summary=(
                f"after an edit to {file} {then.steps} of {then.total} steps run again (before: {before.steps} of "
                f"{before.total}), and `{plan.inputs.what}` is not among them"
            ),
            safety=decision.safety,
            edits=edits,
            evidence=(
                *(facts.seen(copy.instruction, "brings sources before the install") for copy in plan.late),
                facts.seen_command(plan.run, plan.command.command, f"runs again after every edit: {plan.inputs.what}"),
                *plan.inputs.evidence,
                *decision.evidence,
            ),
            changes=changes,
            unknown=decision.unknown,
            held=decision.held,
        )


def _edited_file(facts: Facts, plan: _Plan) -> str:
    """The file to count by: the entry file if a late COPY brings it, else the first source file that one brings."""
    entry = facts.cache.entry_file()
    if entry is not None and any(copy.brings(entry) for copy in plan.late):
        return entry
    return next(file for copy in plan.late for file in sources_in(facts, copy))


# -------------------------------------------------------------------- reading


def _plan(facts: Facts, run: Instruction, copies: tuple[Copy, ...]) -> _Plan | NeedsSources | None:
    """The install in `run`, what it needs, and which COPYs could come after it; None where there is nothing to gain."""
    application = Application(facts, run)
    roots = tuple(root for copy in copies for root in copy.roots)
    commands = facts.placed(run) or ()
    for index, placed in enumerate(commands):
        inputs = install_inputs(application, placed)
        if inputs is None:
            if not reads_no_sources(placed, roots):
                return None
            continue
        if any(mount.kind == "bind" for mount in run.mounts):
            return NeedsSources("the install reads files by a bind mount")
        if isinstance(inputs, NeedsSources):
            return inputs
        if reason := _unusual(facts, run, placed, roots):
            return NeedsSources(reason)
        if inputs.prefetch is not None and any(before.command.name != "cd" for before in commands[:index]):
            return NeedsSources("what comes before it in the same RUN may be there for its sake")
        late = source_copies(facts, copies, inputs.files)
        if not late or (inputs.prefetch and _is_done(facts, run, inputs)):
            return None
        wanted = _wanted(facts, run, late, inputs)
        if isinstance(wanted, NeedsSources):
            return wanted
        late_roots = tuple(root for copy in late for root in copy.roots)
        cut = None if inputs.prefetch else _cut(facts, run, index, late_roots, application)
        if isinstance(cut, NeedsSources):
            return cut
        owners = {owner_given(facts, copy, _behind_of(facts.document, copy.instruction, run)) for copy in late}
        if len(owners) > 1 or (owners != {None} and (inputs.prefetch is not None or any(_is_owned(copy) for copy in late))):
            return NeedsSources("a RUN between the COPY and the install changes the owner of some of the sources")
        return _Plan(run, inputs, placed, late, wanted, cut, owners.pop())
    return None


def _is_owned(copy: Copy) -> bool:
    """Whether a COPY has an owner of its own, or brings what the RUN would give to somebody while it runs."""
    return copy.instruction.flag("chown") is not None or copy.is_remote or copy.instruction.keyword != "COPY"


def _unusual(facts: Facts, run: Instruction, placed: Placed, roots: tuple[str, ...]) -> str | None:
    """Why the install is not one that simply runs, with a program that is not the application's own."""
    if not placed.command.is_unconditional:
        return "the install runs under a condition"
    script = facts.script(run)
    step = script.step_of(placed.command) + 1 if script is not None else 0
    if script is not None and step < len(script.steps) and script.steps[step].joiner == "||":
        return "a failure of the install is passed over"
    program = placed.command.words[placed.command.head].text or ""
    path = placed.path(program) if "/" in program else None
    return "the program that installs comes from the sources" if path is not None and meets(path, roots) else None


def _is_done(facts: Facts, run: Instruction, inputs: Inputs) -> bool:
    """Whether an earlier RUN, or a cache mount, has the dependencies already."""
    if facts.has_cache_mount(run):
        return True
    for earlier in facts.up_to(run, "RUN"):
        if any(inputs.done_by is not None and inputs.done_by(placed) for placed in facts.placed(earlier) or ()):
            return True
    return False


def _wanted(facts: Facts, run: Instruction, late: tuple[Copy, ...], inputs: Inputs) -> tuple[_Wanted, ...] | NeedsSources:
    """The manifests that only the late COPYs bring."""
    everything = facts.copies_before(run)
    workdir = facts.state(run).workdir
    found = []
    for file in inputs.files:
        bringers = [copy for copy in everything if copy.brings(file.source) and copy.container_path(file.source) == file.path]
        if AWKWARD.search(file.source):
            return NeedsSources(f"the name {file.source} cannot stand in a COPY as it is")
        if facts.context.kind(file.source) == "link":
            return NeedsSources(f"{file.source} is a link")
        if not bringers or not all(copy in late for copy in bringers):
            continue
        words = [word.text for word in bringers[-1].instruction.words]
        relative = workdir is not None and (file.path + "/").startswith(workdir.rstrip("/") + "/")
        if any("$" in word for word in words[:-1]) or ("$" in words[-1] and not relative):
            return NeedsSources("a variable decides what the COPY brings, or where to")
        found.append(_Wanted(file.source, file.path, bringers[-1]))
    return tuple(found)


def _cut(
    facts: Facts, run: Instruction, index: int, roots: tuple[str, ...], application: Application
) -> int | NeedsSources | None:
    """The step behind which the RUN has to be cut, since what follows needs the sources; None for the whole RUN."""
    script, commands = facts.script(run), facts.placed(run)
    assert script is not None
    assert commands is not None
    last = index
    while last + 1 < len(commands) and (reads_no_sources(commands[last + 1], roots) or empties_cache(commands[last + 1])):
        last += 1
    if last + 1 == len(commands):
        return None
    rest = commands[last + 1 :]
    seen = (facts.seen_command(run, rest[0].command, "needs the sources"),)
    if not script.is_chain or run.heredocs:
        return NeedsSources("the RUN goes on with the sources, and is no chain of `&&` that could be cut in two", seen)
    if any(placed.command.name in CHANGES_SHELL for placed in commands[: last + 1]):
        return NeedsSources("what follows in the same RUN relies on its shell", seen)
    if undoing := next((p for p in rest if _undoes(p, application)), None):
        there = facts.seen_command(run, undoing.command, "would no longer make the layer smaller")
        return NeedsSources("the RUN cleans up behind the install: cut in two, the layer would keep it all", (*seen, there))
    step = script.step_of(commands[last].command)
    if script.step_of(rest[0].command) == step:
        return NeedsSources("the install and what needs the sources are one command", seen)
    return step


def _undoes(placed: Placed, application: Application) -> bool:
    """Whether a command takes away what an install before it brought."""
    command = placed.command
    if command.name in ("npm", "yarn", "pnpm", "bun"):
        return "prune" in command.args or empties_cache(placed) or install_inputs(application, placed) is not None
    return command.name == "rm" or bool(deleted((placed,)))


# -------------------------------------------------------------------- what stands in the way


def _obstacle(document: Document, facts: Facts, plan: _Plan) -> tuple[str, tuple[Evidence, ...]] | None:
    """Why the late COPYs cannot move to behind the install, if they cannot."""
    late = [copy.instruction for copy in plan.late]
    for copy in plan.late:
        seen = (facts.seen(copy.instruction, "comes before the install"),)
        if copy.placements is None:
            return copy.unknown, seen
        if reason := why_read(copy, facts.state(plan.run), facts.homes(plan.run)):
            return reason, seen
        for other in document.instructions[copy.instruction.index + 1 : plan.run.index]:
            if other not in late and (reason := why_not_past(facts, copy, other)):
                return reason, (*seen, facts.seen(other, "stands in between"))
    return None


# -------------------------------------------------------------------- writing


def _edits(document: Document, facts: Facts, plan: _Plan) -> tuple[tuple[Edit, ...], tuple[Change, ...]]:
    """`head` (the manifests, and a prefetch) in front of the install; the late COPYs behind it, or between the two."""
    moved = [copy.instruction for copy in plan.late]
    between = document.instructions[moved[0].index + 1 : plan.run.index]
    in_place = not any(i.keyword in ("RUN", "COPY", "ADD") and i not in moved for i in between) or plan.owner is not None
    if plan.inputs.prefetch is not None:
        in_place = len(moved) == plan.run.index - moved[0].index
    lines = _copy_lines(facts, plan, facts.state(moved[0] if in_place else plan.run).workdir)
    passing = [
        i for i in moved if any(o.keyword in ("COPY", "ADD") and o not in moved for o in _behind_of(document, i, plan.run))
    ]
    entries = tuple(copy_entry(i) for i in passing)
    changes = [Change(Aspect.COPIES, removed=entries, added=(*(entry for _, entry in lines), *entries))]
    if plan.owner is not None:
        old = tuple(copy_entry(i) for i in moved)
        new = tuple(entry.replace("COPY", f"COPY --chown={plan.owner}", 1) for entry in old)
        changes = [Change(Aspect.COPIES, removed=old, added=(*(entry for _, entry in lines), *new))]
    head = [line for line, _ in lines]
    if plan.inputs.prefetch is not None:
        command = _prefetch(facts, plan)
        head.append(f"RUN {_flags(document, plan.run)}{command}")
        changes.append(Change(Aspect.COMMANDS, added=commands_in(command)))
    edits = _arrange(document, facts, plan, head, in_place=in_place)
    return tuple(edits), tuple(changes)


def _behind_of(document: Document, instruction: Instruction, run: Instruction) -> tuple[Instruction, ...]:
    return document.instructions[instruction.index + 1 : run.index]


def _arrange(document: Document, facts: Facts, plan: _Plan, head: list[str], *, in_place: bool) -> list[Edit]:
    """`head` in the place of the first late COPY, or directly in front of the install; the late COPYs behind."""
    newline = document.source.newline
    moved = [copy.instruction for copy in plan.late]
    gone = [document.delete(i) for i in moved]
    text = newline.join(head)
    if plan.inputs.prefetch is not None:  # the command itself stays behind the sources
        if in_place:
            return [document.insert_before(moved[0], text + (newline if moved[0].lead is not None else ""))]
        before = document.insert_before(plan.run, text)
        blocks = "".join(_block(document, plan, i).lstrip("\r\n") + newline for i in moved)
        return [*gone, Edit(before.span, before.text + blocks)]
    behind = _behind(document, facts, plan, moved)
    if not head:
        return [*gone, behind]
    if in_place:
        return [document.replace_with_lead(moved[0], text), *gone[1:], behind]
    return [*gone, document.insert_before(plan.run, text), behind]


def _block(document: Document, plan: _Plan, instruction: Instruction) -> str:
    """A late COPY as it stands, with the owner that a RUN in between gave to what it brings."""
    block, raw = document.block(instruction), document.raw(instruction)
    if plan.owner is None:
        return block
    head = len(instruction.keyword)
    return f"{block.removesuffix(raw)}{raw[:head]} --chown={plan.owner}{raw[head:]}"


def _behind(document: Document, facts: Facts, plan: _Plan, moved: list[Instruction]) -> Edit:
    """The late COPYs behind the install; where the RUN is cut, between its two halves."""
    source, run = document.source, plan.run
    newline = source.newline
    text = "".join(newline + _block(document, plan, i) for i in moved)
    origin = moved[0].whole.start
    if plan.cut is None:
        return Edit(Span(run.span.end, run.span.end), text, moved_from=origin)
    script = facts.script(run)
    assert script is not None
    end = facts.source_span(run, script.steps[plan.cut].span).end
    start = facts.source_span(run, script.steps[plan.cut + 1].span).start
    comments = "".join(f"{newline}{c}" for c in re.findall(r"^[ \t]*(#[^\r\n]*)", source.text[end:start], re.MULTILINE))
    return Edit(Span(end, start), f"{text}{comments}{newline}RUN {_flags(document, run)}", moved_from=origin)


def _flags(document: Document, run: Instruction) -> str:
    return "".join(document.source.text[f.span.start : f.span.end] + " " for f in run.flags)


def _prefetch(facts: Facts, plan: _Plan) -> str:
    folder, workdir = plan.inputs.folder, facts.state(plan.run).workdir
    inside = workdir is not None and folder is not None and (workdir + "/").startswith(folder.rstrip("/") + "/")
    return f"{plan.inputs.prefetch}" if inside else f"cd {folder} && {plan.inputs.prefetch}"


def _copy_lines(facts: Facts, plan: _Plan, workdir: str | None) -> list[tuple[str, str]]:
    """The COPY instructions for the manifests, and how the contract writes them: one a folder, in the order needed."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for wanted in plan.wanted:
        folder = wanted.path if facts.context.is_folder(wanted.source) else posixpath.dirname(wanted.path)
        kept = tuple(flag for flag in wanted.bringer.flags if flag.startswith(("--chown", "--chmod", "--link")))
        groups.setdefault((folder, kept), []).append(wanted.source)
    lines = []
    for (folder, kept), sources in groups.items():
        words = [*kept, *sources, _destination(folder, workdir)]
        lines.append((" ".join(["COPY", *words]), copy_text("COPY", *words)))
    return lines


def _destination(folder: str, workdir: str | None) -> str:
    if workdir is not None and folder == workdir:
        return "./"
    prefix = (workdir or "").rstrip("/") + "/"
    if workdir is not None and workdir != "/" and folder.startswith(prefix):
        return folder[len(prefix) :] + "/"
    return folder.rstrip("/") + "/"
