"""Writes a database of fail2ban with fail2ban's own module, which stands on PYTHONPATH; one JSON document on standard
input: the file, and [jail, address, time of the ban, length, count] for each ban. With `"run": true` it stays connected
until standard input ends, as the daemon does."""

import json
import sys

from fail2ban.server.database import Fail2BanDb
from fail2ban.server.ticket import BanTicket


class Actions:
    def getBanTime(self) -> int:  # noqa: N802  # fail2ban's name
        return 600


class Jail:
    actions = Actions()

    def __init__(self, name: str) -> None:
        self.name = name


job = json.loads(sys.stdin.readline())
database = Fail2BanDb(job["file"])
for name in {ban[0] for ban in job["bans"]}:
    database.addJail(Jail(name))
for name, ip, at, length, count in job["bans"]:
    ticket = BanTicket(ip, at, ["Failed password for root from " + str(ip)])
    ticket.setBanTime(length)
    ticket.setBanCount(count)
    database.addBan(Jail(name), ticket)
print("ready", flush=True)
if job.get("run"):
    sys.stdin.read()
database.close()
