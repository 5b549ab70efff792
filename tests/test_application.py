"""What the application does, from CMD through scripts and imports: programs, writes, ports, and what is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer.dockerfile.document import Document
from optimizer.facts import Facts
from optimizer.facts.compose import services
from optimizer.facts.context import BuildContext
from optimizer.facts.started import How

if TYPE_CHECKING:
    from optimizer.facts.application import AppFacts

PYTHON = "FROM python:3.12\nWORKDIR /app\nCOPY . .\n"
NODE = "FROM node:22\nWORKDIR /app\nCOPY . .\n"


def _app(dockerfile: str, files: dict[str, str] | None = None, compose: str = "") -> AppFacts:
    found = services(compose.encode(), "compose.yaml")
    context = BuildContext(None, "Dockerfile", files or {"x": ""}, services=found)
    facts = Facts(Document.parse(dockerfile.encode()), context)
    assert facts.target is not None
    return facts.application(facts.target)


def _programs(app: AppFacts) -> set[str | None]:
    return {started.what for started in app.programs}


@pytest.mark.parametrize(
    ("command", "programs", "files"),
    [
        ('CMD ["python", "app.py"]', {"python"}, {"app.py"}),
        ("CMD python -u app.py", {"python"}, {"app.py"}),
        ('CMD ["python", "-m", "pkg"]', {"python"}, {"pkg/__main__.py"}),
        ('CMD ["gunicorn", "-b", "0.0.0.0:80", "--workers", "2", "pkg.web:app"]', {"gunicorn"}, {"pkg/web.py"}),
        ('CMD ["uvicorn", "app:app", "--port", "80"]', {"uvicorn"}, {"app.py"}),
        ("ENV FLASK_APP=app.py\nCMD flask run", {"flask"}, {"app.py"}),
        ('ENTRYPOINT ["tini", "--"]\nCMD ["python", "app.py"]', {"tini", "python"}, {"app.py"}),
        ('ENTRYPOINT ["python"]\nCMD ["app.py"]', {"python"}, {"app.py"}),
        ('CMD ["sh", "-c", "alembic upgrade head && exec python app.py"]', {"alembic", "python"}, {"app.py"}),
        ('ENTRYPOINT ["./run.sh"]', {"ls", "python"}, {"app.py"}),
        ('HEALTHCHECK CMD curl -f localhost || exit 1\nCMD ["python", "app.py"]', {"curl", "exit", "python"}, {"app.py"}),
    ],
)
def test_what_a_python_image_starts(command: str, programs: set[str], files: set[str]) -> None:
    files_of_context = {
        "app.py": "import os\n",
        "other.py": "import subprocess\nsubprocess.run(['git'])\n",
        "pkg/__main__.py": "",
        "pkg/web.py": "",
        "run.sh": "#!/bin/sh\nls\nexec python app.py\n",
    }
    app = _app(PYTHON + command + "\n", files_of_context)
    assert _programs(app) == programs
    assert {path for path, _ in app.sources} == files
    assert app.is_traced


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ('CMD ["node", "index.js"]', {"node"}),
        ('CMD ["npm", "start"]', {"npm", "node", "git"}),
        ("CMD npm run serve", {"npm", "vite"}),
        ('CMD ["npx", "serve", "-s", "build"]', {"npx", "serve"}),
        ('CMD ["yarn", "start"]', {"yarn", "node", "git"}),
    ],
)
def test_what_a_node_image_starts(command: str, programs: set[str]) -> None:
    package = '{"scripts": {"start": "git --version && node index.js", "serve": "vite preview"}}'
    app = _app(NODE + command + "\n", {"package.json": package, "index.js": "require('./lib')", "lib.js": ""})
    assert _programs(app) == programs


def test_imports_are_followed_and_nothing_else() -> None:
    files = {
        "app.py": "from pkg import views\n",
        "pkg/__init__.py": "",
        "pkg/views.py": "from .tools import run\n",
        "pkg/tools.py": "import subprocess\nsubprocess.run(['git'])\n",
        "pkg/unused.py": "import subprocess\nsubprocess.run(['convert'])\n",
    }
    app = _app(PYTHON + 'CMD ["python", "app.py"]\n', files)
    assert _programs(app) == {"python", "git"}
    assert "pkg/unused.py" not in {path for path, _ in app.sources}


@pytest.mark.parametrize(
    "files",
    [
        {"app.py": "import importlib\nimportlib.import_module(name)\n", "plugin.py": "import os\nos.system('git')\n"},
        {"app.py": "import django\n", "plugin.py": "import os\nos.system('git')\n"},
        {"plugin.py": "import os\nos.system('git')\n"},
    ],
)
def test_where_imports_cannot_be_told_every_source_counts(files: dict[str, str]) -> None:
    app = _app(PYTHON + 'CMD ["python", "app.py"]\n', files)
    assert not app.is_traced
    assert "git" in _programs(app)


@pytest.mark.parametrize(
    "command",
    [
        'CMD ["bash"]',
        'CMD ["python"]',
        'CMD ["node"]',
        "CMD $START",
        'CMD ["./missing.sh"]',
        'CMD ["sh", "missing.sh"]',
        'CMD ["./odd"]',
    ],
)
def test_what_people_or_variables_start_is_unknown(command: str) -> None:
    app = _app(PYTHON + command + "\n", {"odd": "\x7fELF"})
    unexplained = app.is_explained.holds is None
    assert unexplained or any(started.how is How.UNKNOWN for started in app.started)


@pytest.mark.parametrize("command", ['CMD ["python", "--version"]', 'CMD ["node", "-v"]'])
def test_a_program_that_only_says_its_version_is_known(command: str) -> None:
    assert not any(started.how is How.UNKNOWN for started in _app(PYTHON + command + "\n").started)


def test_what_an_entrypoint_script_writes() -> None:
    script = (
        '#!/bin/bash\ndata="${DATA:-/srv/data}"\nmkdir -p "$(dirname "$data/x")"\n'
        'touch /tmp/ready\necho hi > "$LOG"\nexec "$@"\n'
    )
    app = _app(
        PYTHON + 'ENV LOG=/var/log/a.log\nENTRYPOINT ["./e.sh"]\nCMD ["python", "app.py"]\n', {"e.sh": script, "app.py": ""}
    )
    assert {path for path, _ in app.writes} == {"/srv/data", "/tmp/ready", "/var/log/a.log"}
    assert app.shells


def test_ports_come_from_everywhere() -> None:
    app = _app(
        PYTHON + 'EXPOSE 9000/tcp\nCMD ["gunicorn", "-b", "0.0.0.0:8001", "app:app"]\n',
        {"app.py": "app.run(port=8002)\n"},
    )
    assert {port for port, _ in app.ports} == {9000, 8001, 8002}


def test_compose_services_start_programs_too() -> None:
    compose = (
        "services:\n  web:\n    build: .\n    command: python other.py\n    healthcheck:\n      test: [CMD, wget, -q, x]\n"
    )
    app = _app(PYTHON + 'CMD ["python", "app.py"]\n', {"app.py": "", "other.py": ""}, compose)
    assert {"wget", "python"} <= _programs(app)
    assert {path for path, _ in app.sources} == {"app.py", "other.py"}


def test_what_a_package_writes_by_itself() -> None:
    app = _app(PYTHON + 'CMD ["python", "app.py"]\n', {"app.py": "import matplotlib\n"})
    assert any((path or "").startswith("~") for path, _ in app.writes)


def test_services_of_a_compose_file() -> None:
    text = (
        "services:\n"
        "  web:\n    build: {context: ., target: app, args: [A=1]}\n    volumes: ['./src:/app/src:ro', data:/data, /cache]\n"
        "    user: '1000'\n    read_only: true\n    platform: linux/arm64\n"
        "  db:\n    image: postgres\n"
    )
    web, db = services(text.encode(), "compose.yaml")
    assert (db.context, db.image, web.image) == (None, "postgres", "")
    assert (web.name, web.target, web.mounts) == ("web", "app", ("/app/src", "/data", "/cache"))
    assert (web.user, web.is_read_only, web.platforms, web.arguments) == ("1000", True, ("linux/arm64",), ("A",))
    assert services(b"services: [", "x") == ()
    lists = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    huge = "{build: {context: *a9, dockerfile: *a9, target: *a9}, image: *a9, user: *a9, command: [*a9], volumes: [*a9]}"
    (odd,) = services(f"{lists}services: {{web: {huge}}}\n".encode(), "x")
    assert (odd.context, odd.dockerfile, odd.target, odd.image, odd.user) == (".", "Dockerfile", None, "", None)
    assert services(b"services: {web: {build: x}}", "x")[0].context == "x"
