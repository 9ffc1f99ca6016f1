"""From a rule's text with fail2ban's tags to a Python expression.

`<HOST>`, `<ADDR>` and their kin become groups of fixed names, `<F-USER>…</F-USER>` and its kin become groups of
theirs. What is known to fail2ban but not yet to mcban is refused by name, never skipped; other words in angle
brackets are text.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

Fail = Callable[[str], Exception]

_OCTETS = r"\d{1,3}(?:\.\d{1,3}){3}"
_IP4 = rf"(?:::[fF]{{4}}:)?(?P<ip4>{_OCTETS})"
# Loose on purpose: whether it is an address is decided by parsing what was found.
_IP6 = rf"(?P<ip6>[0-9a-fA-F]{{0,4}}:[0-9a-fA-F:]{{0,38}}(?:[0-9a-fA-F]|:)(?:(?<=:){_OCTETS})?)"
_DNS = r"(?P<dns>[\w.^-]*\w)"
_CIDR = r"(?P<cidr>\d{1,3})"
_ADDR = rf"(?:{_IP4}|\[{_IP6}\]|(?P<bare6>{_IP6.removeprefix('(?P<ip6>')})"
_TAGS = {
    "HOST": rf"(?:{_ADDR}|{_DNS})",
    "ADDR": _ADDR,
    "IP4": _IP4,
    "IP6": _IP6,
    "CIDR": _CIDR,
    "SUBNET": rf"{_ADDR}(?:/{_CIDR})?",
    "DNS": _DNS,
}
ADDRESS_GROUPS = ("ip4", "ip6", "bare6", "host", "fid")
"""The groups in which a rule may leave the offender, in the order in which they are asked."""
SOURCE_GROUPS = frozenset((*ADDRESS_GROUPS, "dns"))
"""A rule without any of these names no offender."""

_UNSUPPORTED = re.compile(r"</?(F-(?:MLFID|MLFFORGET|MLFGAINED|NOFAIL)|SKIPLINES)/?>")
_TAG = re.compile(r"(?<!\\)<(/?)([A-Z][A-Z0-9_-]*)(/?)>")
_NAMED = re.compile(r"F-[A-Z][A-Z0-9_]*")
_CONDITIONAL = re.compile(r"<[A-Za-z_][\w-]*\?[^<>]*>")
_UNRESOLVED = re.compile(r"(?<!\?P)(?<!\\)<([a-z_][\w-]*(?:/[\w.-]+)?)>")


def _group(tag: str) -> str:
    return "fid" if tag == "F-ID" else tag.removeprefix("F-").lower()


def expand_tags(text: str, fail: Fail) -> str:
    """A rule's text with the tags turned into groups; raises what `fail` makes of a message."""
    if found := _UNSUPPORTED.search(text):
        raise fail(f"uses <{found[1]}>, which mcban does not support yet")
    if found := _CONDITIONAL.search(text):
        raise fail(f"uses the conditional tag {found[0]}, which mcban does not support yet")

    def expand(found: re.Match[str]) -> str:
        closing, tag, alone = found.groups()
        if tag in _TAGS and not closing and not alone:
            return _TAGS[tag]
        if _NAMED.fullmatch(tag):
            return f"(?P<{_group(tag)}>\\S+)" if alone else ")" if closing else f"(?P<{_group(tag)}>"
        return found[0]  # text of the log, which may well have <WORDS> like this

    expanded = _TAG.sub(expand, text)
    if found := _UNRESOLVED.search(expanded):
        raise fail(f"tag {found[0]} is neither known nor an option of the filter")
    return expanded


def compile_rule(text: str, fail: Fail) -> re.Pattern[str]:
    """The expression of a rule; raises what `fail` makes of a message when it does not compile."""
    expanded = expand_tags(text, fail)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(expanded)
    except (re.error, OverflowError, RecursionError) as error:
        raise fail(f"does not compile: {error}") from error
