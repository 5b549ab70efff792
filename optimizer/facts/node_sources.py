"""JavaScript and TypeScript sources: what a module starts, writes and listens on, and what it loads, read with tree-sitter."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import read_script
from optimizer.facts.syntax import arguments_of, text_of, walk
from optimizer.facts.uses import ANYTHING, Act, Reading, Surroundings, Use, distinct, folder, join_known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node, Parser

ENDINGS = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
_PREFILTER = re.compile(
    rb"child_process|execa|cross-spawn|shelljs|\bzx\b|\bfs\b|fs-extra|sqlite|multer|winston|\blisten\b|\bport\b|Database\b|lowdb|nedb|\.sqlite|\.db\b|ffi|diskStorage"
)
_LOADS = re.compile(
    r"""(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*)(?:(['"])(?P<name>[^'"\n]+)\1|(?P<computed>`|\w+\s*[+)]))""",
    re.MULTILINE,
)
_SHELLS = frozenset({"exec", "execSync"})
_STARTS = frozenset({"execFile", "execFileSync", "spawn", "spawnSync"})
_PROCESS = frozenset({"child_process", "node:child_process"})
_SPAWNERS = {"execa": "execFile", "cross-spawn": "spawn", "shelljs": "exec"}
_FILES = frozenset({"fs", "node:fs", "fs/promises", "node:fs/promises", "fs-extra", "graceful-fs"})
# Functions of fs that write, with the index of the path that they write to.
_WRITES = {
    "writeFile": 0, "appendFile": 0, "createWriteStream": 0, "mkdir": 0, "mkdtemp": 0, "rename": 1, "copyFile": 1, "cp": 1,
    "unlink": 0, "rm": 0, "rmdir": 0, "truncate": 0, "chmod": 0, "outputFile": 0, "outputJson": 0, "writeJson": 0,
    "ensureDir": 0,    "ensureFile": 0, "copy": 1, "move": 1, "remove": 0, "emptyDir": 0, "utimes": 0, "symlink": 1,
}  # fmt: skip
_OPTIONS_WRITE = {"multer": "dest", "File": "filename", "DailyRotateFile": "filename", "FileStore": "path"}
_DATABASE = re.compile(r"[\w./-]+\.(sqlite3?|db)")
_MAX_DEPTH = 20


def read(data: bytes, surroundings: Surroundings) -> Reading:
    """What a module does; one that the grammar cannot read is unknown as a whole."""
    text = data.decode("utf-8", "replace")
    found = [match for match in _LOADS.finditer(text) if not _in_comment(text, match.start())]
    imports = tuple(match["name"] for match in found if match["name"])
    unknown = tuple(
        _use(surroundings, text, text.count("\n", 0, match.start()), Act.STARTS, None)
        for match in found
        if match["computed"] and not match[0].lstrip().startswith("from")
    )
    if not _PREFILTER.search(data):
        return Reading(imports=imports, unknown=unknown)
    root = _parser(surroundings.path).parse(data).root_node
    if root.has_error:
        unreadable = Use(Act.STARTS, None, surroundings.path, 1, "cannot be parsed")
        return Reading(imports=imports, unknown=(*unknown, unreadable))
    module = _Module(surroundings)
    for node in walk(root):
        module.note(node)
    uses = tuple(
        _use(surroundings, text, node.start_point[0], act, what) for node in module.calls for act, what in module.uses(node)
    )
    databases = ((node, value) for node in module.strings if (value := _string(node)) and _DATABASE.fullmatch(value))
    uses += tuple(
        _use(surroundings, text, node.start_point[0], Act.WRITES, surroundings.absolute(value)) for node, value in databases
    )
    return Reading(distinct(uses), imports, unknown)


def _in_comment(text: str, at: int) -> bool:
    line = text[text.rfind("\n", 0, at) + 1 : at].lstrip()
    return line.startswith(("//", "*", "/*"))


def _use(surroundings: Surroundings, text: str, row: int, act: Act, what: str | None) -> Use:
    lines = text.splitlines()
    excerpt = lines[row].strip()[:120] if row < len(lines) else ""
    return Use(act, what, surroundings.path, row + 1, excerpt)


@lru_cache(maxsize=3)
def _language(kind: str) -> Parser:
    import tree_sitter

    if kind == "javascript":
        import tree_sitter_javascript

        return tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))
    import tree_sitter_typescript

    language = tree_sitter_typescript.language_tsx() if kind == "tsx" else tree_sitter_typescript.language_typescript()
    return tree_sitter.Parser(tree_sitter.Language(language))


def _parser(path: str) -> Parser:
    if path.endswith((".ts", ".mts", ".cts")):
        return _language("typescript")
    return _language("tsx" if path.endswith(".tsx") else "javascript")


class _Module:
    """The calls of one module, with what its names stand for."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.names: dict[str, str] = {}  # local name: "module" or "module.function"
        self.assigned: dict[str, list[Node]] = {}
        self.calls: list[Node] = []
        self.strings: list[Node] = []

    def note(self, node: Node) -> None:
        """Take in a node: imports, assignments and calls."""
        if node.type == "import_statement":
            self._import(node)
        elif node.type == "variable_declarator":
            self._declare(node.child_by_field_name("name"), node.child_by_field_name("value"))
        elif node.type in ("call_expression", "new_expression"):
            self.calls.append(node)
        elif node.type == "string":
            self.strings.append(node)

    def _import(self, node: Node) -> None:
        module = _string(node.child_by_field_name("source")) or ""
        for inner in walk(node):
            if inner.type == "import_specifier":
                name = text_of(inner.child_by_field_name("name"))
                self.names[text_of(inner.child_by_field_name("alias")) or name] = f"{module}.{name}"
            elif inner.type in ("namespace_import", "import_clause"):
                for child in inner.children:
                    if child.type == "identifier":
                        self.names[text_of(child)] = module

    def _declare(self, name: Node | None, value: Node | None) -> None:
        if name is None or value is None:
            return
        module = self.called(value)
        if name.type == "identifier":
            self.assigned.setdefault(text_of(name), []).append(value)
            if module:
                self.names[text_of(name)] = module
        elif name.type == "object_pattern" and module:
            for part in name.children:
                if part.type == "shorthand_property_identifier_pattern":
                    self.names[text_of(part)] = f"{module}.{text_of(part)}"
                elif part.type == "pair_pattern":
                    key, alias = part.child_by_field_name("key"), part.child_by_field_name("value")
                    self.names[text_of(alias)] = f"{module}.{text_of(key)}"

    def called(self, node: Node | None, depth: int = 0) -> str:
        """What an expression stands for: `child_process`, `fs.writeFile`, `?.method`, or "" where it is nothing known."""
        if node is None or depth > _MAX_DEPTH:
            return ""
        if node.type == "identifier":
            return self.names.get(text_of(node), "").removesuffix(".promises").removesuffix(".default")
        if node.type == "member_expression":
            inner = self.called(node.child_by_field_name("object"), depth + 1)
            name = text_of(node.child_by_field_name("property"))
            if name in ("promises", "default") and inner:
                return inner
            return f"{inner or '?'}.{name}"
        if node.type in ("await_expression", "parenthesized_expression"):
            return self.called(node.named_children[0], depth + 1) if node.named_children else ""
        if node.type == "call_expression":
            function = node.child_by_field_name("function")
            arguments = arguments_of(node)
            if text_of(function) in ("require", "import") and arguments:
                return _string(arguments[0]) or ""
            if text_of(function).rpartition(".")[2] == "promisify" and arguments:
                return self.called(arguments[0], depth + 1)
        return ""

    def uses(self, call: Node) -> Iterator[tuple[Act, str | None]]:
        """What one call does."""
        function = call.child_by_field_name("function") or call.child_by_field_name("constructor")
        name = self.called(function)
        module, _, short = name.rpartition(".")
        short = short or text_of(function)
        module = module or name
        arguments = arguments_of(call)
        if module in _PROCESS and short in _SHELLS | _STARTS:
            yield from self._starts(arguments, by_shell=short in _SHELLS)
        elif name.partition(".")[0] in _SPAWNERS:
            yield from self._starts(arguments, by_shell=_SPAWNERS[name.partition(".")[0]] == "exec")
        elif module in _FILES and short.removesuffix("Sync") in _WRITES:
            index = _WRITES[short.removesuffix("Sync")]
            yield Act.WRITES, self.path(arguments[index]) if index < len(arguments) else None
        elif module in _FILES and short.removesuffix("Sync") == "open" and len(arguments) > 1:
            if re.search(r"[wa+]", self.text(arguments[1]) or "w"):
                yield Act.WRITES, self.path(arguments[0])
        elif call.type == "new_expression" and short in ("Database", "DatabaseSync") and arguments:
            if (self.text(arguments[0]) or "") not in (":memory:", ""):
                yield Act.WRITES, self.path(arguments[0])
        elif short in _OPTIONS_WRITE and (value := _property(arguments, _OPTIONS_WRITE[short])) is not None:
            yield Act.WRITES, self.path(value)
        elif short == "diskStorage":
            value = _property(arguments, "destination")
            yield Act.WRITES, self.path(value) if value is not None else None
        elif short in ("dlopen", "Library") and arguments and ("ffi" in module or "process" in text_of(function)):
            yield Act.LOADS, self.text(arguments[0])
        elif short == "listen" and arguments and (port := self.text(arguments[0])) is not None and port.isdecimal():
            yield Act.LISTENS, port

    def _starts(self, arguments: list[Node], *, by_shell: bool) -> Iterator[tuple[Act, str | None]]:
        text = self.text(arguments[0]) if arguments else None
        shell = _property(arguments, "shell")
        if by_shell or (shell is not None and text_of(shell) != "false"):
            yield Act.SHELL, None
            script = read_script(text) if text is not None and not text.endswith(ANYTHING) else None
            if script is None:
                first = re.match(r"\s*([\w./-]+)\s", text or "")
                yield Act.STARTS, None
                if first:
                    yield Act.STARTS, first[1]
                return
            for command in script.commands:
                yield Act.STARTS, command.name or (None if command.words else "true")
                if command.name in ("npx", "bunx"):
                    yield Act.STARTS, next((arg for arg in command.args if not arg.startswith("-")), None)
            return
        known = text is not None and not text.endswith(ANYTHING) and text.strip()
        yield Act.STARTS, text if known else None
        if known and text is not None and text.rpartition("/")[2] in ("sh", "bash"):
            yield Act.SHELL, None
            yield Act.STARTS, None

    # ------------------------------------------------------------ values

    def text(self, node: Node | None, depth: int = 0) -> str | None:
        """The text or number that an expression gives, `*` for the part behind which nothing is known."""
        if node is None or depth > _MAX_DEPTH:
            return None
        if node.type == "string":
            return _string(node)
        if node.type == "number":
            return text_of(node)
        if node.type == "template_string":
            return self._template(node, depth)
        if node.type == "identifier":
            name = text_of(node)
            if name == "__dirname":
                return folder(self.surroundings.container)
            if name == "__filename":
                return self.surroundings.container
            values = self.assigned.get(name, [])
            return self.text(values[0], depth + 1) if len(values) == 1 else None
        if node.type in ("parenthesized_expression", "as_expression", "non_null_expression", "await_expression"):
            return self.text(node.named_children[0], depth + 1) if node.named_children else None
        if node.type == "binary_expression":
            return self._binary(node, depth)
        if node.type == "member_expression":
            return self._member(node)
        if node.type in ("call_expression", "new_expression"):
            return self._path_call(node, depth)
        return None

    def _template(self, node: Node, depth: int) -> str | None:
        out = ""
        for child in node.named_children:
            part = (
                text_of(child)
                if child.type in ("string_fragment", "escape_sequence")
                else self.text(child.named_children[0], depth + 1)
            )
            if part is None:
                return out + ANYTHING if out else None
            out += part
            if part.endswith(ANYTHING):
                return out
        return out

    def _binary(self, node: Node, depth: int) -> str | None:
        left = self.text(node.child_by_field_name("left"), depth + 1)
        right = self.text(node.child_by_field_name("right"), depth + 1)
        operator = text_of(node.child_by_field_name("operator"))
        if operator in ("||", "??"):
            return left if left is not None else right
        if operator == "+" and left is not None:
            return left if left.endswith(ANYTHING) else left + (ANYTHING if right is None else right)
        return None

    def _member(self, node: Node) -> str | None:
        whole = text_of(node)
        if match := re.fullmatch(r"process\.env\.(\w+)", whole):
            return self.surroundings.env.get(match[1])
        if whole == "import.meta.dirname":
            return folder(self.surroundings.container)
        if whole in ("import.meta.url", "import.meta.filename"):
            return self.surroundings.container
        return None

    def _path_call(self, node: Node, depth: int) -> str | None:
        function = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        name, arguments = text_of(function).rpartition(".")[2], arguments_of(node)
        if text_of(function) == "process.cwd":
            return self.surroundings.workdir
        if name == "tmpdir":
            return "/tmp"  # noqa: S108 - a path in the image
        if name == "homedir":
            return "~"
        if name in ("join", "resolve"):
            parts = [self.text(argument, depth + 1) for argument in arguments]
            if name == "resolve" and self.surroundings.workdir is not None:
                parts = [self.surroundings.workdir, *parts]
            return join_known(parts)
        if name == "dirname" and arguments:
            inner = self.text(arguments[0], depth + 1)
            return None if inner is None else folder(inner)
        if name in ("fileURLToPath", "Number", "parseInt", "String", "normalizePort", "pathToFileURL") and arguments:
            return self.text(arguments[0], depth + 1)
        if name == "URL" and len(arguments) == 2:
            parts = [self.text(arguments[1], depth + 1), self.text(arguments[0], depth + 1)]
            return join_known([folder(parts[0]) if parts[0] else None, parts[1]])
        return None

    def path(self, node: Node) -> str | None:
        """The container path that an expression gives."""
        text = self.text(node)
        return None if text is None or text == ANYTHING else self.surroundings.absolute(text)


def _string(node: Node | None) -> str | None:
    if node is None or node.type != "string":
        return None
    return "".join(text_of(child) for child in node.named_children)


def _property(arguments: list[Node], name: str) -> Node | None:
    """The value of a property of the last argument, where that is an object."""
    for argument in reversed(arguments):
        if argument.type != "object":
            continue
        for pair in argument.named_children:
            if pair.type == "pair" and text_of(pair.child_by_field_name("key")).strip("'\"") == name:
                return pair.child_by_field_name("value")
    return None
