"""Python sources: what a module starts, writes and listens on, and what it imports, read with libcst.

A file whose bytes name none of the calls below is not parsed: its imports are all that is taken from it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import read_script
from optimizer.facts.uses import ANYTHING, Act, Reading, Surroundings, Use, distinct, folder, join_known

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import libcst as cst

_PREFILTER = re.compile(
    rb"subprocess|ctypes|dlopen|\.sqlite|\.db\b|\bos\.|\bpopen|pexpect|create_subprocess|sqlite|FileHandler|basicConfig|makedirs|\.mkdir|write_|\bopen\b"
    rb"|shutil|\bto_(?:csv|json|excel|parquet|pickle)|savefig|\.save\(|port\b|serve|Server|listen|bind"
    rb"|__import__|import_module|tempfile|\bdump\(|from os "
)
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^#\n(]+)|import[ \t]+([^#\n]+))", re.MULTILINE
)
_RUNS = frozenset(
    """subprocess.run subprocess.Popen subprocess.call subprocess.check_call subprocess.check_output subprocess.getoutput
    subprocess.getstatusoutput os.system os.popen asyncio.create_subprocess_exec asyncio.create_subprocess_shell pexpect.spawn
    pexpect.run os.execv os.execve os.execvp os.execvpe os.execl os.execlp os.execle os.spawnv os.spawnvp os.spawnl os.spawnlp
    os.posix_spawn os.posix_spawnp commands.getoutput""".split()
)
_BY_SHELL = frozenset(
    """subprocess.getoutput subprocess.getstatusoutput os.system os.popen asyncio.create_subprocess_shell
    commands.getoutput""".split()
)
_SPAWNS = frozenset("os.spawnv os.spawnvp os.spawnl os.spawnlp".split())
# Calls that write to the path that is their argument of that index.
_WRITES = {
    "os.makedirs": 0, "os.mkdir": 0, "os.remove": 0, "os.unlink": 0, "os.rename": 1, "os.replace": 1, "os.rmdir": 0,
    "shutil.copy": 1, "shutil.copy2": 1, "shutil.copyfile": 1, "shutil.copytree": 1, "shutil.move": 1, "shutil.rmtree": 0,
    "sqlite3.connect": 0, "aiosqlite.connect": 0, "logging.FileHandler": 0, "logging.handlers.RotatingFileHandler": 0,
    "logging.handlers.TimedRotatingFileHandler": 0, "shelve.open": 0, "dbm.open": 0, "os.chmod": 0, "os.chown": 0,
}  # fmt: skip
_METHODS_WRITE = frozenset(
    "write_text write_bytes mkdir touch unlink to_csv to_json to_excel to_parquet to_pickle savefig save".split()
)
_SERVERS = frozenset(
    "run serve run_app run_simple make_server HTTPServer ThreadingHTTPServer TCPServer listen bind start".split()
)
_WRITING_MODE = re.compile(r"[wax+]")
_OPENS = frozenset("open io.open codecs.open gzip.open aiofiles.open".split())
_LOADS = frozenset("ctypes.CDLL ctypes.cdll.LoadLibrary ctypes.util.find_library".split())
_DATABASE = re.compile(r"\.(sqlite3?|db)$")
# Names that stand for something in memory, where a path could stand too.
_MEMORY = re.compile(r"buf|stream|bytes|io|out|response|tmp|temp|file_obj|fp$", re.IGNORECASE)
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?\s]*)")
_MAX_DEPTH = 20


def read(data: bytes, surroundings: Surroundings) -> Reading:
    """What a module does; a module that libcst cannot parse is unknown as a whole."""
    text = data.decode("utf-8", "replace")
    imports = tuple(_imports(text))
    if not _PREFILTER.search(data):
        return Reading(imports=imports)
    import libcst
    from libcst.metadata import MetadataWrapper, PositionProvider

    try:
        wrapper = MetadataWrapper(libcst.parse_module(data), unsafe_skip_copy=True)
    except (libcst.ParserSyntaxError, UnicodeDecodeError, RecursionError):
        return Reading(imports=imports, unknown=(Use(Act.STARTS, None, surroundings.path, 1, "cannot be parsed"),))
    lines = text.splitlines()
    found = _Module(surroundings)
    for node in _walk(wrapper.module):
        found.note(node)
    answers, computed = list(found.uses()), found.computed_imports
    if not answers and not computed:
        return Reading(imports=imports)
    positions = wrapper.resolve(PositionProvider)  # it costs as much as parsing

    def use(act: Act, what: str | None, node: cst.CSTNode) -> Use:
        line = positions[node].start.line
        return Use(act, what, surroundings.path, line, lines[line - 1].strip()[:120] if line <= len(lines) else "")

    uses = distinct(use(*answer) for answer in answers)
    unknown = tuple(use(Act.STARTS, None, node) for node in computed)
    return Reading(uses, imports, unknown)


def _imports(text: str) -> Iterator[str]:
    """The modules of the import statements: `a.b`, `.a` (relative), and for `from a import b` also `a.b`."""
    for match in _IMPORT.finditer(text):
        base, names, plain = match.groups()
        if plain is not None:
            yield from (name.split()[0] for name in plain.split(",") if name.strip())
            continue
        yield base
        parts = re.sub(r"[()\\]|#.*", " ", names).split(",")
        joiner = "" if base.endswith(".") else "."
        yield from (f"{base}{joiner}{part.split()[0]}" for part in parts if part.strip() and part.split()[0] != "*")


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """All nodes below `node`, without recursion."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        yield here
        waiting += reversed(here.children)


class _Module:
    """The calls of one module, with its imports and its plain assignments resolved."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.names: dict[str, str] = {}
        self.assigned: dict[str, list[cst.BaseExpression]] = {}
        self.arguments: dict[str, int] = {}
        self.calls: list[cst.Call] = []
        self.parts: set[int] = set()  # expressions that are a part of a larger one
        self.texts: list[cst.BaseExpression] = []
        self.computed_imports: list[cst.Call] = []

    def note(self, node: cst.CSTNode) -> None:
        """Take in a node: calls, imports, assignments and strings."""
        import libcst as cst

        if isinstance(node, cst.Call):
            self.calls.append(node)
            self.parts.update(id(argument.value) for argument in node.args)
        elif isinstance(node, cst.Import):
            for alias in node.names:
                name = _dotted(alias.name) or ""
                self.names[_alias(alias) or name.partition(".")[0]] = name if alias.asname else name.partition(".")[0]
        elif isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar):
            module = _dotted(node.module) if node.module is not None else ""
            for alias in node.names:
                name = _dotted(alias.name) or ""
                self.names[_alias(alias) or name] = f"{module}.{name}" if not node.relative else f".{name}"
        elif isinstance(node, cst.Assign):
            for target in node.targets:
                if isinstance(target.target, cst.Name):
                    self.assigned.setdefault(target.target.value, []).append(node.value)
                elif isinstance(target.target, cst.Tuple) and isinstance(node.value, cst.Subscript):
                    self._unpack(target.target, node.value)
        elif isinstance(node, cst.SimpleString | cst.BinaryOperation | cst.FormattedString):
            self.texts.append(node)
            if isinstance(node, cst.BinaryOperation):
                self.parts |= {id(node.left), id(node.right)}

    def _unpack(self, names: cst.Tuple, value: cst.Subscript) -> None:
        """`a, b = sys.argv[1:]`: which word of the command line each name stands for."""
        import libcst as cst

        part = value.slice[0].slice
        if _dotted(value.value) != "sys.argv" or not isinstance(part, cst.Slice) or not isinstance(part.lower, cst.Integer):
            return
        for index, element in enumerate(names.elements):
            if isinstance(element, cst.StarredElement):
                return
            if isinstance(element.value, cst.Name):
                self.arguments[element.value.value] = int(part.lower.value) + index

    def uses(self) -> Iterator[tuple[Act, str | None, cst.CSTNode]]:
        """What the calls and strings of the module do."""
        for node in self.texts:
            text = self.text(node) or ""
            match = _SQLITE.search(text)
            if match and match[1] not in ("", ":memory:"):
                yield Act.WRITES, self.surroundings.absolute(match[1]), node
            elif id(node) not in self.parts and _DATABASE.search(text) and re.fullmatch(r"[\w./-]+", text):
                yield Act.WRITES, self.surroundings.absolute(text), node
        for call in self.calls:
            name = self.called(call.func)
            yield from ((act, what, call) for act, what in self._call(call, name))

    def called(self, func: cst.BaseExpression) -> str:
        """The dotted name of what is called, imports resolved; `?.method` for a method of something unknown."""
        import libcst as cst

        name = _dotted(func)
        if name is None:
            return f"?.{func.attr.value}" if isinstance(func, cst.Attribute) else "?"
        head, dot, rest = name.partition(".")
        return self.names.get(head, head) + dot + rest

    def _call(self, call: cst.Call, name: str) -> Iterator[tuple[Act, str | None]]:
        short = name.rpartition(".")[2]
        if name in _RUNS:
            yield from self._runs(call, name)
        elif name in _LOADS or short == "dlopen":
            yield Act.LOADS, self.text(_argument(call, 0))
        elif name in ("importlib.import_module", "__import__"):
            argument = _argument(call, 0)
            if argument is None or self.text(argument) is None:
                self.computed_imports.append(call)
        elif short in _SERVERS and (port := self.port(call)) is not None:
            yield Act.LISTENS, port
        else:
            yield from self._writes(call, name, short)

    def _writes(self, call: cst.Call, name: str, short: str) -> Iterator[tuple[Act, str | None]]:
        is_method = name.startswith("?")
        if name in _OPENS or (short == "open" and is_method):
            yield from self._opens(call, is_method=is_method)
        elif name in _WRITES:
            target = _argument(call, _WRITES[name])
            if self.text(target) != ":memory:":
                yield Act.WRITES, self.path(target)
        elif name in ("os.path.join", "pathlib.Path") and _DATABASE.search(self.text(call) or ""):
            yield Act.WRITES, self.path(call)
        elif name == "logging.basicConfig":
            if (file := _keyword(call, "filename")) is not None:
                yield Act.WRITES, self.path(file)
        elif short in _METHODS_WRITE and "." in name:
            yield from self._method_writes(call, short)

    def _runs(self, call: cst.Call, name: str) -> Iterator[tuple[Act, str | None]]:
        argument = _argument(call, 1 if name in _SPAWNS else 0, "args")
        shell = _keyword(call, "shell")
        by_shell = name in _BY_SHELL or (shell is not None and _dotted(shell) != "False")
        words = self.words(argument)
        if by_shell:
            yield Act.SHELL, None
            script = read_script(words[0]) if words and words[0] is not None and not words[0].endswith(ANYTHING) else None
            if script is None:
                first = re.match(r"\s*([\w./-]+)\s", words[0]) if words and words[0] else None
                yield Act.STARTS, None
                if first:
                    yield Act.STARTS, first[1]
                return
            for command in script.commands:
                yield Act.STARTS, command.name or (None if command.words else "true")
            return
        if words and words[0] is not None and not words[0].endswith(ANYTHING):
            yield Act.STARTS, words[0].split()[0] if words[0].strip() else None
            if words[0].rpartition("/")[2] in ("sh", "bash"):
                yield Act.SHELL, None
                yield Act.STARTS, None
        else:
            yield Act.STARTS, None

    def words(self, node: cst.BaseExpression | None, depth: int = 0) -> list[str | None]:
        """The words of a command: a list of them, or one text."""
        import libcst as cst

        node = self._value(node)
        if isinstance(node, cst.List | cst.Tuple):
            return [None if isinstance(e, cst.StarredElement) else self._word(e.value) for e in node.elements]
        if isinstance(node, cst.BinaryOperation) and depth < _MAX_DEPTH and self.words(node.left, depth + 1)[:1] != [None]:
            return self.words(node.left, depth + 1)
        return [self.text(node)]

    def _word(self, node: cst.BaseExpression) -> str | None:
        return "python" if self.called(node) == "sys.executable" else self.text(node)

    def _opens(self, call: cst.Call, *, is_method: bool) -> Iterator[tuple[Act, str | None]]:
        import libcst as cst

        mode_node = _argument(call, 0 if is_method else 1, "mode")
        mode = "r" if mode_node is None else self.text(mode_node)
        if mode is None or not _WRITING_MODE.search(mode):
            return
        target: cst.BaseExpression | None = _argument(call, 0, "file")
        if is_method and isinstance(call.func, cst.Attribute):
            target = call.func.value
        yield Act.WRITES, self.path(target)

    def _method_writes(self, call: cst.Call, short: str) -> Iterator[tuple[Act, str | None]]:
        import libcst as cst

        if not isinstance(call.func, cst.Attribute):
            return
        owner = self.path(call.func.value)
        if short in ("write_text", "write_bytes", "mkdir", "touch", "unlink"):
            yield Act.WRITES, owner
        elif (argument := _argument(call, 0)) is not None:
            target = self.path(argument)
            name = _dotted(argument) or ""
            in_memory = short == "save" and (_keyword(call, "format") is not None or _MEMORY.search(name) is not None)
            if target is not None or not in_memory:  # `model.save()` writes to a database, `image.save(buffer)` to memory
                yield Act.WRITES, target

    # ------------------------------------------------------------ values

    def _value(self, node: cst.BaseExpression | None, depth: int = 0) -> cst.BaseExpression | None:
        """`node`, or what the one assignment to its name gives it."""
        import libcst as cst

        if isinstance(node, cst.Name) and depth < _MAX_DEPTH:
            values = self.assigned.get(node.value, [])
            return self._value(values[0], depth + 1) if len(values) == 1 else node
        return node

    def text(self, node: cst.BaseExpression | None, depth: int = 0) -> str | None:
        """The text that an expression gives, `*` for the part behind which nothing is known; None for anything else."""
        import libcst as cst

        node = self._value(node)
        if node is None or depth > _MAX_DEPTH:
            return None
        if isinstance(node, cst.Name) and node.value in self.arguments:
            return self._word_of_command_line(self.arguments[node.value])
        if isinstance(node, cst.SimpleString | cst.ConcatenatedString):
            value = node.evaluated_value
            return value if isinstance(value, str) else value.decode("utf-8", "replace") if isinstance(value, bytes) else None
        if isinstance(node, cst.FormattedString):
            first = node.parts[0] if node.parts else None
            return first.value + ANYTHING if isinstance(first, cst.FormattedStringText) else None
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
            left, right = self.text(node.left, depth + 1), self.text(node.right, depth + 1)
            return None if left is None else left if left.endswith(ANYTHING) else left + (ANYTHING if right is None else right)
        if isinstance(node, cst.BinaryOperation | cst.BooleanOperation | cst.Call | cst.Attribute | cst.Subscript):
            return self._computed(node, depth)
        return None

    def _computed(self, node: cst.BaseExpression, depth: int) -> str | None:
        """The text of a path that is put together, or of an environment variable."""
        import libcst as cst

        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Divide):
            return self._joined([node.left, node.right], depth)
        if isinstance(node, cst.BooleanOperation) and isinstance(node.operator, cst.Or):
            return self.text(node.left, depth + 1) or self.text(node.right, depth + 1)
        if isinstance(node, cst.Attribute) and node.attr.value == "parent":
            inner = self.text(node.value, depth + 1)
            return None if inner is None else folder(inner)
        if isinstance(node, cst.Subscript):
            return self._item(node, depth)
        return self._path_call(node, depth) if isinstance(node, cst.Call) else None

    def _item(self, node: cst.Subscript, depth: int) -> str | None:
        """An environment variable, or a word of the command line."""
        import libcst as cst

        index = node.slice[0].slice
        value = index.value if isinstance(index, cst.Index) else None
        if self.called(node.value) == "sys.argv" and isinstance(value, cst.Integer) and value.value.isdecimal():
            return self._word_of_command_line(int(value.value))
        key = self.text(value, depth + 1) if self.called(node.value) == "os.environ" else None
        return self.surroundings.env.get(key) if key is not None else None

    def _word_of_command_line(self, index: int) -> str | None:
        words = self.surroundings.arguments
        return words[index] if index < len(words) and "$" not in words[index] else None

    def _path_call(self, call: cst.Call, depth: int) -> str | None:
        import libcst as cst

        name, args = self.called(call.func), [a.value for a in call.args if a.keyword is None]
        if name in ("os.environ.get", "os.getenv") and args:
            key = self.text(args[0], depth + 1)
            value = self.surroundings.env.get(key) if key is not None else None
            return value if value is not None else self.text(args[1], depth + 1) if len(args) > 1 else None
        if name == "os.path.join" and args:
            return self._joined(args, depth)
        if name == "os.path.dirname" and args:
            inner = self._file(args[0], depth)
            return None if inner is None else folder(inner)
        if name in ("os.path.abspath", "os.path.realpath", "pathlib.Path", "str", "os.fspath") and args:
            return self._joined(args, depth)
        if name == "os.getcwd" or (name in ("pathlib.Path.cwd", "pathlib.Path") and not args):
            return self.surroundings.workdir
        if name in ("tempfile.gettempdir", "tempfile.mkdtemp", "tempfile.mktemp"):
            return "/tmp/" + ANYTHING  # noqa: S108 - a path in the image
        if name in ("os.path.expanduser", "pathlib.Path.home"):
            return "~/" + ANYTHING
        if isinstance(call.func, cst.Attribute) and call.func.attr.value in ("resolve", "absolute", "expanduser"):
            return self.text(call.func.value, depth + 1) or self._file(call.func.value, depth)
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "joinpath":
            return self._joined([call.func.value, *args], depth)
        return None

    def _joined(self, nodes: Sequence[cst.BaseExpression], depth: int) -> str | None:
        return join_known([self._file(node, depth) for node in nodes])

    def _file(self, node: cst.BaseExpression, depth: int) -> str | None:
        return self.surroundings.container if _dotted(node) == "__file__" else self.text(node, depth + 1)

    def path(self, node: cst.BaseExpression | None) -> str | None:
        """The container path that an expression gives."""
        text = None if node is None else self._file(node, 0)
        return None if text is None or text == ANYTHING else self.surroundings.absolute(text)

    def port(self, call: cst.Call) -> str | None:
        """The port among the arguments of a call that starts a server; None where there is none that is literal."""
        import libcst as cst

        values = [_keyword(call, "port"), *(a.value for a in call.args if a.keyword is None)]
        for node in values:
            value = self._value(node)
            if isinstance(value, cst.Tuple) and len(value.elements) > 1:
                value = self._value(value.elements[1].value)
            if isinstance(value, cst.Integer) and value.value.isdecimal():
                return value.value
        return None


def _dotted(node: cst.CSTNode | None) -> str | None:
    import libcst as cst

    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        head = _dotted(node.value)
        return None if head is None else f"{head}.{node.attr.value}"
    return None


def _alias(alias: cst.ImportAlias) -> str | None:
    return _dotted(alias.asname.name) if alias.asname is not None else None


def _argument(call: cst.Call, index: int, keyword: str = "") -> cst.BaseExpression | None:
    if keyword and (named := _keyword(call, keyword)) is not None:
        return named
    plain = [a.value for a in call.args if a.keyword is None and not a.star]
    return plain[index] if index < len(plain) else None


def _keyword(call: cst.Call, name: str) -> cst.BaseExpression | None:
    return next((a.value for a in call.args if a.keyword is not None and a.keyword.value == name), None)
