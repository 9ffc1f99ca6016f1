"""What README.md tells people to type, typed: in a copy of the checkout, with /etc, /var and the rest overlaid, so that
an installation for good leaves nothing behind, and in a network namespace of its own where the firewall is touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.netns import require_netns

CHECKOUT = Path(__file__).resolve().parent.parent
COPY = Path("elsewhere/mcban")
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

OVERLAY = """
set -eu
mount -t tmpfs none "$SPACE"
for folder in /etc /var /opt /usr/local /run; do
  mkdir -p "$SPACE$folder/upper" "$SPACE$folder/work"
  mount -t overlay overlay -o "lowerdir=$folder,upperdir=$SPACE$folder/upper,workdir=$SPACE$folder/work" "$folder"
done
rm -rf /var/lib/mcban /etc/mcban /opt/mcban /usr/local/bin/mcban
"""

TOUR = """
set -eux
ip link set lo up
mkdir -p /var/log/exim4
printf '%s login authenticator failed for (User) [203.0.113.9]: 535 Incorrect authentication data (set_id=a)\\n' \
  "$(date '+%Y-%m-%d %H:%M:%S')" > /var/log/exim4/mainlog
mcban run 2>/var/log/engine.log &
for second in $(seq 1200); do grep -q ready /var/log/engine.log && break; sleep 0.1; done
"""


def blocks(language: str, which: str | None = None) -> list[str]:
    """The README's blocks of a language and kind, in their order."""
    text = (CHECKOUT / "README.md").read_text("utf-8")
    return [body for found, kind, body in BLOCK.findall(text) if found == language and (kind or None) == which]


def copy_of_checkout(folder: Path) -> Path:
    """What git would clone, with what is not committed yet."""
    there = folder / COPY
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).exists():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, there / name)
    return there


def test_every_block_of_the_readme_is_run_by_a_test() -> None:
    """No block stands in the README that the tests here do not know."""
    text = (CHECKOUT / "README.md").read_text("utf-8")
    kinds = {(language, kind) for language, kind, _ in BLOCK.findall(text)}
    known = {("sh", kind) for kind in ("", "make", "install", "systemd", "init")} | {("sql", ""), ("mermaid", "")}
    assert kinds <= known
    assert [block.strip() for block in blocks("sh", "make")] == ["make run", "make test", "make demo"]


def test_installing_for_good_the_tour_and_the_init_script_work_as_written(tmp_path: Path) -> None:
    """The commands of the README, typed in their order on a fresh system, all succeed and leave nothing behind."""
    require_netns()
    (tmp_path / "space").mkdir()
    tour = [TOUR, *blocks("sh")]
    [client] = re.findall(r"`(sqlite3 [^`]+)`", (CHECKOUT / "README.md").read_text("utf-8"))
    tour.append(f"{client} <<'END'\n" + "".join(blocks("sql")) + "END\n")
    tour.append("for n in $(seq 1200); do ipset list -n | grep -q '^my-jail$' && break; sleep 0.1; done\n")
    tour.append("ipset list -n | grep -q '^my-jail$'\nkill %1; wait\ntest -z \"$(ipset list -n)\"\n")
    tour.append("".join(blocks("sh", "init")) + 'test -z "$(ipset list -n)"\n')
    script = OVERLAY + "set -x\n" + "".join(blocks("sh", "install"))
    script += "cat > /run/tour <<'TOUR'\n" + "".join(tour) + "TOUR\nunshare --net bash /run/tour\n"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MCBAN_", "VIRTUAL_ENV"))}
    env |= {"SPACE": str(tmp_path / "space"), "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", script],
        cwd=copy_of_checkout(tmp_path),
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    assert not Path("/opt/mcban").exists() or (CHECKOUT.parts[:2] == ("/", "opt"))


def test_the_systemd_block_names_files_that_exist() -> None:
    """The unit that the README tells to copy is there; systemd's own commands need a running systemd."""
    [block] = blocks("sh", "systemd")
    copied = re.findall(r"^cp (\S+) ", block, re.MULTILINE)
    assert copied and all((CHECKOUT / name).is_file() for name in copied)
