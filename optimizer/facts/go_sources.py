"""Go sources: what a package starts, reads, writes and listens on, and what it imports, read with tree-sitter."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from optimizer.facts.syntax import arguments_of, text_of, walk
from optimizer.facts.uses import ANYTHING, Act, Reading, Surroundings, Use, join_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tree_sitter import Node, Parser

_IMPORT = re.compile(r"^[ \t]*(?:import[ \t]+)?(?:(?:[\w.]+)[ \t]+)?\"([\w.\-~/]+)\"[ \t]*(?://.*)?$", re.MULTILINE)
_CGO = re.compile(r'^\s*(?:import\s+)?"C"\s*$', re.MULTILINE)
# Functions of packages that take a path, with the index of that argument; -1: every argument is one.
_READS = {
    "os.Open": 0, "os.ReadFile": 0, "os.ReadDir": 0, "os.DirFS": 0, "os.OpenRoot": 0, "os.Stat": 0, "os.Lstat": 0,
    "ioutil.ReadFile": 0, "ioutil.ReadDir": 0, "template.ParseFiles": -1, "template.ParseGlob": 0, "http.Dir": 0,
    "http.ServeFile": 2,
    "filepath.Walk": 0, "filepath.WalkDir": 0, "filepath.Glob": 0, "os.OpenFile": 0, "os.Readlink": 0, "os.Chdir": 0,
    "tls.LoadX509KeyPair": -1, "plugin.Open": 0, "godotenv.Load": -1, "godotenv.Overload": -1,
}  # fmt: skip
_METHODS_READ = {
    "ParseFiles": -1, "ParseGlob": 0, "LoadHTMLGlob": 0, "LoadHTMLFiles": -1, "Static": 1, "StaticFile": 1, "SendFile": 0,
    "ServeFile": 2, "SetConfigFile": 0, "AddConfigPath": 0, "ListenAndServeTLS": 1, "StaticFS": -2,
}  # fmt: skip
_WRITES = {
    "os.Create": 0, "os.WriteFile": 0, "ioutil.WriteFile": 0, "os.Mkdir": 0, "os.MkdirAll": 0, "os.Remove": 0,
    "os.RemoveAll": 0, "os.Rename": 1, "os.Chmod": 0,
    "os.Truncate": 0, "os.Symlink": 1, "sql.Open": 1, "bolt.Open": 0, "bbolt.Open": 0,
    "sqlite.Open": 0,
}  # fmt: skip
# What opens files by names that are nowhere in the source: a reader of settings, a directory of migrations.
_SEARCHING = frozenset({"viper.SetConfigName", "viper.ReadInConfig", "migrate.New", "packr.New"})
_ASKS = frozenset({"user.Lookup", "user.LookupGroup", "user.LookupId", "user.LookupGroupId"})
_PATH = re.compile(r"[\"`](?:file:(?://)?)?\.{0,2}/?\w[\w./ -]{1,120}(?:\?[\w=&]*)?[\"`]")
_MAX_DEPTH = 20
Calls = dict[str, list[tuple["_File", list["Node"]]]]


def imports_cgo(data: bytes) -> bool:
    """Whether a file is compiled with cgo: it imports "C"."""
    return _CGO.search(data.decode("utf-8", "replace")) is not None


def read(files: Iterable[tuple[bytes, Surroundings]]) -> tuple[Reading, ...]:
    """What the Go files of a program do, one answer a file; one that the grammar cannot read is unknown as a whole.

    They are read together, since a path is often handed to a function of another file.
    """
    calls: Calls = {}
    parsed = [_File(data, surroundings, calls) for data, surroundings in files]
    return tuple(file.reading() for file in parsed)


@lru_cache(maxsize=1)
def _parser() -> Parser:
    import tree_sitter
    import tree_sitter_go

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_go.language()))


class _File:
    """One file, with what its names stand for; `calls` are those of the whole program."""

    def __init__(self, data: bytes, surroundings: Surroundings, calls: Calls) -> None:
        self.surroundings = surroundings
        self.source = data.decode("utf-8", "replace")
        self.aliases: dict[str, str] = {}
        self.assigned: dict[str, list[Node]] = {}
        self.calls = calls
        self.root = _parser().parse(data).root_node
        self.nodes = [] if self.root.has_error else list(walk(self.root))
        for node in self.nodes:
            self.note(node)

    def reading(self) -> Reading:
        """What the file does."""
        imports = tuple(_IMPORT.findall(self.source.partition("\nfunc ")[0]))
        path = self.surroundings.path
        if self.root.has_error:
            return Reading(imports=imports, unknown=(Use(Act.STARTS, None, path, 1, "cannot be parsed"),))
        lines = self.source.splitlines()
        uses = tuple(
            Use(act, what, path, node.start_point[0] + 1, lines[node.start_point[0]].strip()[:120])
            for node in self.nodes
            if node.type == "call_expression"
            for act, what in self.uses(node)
        )
        uses += tuple(
            Use(Act.STARTS, None, path, node.start_point[0] + 1, lines[node.start_point[0]].strip()[:120])
            for node in self.nodes
            if node.type == "composite_literal" and text_of(node.child_by_field_name("type")) == "exec.Cmd"
        )
        return Reading(uses, imports, texts=tuple(self._texts()))

    def _texts(self) -> Iterator[str]:
        """The literals that could be paths: no imports, no tags of fields."""
        for node in self.nodes:
            is_text = node.type in ("interpreted_string_literal", "raw_string_literal")
            above = node.parent.type if node.parent is not None else ""
            if is_text and above not in ("import_spec", "field_declaration") and _PATH.fullmatch(text_of(node)):
                yield text_of(node)[1:-1]

    def note(self, node: Node) -> None:
        """Take in a node: imports with another name, constants and variables."""
        if node.type == "import_spec":
            name, path = node.child_by_field_name("name"), text_of(node.child_by_field_name("path")).strip('"')
            short = re.sub(r"^v\d+$", "", path.rpartition("/")[2]) or path.split("/")[-2]
            self.aliases[text_of(name) or short] = short
        elif node.type == "call_expression":
            self.calls.setdefault(text_of(node.child_by_field_name("function")), []).append((self, arguments_of(node)))
        elif node.type in ("const_spec", "var_spec", "short_var_declaration", "assignment_statement"):
            names = node.child_by_field_name("name") or node.child_by_field_name("left")
            values = node.child_by_field_name("value") or node.child_by_field_name("right")
            left = [names] if names is not None and names.type == "identifier" else names.named_children if names else []
            for name, value in zip(left, values.named_children if values else [], strict=False):
                self.assigned.setdefault(text_of(name), []).append(value)

    def uses(self, call: Node) -> Iterator[tuple[Act, str | None]]:
        """What one call does."""
        function = call.child_by_field_name("function")
        if function is None or function.type != "selector_expression":
            return
        operand = function.child_by_field_name("operand")
        method = text_of(function.child_by_field_name("field"))
        is_package = operand is not None and operand.type == "identifier" and text_of(operand) in self.aliases
        name = f"{self.aliases[text_of(operand)]}.{method}" if is_package else f"?.{method}"
        arguments = arguments_of(call)
        if name in ("exec.Command", "exec.CommandContext", "syscall.Exec", "os.StartProcess"):
            program = self.text(arguments[1 if name == "exec.CommandContext" else 0]) if arguments else None
            yield Act.STARTS, None if program is None or program.endswith(ANYTHING) else program
            if program is not None and program.rpartition("/")[2] in ("sh", "bash"):
                yield Act.SHELL, None
                yield Act.STARTS, None
        elif name in _ASKS:
            yield Act.ASKS, self.text(arguments[0]) if arguments else None
        elif name in _SEARCHING:
            yield Act.READS, None
        elif name == "os.OpenFile" and re.search(r"O_(CREATE|WRONLY|RDWR|APPEND)", text_of(call)):
            yield Act.WRITES, self.path(arguments[0]) if arguments else None
        elif name in _WRITES:
            yield from self._writes(name, arguments)
        elif name in ("godotenv.Load", "godotenv.Overload") and not arguments:
            yield Act.READS, self.surroundings.absolute(".env")
        elif (index := _READS.get(name, _METHODS_READ.get(method) if not is_package else None)) is not None:
            yield from self._reads(index, arguments)
        elif method in ("ListenAndServe", "ListenAndServeTLS", "Run", "Start", "Listen"):
            yield from self._listens(arguments)

    def _reads(self, index: int, arguments: list[Node]) -> Iterator[tuple[Act, str | None]]:
        if index == -2:
            return  # `StaticFS(prefix, http.Dir(...))`: the inner call says it
        wanted = arguments if index == -1 else arguments[index : index + 1]
        for argument in wanted:
            yield Act.READS, self.path(argument)

    def _writes(self, name: str, arguments: list[Node]) -> Iterator[tuple[Act, str | None]]:
        index = _WRITES[name]
        if name == "sql.Open" and self.text(arguments[0] if arguments else None) not in ("sqlite", "sqlite3"):
            return
        target = self.text(arguments[index]) if index < len(arguments) else None
        if target is not None and ":memory:" in target:
            return
        target = None if target is None else target.removeprefix("file:").partition("?")[0]
        yield Act.WRITES, self.surroundings.absolute(target)

    def _listens(self, arguments: list[Node]) -> Iterator[tuple[Act, str | None]]:
        for argument in arguments[:2]:
            if match := re.search(r":(\d+)$", self.text(argument) or ""):
                yield Act.LISTENS, match[1]

    def text(self, node: Node | None, depth: int = 0) -> str | None:
        """The text that an expression gives, `*` for the part behind which nothing is known."""
        if node is None or depth > _MAX_DEPTH:
            return None
        if node.type in ("interpreted_string_literal", "raw_string_literal"):
            return text_of(node)[1:-1]
        if node.type == "identifier":
            values = self.assigned.get(text_of(node), [])
            return self.text(values[0], depth + 1) if len(values) == 1 else self._parameter(node, depth) if not values else None
        if node.type == "binary_expression":
            left = self.text(node.child_by_field_name("left"), depth + 1)
            right = self.text(node.child_by_field_name("right"), depth + 1)
            return None if left is None else left if left.endswith(ANYTHING) else left + (ANYTHING if right is None else right)
        if node.type == "parenthesized_expression":
            return self.text(node.named_children[0], depth + 1)
        if node.type == "call_expression":
            return self._call_text(node, depth)
        return None

    def _parameter(self, node: Node, depth: int) -> str | None:
        """What is handed over for a parameter, where the function is called with one text alone."""
        function: Node | None = node.parent
        while function is not None and function.type != "function_declaration":
            function = function.parent
        if function is None:
            return None
        declared = function.child_by_field_name("parameters")
        names = [
            text_of(name)
            for part in (declared.named_children if declared is not None else ())
            for name in part.named_children
            if name.type == "identifier"
        ]
        if text_of(node) not in names:
            return None
        at = names.index(text_of(node))
        found = self.calls.get(text_of(function.child_by_field_name("name")), [])
        texts = {file.text(arguments[at], depth + 1) if at < len(arguments) else None for file, arguments in found}
        return texts.pop() if len(texts) == 1 else None

    def _call_text(self, node: Node, depth: int) -> str | None:
        name, arguments = text_of(node.child_by_field_name("function")), arguments_of(node)
        if name in ("filepath.Join", "path.Join"):
            parts = [self.text(argument, depth + 1) for argument in arguments]
            whole = join_known(parts)
            return whole.lstrip("/") if whole is not None and not (parts[0] or "").startswith("/") else whole
        if name == "os.Getenv" and arguments:
            key = self.text(arguments[0], depth + 1)
            return self.surroundings.env.get(key) if key is not None else None
        if name in ("os.TempDir", "os.MkdirTemp"):
            return "/tmp"  # noqa: S108 - a path in the image
        if name == "fmt.Sprintf" and arguments:
            pattern = self.text(arguments[0], depth + 1)
            return None if pattern is None else pattern.partition("%")[0] + (ANYTHING if "%" in pattern else "") or None
        return None

    def path(self, node: Node) -> str | None:
        """The container path that an expression gives."""
        text = self.text(node)
        return None if text is None or text == ANYTHING else self.surroundings.absolute(text)
