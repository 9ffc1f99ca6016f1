"""The commands that change jails: add, change, enable, disable, remove; and the switch of the blacklists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mcban.core import ladder
from mcban.core.duration import FOREVER_DURATION, format_duration, parse_duration
from mcban.core.model import Group, Jail, Kind
from mcban.errors import DataError, RefusedError, UsageError, printable
from mcban.firewall.base import summarise
from mcban.service.bans import Report, written
from mcban.service.context import Context, JailBook, World
from mcban.service.jails import check_ladder, ladder_rows, read_book, select, select_group, settle, to_jail
from mcban.service.sources import check_source
from mcban.service.sync import sync
from mcban.service.world import load_world
from mcban.store.database import Transaction
from mcban.store.events import Event
from mcban.store.jails import JailRecord

NUMBERS = ("maxretry", "findtime", "bantime", "max_count", "v6_prefix")
TEXTS = ("port", "filter", "banaction", "logpath", "logtimezone")
FLAGS = ("share_hits",)
SAID = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
LADDER_COLUMNS = ("maxretry", "findtime", "bantime")
OPTIONS = (*NUMBERS, *FLAGS, *TEXTS)

Work = Callable[[Transaction, World], list[str]]


def add(context: Context, record: JailRecord, *, force: bool) -> Report:
    """Make a jail from a row; `escalate` makes the ladder of its `maxretry`.

    Raises UsageError when the name is another jail's, DataError for a row that cannot work, FilterError for its filter.
    """

    def work(transaction: Transaction, world: World) -> list[str]:
        rows = {row.name: row for row in transaction.jails.all()}
        taken = [name for name in (record.name, *_implied(record)) if name in rows]
        if taken or record.name in world.book.groups:
            if all(rows.get(one.name) == one for one in (ladder_rows(record) if record.escalate else [record])):
                return [f"{record.name} is there already, as it is asked for"]
            raise UsageError(f"there is another jail {(taken or [record.name])[0]} already: mcban jail change")
        _usable(context, record)
        transaction.jails.insert(record)
        made = _settle(context, transaction)
        group = ladder.split_name(record.name)[0]
        book = _book(context, transaction)
        for fault in book.faults:
            if fault.what in {record.name, *_implied(record)}:
                raise DataError(str(fault))
        if group in book.groups:
            check_ladder(book.groups[group].tiers, force=force)
        return [f"{record.name} added", *made]

    return _carry_out(context, work)


def change(context: Context, name: str, option: str, value: str, *, force: bool) -> Report:
    """Change one column of a jail, or of all tiers of a group. `maxretry` of a group regenerates its ladder.

    Raises UsageError, DataError, or RefusedError when the ladder would not ascend and is not forced.
    """
    if option not in OPTIONS:
        raise UsageError(f"there is no option {printable(option)}: it is one of {', '.join(OPTIONS)}")
    new = _parse(option, value)

    def work(transaction: Transaction, world: World) -> list[str]:
        records = {record.name: record for record in transaction.jails.all()}
        if name in records and name not in world.book.jails:
            return _mend(context, transaction, records[name], option, new)
        jails = select(world.book, name)
        if jails[0].kind is Kind.BLACKLIST and option in (*NUMBERS, *FLAGS):
            raise UsageError(f"{name} is a blacklist: it counts no hits and holds for ever; {option} is of the tiers")
        group = world.book.groups[jails[0].group]
        if name in world.book.groups and option in (*TEXTS, *FLAGS, "max_count", "v6_prefix") and group.blacklist:
            jails.append(group.blacklist)
        steps: dict[str, dict[str, Any]] = {jail.name: {option: new} for jail in jails}
        if name in world.book.groups and option == "maxretry" and jails[0].kind is Kind.TIER:
            steps = _regenerated(name, int(new), steps)
        said = []
        for jail in jails:
            before, values = records[jail.name], steps[jail.name]
            changed = {key: v for key, v in values.items() if getattr(before, key) != v}
            if jail.kind is not Kind.BLACKLIST or option not in NUMBERS:
                _usable(context, replace(before, **values))
            for key, v in changed.items():
                said.append(f"{jail.name}: {key} {_show(key, getattr(before, key))} is now {_show(key, v)}")
            if changed:
                transaction.jails.update(jail.name, changed)
        after = _book(context, transaction).groups[group.name]
        check_ladder(after.tiers, force=force or not any(key in LADDER_COLUMNS for key in steps[jails[0].name]))
        said += _settle(context, transaction)
        return said or [f"{name}: {option} is {_show(option, new)} already"]

    return _carry_out(context, work)


def _mend(context: Context, transaction: Transaction, before: JailRecord, option: str, new: int | str) -> list[str]:
    """Change a row that cannot be used: afterwards it can."""
    values: dict[str, Any] = {option: new}
    _usable(context, replace(before, **values))
    transaction.jails.update(before.name, values)
    was, now = _show(option, getattr(before, option)), _show(option, new)
    return [f"{before.name}: {option} {was} is now {now}", *_settle(context, transaction)]


def enable(context: Context, name: str | None, *, on: bool) -> Report:
    """Switch the jails that `name` means, or every jail, on or off. Off takes the entries out of the kernel and keeps
    the rows; on brings back the bans that still run."""

    def work(transaction: Transaction, world: World) -> list[str]:
        jails = select(world.book, name)
        said = _switch(transaction, jails, on=on)
        group = world.book.groups.get(name or "")
        if group and group.blacklist and group.blacklist.enabled and not on:
            said.append(f"{group.blacklist.name} stays enabled: mcban blacklist disable -j {name}")
        return said

    return _carry_out(context, work)


def remove(context: Context, name: str, *, yes: bool) -> Report:
    """Remove a jail, or a group with its blacklist. Bans that still run there are lifted, which wants `yes`."""

    def work(transaction: Transaction, world: World) -> list[str]:
        names = _to_remove(transaction, world, name)
        bans = transaction.addresses.in_force(context.now, names)
        number = f"{len(bans)} {'ban' if len(bans) == 1 else 'bans'}"
        if bans and not yes:
            raise RefusedError(f"{name} holds {number}, which would be lifted: say --yes if you mean it")
        for row in bans:
            row.active, row.until, row.blacklisted, row.forced = False, context.now, False, False
        transaction.addresses.save(bans)
        transaction.events.add(
            [Event(context.now, "lift", r.ip, r.jail, None, "jail removed", context.config.node) for r in bans]
        )
        for jail in names:
            transaction.jails.delete(jail)
        said = [f"{jail} removed" for jail in names] + _stop_promotion(transaction, names)
        return said + ([f"{number} lifted"] if bans else [])

    return _carry_out(context, work, lifts=True)


def _to_remove(transaction: Transaction, world: World, name: str) -> list[str]:
    if name not in world.book.jails and name in {record.name for record in transaction.jails.all()}:
        return [name]  # a row that cannot be used
    if name in world.book.groups:
        return [jail.name for jail in world.book.groups[name].jails]
    return [jail.name for jail in select(world.book, name)]


def _stop_promotion(transaction: Transaction, removed: Sequence[str]) -> list[str]:
    """Where a blacklist was removed, its tiers lead there no more: else it would be made anew."""
    groups = {ladder.split_name(name)[0] for name in removed if ladder.split_name(name)[1] is Kind.BLACKLIST}
    said = []
    for record in transaction.jails.all():
        if ladder.split_name(record.name)[0] in groups and record.max_count != 0:
            transaction.jails.update(record.name, {"max_count": 0})
            said.append(f"{record.name}: max_count {record.max_count} is now 0")
    return said


def reload(context: Context) -> Report:
    """Take over what plain SQL changed in the jails: new rows, `escalate`, blacklists to make."""
    return _carry_out(context, lambda transaction, _: _settle(context, transaction))


def switch_blacklist(context: Context, name: str | None, *, on: bool, max_count: int | None = None) -> Report:
    """Switch the blacklist of the group that `name` belongs to, or of all, on or off. Off takes its entries out of
    the kernel, keeps them in SQL and stops promotion; on may set how many bans lead there."""

    def work(transaction: Transaction, world: World) -> list[str]:
        groups = list(world.book.groups.values()) if name is None else [select_group(world.book, name)]
        said: list[str] = []
        for group in groups:
            if on:
                said += _count_to(transaction, group, max_count)
            if group.blacklist:
                said += _switch(transaction, [group.blacklist], on=on)
            elif name is not None and not on:
                said.append(f"{group.name} has no blacklist")
        return said + (_settle(context, transaction) if on else [])

    return _carry_out(context, work)


def _count_to(transaction: Transaction, group: Group, max_count: int | None) -> list[str]:
    """Set the bans after which a group's next goes to its blacklist; where it was off, the default."""
    said = []
    for tier in group.tiers:
        wanted = max_count or (tier.max_count if tier.max_count > 0 else ladder.DEFAULT_MAX_COUNT)
        if tier.max_count != wanted:
            transaction.jails.update(tier.name, {"max_count": wanted})
            said.append(f"{tier.name}: max_count {tier.max_count} is now {wanted}")
    return said


def _switch(transaction: Transaction, jails: Sequence[Jail], *, on: bool) -> list[str]:
    word = "enabled" if on else "disabled"
    said = []
    for jail in jails:
        if jail.enabled == on:
            said.append(f"{jail.name} is {word} already")
        else:
            transaction.jails.update(jail.name, {"enabled": on})
            said.append(f"{jail.name} {word}")
    return said


def _regenerated(group: str, hits: int, steps: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    made = {ladder.tier_name(group, step.suffix): step for step in ladder.generate(hits)}
    return {
        name: {column: getattr(made[name], column) for column in LADDER_COLUMNS} if name in made else values
        for name, values in steps.items()
    }


def _implied(record: JailRecord) -> list[str]:
    if not record.escalate:
        return []
    return [ladder.tier_name(record.name, suffix) for suffix in ladder.TIER_SUFFIXES]


def _book(context: Context, transaction: Transaction) -> JailBook:
    return read_book(transaction.jails.all(), context.host.port_number, context.config.firewall_chains)


def _settle(context: Context, transaction: Transaction) -> list[str]:
    return settle(transaction, context.host.port_number, context.config.firewall_chains)


def _usable(context: Context, record: JailRecord) -> None:
    """Raises DataError or FilterError when the row could not work."""
    try:
        jail = to_jail(record, context.host.port_number, context.config.firewall_chains)
    except ValueError as error:
        raise DataError(f"{printable(record.name)}: {error}") from None
    if jail.kind is not Kind.BLACKLIST:
        check_source(context, jail)


def _parse(option: str, value: str) -> int | str:
    if option in FLAGS:
        if value.lower() not in SAID:
            raise UsageError(f"{option}: '{printable(value)}' is neither on nor off")
        return SAID[value.lower()]
    try:
        if option in {"findtime", "bantime"}:
            return parse_duration(value)
        if option in NUMBERS:
            number = int(value)
            if option == "maxretry" and number < 1:
                raise ValueError
            return max(number, 0) if option == "max_count" else number
    except ValueError as error:
        raise UsageError(
            f"{option}: {error}"
            if option in {"findtime", "bantime"}
            else f"{option}: '{printable(value)}' is no whole number above 0"
        ) from None
    return value


def _show(option: str, value: Any) -> str:
    if option in {"findtime", "bantime"} and isinstance(value, int) and (value > 0 or value == FOREVER_DURATION):
        return f"{value} ({format_duration(value)})"
    if option == "logtimezone" and not value:
        return "the system's"
    if option in FLAGS:
        return "on" if value else "off"
    return printable(str(value))


def _carry_out(context: Context, work: Work, *, lifts: bool = False) -> Report:
    """Ask the kernel whether it would listen, change SQL, then bring the kernel to it if it holds anything of ours.
    `lifts`: that bans are lifted is what was asked for, so that it is said when they are not."""
    stood = context.firewall.stands()
    said = context.database.write(lambda t: work(t, load_world(context, t)))
    if stood:
        with written(said):
            outcome = sync(context)
        failed = [f"not enforced: {line}" for line in summarise(outcome.refusals)]
        return Report(tuple(said), tuple(failed + [outcome.withheld] * (lifts and bool(outcome.withheld))))
    return Report(tuple(said))
