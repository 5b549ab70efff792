"""Which folders a Node build makes, from the scripts of package.json and the settings of the tools that they start."""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING, Any

from optimizer.dockerfile.shell import read_script
from optimizer.facts.commands import option_value
from optimizer.facts.node import parse_json

if TYPE_CHECKING:
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.manifests import Project

# Commands of scripts that make nothing that is kept.
_NOTHING = frozenset(
    {"rimraf", "rm", "mkdir", "echo", "eslint", "prettier", "true", "tsc-alias", "tsc-watch", "cross-env", "exit"}
)
_COPIES = frozenset({"cp", "copyfiles", "cpx", "cpy", "ncp"})
_ELSEWHERE = frozenset({"--prefix", "-C", "--cwd", "--dir", "-w", "--workspace", "--workspaces", "-ws", "--filter"})
_MAX_DEPTH = 6


class Build:
    """The build of one project; `variables` are those of the image."""

    def __init__(self, project: Project, variables: dict[str, str | None]) -> None:
        self.project = project
        self.variables = variables
        self.scripts = (parse_json(project.read("package.json")) or {}).get("scripts")

    def text_of(self, command: Command) -> str | None:
        """The commands that a RUN's command stands for, a script's or itself; None for one that builds nothing."""
        args = tuple(a for a in command.args if not a.startswith("-"))
        if command.name == "npx":
            return " ".join(command.args)
        if command.name == "tsc":
            return str(command)
        if command.name not in ("npm", "yarn", "pnpm") or not args:
            return None
        if args[0] not in ("run", "run-script") and command.name == "npm":
            return None
        name = args[1] if args[0] in ("run", "run-script") and len(args) > 1 else args[0]
        return self.script(name)

    def script(self, name: str) -> str | None:
        """A script of package.json with those that run before and behind it, or None."""
        if not isinstance(self.scripts, dict) or not isinstance(self.scripts.get(name), str):
            return None
        names = (f"pre{name}", name, f"post{name}")
        return " && ".join(str(self.scripts[n]) for n in names if isinstance(self.scripts.get(n), str))

    def folders(self, text: str, depth: int = 0) -> list[str] | None:
        """The folders below the project that the commands of a script write; None where that is not known."""
        script = read_script(text)
        if script is None or depth > _MAX_DEPTH:
            return None
        found: list[str] = []
        for command in script.commands:
            made = self._made(command, found, depth)
            if made is None:
                return None
            found += made
        return found if all(_is_own(folder) for folder in found) else None

    def _made(self, command: Command, before: list[str], depth: int) -> list[str] | None:
        words = [command.name or "", *command.args]
        while words and (words[0] in ("npx", "cross-env") or re.match(r"[A-Z_]+=", words[0])):
            words = words[1:]
        if not words or (command.redirects and any(">" in r.operator for r in command.redirects)):
            return [] if not words else None
        if words[0] in _NOTHING:
            return []
        if words[0] in _COPIES:
            into = posixpath.normpath(words[-1])
            return [] if any(into == f or into.startswith(f"{f}/") for f in before) else None
        if words[0] in ("npm", "yarn", "pnpm"):
            nested = self.script(words[-1]) if not _ELSEWHERE.intersection(w.partition("=")[0] for w in words) else None
            return self.folders(nested, depth + 1) if nested is not None else None
        if words[0] == "tsc":
            return self._typescript(tuple(words[1:]))
        return self._by_tool(words)

    def _by_tool(self, words: list[str]) -> list[str] | None:
        head, args = " ".join(words[:2]), tuple(words[2:])
        if head == "next build":
            return None if self._mentions("next.config", "distDir") or args else [".next"]
        if head == "react-scripts build":
            return None if "BUILD_PATH" in self.variables else ["build"]
        if head == "nest build":
            return None if args else self._nest()
        if head == "vite build":
            if any(not arg.startswith("-") for arg in args[::2]) or self._mentions("vite.config", "outDir", "root:", "root :"):
                return None
            chosen = option_value(args, "-o", "--outDir") if "--outDir" in " ".join(args) else None
            return [chosen or "dist"]
        return None

    def _mentions(self, stem: str, *words: str) -> bool:
        """Whether the settings file of a tool, in whichever language, has one of `words`."""
        texts = (self.project.read(f"{stem}.{ending}") or "" for ending in ("ts", "js", "mjs", "mts", "cjs"))
        return any(word in text for text in texts for word in words)

    # ---------------------------------------------------------------- TypeScript

    def _nest(self) -> list[str] | None:
        if self.project.has("nest-cli.json") and "monorepo" in (self.project.read("nest-cli.json") or ""):
            return None
        return self._output_of("tsconfig.build.json" if self.project.has("tsconfig.build.json") else "tsconfig.json")

    def _typescript(self, args: tuple[str, ...]) -> list[str] | None:
        """The output folder of `tsc`; none where it writes nothing, None where that is not known."""
        if "--noEmit" in args:
            return []
        if "--outDir" in args:
            return [posixpath.normpath(args[args.index("--outDir") + 1])] if args[-1] != "--outDir" else None
        plain = [a for a in args if not a.startswith("-")]
        builds = "-b" in args or "--build" in args
        file = option_value(args, "-p", "--project") or (plain[0] if plain and builds else "tsconfig.json")
        return self._output_of(file if file.endswith(".json") else posixpath.join(file, "tsconfig.json"))

    def _output_of(self, file: str) -> list[str] | None:
        options = self._options(file, 0)
        if options is None or options.get("references"):
            return None
        if options.get("noEmit") is True:
            return []
        out = options.get("outDir")
        return [posixpath.normpath(str(out))] if out else None

    def _options(self, file: str, depth: int) -> dict[str, Any] | None:
        """The compiler options of a tsconfig.json, those that it extends below them, `outDir` relative to the project."""
        table = _relaxed_json(self.project.read(posixpath.normpath(file)))
        if table is None or depth > _MAX_DEPTH:
            return None
        options: dict[str, Any] = {}
        base = table.get("extends")
        if isinstance(base, str) and base.startswith("."):
            name = base if base.endswith(".json") else f"{base}.json"
            options |= self._options(posixpath.join(posixpath.dirname(file), name), depth + 1) or {}
        own = table.get("compilerOptions")
        own = dict(own) if isinstance(own, dict) else {}
        if isinstance(own.get("outDir"), str):
            own["outDir"] = posixpath.join(posixpath.dirname(file), own["outDir"])
        return {**options, **own, "references": table.get("references")}


def _is_own(folder: str) -> bool:
    """Whether a folder lies below the project, and is not the project itself."""
    return (
        not folder.startswith(("..", "/", "$")) and folder not in (".", "") and re.fullmatch(r"[\w.@/-]+", folder) is not None
    )


def _relaxed_json(text: str | None) -> dict[str, Any] | None:
    """JSON with comments and commas at the end, as tsconfig.json has it; None where it cannot be read."""
    if text is None:
        return None
    bare = re.sub(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', lambda m: m[1] or "", text, flags=re.DOTALL)
    try:
        table = json.loads(re.sub(r",(\s*[}\]])", r"\1", bare))
    except ValueError:
        return None  # unreadable: the caller says so
    return table if isinstance(table, dict) else None
