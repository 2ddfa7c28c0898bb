"""What users install: the wheel, in a fresh environment, without extras."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CORE = {
    "fastapi",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "prometheus-client",
    "aiosqlite",
    "sqlalchemy[asyncio]",
    "alembic",
    "itsdangerous",
    "jinja2",
    "sse-starlette",
}
IMPORT_ALL = """
import importlib, pkgutil, fastapi_taskflow
extras = {"testing.fixtures", "cli.commands", "cli.output"}  # need pytest and the extra cli
left_out = {"fastapi_taskflow." + name for name in extras}
for module in pkgutil.walk_packages(fastapi_taskflow.__path__, "fastapi_taskflow."):
    if ".migrations." not in module.name and module.name not in left_out and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(project_root))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which only the wheel and its own needs are installed."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    return python


def run(*command: str, cwd: Path | None = None) -> str:
    """Run the command and return what it printed; the test fails with its errors otherwise."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[:4]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path, project_root: Path) -> None:
    """Templates, static files, migrations and py.typed ship with the code, and nothing but the package does."""
    source = project_root / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "fastapi_taskflow").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [
        ("", "py.typed"),
        ("stores/migrations/versions/", ".py"),
        ("web/dashboard/templates/", ".html"),
        ("web/dashboard/static/", ".css"),
        ("web/dashboard/static/", ".js"),
    ],
)
def test_the_wheel_has_what_is_loaded_by_path(wheel: Path, folder: str, suffix: str) -> None:
    """What no import statement names is in the wheel all the same."""
    with zipfile.ZipFile(wheel) as archive:
        found = [
            name
            for name in archive.namelist()
            if name.startswith(f"fastapi_taskflow/{folder}") and name.endswith(suffix)
        ]
    assert found


def test_the_metadata_names_the_core_needs_and_the_extras(wheel: Path) -> None:
    """A plain install brings the documented libraries and no others."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(path).decode())
    needs = metadata.get_all("Requires-Dist") or []
    core = {need.split(">=")[0] for need in needs if "extra ==" not in need}
    assert metadata["Name"] == "fastapi-taskflow-otel"
    assert core == CORE
    assert {"otlp", "postgres", "pickle", "demo"} <= set(metadata.get_all("Provides-Extra") or [])


@pytest.mark.slow
def test_the_package_imports_without_extras_and_warnings(fresh_python: Path, tmp_path: Path) -> None:
    """Each module can be imported in a fresh environment, with warnings as errors."""
    run(str(fresh_python), "-W", "error", "-c", "import fastapi_taskflow", cwd=tmp_path)
    run(str(fresh_python), "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path)


@pytest.mark.slow
def test_the_version_is_that_of_the_metadata(fresh_python: Path, wheel: Path, tmp_path: Path) -> None:
    """The installed package and its wheel say the same version."""
    code = "from fastapi_taskflow.__about__ import __version__; print(__version__)"
    assert run(str(fresh_python), "-c", code, cwd=tmp_path).strip() == wheel.name.split("-")[1]


def test_the_command_without_its_extra_says_how_to_get_it(fresh_python: Path) -> None:
    """A line, and the exit code of wrong use."""
    command = [str(fresh_python), "-m", "fastapi_taskflow", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["fastapi-taskflow needs its extra: pip install 'fastapi-taskflow-otel[cli]'"]
