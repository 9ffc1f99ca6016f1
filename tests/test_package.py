"""The wheel carries all that runs: migrations, filters, settings. Tried in an environment with nothing else of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.once import folder_of_run, once

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(CHECKOUT)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    (made,) = once(folder_of_run(tmp_path_factory) / "wheel", make).glob("*.whl")
    return made


@pytest.fixture(scope="session")
def mcban(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """`mcban` of an environment into which only the wheel was installed.

    What it depends on comes from the environment of the tests, at the end of the path and without its .pth files: the
    checkout, which is installed there for editing, is not seen.
    """

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        python = folder / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
        site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    return once(folder_of_run(tmp_path_factory) / "installed", make) / "bin" / "mcban"


def run(mcban: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, from another folder, with SQLite there and no kernel."""
    environment = {"MCBAN_STATE_DIR": str(folder / "state"), "MCBAN_FIREWALL": "memory", "PATH": "/usr/bin:/bin"}
    command = [str(mcban), *arguments]
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_installed_wheel_is_what_runs(mcban: Path, tmp_path: Path) -> None:
    """Not the checkout."""
    code = "import mcban.shipped as s; print(s.shipped('migrations'))"
    command = [str(mcban.with_name("python")), "-P", "-c", code]
    where = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert where.startswith(str(mcban.parent.parent))
    assert where.endswith("mcban/_shipped/migrations")


def test_an_empty_database_is_brought_up_by_the_wheel(mcban: Path, tmp_path: Path) -> None:
    """The migrations travel in it; a second time there is nothing to do."""
    assert run(mcban, tmp_path, "db", "check").returncode == 78
    first = run(mcban, tmp_path, "db", "upgrade")
    assert (first.returncode, first.stderr) == (0, "")
    assert "brought to schema" in first.stdout
    assert "already" in run(mcban, tmp_path, "db", "upgrade").stdout
    check = run(mcban, tmp_path, "db", "check", "--json")
    assert check.returncode == 0
    assert json.loads(check.stdout)["schema"]
    jails = json.loads(run(mcban, tmp_path, "jail", "list", "--json").stdout)
    assert len(jails) == 15
    assert [jail["faults"] for jail in jails] == [[]] * 15


def test_the_filters_travel_in_the_wheel(mcban: Path, tmp_path: Path) -> None:
    """Those of the shipped jails are found without any settings."""
    listed = run(mcban, tmp_path, "filter", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    for name in ("mc-exim-filter", "mc-sshd-filter", "mc-webauth-filter"):
        assert name in listed.stdout


def test_a_ban_by_hand_works_from_the_wheel(mcban: Path, tmp_path: Path) -> None:
    """From nothing to a ban that is listed."""
    run(mcban, tmp_path, "db", "upgrade")
    done = run(mcban, tmp_path, "ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    assert (done.returncode, done.stderr) == (0, "")
    (ban,) = json.loads(run(mcban, tmp_path, "banned", "--json").stdout)
    assert (ban["ip"], ban["jail"]) == ("203.0.113.7", "mc-exim-1d")


def test_the_wheel_holds_our_files_and_no_others(wheel: Path) -> None:
    """Settings, init script and migrations; no tests, no caches."""
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("etc/mcban.toml", "init.d/mcban", "migrations/env.py", "migrations/versions/0001_first_schema.py"):
        assert f"mcban/_shipped/{name}" in names
    assert "mcban/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests") or name.endswith(".pyc")]
