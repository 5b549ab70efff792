"""Replace ADD by COPY where it only copies.

Why: ADD also unpacks archives and fetches addresses; COPY says that nothing of the kind happens, today or tomorrow.
Refuses: Addresses, git repositories, variables, archives (told by their first bytes, as BuildKit does), sources that are not
in the build context (they may be archives that a build job puts there), and the flags that only ADD has.
Source: Docker's best practices, "ADD or COPY"; hadolint DL3020.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.contract import copy_entry
from optimizer.dockerfile.edit import Edit, Span
from optimizer.rewrite import Aspect, Change, Check, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts

_REMOTE = re.compile(r"^(https?|ftp)://|^git@|\.git(#|$)|^git://|^ssh://", re.IGNORECASE)
_ADD_ONLY = ("checksum", "keep-git-dir", "unpack")
# What Docker unpacks: gzip, bzip2, xz and zstd by their first bytes, and tar, which the oldest format does not mark.
_TAR_BLOCK = 512
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_ARCHIVE_NAME = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst|gz|bz2|xz|zst)$", re.IGNORECASE)


class AddToCopy:
    meta = Meta.of(__name__, phase=Phase.METADATA, may_change={Aspect.COPIES}, settles=("DL3020",))

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for instruction in document.instructions:
            if not document.raw(instruction).upper().startswith("ADD") or facts.is_windows(document.stage_of(instruction)):
                continue
            *sources, _ = [word.text for word in instruction.words] if len(instruction.words) > 1 else [""]
            if any(_REMOTE.search(source) for source in sources):
                continue  # fetching is what ADD is for
            decision = decide(Safety.SAFE, _checks(facts, instruction, sources))
            if decision.failed:
                yield Refusal(self, decision.failed.claim, (facts.seen(instruction, "adds it"), *decision.failed.evidence))
                continue
            start = instruction.span.start
            yield Rewrite(
                self,
                summary=f"ADD becomes COPY: {', '.join(sources) or 'a heredoc'} only gets copied",
                safety=decision.safety,
                edits=(Edit(Span(start, start + len("ADD")), "COPY"),),
                evidence=(facts.seen(instruction, "adds files of the build context"), *decision.evidence),
                changes=(
                    Change(
                        Aspect.COPIES,
                        removed=(copy_entry(instruction),),
                        added=(copy_entry(instruction).replace("ADD", "COPY", 1),),
                    ),
                ),
                unknown=decision.unknown,
                held=decision.held,
            )


def _checks(facts: Facts, instruction: Instruction, sources: list[str]) -> Iterator[Check]:
    yield facts.context_check()
    for flag in instruction.flags:
        if flag.name in _ADD_ONLY:
            yield Check(f"--{flag.name} is a flag of ADD alone", holds=False)
    inline = {heredoc.name for heredoc in instruction.heredocs}
    for source in sources:
        if source.startswith("<<") and source.lstrip("<-").strip("\"'") in inline:
            continue
        yield _check(facts, source)


def _is_tar(data: bytes) -> bool:
    """Whether `data` is a tar, of the oldest format too, which has no mark but a checksum."""
    if len(data) < _TAR_BLOCK:
        return False
    import io
    import tarfile

    try:
        tarfile.open(fileobj=io.BytesIO(data), mode="r:").close()
    except tarfile.TarError:
        return False
    return True


def _check(facts: Facts, source: str) -> Check:
    context = facts.context
    if "$" in source:
        return Check(f"what {source} stands for is only known in the build: it may be an archive", holds=False)
    paths = context.glob(source)
    if not paths:
        return Check(f"{source} is not in the build context: it may be an archive that is put there later", holds=False)
    for path in paths:
        if context.is_folder(path):
            continue
        head = context.read_bytes(path)
        if head is None:
            return Check(f"{path} is a link, or too large to look into: it may be an archive", holds=False)
        if head.startswith(b"version https://git-lfs"):
            return Check(f"{path} is kept elsewhere (Git LFS): it may be an archive", holds=False)
        if head.startswith(_MAGIC) or _is_tar(head) or (_ARCHIVE_NAME.search(path) and not head):
            seen = facts.seen_in(path, "starts like an archive")
            return Check(f"{path} is an archive: ADD unpacks it", holds=False, evidence=(seen,))
    files = [path for path in paths if not context.is_folder(path)]
    seen_paths = tuple(facts.seen_in(path, "is a file, and no archive") for path in files[:3])
    return Check(f"{source} is no archive", holds=True, evidence=seen_paths)
