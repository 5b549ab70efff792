"""The readers of Python, JavaScript, TypeScript and Go: what a line does, what is unknown, and what is nothing of the kind."""

from __future__ import annotations

import pytest

from optimizer.facts import go_sources, node_sources, python_sources
from optimizer.facts.uses import Act, Reading, Surroundings

ENV = {"DATA": "/data/x.db", "EMPTY": None}


def _python(text: str) -> Reading:
    return python_sources.read(text.encode(), Surroundings("a/m.py", "/app/a/m.py", "/app", ENV, ("m.py", "/var/one")))


def _node(text: str, path: str = "src/a.js") -> Reading:
    return node_sources.read(text.encode(), Surroundings(path, f"/app/{path}", "/app", ENV))


def _go(*texts: str) -> list[tuple[str, str | None]]:
    files = [(text.encode(), Surroundings(f"{n}.go", f"/app/{n}.go", "/app", ENV)) for n, text in enumerate(texts)]
    return [(use.act.name, use.what) for reading in go_sources.read(files) for use in (*reading.uses, *reading.unknown)]


def _found(reading: Reading) -> list[tuple[str, str | None]]:
    return [(use.act.name, use.what) for use in reading.uses]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import subprocess\nsubprocess.run(['git', 'log'])", [("STARTS", "git")]),
        ("import subprocess as sp\nsp.Popen(('convert', x))", [("STARTS", "convert")]),
        ("from subprocess import check_output as out\nout('ls -l'.split())", [("STARTS", None)]),
        ("from subprocess import run\nCMD = ['pandoc']\nrun(CMD)", [("STARTS", "pandoc")]),
        ("from subprocess import run\nCMD = ['a']\nCMD = ['b']\nrun(CMD)", [("STARTS", None)]),
        ("from subprocess import run\nrun(['tar'] + names)", [("STARTS", "tar")]),
        ("import subprocess\nsubprocess.run(tool)", [("STARTS", None)]),
        ("import os\nos.system('tar x | gzip')", [("SHELL", None), ("STARTS", "tar"), ("STARTS", "gzip")]),
        ("import os\nos.system(f'ls {x}')", [("SHELL", None), ("STARTS", None), ("STARTS", "ls")]),
        ("import subprocess\nsubprocess.run('git log', shell=True)", [("SHELL", None), ("STARTS", "git")]),
        ("import subprocess\nsubprocess.run('git', shell=False)", [("STARTS", "git")]),
        ("import subprocess\nsubprocess.run(['sh', '-c', x])", [("STARTS", "sh"), ("SHELL", None), ("STARTS", None)]),
        ("import subprocess, sys\nsubprocess.run([sys.executable, 'x.py'])", [("STARTS", "python")]),
        ("open('a.txt', 'w')", [("WRITES", "/app/a.txt")]),
        ("open('a.txt')\nopen('b', 'rb')", []),
        ("open('a.txt', mode)", []),
        ("import os\nopen(os.path.join(os.path.dirname(__file__), 'log', n), 'a')", [("WRITES", "/app/a/log/*")]),
        ("from pathlib import Path\n(Path(__file__).parent / 'x').write_text('')", [("WRITES", "/app/a/x")]),
        ("from pathlib import Path\nPath.home().joinpath('x').mkdir()", [("WRITES", "~/*")]),
        ("import os, sqlite3\nsqlite3.connect(os.environ['DATA'])", [("WRITES", "/data/x.db")]),
        ("import os, sqlite3\nsqlite3.connect(os.environ.get('NOT_SET', 'n.db'))", [("WRITES", "/app/n.db")]),
        ("import os, sqlite3\nsqlite3.connect(os.environ['NOT_SET'])", [("WRITES", None)]),
        ("import sqlite3\nsqlite3.connect(':memory:')", []),
        ("import sys, sqlite3\nsqlite3.connect(sys.argv[1])", [("WRITES", "/var/one")]),
        ("import sys, sqlite3\npath, *rest = sys.argv[1:]\nsqlite3.connect(path)", [("WRITES", "/var/one")]),
        ("URI = 'sqlite:///notes.db'", [("WRITES", "/app/notes.db")]),
        ("import os\nURI = 'sqlite:///' + os.path.join('/srv', 'n.db')", [("WRITES", "/srv/n.db")]),
        ("import logging\nlogging.basicConfig(filename='/var/log/a.log')", [("WRITES", "/var/log/a.log")]),
        ("import tempfile\nopen(tempfile.mktemp(), 'w')", [("WRITES", "/tmp/*")]),
        ("image.save(buffer)\nmodel.save()\nimage.save(x, format='PNG')", []),
        ("import os\nupload.save(os.path.join(folder, name))", [("WRITES", None)]),
        ("upload.save(path)", [("WRITES", None)]),
        ("import os\nNAME = {'NAME': os.path.join(BASE, 'db.sqlite3')}", []),
        ("DATABASES = {'NAME': 'db.sqlite3'}", [("WRITES", "/app/db.sqlite3")]),
        ("from pathlib import Path\nB = Path(__file__).parent\nN = B / 'db.sqlite3'", [("WRITES", "/app/a/db.sqlite3")]),
        ("import ctypes\nctypes.CDLL('libcairo.so.2')", [("LOADS", "libcairo.so.2")]),
        ("from ctypes.util import find_library\nfind_library(name)", [("LOADS", None)]),
        ("app.run(host='0.0.0.0', port=80)", [("LISTENS", "80")]),
        ("HTTPServer(('', 8080), H)", [("LISTENS", "8080")]),
        ("app.run(port=port)", []),
        ("# subprocess.run(['git'])\ns = \"os.system('git')\"", []),
    ],
)
def test_what_python_does(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert _found(_python(text)) == expected


def test_what_python_imports() -> None:
    reading = _python("import a.b, c as d\nfrom . import e\nfrom ..f import (g,\n    h)\nfrom i import *\n")
    assert set(reading.imports) == {"a.b", "c", ".", ".e", "..f", "..f.g", "..f.h", "i"}


@pytest.mark.parametrize("text", ["print 'two'\nimport subprocess", "import importlib\nimportlib.import_module(name)"])
def test_what_python_does_not_tell(text: str) -> None:
    assert _python(text).unknown


def test_a_module_named_by_a_text_is_no_secret() -> None:
    assert not _python("import importlib\nimportlib.import_module('a')").unknown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("const { execFile } = require('child_process'); execFile('git', a)", [("STARTS", "git")]),
        ("const cp = require('node:child_process'); cp.spawn('convert')", [("STARTS", "convert")]),
        ("import { spawn as go } from 'child_process'; go(`ffmpeg`)", [("STARTS", "ffmpeg")]),
        ("import * as cp from 'child_process'; cp.exec('a | b')", [("SHELL", None), ("STARTS", "a"), ("STARTS", "b")]),
        ("const run = promisify(require('child_process').execFile); run('git')", [("STARTS", "git")]),
        ("const cp = require('child_process'); cp.spawn(tool)", [("STARTS", None)]),
        ("const cp = require('child_process'); cp.spawn('x', [], {shell: true})", [("SHELL", None), ("STARTS", "x")]),
        ("const cp = require('child_process'); cp.spawn('x', [], {shell: false})", [("STARTS", "x")]),
        ("regex.exec('git')", []),
        ("db.exec('create table x')", []),
        ("const fs = require('fs'); fs.writeFileSync(path.join(__dirname, '..', 'd', n), '')", [("WRITES", "/app/d/*")]),
        ("import { promises as fs } from 'fs'; fs.mkdir('up')", [("WRITES", "/app/up")]),
        ("import { writeFile } from 'fs/promises'; writeFile(process.env.DATA)", [("WRITES", "/data/x.db")]),
        ("const fs = require('fs'); fs.readFileSync('x')", []),
        ("const fs = require('fs'); fs.createWriteStream(path.join(os.tmpdir(), 'l'))", [("WRITES", "/tmp/l")]),
        ("new Database('notes.db')", [("WRITES", "/app/notes.db")]),
        ("new Database(':memory:')", []),
        ("multer({ dest: 'uploads/' })", [("WRITES", "/app/uploads")]),
        ("const db = {storage: 'data/app.sqlite'}", [("WRITES", "/app/data/app.sqlite")]),
        ("multer.diskStorage({destination: pick})", [("WRITES", None)]),
        ("app.listen(process.env.PORT || 80)", [("LISTENS", "80")]),
        ("app.listen(port)", []),
    ],
)
def test_what_javascript_does(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert _found(_node(text)) == expected


def test_what_typescript_does() -> None:
    text = "import fs from 'fs';\nconst p: string = 'log.txt';\nfs.appendFileSync(p as string, x!);\n"
    assert _found(_node(text, "src/a.ts")) == [("WRITES", "/app/log.txt")]


def test_what_javascript_loads() -> None:
    reading = _node("import a from './a.js';\nexport * from '../b';\nconst c = require('c');\nimport('d');\n// require('e')\n")
    assert set(reading.imports) == {"./a.js", "../b", "c", "d"}
    assert not reading.unknown


@pytest.mark.parametrize("text", ["require(name)", "import(`./x/${y}`)", "const fs = require('fs'); fs.unlink(("])
def test_what_javascript_does_not_tell(text: str) -> None:
    assert _node(text).unknown


HEAD = 'package main\nimport (\n\t"os"\n\t"os/exec"\n\t"net/http"\n\t"html/template"\n\t"path/filepath"\n)\n'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('exec.Command("git", "log")', [("STARTS", "git")]),
        ("exec.Command(name)", [("STARTS", None)]),
        ('exec.Command("sh", "-c", x)', [("STARTS", "sh"), ("SHELL", None), ("STARTS", None)]),
        ('os.ReadFile("config/a.json")', [("READS", "/app/config/a.json")]),
        ('os.Open(filepath.Join("data", name))', [("READS", "/app/data/*")]),
        ('os.Open(os.Getenv("DATA"))', [("READS", "/data/x.db")]),
        ('template.ParseFiles("a.html", "b.html")', [("READS", "/app/a.html"), ("READS", "/app/b.html")]),
        ('http.FileServer(http.Dir("static"))', [("READS", "/app/static")]),
        ('os.WriteFile("/var/x", nil, 0)', [("WRITES", "/var/x")]),
        ('os.OpenFile("l", os.O_APPEND|os.O_CREATE, 0)', [("WRITES", "/app/l")]),
        ('sql.Open("postgres", "x")', []),
        ('http.ListenAndServe(":80", nil)', [("LISTENS", "80")]),
        ("http.ListenAndServe(addr, nil)", []),
        ('other.Command("git")', []),
    ],
)
def test_what_go_does(body: str, expected: list[tuple[str, str | None]]) -> None:
    assert _go(HEAD + "func main() {\n\t" + body + "\n}\n") == expected


def test_what_go_hands_to_a_function_of_another_file() -> None:
    reader = 'package main\nimport "os"\nfunc load(path string) { os.ReadFile(path) }\n'
    assert _go('package main\nfunc main() { load("a.json") }\n', reader) == [("READS", "/app/a.json")]
    assert _go('package main\nfunc main() { load("a"); load("b") }\n', reader) == [("READS", None)]


def test_cgo_is_an_import() -> None:
    assert go_sources.imports_cgo(b'package x\nimport "C"\n')
    assert go_sources.imports_cgo(b'package x\nimport (\n\t"C"\n)\n')
    assert not go_sources.imports_cgo(b'package x\nvar c = "C" + "x"\n')


def test_go_that_cannot_be_read_is_unknown() -> None:
    assert _go("package main\nfunc {") == [("STARTS", None)]


def test_lines_are_those_of_the_file() -> None:
    use = _python("import os\n\n\nos.system('git log')  # here\n").uses[0]
    assert (use.act, use.line, use.excerpt) == (Act.SHELL, 4, "os.system('git log')  # here")
