"""What a user can choose, and where it is read from.

Command line over environment (`DOCKEROPT_IGNORE=merge-run`) over `.dockeropt.toml` over `[tool.dockeropt]` in
`pyproject.toml` over the defaults. A key that nobody knows is an error with a suggestion.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = ".dockeropt.toml"
# What `base` may be: found by what the application needs, left as it is, or a kind that the user asks for.
BASES = ("auto", "keep", "slim", "alpine", "distroless", "scratch")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices for one run. `select` empty means every transform; `target` is the stage that is built (default: last);
    `base` is one of BASES."""

    unsafe: bool = False
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    target: str | None = None
    context: str | None = None
    base: str = "auto"

    def wants(self, name: str) -> bool:
        """Whether the transform called `name` is to run."""
        return name not in self.ignore and (not self.select or name in self.select)


KEYS = tuple(field.name for field in dataclasses.fields(Settings))


def load(folder: Path, environ: Mapping[str, str], chosen: Mapping[str, Any]) -> Settings:
    """Settings for a Dockerfile in `folder`.

    `chosen` holds what the command line says; None and empty tuples there mean "not said". Raises SettingsError.
    """
    values = _from_files(folder)
    values |= _from_environment(environ)
    values |= {key: value for key, value in chosen.items() if value not in (None, ())}
    _check_base(values.get("base", BASES[0]), "--base")
    return Settings(**values)


def _check_base(value: object, where: str) -> None:
    if value not in BASES:
        raise SettingsError(f'{where}: expected one of {", ".join(BASES)}, found "{value}"')


def check_names(settings: Settings, known: tuple[str, ...]) -> None:
    """Raise SettingsError for a transform's name in `select` or `ignore` that is not in `known`."""
    for name in (*settings.select, *settings.ignore):
        if name not in known:
            raise SettingsError(f'no transform is called "{name}".{_suggestion(name, known)}')


def _from_files(folder: Path) -> dict[str, Any]:
    for above in (folder, *folder.parents):
        own, project = above / FILE, above / "pyproject.toml"
        if own.is_file():
            return _checked(_toml(own), str(own))
        if project.is_file() and b"[tool.dockeropt" in project.read_bytes():
            return _checked(_toml(project).get("tool", {}).get("dockeropt", {}), f"{project}, [tool.dockeropt]")
        if (above / ".git").exists():
            break
    return {}


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in KEYS:
        name = f"DOCKEROPT_{key.upper()}"
        text = environ.get(name, "")
        if not text:
            continue
        if key == "unsafe":
            if text.lower() not in ("0", "1", "true", "false"):
                raise SettingsError(f'{name}: expected 0, 1, true or false, found "{text}"')
            found[key] = text.lower() in ("1", "true")
        elif key in ("select", "ignore"):
            found[key] = tuple(part.strip() for part in text.split(",") if part.strip())
        else:
            found[key] = text
            _check_base(text if key == "base" else BASES[0], name)
    return found


def _checked(table: dict[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise SettingsError(f'{where}: unknown key "{key}".{_suggestion(key, KEYS)}')
        if key in ("select", "ignore"):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise SettingsError(f"{where}: {key}: expected a list of transform names, found {value!r}")
            found[key] = tuple(value)
        elif not isinstance(value, bool if key == "unsafe" else str):
            expected = "true or false" if key == "unsafe" else "a string"
            raise SettingsError(f"{where}: {key}: expected {expected}, found {value!r}")
        else:
            found[key] = value
            _check_base(value if key == "base" else BASES[0], f"{where}: {key}")
    return found


def _suggestion(word: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    return f' Did you mean "{close[0]}"?' if close else f" Known: {', '.join(known)}"
