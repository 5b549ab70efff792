"""Which files are Dockerfiles, which folder is a file's build context, and how a result is written."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean, has_wildcard
from optimizer.facts import compose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pathspec import GitIgnoreSpec

    from optimizer.dockerfile.document import Document
    from optimizer.facts.compose import Service

_NAMES = re.compile(r"^(?:dockerfile|containerfile)(?:[._-].+)?$|^.+\.dockerfile$", re.IGNORECASE)
_NOT_DOCKERFILES = re.compile(
    r"\.(?:dockerignore|md|rst|txt|html?|py|js|ts|go|java|rb|rs|sh|json|ya?ml|toml|lock|orig|bak|swp|tar|gz|zip|png|svg)$",
    re.IGNORECASE,
)
_LEVELS_UP = 4
_MANIFESTS = ("package.json", "pyproject.toml", "requirements.txt", "go.mod", "go.work", "pnpm-workspace.yaml")


def dockerfiles(folder: Path) -> Iterator[Path]:
    """The Dockerfiles below `folder` in sorted order: by name, without what `.gitignore` files leave out and without links."""
    yield from _walk(folder, [])


def _walk(folder: Path, above: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    specs = above
    ignore = folder / ".gitignore"
    if ignore.is_file():
        from pathspec import GitIgnoreSpec

        lines = ignore.read_text("utf-8", "replace").splitlines()
        specs = [*above, (folder, GitIgnoreSpec.from_lines(lines))]
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = folder / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.is_symlink() or entry.name == ".git" or _is_ignored(path, specs, is_folder=is_folder):
            continue
        if is_folder:
            yield from _walk(path, specs)
        elif _NAMES.match(entry.name) and not _NOT_DOCKERFILES.search(entry.name):
            yield path


def _is_ignored(path: Path, specs: list[tuple[Path, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    """Whether the nearest `.gitignore` that speaks of `path` leaves it out."""
    for root, spec in reversed(specs):
        shown = path.relative_to(root).as_posix() + ("/" if is_folder else "")
        result = spec.check_file(shown)
        if result.include is not None:
            return result.include
    return False


# -------------------------------------------------------------------- build contexts


@dataclass(frozen=True, slots=True)
class ContextFolder:
    """The folder that is sent to the builder for a Dockerfile, why one thinks so, and what speaks against it, if anything.

    `services` are those of the compose files that build it.
    """

    folder: Path
    reason: str
    doubt: str = ""
    services: tuple[Service, ...] = ()


def context_folder(dockerfile: Path, document: Document) -> ContextFolder:
    """The build context of a Dockerfile: what a compose file says, else the nearest folder that has its COPY sources."""
    dockerfile = dockerfile.absolute()
    ladder = list(_ladder(dockerfile.parent))
    named = [
        (*found, path.name) for folder in ladder for path in _compose_files(folder) for found in _from_compose(path, dockerfile)
    ]
    if named:
        folder, _, name = named[0]
        others = {other for other, _, _ in named} - {folder}
        services = tuple(service for _, service, _ in named)
        doubt = f"a compose file builds it in {min(others)} too" if others else ""
        return ContextFolder(folder, f"{name} says so", doubt, services)
    sources = _literal_sources(document)
    fitting = [folder for folder in ladder if all((folder / source).exists() for source in sources)]
    if not fitting:
        return ContextFolder(dockerfile.parent, "it holds the Dockerfile")
    return ContextFolder(fitting[0], "it has what the Dockerfile copies", _doubt(fitting))


def _doubt(fitting: list[Path]) -> str:
    """What speaks for a folder further up the same repository: it has what is copied, and the same manifests."""
    if not (fitting[-1] / ".git").exists():
        return ""
    own = [name for name in _MANIFESTS if (fitting[0] / name).is_file()]
    for folder in fitting[1:]:
        if any((folder / name).is_file() for name in own):
            return f"{folder} has what it copies too"
    return ""


def _ladder(folder: Path) -> Iterator[Path]:
    """`folder` and those above it, up to the top of the repository."""
    for level, above in enumerate((folder, *folder.parents)):
        yield above
        if (above / ".git").exists() or level >= _LEVELS_UP:
            return
        if above.parent == Path(above.anchor):
            return


def _literal_sources(document: Document) -> list[str]:
    found: list[str] = []
    for instruction in document.instructions:
        if instruction.keyword in ("COPY", "ADD") and instruction.flag("from") is None and not instruction.heredocs:
            words = (word.text for word in instruction.words[:-1])
            found += [clean(text) for text in words if "$" not in text and "://" not in text and not has_wildcard(text)]
    return found


def _compose_files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:  # a folder above may hold thousands: no Path for each
            return sorted(folder / entry.name for entry in entries if compose.NAME.match(entry.name))
    except OSError:
        return []  # a folder above that we may not list says nothing


def _from_compose(path: Path, dockerfile: Path) -> Iterator[tuple[Path, Service]]:
    """The contexts that a compose file builds `dockerfile` in, and the services that do."""
    try:
        with path.open("rb") as file:
            data = file.read(compose.MAX_BYTES + 1)
    except OSError:
        return
    for service in compose.services(data, str(path)):
        context = Path(os.path.normpath(path.parent / service.context))
        named = Path(os.path.normpath(context / service.dockerfile))
        if named == dockerfile and context.is_dir():
            yield context, service


# -------------------------------------------------------------------- writing


class WriteError(OSError):
    """A file that was not written; the message says why, and the file is as it was."""


def write_atomically(files: Iterable[tuple[Path, bytes]], *, new: Iterable[Path] = ()) -> None:
    """Write files, each as a whole or not at all, keeping the mode of those that are there.

    A link is followed only inside its own folder tree; the paths in `new` must not exist, not even as links. Raises WriteError.
    """
    prepared: list[tuple[Path, Path]] = []
    fresh = frozenset(new)
    try:
        for path, data in files:
            target = _target(path, is_new=path in fresh)
            prepared.append((_temporary(target, data), target))
        for temporary, target in prepared:
            temporary.replace(target)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: not written: {error.strerror or error}") from error
    finally:
        for temporary, _ in prepared:
            temporary.unlink(missing_ok=True)


def _target(path: Path, *, is_new: bool) -> Path:
    if is_new and os.path.lexists(path):
        raise WriteError(f"{path}: not written: it is there already")
    if not path.is_symlink():
        return path
    target = path.resolve()
    if not target.is_relative_to(path.parent.resolve()):
        raise WriteError(f"{path}: not written: it is a link to {target}, outside its folder")
    return target


def _temporary(target: Path, data: bytes) -> Path:
    import tempfile

    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if target.exists():
            mode = stat.S_IMODE(target.stat().st_mode)
        else:
            mask = os.umask(0)
            os.umask(mask)
            mode = 0o666 & ~mask
        temporary.chmod(mode)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
