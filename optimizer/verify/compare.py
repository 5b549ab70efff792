"""Two images side by side: what differs, and which rewrite announced it. What none announced is a failure."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optimizer.rewrite import FileChange
from optimizer.verify import images
from optimizer.verify.announcements import Announcements
from optimizer.verify.difference import Area, Difference
from optimizer.verify.file_changes import FileChanges
from optimizer.verify.linkage import Linker, programs, subject
from optimizer.verify.packages import language_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer.facts import Facts
    from optimizer.rewrite import Rewrite
    from optimizer.verify.difference import Image
    from optimizer.verify.packages import Package

_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})


class Comparison:
    """Compares `after` with `before`.

    `facts(n)` are the facts about the document after the first n of the rewrites `applied`.
    """

    def __init__(self, before: Image, after: Image, applied: tuple[Rewrite, ...], facts: Callable[[int], Facts]) -> None:
        self.before = before
        self.after = after
        self.announced = Announcements(applied, facts)
        self._files = FileChanges(before, after, self.announced)

    def differences(self) -> Iterator[Difference]:
        """All that differs but the behaviour."""
        yield from self.configuration()
        yield from self.files()
        yield from self.linkage()
        yield from self.packages()

    # ---------------------------------------------------------------- configuration

    def configuration(self) -> Iterator[Difference]:
        applied = self.announced.applied
        for what, by in images.differences(self.before.config, self.after.config, applied, self._by_base):
            yield Difference(Area.CONFIG, what, by)

    def _by_base(self, field: str, name: str) -> str | None:
        """The rewrite that swapped the base, for what the base alone sets: variables and labels that no line names; the shell
        of RUNs, where those are in another stage."""
        if field == "Shell":
            return self.announced.who(FileChange.BUILD)
        keyword = {"Env": "ENV", "Labels": "LABEL"}.get(field)
        facts = (self.announced.facts(count) for count in (0, len(self.announced.applied)))
        lines = (i for found in facts for i in found.document.instructions if i.keyword == keyword)
        own = {pair.name.strip("\"'") for line in lines for pair in line.pairs}
        return None if keyword is None or name in own else self.announced.who(FileChange.BASE)

    def files(self) -> Iterator[Difference]:
        yield from self._files.differences()

    # ---------------------------------------------------------------- linkage

    @cached_property
    def _linkers(self) -> tuple[Linker, Linker]:
        old, new = self.before, self.after
        return Linker(old.files, old.config.environment), Linker(new.files, new.config.environment)

    def linkage(self) -> Iterator[Difference]:
        """Libraries, symbol versions and interpreters that the original had and the new image has not."""
        old, new = self._linkers
        files = self.after.files
        removed = {path.rpartition("/")[2] for layer, path, was in files.replaced if layer >= files.base > was}
        lacking: dict[str, list[str]] = {}
        for path in programs(files):
            for what in new.missing(path):
                if files.is_of_base(path) and subject(what) not in removed:
                    continue  # the base image ships it so
                if what not in self._missed_before(old, path):
                    lacking.setdefault(what, []).append(path)
        for what, paths in lacking.items():
            yield Difference(Area.LINKAGE, f"{paths[0]} {what}", count=len(paths))
        for path in self._scripts():
            name = new.interpreter(path)
            if name is not None and (path not in self.before.files.entries or old.interpreter(path) is None):
                yield Difference(Area.LINKAGE, f"{path} needs the interpreter {name}")

    def _missed_before(self, linker: Linker, path: str) -> set[str]:
        """What the same program, or one of its name elsewhere, lacked in the original."""
        name = path.rpartition("/")[2]
        places = [path] if path in self.before.files.entries else self._by_name.get(name, [])
        return {what for place in places for what in linker.missing(place)}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path, entry in self.before.files.entries.items():
            if entry.kind == "file":
                found.setdefault(path.rpartition("/")[2], []).append(path)
        return found

    def _scripts(self) -> Iterator[str]:
        """The image's own files that may be started as programs: in PATH's folders, in what it starts, brought by a COPY."""
        after = self.after.files
        folders = tuple(f"{folder.rstrip('/')}/" for folder in self._linkers[1].path)
        started = {real for word in self.after.config.start if word.startswith("/") and (real := after.resolve(word))}
        started |= self.announced.placements(0).keys()
        for path, entry in after.entries.items():
            is_own = entry.kind == "file" and entry.mode & 0o111 and entry.layer >= after.base
            if is_own and (path in started or path.startswith(folders)):
                yield path

    # ---------------------------------------------------------------- packages

    def packages(self) -> Iterator[Difference]:
        """Packages of Python, Node and Ruby that are gone, or of another version."""
        before = language_packages(self.before.files, with_base=False)
        after = language_packages(self.after.files, with_base=True)
        there: dict[tuple[str, str], set[str]] = {}
        for package in after:
            there.setdefault((package.kind, package.name), set()).add(package.version)
        announced: dict[str, list[Package]] = {}
        for package in sorted(before - after):
            versions = there.get((package.kind, package.name))
            by = self._who_dropped(package)
            if by is not None:
                announced.setdefault(by, []).append(package)
            elif versions is None:
                yield Difference(Area.PACKAGES, f"{package} ({package.kind}) is gone")
            else:
                yield Difference(Area.PACKAGES, f"{package} ({package.kind}) became {', '.join(sorted(versions))}")
        for by, packages in announced.items():
            names = ", ".join(str(p) for p in packages[:3]) + (", ..." if len(packages) > 3 else "")
            yield Difference(Area.PACKAGES, f"not installed: {names}", by, len(packages))

    def _who_dropped(self, package: Package) -> str | None:
        if package.kind == "python" and package.name in _INSTALLERS:
            return self.announced.who(FileChange.BUILD)
        if package.kind == "node" and package not in self._files.modules.in_production:
            return self.announced.who(FileChange.DEVELOPMENT)
        return None
