"""`make run` and `make demo` in a copy of the checkout under another path, as root and as nobody."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import Host, one_host, require_netns
from tests.once import folder_of_run, once
from tests.patience import PATIENCE
from tests.test_readme import CHECKOUT, COPY, copy_of_checkout

DEBIAN_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with its environment installed; that alone needs the network."""
    folder = once(
        folder_of_run(tmp_path_factory) / "clone", lambda folder: install(copy_of_checkout(folder), environment())
    )
    return folder / COPY


def install(there: Path, env: dict[str, str], *prefix: str) -> None:
    """`make .venv/run`, which must succeed."""
    command = [*prefix, "make", ".venv/run"]
    done = subprocess.run(command, cwd=there, env=env, check=False, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_make_without_a_network_says_so(tmp_path: Path) -> None:
    """One line of ours, then make's; what pip said of each try is in a file."""
    require_netns()
    there = copy_of_checkout(tmp_path)
    alone = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    command = ["unshare", "-n", "make", ".venv/run"]
    done = subprocess.run(command, cwd=there, env=environment(**alone), check=False, capture_output=True, text=True)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[0] == "installing mcban into .venv"
    assert said[1].startswith("pip reaches no package index: ")
    assert [line.partition(":")[0] for line in said[2:]] == ["make"]
    assert "connection broken" in (there / ".venv/pip.log").read_text("utf-8")


@pytest.fixture
def host() -> Iterator[Host]:
    """A namespace by itself."""
    require_netns()
    with one_host() as one:
        yield one


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of mcban's."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MCBAN_", "MAKE"))} | more


class Run:
    """A `make run` at work, and the other shell."""

    def __init__(self, host: Host, folder: Path, said: Path, env: dict[str, str], *prefix: str) -> None:
        self.host, self.env, self.prefix, self.said = host, env, prefix, said
        with said.open("w") as out:
            self.process = host.popen(
                *prefix, "make", "run", cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True
            )
        end = time.monotonic() + PATIENCE
        while " ready\n" not in self.said.read_text("utf-8"):
            assert self.process.poll() is None and time.monotonic() < end, self.said.read_text("utf-8")
            time.sleep(0.1)

    def other_shell(self, command: str) -> str:
        """Paste the line that `make run` printed into a shell, and type a command there."""
        [export] = re.findall(r"^  (export .*)$", self.said.read_text("utf-8"), re.MULTILINE)
        return self.host.run(*self.prefix, "sh", "-ec", f"{export}\n{command}")

    def ctrl_c(self) -> None:
        """What the terminal does on Ctrl-C: a signal to make and all that it runs."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(PATIENCE)


def test_make_run_as_root_enforces_with_ipset(clone: Path, host: Host, tmp_path: Path) -> None:
    """One command gives an engine that enforces; in another shell status, ban, show and unban work; Ctrl-C ends it
    and leaves nothing in the kernel; and so the second time."""
    env = environment(MCBAN_STATE_DIR=str(tmp_path / "its state"))  # the line is to be pasted as it is
    run = Run(host, clone, tmp_path / "said", env)
    assert "The firewall is ipset" in run.said.read_text("utf-8")
    assert "runs" in run.other_shell("mcban status")
    run.other_shell("mcban ban -j mc-exim -i 203.0.113.7")
    assert "203.0.113.7" in host.run("ipset", "list", "mc-exim-1d")
    assert "banned for" in run.other_shell("mcban show 203.0.113.7")
    run.other_shell("mcban unban -j mc-exim -i 203.0.113.7")
    assert "203.0.113.7" not in host.run("ipset", "list")
    run.ctrl_c()
    assert host.run("ipset", "list", "-n") == ""
    assert "Traceback" not in run.said.read_text("utf-8")
    run = Run(host, clone, tmp_path / "said again", env)
    assert "mc-exim-1d" in host.run("ipset", "list", "-n").split()
    run.ctrl_c()
    assert host.run("ipset", "list", "-n") == ""


def test_make_run_as_nobody_decides_in_memory(host: Host, open_folder: Path) -> None:
    """Whoever is not root gets an engine with the memory firewall, and is told so."""
    there = copy_of_checkout(open_folder)
    if subprocess.run([DEBIAN_PYTHON, "-c", "import ensurepip"], check=False, capture_output=True).returncode != 0:
        pytest.skip("the system's Python has no ensurepip (python3-venv)")
    subprocess.run(["chown", "-R", "nobody", str(there)], check=True)
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--bounding-set=-all")
    env = environment(HOME=str(there), PATH="/usr/bin:/bin", PYTHON=DEBIAN_PYTHON)
    install(there, env, *nobody)
    run = Run(host, there, there / "said", env, *nobody)
    assert "The firewall is memory" in run.said.read_text("utf-8")
    assert "touches no kernel" in run.other_shell("mcban status")
    assert "banned in mc-exim-1d" in run.other_shell("mcban ban -j mc-exim -i 203.0.113.7")
    run.ctrl_c()
    assert "Traceback" not in run.said.read_text("utf-8")


def test_the_demo_shows_the_climb_within_half_a_minute_and_leaves_nothing(clone: Path) -> None:
    """`make demo` ends well, shows each step, and neither processes nor folders of it remain."""
    require_netns()
    before = set(Path("/tmp").glob("mcban-demo-*"))
    done = subprocess.run(["make", "demo"], cwd=clone, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for jail in ("mc-exim-1d", "mc-exim-1w", "mc-exim-1m", "mc-exim-1y", "mc-exim-bl"):
        assert f"ipset list {jail}" in done.stdout
    answers = re.findall(r"to port (\d+) is (\w+)", done.stdout)
    assert answers == [
        ("25", "accepted"), ("25", "refused"), ("80", "accepted"), ("25", "refused"), ("25", "accepted"),
    ]  # fmt: skip
    assert set(Path("/tmp").glob("mcban-demo-*")) == before


def test_ci_runs_what_everybody_runs() -> None:
    """`.ci/run` calls `make test` and nothing else."""
    script = (CHECKOUT / ".ci/run").read_text("utf-8")
    commands = [shlex.split(line)[0] for line in script.splitlines() if line and not line.startswith("#")]
    assert commands == ["set", "cd", "exec"] and "exec make test" in script
