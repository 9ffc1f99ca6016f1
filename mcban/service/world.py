"""Jails and allowances, read from SQL, settings and the machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from mcban.config import parse_allowed
from mcban.core.address import parse_network
from mcban.core.allowlist import EVERYWHERE, Allowance, AllowList
from mcban.errors import printable
from mcban.service.context import Context, Fault, World
from mcban.service.jails import read_book
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction


def load_world(context: Context, transaction: Transaction) -> World:
    """The world as this transaction sees it."""
    book = read_book(transaction.jails.all(), context.host.port_number, context.config.firewall_chains)
    rows = transaction.addresses.allowing()
    faults = [
        Fault(printable(row.ip), f"whitelisted in {printable(row.jail) or 'all jails'}, but is no address or host name")
        for row in rows
        if not _usable(row.ip)
    ]
    if faults:
        book = replace(book, faults=(*book.faults, *faults))
    return World(book, AllowList(_allowances(context, transaction, rows)))


def _usable(text: str) -> bool:
    try:
        parse_allowed(text.strip())
    except ValueError:
        return False
    return True


def _allowances(context: Context, transaction: Transaction, rows: Iterable[AddressRecord]) -> list[Allowance]:
    """Rule: the specification's "What wins", 1."""
    found: list[Allowance] = []
    for record in rows:
        if _usable(record.ip):
            scope = record.jail.strip() or EVERYWHERE
            found += _named(context, record.ip.strip(), scope, "whitelisted")
    found += allowed_here(context)
    for node, addresses in transaction.nodes.addresses().items():
        if node != context.config.node:
            found += [Allowance(entry, EVERYWHERE, f"node {node}", protected=True) for entry in addresses]
    return found


def allowed_here(context: Context) -> list[Allowance]:
    """What settings and machine say, without SQL."""
    found: list[Allowance] = []
    for entry in context.config.ignoreip:
        found += _named(context, entry, EVERYWHERE, "ignoreip")
    for entry, why in context.host.protected().items():
        found.append(Allowance(entry, EVERYWHERE, why, protected=True))
    for server in context.database.servers:
        found += _named(context, server, EVERYWHERE, "the database server", protected=True)
    return found


def _named(context: Context, text: str, scope: str, why: str, *, protected: bool = False) -> list[Allowance]:
    """An address or network as it is, a name as the addresses it has now."""
    try:
        return [Allowance(parse_network(text), scope, why, protected)]
    except ValueError:
        return [Allowance(entry, scope, f"{why} as {text}", protected) for entry in context.host.lookup(text)]


def own_addresses(protected: dict[str, str]) -> list[str]:
    """Of what is protected, the addresses by which other nodes may see this one."""
    return [
        entry
        for entry, why in protected.items()
        if why == OWN and not ipaddress.ip_network(entry).is_loopback and not ipaddress.ip_network(entry).is_link_local
    ]


OWN = "an address of this host"
GATEWAY = "a default gateway"
LOOPBACK = "loopback"
