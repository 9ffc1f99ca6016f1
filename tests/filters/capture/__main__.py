"""Capture real log lines: start exim, sshd, rsyslog, apache and nginx in namespaces of their own and abuse them.

    python -m tests.filters.capture [FOLDER [exim|ssh|web …]]

Needs root, util-linux (unshare), iproute2, openssl and Debian's exim4-daemon-light, openssh-server, openssh-client,
rsyslog, apache2 and nginx-light installed; no service of the machine is started or touched. The network namespace has
only a loopback with documentation addresses, the mount namespace a /dev and a /run of its own. The logs are left in
FOLDER (a new one under /tmp): what is worth keeping goes from there into samples/, by hand, with its expectation.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from tests.filters.capture.client import CLIENTS, SERVER4, SERVER6, run
from tests.filters.capture.exim import capture_exim
from tests.filters.capture.ssh import capture_ssh
from tests.filters.capture.web import capture_web


def enter() -> NoReturn:
    """Come back here inside new namespaces."""
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="capture-")
    Path(folder).chmod(0o755)
    os.environ["CAPTURE_INSIDE"] = str(Path(folder).resolve())
    spaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    os.execvp("unshare", [*spaces, sys.executable, "-m", "tests.filters.capture", folder, *sys.argv[2:]])


def prepare(folder: Path) -> None:
    """Loopback with our addresses; a /dev whose log is ours; a /run for pid files and sshd's empty folder."""
    run("ip", "link", "set", "lo", "up")
    for address in [SERVER4, SERVER6, *CLIENTS]:
        run("ip", "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo", "nodad")
    run("mount", "--make-rprivate", "/")
    dev = folder / "dev"
    dev.mkdir()
    run("mount", "-t", "tmpfs", "none", str(dev))
    for name in ("null", "zero", "random", "urandom", "tty", "ptmx", "full"):
        (dev / name).touch()
        run("mount", "--bind", f"/dev/{name}", str(dev / name))
    for name in ("pts", "shm"):
        (dev / name).mkdir()
        run("mount", "--rbind", f"/dev/{name}", str(dev / name))
    (dev / "fd").symlink_to("/proc/self/fd")
    run("mount", "--rbind", str(dev), "/dev")
    run("mount", "-t", "tmpfs", "none", "/run")
    Path("/run/sshd").mkdir(mode=0o755)
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n192.0.2.77 host77.example.net\n")
    run("mount", "--bind", str(hosts), "/etc/hosts")


def main() -> None:
    """Capture what was asked for, or all."""
    inside = os.environ.get("CAPTURE_INSIDE")
    if not inside:
        if os.geteuid() != 0:
            sys.exit("capture needs root: it makes network and mount namespaces")
        missing = [
            p
            for p in ("exim4", "sshd", "rsyslogd", "apache2", "nginx", "ssh", "openssl", "ip", "unshare")
            if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        ]
        if missing:
            sys.exit(f"capture needs these programs: {', '.join(missing)}")
        enter()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = Path(inside)
    prepare(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    captures = {"exim": capture_exim, "ssh": capture_ssh, "web": capture_web}
    for name in sys.argv[2:] or captures:
        captures[name](folder)
    print(f"captured into {folder}")


if __name__ == "__main__":
    main()
