"""What a command starts in the end: shell and npm scripts, init programs and interpreters, followed to programs and sources."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import SHELLS, Command, Script, from_words, read_script
from optimizer.facts.commands import Placed, option_value
from optimizer.facts.node import parse_json
from optimizer.facts.python import program
from optimizer.facts.state import expand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.manifests import Application
    from optimizer.rewrite import Evidence

_INITS = frozenset({"tini", "dumb-init", "catatonit", "gosu", "su-exec", "setpriv", "runuser", "chpst"})
DROPS_ROOT = frozenset({"gosu", "su-exec", "setpriv", "runuser", "chpst", "s6-setuidgid", "su", "sudo", "start-stop-daemon"})
_BUILTINS = frozenset({"exec", "eval", "trap", ".", "source"})
# Programs that run sources which no reader here reads.
UNREAD = frozenset(
    """java ruby bundle rails puma rackup rake sidekiq perl plackup php dotnet lua Rscript elixir mix erl swift""".split()
)
_RUNNERS = frozenset({"npm", "yarn", "pnpm", "bun"})
_OWN_VERBS = frozenset(
    """install i ci add remove cache config prune rebuild audit publish pack link set version exec dlx create init global info
    --version -v""".split()
)
# Servers that are told a module: the option-free argument `package.module:name`.
_MODULE_SERVERS = frozenset({"gunicorn", "uvicorn", "hypercorn", "daphne", "waitress-serve", "granian", "uwsgi", "quart"})
_VALUED = frozenset(
    """-b --bind -w --workers -k --worker-class -t --timeout -c --config --host --port -p --log-level --threads --env -e --chdir
    --access-logfile --error-logfile --log-file --log-config --app-dir --keep-alive --max-requests --listen --call --pid
    --graceful-timeout --preload-app --name -n --user -u --group -g""".split()
)
# Options by which a program only says something about itself.
_ASKS = frozenset({"--version", "-V", "-v", "--help", "-h"})
_MAX_DEPTH = 8


def runs_a_script(command: Command) -> bool:
    """Whether a command of npm, Yarn, pnpm or Bun runs a script or a program of the project: `npm run build`, `yarn build`."""
    verb = next((arg for arg in command.args if not arg.startswith("-")), "")
    is_short = command.name in ("yarn", "pnpm") and verb not in {"", *_OWN_VERBS}
    return command.name in _RUNNERS and (is_short or verb in ("run", "run-script", "test", "exec", "start"))


class How(Enum):
    """What kind of thing is started."""

    PROGRAM = "program"
    SHELL = "shell"
    PYTHON = "python module"
    NODE = "node module"
    WRITES = "file that a shell script writes"
    UNKNOWN = "something that cannot be told"


@dataclass(frozen=True, slots=True)
class Started:
    """Something that a command starts: a program by name, a shell, or a source file of the application.

    `what` is the program's name or path as it is written, the container path of a source, or of a file; None where it cannot
    be told. `words` are the words it gets, its own name first.
    """

    how: How
    what: str | None
    words: tuple[str, ...]
    seen: Evidence


def follow(
    application: Application, script: Script | None, cwd: str | None, seen: Evidence, *, by_shell: bool
) -> Iterator[Started]:
    """Everything that the commands of `script` start, run in the folder `cwd`."""
    if by_shell:
        yield Started(How.SHELL, "sh", (), seen)
    if script is None:
        yield Started(How.UNKNOWN, None, (), seen)
        return
    yield from _Follower(application).script(script, cwd, seen, 0)


def follow_words(application: Application, words: tuple[str, ...], cwd: str | None, seen: Evidence) -> Iterator[Started]:
    """Everything that an exec form starts."""
    yield from _Follower(application).script(from_words(words), cwd, seen, 0)


class _Follower:
    def __init__(self, application: Application) -> None:
        self.application = application
        self.facts = application.facts
        self.seen_files: set[str] = set()

    def script(self, script: Script, cwd: str | None, seen: Evidence, depth: int) -> Iterator[Started]:
        for command in script.commands:
            if command.name == "cd" and len(command.args) == 1:
                cwd = Placed(command, cwd).path(command.args[0])
            for target in _file_targets(command):
                yield Started(How.WRITES, Placed(command, cwd).path(target), (), seen)
            yield from self.command(command, cwd, seen, depth)

    def command(self, command: Command, cwd: str | None, seen: Evidence, depth: int) -> Iterator[Started]:
        if command.name == "" or not command.words:
            return
        words = (command.words[command.head].text or "", *command.args)
        wrapper = command.words[0].text if command.head > 0 else None
        if wrapper == "sudo":
            yield Started(How.PROGRAM, wrapper, (wrapper,), seen)
        if command.name is None:
            if command.words[command.head].raw in ('"$@"', "$@", '"${@}"'):
                return  # the words of CMD, which are followed by themselves
            yield Started(How.UNKNOWN, None, words, seen)
            return
        yield from self.words(words, cwd, seen, depth)

    def words(self, words: tuple[str, ...], cwd: str | None, seen: Evidence, depth: int) -> Iterator[Started]:
        """What one command starts, given its words."""
        if not words or not words[0]:
            return
        name, args = words[0].rpartition("/")[2], words[1:]
        if name in _BUILTINS and args:
            yield from self.builtin(name, args, cwd, seen, depth)
            return
        if "/" in words[0] and (source := self.application.source(Placed(_command(words), cwd).path(words[0]))) is not None:
            yield from self.file(source, Placed(_command(words), cwd).path(words[0]) or "", words, cwd, depth)
            return
        if depth > _MAX_DEPTH:
            yield Started(How.UNKNOWN, None, words, seen)
        elif name in _INITS:
            yield Started(How.PROGRAM, words[0], words, seen)
            yield from self.words(_behind_init(name, args), cwd, seen, depth + 1)
        elif name in SHELLS:
            yield from self.shell(words, cwd, seen, depth)
        elif name in _RUNNERS:
            yield from self.runner(name, args, cwd, seen, depth)
        elif name in ("npx", "bunx") or (name in ("env", "dotenv", "cross-env", "node-env-run") and args):
            yield Started(How.PROGRAM, words[0], words, seen)
            rest = tuple(w for i, w in enumerate(args) if any(not a.startswith("-") and "=" not in a for a in args[: i + 1]))
            yield from self.words(rest, cwd, seen, depth + 1)
        elif re.fullmatch(r"python[\d.]*", name) and program(_command(words))[0] == name:
            yield from self.python(words, cwd, seen)
        elif name in ("node", "nodejs", "ts-node", "tsx", "nodemon"):
            yield from self.node(words, cwd, seen)
        else:
            yield Started(How.PROGRAM, words[0], words, seen)
            yield from self.server(name, args, cwd, words, seen)

    def builtin(self, name: str, args: tuple[str, ...], cwd: str | None, seen: Evidence, depth: int) -> Iterator[Started]:
        """Words of the shell itself that run others: in its place, on a signal, out of a file, or put together."""
        if name == "exec":
            rest = _plain_rest(args)
            if rest[:1] not in (("$@",), ('"$@"',)):
                yield from self.words(rest, cwd, seen, depth + 1)
        elif name == "trap":
            script = read_script(args[0].strip("'\""))
            if script is not None and args[0] != "-":
                yield from self.script(script, cwd, seen, depth + 1)
        elif name == "eval":
            yield Started(How.UNKNOWN, None, (name, *args), seen)
        else:
            source = self.application.source(Placed(_command((name, *args)), cwd).path(args[0]))
            text = self.application.context.read(source) if source is not None else None
            if source is not None and text is not None:
                yield from self.shell_file(source, text, cwd, depth)

    def shell(self, words: tuple[str, ...], cwd: str | None, seen: Evidence, depth: int) -> Iterator[Started]:
        yield Started(How.SHELL, words[0], words, seen)
        args = words[1:]
        inline = next((i for i, a in enumerate(args) if re.fullmatch(r"-[a-z]*c", a)), None)
        if inline is not None and inline + 1 < len(args):
            script = read_script(args[inline + 1])
            if script is None:
                yield Started(How.UNKNOWN, None, words, seen)
            else:
                yield from self.script(script, cwd, seen, depth + 1)
            return
        file = next((a for a in args if not a.startswith(("-", "+"))), None)
        path = Placed(_command(words), cwd).path(file) if file else None
        source = self.application.source(path)
        if source is not None:
            yield from self.file(source, path or "", words, cwd, depth, interpreter=words[0])
        else:  # a script from elsewhere, or a shell for people
            yield Started(How.UNKNOWN, None, words, seen)

    def file(
        self, source: str, container: str, words: tuple[str, ...], cwd: str | None, depth: int, interpreter: str = ""
    ) -> Iterator[Started]:
        """What a script of the build context starts."""
        text = self.application.context.read(source)
        first = (text or "").partition("\n")[0]
        here = self.facts.seen_in(
            source, f"is started ({first[:40]})" if first.startswith("#!") else "is started", excerpt=first[:80]
        )
        name = interpreter.rpartition("/")[2] or _interpreter(first)
        if text is None or name == "" or (depth > _MAX_DEPTH):
            yield Started(How.UNKNOWN, None, words, here)
        elif name in SHELLS:
            yield Started(How.SHELL, interpreter or name, words, here)
            if source in self.seen_files:
                return
            self.seen_files.add(source)
            yield from self.shell_file(source, text, cwd, depth)
        elif name.startswith("python"):
            yield Started(How.PROGRAM, name, words, here)
            yield Started(How.PYTHON, container, words, here)
        elif name == "node":
            yield Started(How.PROGRAM, name, words, here)
            yield Started(How.NODE, container, words, here)
        else:
            yield Started(How.UNKNOWN, None, words, here)

    def shell_file(self, source: str, text: str, cwd: str | None, depth: int) -> Iterator[Started]:
        script = read_script(text)
        if script is None:
            yield Started(How.UNKNOWN, None, (), self.facts.seen_in(source, "cannot be read as a shell script"))
            return
        variables = dict(self.application.variables)
        for command in script.commands:
            for assignment in command.assignments if not command.words else ():
                name, _, value = assignment.partition("=")
                variables[name] = _shell_value(value, variables) if command.is_unconditional else None
            known = _with_values(command, variables)
            if command.name == "cd" and len(command.args) == 1:
                cwd = Placed(known, cwd).path(known.args[0])
            line = text.count("\n", 0, command.span.start) + 1
            excerpt = text.splitlines()[line - 1].strip()[:100]
            seen = self.facts.seen_in(source, f"runs {command.name or 'something'}", line=line, excerpt=excerpt)
            for target in _file_targets(known):
                yield Started(How.WRITES, Placed(known, cwd).path(target), (), seen)
            yield from self.command(known, cwd, seen, depth + 1)

    def runner(self, name: str, args: tuple[str, ...], cwd: str | None, seen: Evidence, depth: int) -> Iterator[Started]:
        """npm, Yarn, pnpm and Bun: a script of package.json, or one of their own commands."""
        yield Started(How.PROGRAM, name, (name, *args), seen)
        plain = [a for a in args if not a.startswith("-")]
        if not plain or (plain[0] in _OWN_VERBS and plain[0] not in ("exec", "dlx")):
            return
        if plain[0] in ("exec", "dlx"):
            yield from self.words(tuple(plain[1:]), cwd, seen, depth + 1)
            return
        verb = plain[1] if plain[0] in ("run", "run-script") and len(plain) > 1 else plain[0]
        folder = option_value(args, "-C", "--prefix", "--cwd", "--dir", "--workspace") or option_value(
            args, "-w", "--workspace"
        )
        where = cwd if folder is None else Placed(_command((name, *args)), cwd).path(folder)
        yield Started(How.SHELL, "sh", (name, *args), seen)  # scripts run through a shell
        path = None if where is None else posixpath.join(where, "package.json")
        source = self.application.source(path)
        package = parse_json(self.application.context.read(source)) if source is not None else None
        scripts = package.get("scripts") if package is not None else None
        if not isinstance(scripts, dict) or source is None:
            yield Started(How.UNKNOWN, None, (name, *args), seen)
            return
        names = [n for n in (f"pre{verb}", verb, f"post{verb}") if isinstance(scripts.get(n), str)]
        if verb not in names:
            has_default = verb == "start" and self.application.source(posixpath.join(where or "/", "server.js")) is not None
            if has_default:
                yield from self.node(("node", "server.js"), where, seen)
            else:
                yield Started(How.UNKNOWN, None, (name, *args), seen)
        for script_name in names:
            text = str(scripts[script_name])
            line = self.application.line(source, f'"{script_name}"', f"runs `{text[:60]}`")
            script = read_script(text)
            if script is None:
                yield Started(How.UNKNOWN, None, (name, *args), line)
            else:
                yield from self.script(script, where, line, depth + 1)

    def python(self, words: tuple[str, ...], cwd: str | None, seen: Evidence) -> Iterator[Started]:
        yield Started(How.PROGRAM, words[0], words, seen)
        args = list(words[1:])
        if set(args) & _ASKS:
            return
        while args and args[0].startswith("-") and args[0] not in ("-m", "-c"):
            args = args[2:] if args[0] in ("-W", "-X") else args[1:]
        if not args or args[0] == "-c":
            if not args or not re.fullmatch(r"[\s\w.,;()'\"=:/-]*", args[1] if len(args) > 1 else ""):
                yield Started(How.UNKNOWN, None, words, seen)
            return
        if args[0] == "-m":
            module = args[1] if len(args) > 1 else ""
            yield from self.module(module, cwd, words, seen)
            yield from self.server(module, tuple(args[2:]), cwd, words, seen)
            return
        yield Started(How.PYTHON, Placed(_command(words), cwd).path(args[0]), words, seen)

    def module(self, module: str, cwd: str | None, words: tuple[str, ...], seen: Evidence) -> Iterator[Started]:
        """The source of a module that is named, if the application has it; a package of somebody else's is a program."""
        base = module.partition(":")[0].replace(".", "/")
        for folder in (cwd, *(f for f in (self.application.variables.get("PYTHONPATH") or "").split(":") if f)):
            for name in (f"{base}.py", f"{base}/__main__.py", f"{base}/__init__.py"):
                path = None if folder is None else posixpath.join(folder, name)
                if path is not None and self.application.source(path) is not None:
                    yield Started(How.PYTHON, path, words, seen)
                    return
        if ":" in module or cwd is None:
            yield Started(How.PYTHON, None, words, seen)
        else:
            yield Started(How.PROGRAM, module, words, seen)

    def server(
        self, name: str, args: tuple[str, ...], cwd: str | None, words: tuple[str, ...], seen: Evidence
    ) -> Iterator[Started]:
        """The application that a server of Python is told to serve."""
        if name in _MODULE_SERVERS:
            folder = option_value(args, "", "--chdir", "--app-dir")
            where = cwd if folder is None else Placed(_command(words), cwd).path(folder)
            plain = [a for i, a in enumerate(args) if not a.startswith("-") and (i == 0 or args[i - 1] not in _VALUED)]
            targets = [a for a in plain if re.fullmatch(r"[\w.]+(:[\w.]+(\(.*\))?)?", a)]
            if targets:
                yield from self.module(targets[-1] if ":" in targets[-1] else targets[-1] + ":", where, words, seen)
            else:
                yield Started(How.PYTHON, None, words, seen)
        elif name == "flask":
            app = option_value(args, "-A", "--app") or self.application.variables.get("FLASK_APP")
            names = [app.removesuffix(".py")] if app else ["app", "wsgi"]
            found = [
                s for n in names for s in self.module(n + ":" if ":" not in n else n, cwd, words, seen) if s.what is not None
            ]
            yield found[0] if found else Started(How.PYTHON, None, words, seen)
        elif name in (
            "celery",
            "streamlit",
            "fastapi",
            "chainlit",
            "django-admin",
            "dramatiq",
            "rq",
            "scrapy",
            "mkdocs",
            "airflow",
        ):
            file = next((a for a in args if a.endswith(".py")), None)
            yield Started(How.PYTHON, None if file is None else Placed(_command(words), cwd).path(file), words, seen)

    def node(self, words: tuple[str, ...], cwd: str | None, seen: Evidence) -> Iterator[Started]:
        yield Started(How.PROGRAM, words[0], words, seen)
        args = list(words[1:])
        files: list[str] = []
        if set(args) & _ASKS:
            return
        while args:
            arg = args.pop(0)
            if arg in ("-r", "--require", "--import", "--loader", "--env-file", "--exec", "-e", "--eval", "-p", "--watch"):
                if arg in ("-e", "--eval", "-p"):
                    return
                args = args[1:]
            elif not arg.startswith("-"):
                files.append(arg)
                break
        if not files:
            yield Started(How.UNKNOWN, None, words, seen)
            return
        path = Placed(_command(words), cwd).path(files[0])
        if path is None or self.application.source(path) is not None:
            yield Started(How.NODE, path, words, seen)
            return
        tries = (path + ".js", path + ".mjs", path + ".cjs", posixpath.join(path, "index.js"))
        yield Started(How.NODE, next((t for t in tries if self.application.source(t) is not None), path), words, seen)


def _with_values(command: Command, variables: dict[str, str | None]) -> Command:
    """`command` with the words that variables make unknown, as far as those are known."""
    words = tuple(
        word if word.text is not None or (value := _shell_value(word.raw, variables)) is None else replace(word, text=value)
        for word in command.words
    )
    redirects = tuple(
        r if r.target is not None or not r.raw else replace(r, target=_shell_value(r.raw, variables)) for r in command.redirects
    )
    return replace(command, words=words, redirects=redirects)


def _shell_value(raw: str, variables: dict[str, str | None]) -> str | None:
    """What a word or an assigned value comes to; None where it takes more than variables and `dirname`."""
    text = raw[1:-1] if len(raw) > 1 and raw[0] == raw[-1] == '"' else raw
    if match := re.fullmatch(r"\$\(dirname\s+(.+)\)", text):
        inner = _shell_value(match[1], variables)
        return None if inner is None else posixpath.dirname(inner)
    if "$(" in text or "`" in text or text.startswith("("):
        return None
    with_defaults = re.sub(r"\$\{(\w+):?-([^}$]*)\}", lambda m: variables.get(m[1]) or m[2], text)
    return expand(with_defaults, variables)


def _file_targets(command: Command) -> Iterator[str]:
    """The files that a command of a shell script makes, changes or deletes."""
    args = [a for a in command.args if not a.startswith(("-", "+"))]
    for redirect in command.redirects:
        if redirect.is_to_a_file:
            yield redirect.target or "$"
    if command.name in ("mkdir", "touch", "rm"):
        yield from args
    elif command.name in ("cp", "mv", "ln", "install", "tee") and args:
        yield args[-1]
    elif command.name == "sed" and any(a.startswith("-i") for a in command.args):
        yield from args[-1:]


def _interpreter(first: str) -> str:
    """The program that a `#!` line names."""
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    name = _command((posixpath.basename(words[0]), *words[1:])).name if words else None
    return "" if name in (None, "env") else name


def _command(words: tuple[str, ...]) -> Command:
    return from_words(words).commands[0]


def _plain_rest(args: tuple[str, ...]) -> tuple[str, ...]:
    at = 0
    while at < len(args) and args[at].startswith("-"):
        at += 2 if args[at] == "-a" else 1
    return args[at:]


def _behind_init(name: str, args: tuple[str, ...]) -> tuple[str, ...]:
    """What an init program, or one that gives up root, is told to start."""
    if "--" in args:
        return args[args.index("--") + 1 :]
    rest = _plain_rest(args)
    return rest[1:] if name in ("gosu", "su-exec") else rest
