"""Requirements, versions, markers and wheels: what pip would choose on Linux."""

from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

from optimizer.facts.packages import python_package
from optimizer.facts.wheels import applies, fits, highest, requirement, version


@pytest.mark.parametrize(
    ("specifiers", "expected"),
    [
        ("", None),
        (">=2", None),
        ("!=3.0", None),
        ("==1.2.3", "1.2.3"),
        ("<=99,<4.0", "3.99999"),
        ("<4.0,<=99", "3.99999"),
        ("<2.0.1", "2.0.0.99999"),
        ("~=1.4.2", "1.4.99999"),
        ("~=1.4", "1.99999"),
        ("==1.5.*", "1.5.99999"),
        (">=1,<3,!=2.5,<=2.4", "2.4"),
        ("===2020.1", "2020.1"),
    ],
)
def test_the_highest_version_that_all_bounds_allow(specifiers: str, expected: str | None) -> None:
    assert highest(SpecifierSet(specifiers)) == expected


@pytest.mark.parametrize(
    ("marker", "python", "expected"),
    [
        ('sys_platform == "win32"', "3.12", False),
        ('sys_platform == "win32" and python_version < "3.13"', "3.12", False),
        ('sys_platform == "win32" or python_version < "3.13"', "3.12", True),
        ('sys_platform != "darwin"', "3.12", True),
        ('platform_machine == "aarch64"', "3.12", True),
        ('platform_machine == "ppc64le"', "3.12", False),
        ('python_version < "3.9"', "3.12", False),
        ('python_version < "3.9"', "3.8", True),
        ('python_version < "3.9"', None, False),
        ('extra == "dev"', "3.12", False),
        ("this is no marker", "3.12", True),
        (None, None, True),
    ],
)
def test_markers_are_weighed_for_linux(marker: str | None, python: str | None, *, expected: bool) -> None:
    assert applies(marker, python) is expected


@pytest.mark.parametrize(
    ("wheel", "python", "musl", "expected"),
    [
        ("x-1.0-py3-none-any.whl", "3.12", False, True),
        ("x-1.0-py39-none-any.whl", "3.12", False, True),
        ("x-1.0-py313-none-any.whl", "3.12", False, False),
        ("x-1.0-py2-none-any.whl", "3.12", False, False),
        ("x-1.0-py2.py3-none-any.whl", "2.7", False, True),
        ("x-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "3.12", False, True),
        ("x-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "3.12", True, False),
        ("x-1.0-cp312-cp312-musllinux_1_2_x86_64.whl", "3.12", True, True),
        ("x-1.0-cp38-abi3-manylinux2010_x86_64.whl", "3.12", False, True),
        ("x-1.0-cp313-abi3-manylinux2014_x86_64.whl", "3.12", False, False),
        ("x-1.0-cp312-cp312-manylinux_2_39_x86_64.whl", "3.12", False, False),
        ("x-1.0-cp312-cp312-win_amd64.whl", "3.12", False, False),
        ("x-1.0.tar.gz", "3.12", False, False),
    ],
)
def test_which_wheels_pip_takes(wheel: str, python: str, *, musl: bool, expected: bool) -> None:
    assert fits(wheel, python, musl=musl) is expected


def test_what_is_no_requirement_is_none() -> None:
    assert requirement("flask>=2; python_version < '4'") is not None
    assert requirement("flask >= two") is None
    assert version("1.0-not") is None
    assert version("9" * 5_000) is None
    assert requirement("flask; " + "(" * 5_000 + "os_name == 'nt'" + ")" * 5_000) is None
    assert applies("(" * 5_000 + "os_name == 'nt'" + ")" * 5_000, "3.12")
    assert version(None) is None


@pytest.mark.parametrize(
    ("name", "wanted", "python", "expected"),
    [
        ("lxml", "5.3.0", "3.13", True),
        ("lxml", None, "3.13", True),
        ("lxml", "4.9.3", "3.13", False),  # looked at, and it has wheels for older Pythons alone
        ("lxml", "3.8.0", "3.13", None),  # older than what was looked at
        ("lxml", "4.9.3", "3.6", None),  # a Python that was not looked at
        ("lxml", "4.9.3", "2.7", None),
        ("lxml", "4.9.3", None, None),
        ("flask", "0.1", "2.7", True),
        ("uwsgi", None, "3.12", False),
    ],
)
def test_a_wheel_is_known_where_the_table_has_looked(
    name: str, wanted: str | None, python: str | None, expected: object
) -> None:
    package = python_package(name)
    assert package is not None
    assert package.has_wheel(wanted, python) is expected
