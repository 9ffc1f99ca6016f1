"""What the rows of the original's database mean to us.

What decides, where the original's rows contradict each other or say what ours cannot:

- Rows of one address in one jail become one. Two writers that did not see each other's row made them, so that one ban
  may stand there twice: the largest `count` is what is certain. Such an address is banned if one of the rows is active
  (the original enforced it then), and allowed if one allows it.
- A row that is not active is not banned, also when it is marked as blacklisted: lifting by hand left that mark.
- An active row marked as blacklisted is banned for ever in the blacklist jail of its group; its tier keeps the count.
- The original had no end of bans: whatever had once been active was banned again. Here a ban ends its jail's time after
  the last hit, and many will be over by now.
- NULL is what the original took it for: not active, not allowed, not blacklisted; a jail is enabled.
- Numbers of jails are taken as they are. What is odd about them is said.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mcban.config import parse_allowed
from mcban.core import ladder
from mcban.core.address import parse_network
from mcban.core.duration import FOREVER_DURATION, format_duration, lasting
from mcban.core.model import FOREVER, Kind
from mcban.errors import printable
from mcban.store.addresses import AddressRecord
from mcban.store.events import Event
from mcban.store.original import CONF_COLUMNS, IP_COLUMNS, JAIL_COLUMNS, Heritage, Original

REASON = "taken over from the original"
NAMED = 10
"""How many of a kind are named in a line that counts them."""
_LONGEST = {"name": 150, "port": 250, "filter": 250, "banaction": 250, "logpath": 2000}
_NUMBERS = ("maxretry", "findtime", "bantime", "max_count")


class Inheritance:
    """From what the original's tables hold to what ours shall, as of `now`, in seconds since the epoch.

    `said` is what was done, one line each, `to_mend` what somebody should look at; `kept` names the table in which that
    stays which is not taken over.
    """

    def __init__(self, now: int, node: str, kept: str) -> None:
        self._now, self._node, self._kept = now, node, kept
        self.said: list[str] = []
        self.to_mend: list[str] = []
        self._jails: dict[str, dict[str, Any]] = {}
        self._spellings: dict[str, str] = {}
        self._rows: dict[tuple[str, str], _Known] = {}
        self._aside: dict[str, list[str]] = defaultdict(list)

    def inherit(self, original: Original) -> Heritage:
        """What is to be written."""
        for column in original.unknown:
            self.said.append(f"{column} is no column of the original: left aside")
        for values in original.jails:
            self._take_jail(dict(zip(JAIL_COLUMNS, values, strict=True)))
        for name in self._jails:
            self._spellings.setdefault(name.casefold(), name)
        for values in original.ips:
            self._take_row(dict(zip(IP_COLUMNS, values, strict=True)))
        records = [record for known in self._rows.values() for record in self._settle(known)]
        records = self._join(records)
        conf = [
            {name: _text(value) for name, value in zip(CONF_COLUMNS[1:], values[1:], strict=True)}
            for values in original.conf
        ]
        now, node = self._now, self._node
        events = [
            Event(now, "blacklist" if r.blacklisted else "ban", r.ip, r.jail, r.until, REASON, r.host or node)
            for r in records
            if r.active and r.until is not None
        ]
        self._count(original, records)
        return Heritage([dict(jail) for jail in self._jails.values()], records, events, conf)

    # Jails

    def _take_jail(self, row: dict[str, Any]) -> None:
        name = _text(row["name"]).rstrip(" ")
        shown = printable(name)
        if not name or len(name) > _LONGEST["name"]:
            self.to_mend.append(f"fail2ban_jail: the row of id {row['id']} has no usable name: not taken over")
            return
        jail = self._jail_of(name, row)
        known = self._jails.get(name)
        if known is not None:
            odd = [
                f"{key} {printable(str(known[key]))}, {printable(str(jail[key]))}"
                for key in jail
                if jail[key] != known[key]
            ]
            if odd:
                self.to_mend.append(
                    f"fail2ban_jail: '{shown}' stands there more than once, with different values ({'; '.join(odd)}): "
                    "the first is taken"
                )
            else:
                self.said.append(
                    f"fail2ban_jail: '{shown}' stands there more than once, with equal values: one is taken"
                )
            return
        self._jails[name] = jail
        self._judge_ban_time(jail)

    def _jail_of(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        jail: dict[str, Any] = {"name": name, "enabled": row["enabled"] is None or _flag(row["enabled"])}
        for column in _NUMBERS:
            number = _number(row[column])
            if number is None:
                shown = "NULL" if row[column] is None else printable(_text(row[column]))
                self.to_mend.append(f"{printable(name)}: {column} is {shown}, no number: taken as 0")
            jail[column] = number or 0
        for column in ("port", "filter", "banaction", "logpath"):
            text = _text(row[column])
            if len(text) > _LONGEST[column]:
                self.to_mend.append(f"{printable(name)}: {column} is too long: cut at {_LONGEST[column]} characters")
            jail[column] = text[: _LONGEST[column]]
        jail["banaction"] = jail["banaction"] or "mc-custom"
        jail["send_mail"] = _flag(row["send_mail"])
        jail["send_mail_bl"] = row["send_mail_bl"] is None or _flag(row["send_mail_bl"])
        return jail

    def _judge_ban_time(self, jail: dict[str, Any]) -> None:
        """The service's year was 238 days: said, not changed."""
        name, bantime = str(jail["name"]), jail["bantime"]
        _, kind, suffix = ladder.split_name(name)
        if kind is not Kind.TIER:
            return
        due = next(step.bantime for step in ladder.generate(1) if step.suffix == suffix)
        if bantime != due:
            long = lasting(max(bantime, FOREVER_DURATION))
            self.to_mend.append(
                f"{printable(name)} bans {long}, not for {format_duration(due)}: left so; "
                f"mcban jail change -j {printable(name)} --option bantime -v {format_duration(due)} changes it"
            )

    # Addresses

    def _take_row(self, row: dict[str, Any]) -> None:
        jail = self._jail_named(_text(row["jail"]).strip())
        whitelisted = _flag(row["whitelisted"])
        entry = read_entry(_text(row["ip"]), names=whitelisted)
        if entry is None:
            self._aside["no address or network that can be banned" if not whitelisted else "no address or name"].append(
                f"'{printable(_text(row['ip']))}' in {printable(jail) or 'no jail'}"
            )
            return
        if not jail or len(jail) > _LONGEST["name"]:
            self._aside["no jail"].append(f"{entry} in '{printable(jail)}'")
            return
        known = self._rows.setdefault((entry, jail), _Known(entry, jail))
        known.add(row, whitelisted=whitelisted)

    def _jail_named(self, text: str) -> str:
        """The original compared without regard to case; and it had a blacklist for each tier, which ours has not."""
        name = text if text in self._jails else self._spellings.get(text.casefold(), text)
        if name not in self._jails and name.endswith(ladder.BLACKLIST_SUFFIX):
            group, kind, _ = ladder.split_name(name.removesuffix(ladder.BLACKLIST_SUFFIX))
            if kind is Kind.TIER:
                return group + ladder.BLACKLIST_SUFFIX
        return name

    def _settle(self, known: _Known) -> list[AddressRecord]:
        """The row, or the two rows, that an address in a jail becomes."""
        now = self._now
        record = AddressRecord(
            known.ip, known.jail, known.count, whitelisted=known.whitelisted, last_hit=known.last_hit, host=known.host
        )
        if known.whitelisted or not known.active:
            return [record]
        record.count = max(record.count, 1)
        group, kind, _ = ladder.split_name(known.jail)
        if kind is Kind.BLACKLIST or known.blacklisted:
            banned = record
            if kind is not Kind.BLACKLIST:
                banned = AddressRecord(
                    known.ip, group + ladder.BLACKLIST_SUFFIX, 1, last_hit=known.last_hit, host=known.host
                )
            banned.active, banned.blacklisted, banned.until = True, True, FOREVER
            banned.since, banned.reason = known.last_hit or now, REASON
            self._give_blacklist(known.jail, banned.jail)
            return [record] if banned is record else [record, banned]
        jail = self._jails.get(known.jail)
        if jail is None:
            self._aside["kept"].append(f"{known.ip} in {printable(known.jail)}")
            record.active = True  # without an end: nothing is known of its jail
            return [record]
        record.since, record.reason = known.last_hit or now, REASON
        record.until = FOREVER if jail["bantime"] < 0 else record.since + jail["bantime"]
        record.active = record.until > now
        if not record.active:
            self._aside["over"].append(known.ip)
        return [record]

    def _give_blacklist(self, jail: str, name: str) -> None:
        if name in self._jails or jail not in self._jails:
            return
        self._jails[name] = self._jails[jail] | {
            "name": name,
            "enabled": True,
            "maxretry": 0,
            "findtime": 0,
            "bantime": FOREVER_DURATION,
        }
        self.said.append(f"{printable(name)}: made, since {printable(jail)} blacklists addresses")

    @staticmethod
    def _join(records: Iterable[AddressRecord]) -> list[AddressRecord]:
        """One row for each address and jail: several tiers may have blacklisted the same one."""
        joined: dict[tuple[str, str], AddressRecord] = {}
        for record in records:
            known = joined.setdefault((record.ip, record.jail), record)
            if known is record:
                continue
            known.whitelisted = known.whitelisted or record.whitelisted
            known.count = max(known.count, record.count)
            if record.active and not known.whitelisted:
                known.active, known.blacklisted, known.until = True, record.blacklisted, record.until
                known.since, known.reason = (
                    min(known.since or record.since or 0, record.since or 0) or None,
                    record.reason,
                )
        return list(joined.values())

    # What is said

    def _count(self, original: Original, records: Sequence[AddressRecord]) -> None:
        bans = Counter(r.jail for r in records if r.active and not r.blacklisted)
        black = Counter(r.jail for r in records if r.active and r.blacklisted)
        allowed = sum(r.whitelisted for r in records)
        number = _plural(len(self._jails), "jail", "jails")
        self.said.append(f"fail2ban_jail: {number} from {_plural(len(original.jails), 'row', 'rows')}")
        self.said.append(
            f"fail2ban_ips: {len(records)} rows from {len(original.ips)}: {sum(bans.values())} banned, "
            f"{sum(black.values())} blacklisted, {allowed} allowed"
        )
        merged = [known for known in self._rows.values() if known.rows > 1]
        if merged:
            self.said.append(
                f"fail2ban_ips: {_plural(len(merged), 'address', 'addresses')} more than once in a jail: one row now, "
                "with the largest count and the latest hit, banned if one row was: "
                + _named([f"{known.ip} in {printable(known.jail)} ({known.rows})" for known in merged])
            )
        marked = [known for known in self._rows.values() if known.marked and not known.whitelisted]
        if marked:
            self.said.append(
                f"fail2ban_ips: {len(marked)} marked as blacklisted but not active, as a lifting by hand left them: "
                f"not banned: " + _named([f"{known.ip} in {printable(known.jail)}" for known in marked])
            )
        over = self._aside.pop("over", [])
        if over:
            self.said.append(
                f"fail2ban_ips: {len(over)} marked as active whose jail's time is over: not banned any more"
            )
        self._count_strange()
        self._judge_blacklists(black)
        everybody = [r for r in records if r.whitelisted and r.ip.endswith("/0")]
        for record in everybody:
            self.to_mend.append(f"{record.ip} is allowed in {printable(record.jail)}: nobody is banned there")

    def _count_strange(self) -> None:
        kept = self._aside.pop("kept", [])
        if kept:
            self.to_mend.append(
                f"fail2ban_ips: {_plural(len(kept), 'ban is', 'bans are')} in jails that do not exist: kept, "
                f"not enforced: {_named(kept)}"
            )
        for why, rows in self._aside.items():
            self.to_mend.append(
                f"fail2ban_ips: {_plural(len(rows), 'row names', 'rows name')} {why}: not taken over, kept in "
                f"{self._kept}: {_named(rows)}"
            )

    def _judge_blacklists(self, black: Counter[str]) -> None:
        for name, number in black.items():
            jail = self._jails.get(name)
            if jail is not None and not jail["enabled"]:
                group = ladder.split_name(name)[0]
                self.to_mend.append(
                    f"{printable(name)} is disabled, so that its {number} bans are not enforced: "
                    f"mcban blacklist enable -j {printable(group)}"
                )


@dataclass(slots=True)
class _Known:
    """What the rows of one address in one jail say together."""

    ip: str
    jail: str
    rows: int = 0
    count: int = 0
    active: bool = False
    blacklisted: bool = False
    whitelisted: bool = False
    marked: bool = False
    """Marked as blacklisted by a row that is not active."""
    last_hit: int | None = None
    host: str = ""

    def add(self, row: dict[str, Any], *, whitelisted: bool) -> None:
        """One more row."""
        self.rows += 1
        active, blacklisted = _flag(row["active"]), _flag(row["blacklisted"])
        self.count = max(self.count, _number(row["count"]) or 0)
        self.active = self.active or active
        self.blacklisted = self.blacklisted or (blacklisted and active)
        self.marked = (self.marked or (blacklisted and not active)) and not self.blacklisted
        self.whitelisted = self.whitelisted or whitelisted
        last_hit = _time(row["last_hit"])
        if self.rows == 1 or (last_hit or 0) > (self.last_hit or 0):
            self.last_hit, self.host = last_hit, _text(row["host"])[:150]


def _plural(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _named(rows: Sequence[str]) -> str:
    return ", ".join(rows[:NAMED]) + (f", and {len(rows) - NAMED} more" if len(rows) > NAMED else "")


def _flag(value: Any) -> bool:
    """A flag as databases have it: NULL is no, and any number but 0 yes."""
    if isinstance(value, bytes):
        return any(value)
    return bool(_number(value))


def _number(value: Any) -> int | None:
    if isinstance(value, int):
        return int(value)
    text = _text(value).strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _time(value: Any) -> int | None:
    """Seconds since the epoch; None for no time, such as 0000-00-00."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    seconds = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    return seconds if seconds > 0 else None


def read_entry(text: str, *, names: bool) -> str | None:
    """The address or network that `text` spells, or with `names` the host name; None for none of them, and for what is
    never banned. Where zeros lead, the number must be the same for who reads it as octal."""
    text = text.strip()
    head, slash, mask = text.partition("/")
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", head):
        parts = head.split(".")
        if any(len(part) > 1 and part[0] == "0" and int(part) > 7 for part in parts):
            return None
        head = ".".join(str(int(part)) for part in parts)
    try:
        if "." in mask:  # 255.255.255.0
            mask = str(ipaddress.IPv4Network(f"0.0.0.0/{mask}").prefixlen)
        entry = parse_network(f"{head}{slash}{mask}")
    except ValueError:
        try:
            return parse_allowed(text) if names else None
        except ValueError:
            return None
    return None if entry.endswith("/0") and not names else entry
