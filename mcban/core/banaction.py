"""The `banaction` column of a jail: `mc-custom`, or an action as fail2ban writes it, with parameters in brackets.

Each action blocks through the jail's list; what it says beyond that is understood or refused by name, never ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PORT_ACTIONS = ("mc-custom", "mc-ipset", "iptables-multiport", "nftables-multiport")
"""Block the jail's ports. The original's names and fail2ban's."""
ALL_PORT_ACTIONS = ("iptables-allports", "nftables-allports")
"""Block every port."""

_FORM = re.compile(r"([\w.-]+)(?:\[(.*)\])?", re.ASCII | re.DOTALL)
_PARAMETER = re.compile(r"""\s*([\w.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s,"'\]]*))\s*(?:,|$)""", re.ASCII)
_DROPS = {"drop": True, "reject": False}


@dataclass(frozen=True, slots=True)
class BanAction:
    """What an action asks for. `ports` and `drop` are None where it leaves that to the jail and the settings;
    `chain` is one that must be among those that the settings name."""

    name: str
    all_ports: bool
    ports: str | None = None
    drop: bool | None = None
    chain: str | None = None


def parse_banaction(text: str) -> BanAction:
    """The action in `text`; raises ValueError with one clear line for what is not known."""
    match = _FORM.fullmatch(text.strip())
    known = (*PORT_ACTIONS, *ALL_PORT_ACTIONS)
    if match is None or match[1] not in known:
        raise ValueError(f"banaction {text.strip()!r} is not known: use one of {', '.join(known)}")
    name, rest = match[1], match[2] or ""
    ports: str | None = None
    drop: bool | None = None
    chain: str | None = None
    for key, value in _parameters(name, rest):
        if key == "port":
            ports = value
        elif key == "blocktype":
            drop = _blocktype(name, value)
        elif key == "chain":
            chain = value
        elif key == "protocol" and value.lower() != "tcp":
            raise ValueError(f"banaction {name}: protocol {value!r} cannot be had: a jail closes TCP ports")
        elif key not in {"name", "protocol"}:  # the list has the jail's name, whatever the action calls it
            raise ValueError(f"banaction {name}: the parameter {key!r} is not known: there are {_KNOWN}")
    if ports is not None and name in ALL_PORT_ACTIONS:
        raise ValueError(f"banaction {name} closes every port: leave port {ports!r} out, or take a multiport action")
    return BanAction(name, name in ALL_PORT_ACTIONS, ports, drop, chain)


_KNOWN = "blocktype, chain, name, port, protocol"


def _parameters(name: str, text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(text.rstrip()):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise ValueError(f"banaction {name}: {text[at:].strip()!r} is no parameter: write [key=value, key=value]")
        found.append((match[1].lower(), next(value for value in (*match.groups()[1:], "") if value is not None)))
        at = match.end()
    return found


def _blocktype(name: str, value: str) -> bool:
    """fail2ban writes `DROP`, or `REJECT --reject-with …`: how to reject is ours to know."""
    word = value.split(maxsplit=1)[0].lower() if value.split() else ""
    if word not in _DROPS:
        raise ValueError(f"banaction {name}: blocktype {value!r} is not known: it is DROP or REJECT")
    return _DROPS[word]
