"""From a rule's text with fail2ban's tags to a Python expression.

`<HOST>`, `<ADDR>` and their kin become groups of fixed names, `<F-USER>…</F-USER>` and its kin become groups of
theirs. A tag may stand in several branches of a rule. What is known to fail2ban but not to mcban is refused by
name, never skipped; other words in angle brackets are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from mcban.filters.expression import Expression

Fail = Callable[[str], Exception]

_OCTETS = r"\d{1,3}(?:\.\d{1,3}){3}"
_IP4 = rf"(?:::[fF]{{4,6}}:)?(?P<ip4>{_OCTETS})"
_HEX = "[0-9a-fA-F]{1,4}"
# Looser than an address is: whether it is one is decided by parsing what was found.
_IP6 = rf"(?P<ip6>(?:::|{_HEX}::?)(?:{_HEX}::?){{0,6}}(?:{_OCTETS}|{_HEX}|(?<=::)))"
_DNS = r"(?P<dns>[\w.^-]*\w)"
# Where a name may stand, "192.0.2.1.example.net" is one. A rule that lets anything follow the offender would take its
# beginning for an address, and whoever owns a reverse zone could name whom he likes.
_NO_NAME = r"(?![\d.-]{0,254}[A-Za-z_])"
_CIDR = r"(?P<cidr>\d{1,3})"
_ADDR = rf"\[?(?:{_IP4}|{_IP6})\]?"
_TAGS = {
    "HOST": rf"(?:\[?(?:{_IP4}{_NO_NAME}|{_IP6})\]?|{_DNS})",
    "ADDR": rf"(?:{_ADDR})",
    "IP4": _IP4,
    "IP6": _IP6,
    "CIDR": _CIDR,
    "SUBNET": rf"(?:\[?(?:{_IP4}|{_IP6})(?:/{_CIDR})?\]?)",
    "DNS": _DNS,
}
_ALONE = {f"F-{tag}": group for tag, group in _TAGS.items() if tag != "HOST"} | {"F-PORT": r"(?P<fport>\w+)"}
"""What `<F-ADDR/>` and its kin stand for; others written so are one word."""
_SKIPPED = r"\n(?P<skiplines>(?:[^\n]*\n)*?)"
_UNSUPPORTED = re.compile(r"<(F-TUPLE_[A-Z0-9_]+)/?>")
_TAG = re.compile(r"(?<!\\)(?<!\?P)<(/?)([A-Z][A-Z0-9_-]*)(/?)>")
_NAMED = re.compile(r"F-[A-Z][A-Z0-9_]*")
_ALTERNATIVE = re.compile(r"\(\?P<(alt_(id|fid|ip4|ip6|addr|host|dns)(?:_\d+)?(?:__again\d+)?)>")
"""Where the offender may stand when the tag without ALT_ takes no part in a match or is empty."""
_FIRST_ALTERNATIVE = 900
_NEARLY_A_TAG = re.compile(r"<\s*(?:HOST|ADDR|IP4|IP6|SUBNET)[^<>]{0,9}>", re.IGNORECASE)
_TAG_IN_SET = re.compile(r"(?<!\\)\[[^\]\\<]*(<(?:HOST|ADDR|IP4|IP6|SUBNET)>)")
# A plain <word> may be text of the log; these cannot.
_UNRESOLVED = re.compile(r"(?<!\?P)(?<!\\)<(?:_[\w-]+|[A-Za-z_][\w-]*/[\w./-]+|[A-Za-z_][\w/-]*\?[^<>]*)>")
_GROUP = re.compile(r"\(\?P<(\w+)>")
_FLAGS = re.compile(
    r"(?s:\\.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?:)?\(\?(?P<group>[aiLmsux]+)\)|\(\?(?P<rule>[aiLmsux]+)\)", re.DOTALL
)
_REPEATED = re.compile(r"(\w+)__again(\d+)")


def _group(tag: str) -> str:
    return {"F-ID": "fid", "F-PORT": "fport"}.get(tag) or tag.removeprefix("F-").lower()


def expand_tags(text: str, fail: Fail, *, multiline: bool = False) -> str:
    """A rule's text with the tags turned into groups; raises what `fail` makes of a message."""
    _refuse_unusable(text, fail, multiline=multiline)
    seen: dict[str, int] = {}
    opened: set[str] = set()

    def rename(found: re.Match[str]) -> str:
        """A tag's group under a name of its own, as a tag may stand in several branches."""
        name = found[1]
        seen[name] = seen.get(name, 0) + 1
        return found[0] if seen[name] == 1 else f"(?P<{name}__again{seen[name]}>"

    def expand(found: re.Match[str]) -> str:
        closing, tag, alone = found.groups()
        if tag in _TAGS and not closing and not alone:
            group = _TAGS[tag]
        elif tag == "SKIPLINES" and not closing and not alone:
            group = _SKIPPED
        elif not _NAMED.fullmatch(tag):
            return found[0]  # text of the log, which may well have <WORDS> like this
        elif closing:
            return ")" if tag in opened else found[0]
        else:
            opened.add(tag)
            group = f"(?P<{_group(tag)}>"
            if alone:
                group = _ALONE.get(tag) or group + r"\S+)"
        return _GROUP.sub(rename, group)

    expanded = _name_alternatives(_TAG.sub(expand, text))
    if found := _UNRESOLVED.search(expanded):
        raise fail(f"tag {found[0]} is neither known nor an option of the filter")
    return expanded


def _refuse_unusable(text: str, fail: Fail, *, multiline: bool) -> None:
    if found := _UNSUPPORTED.search(text):
        raise fail(f"uses <{found[1]}>, which mcban does not support: who is banned is one address or network")
    if "<SKIPLINES>" in text and not multiline:
        raise fail(
            "uses <SKIPLINES>, which wants maxlines above 1: "
            "put maxlines = 10 under [Definition], or [maxlines=10] behind the filter's name"
        )


def _name_alternatives(text: str) -> str:
    """`text` with the groups of <F-ALT_IP4> and its kin as further groups of what they are the alternatives of,
    numbered by their names: in that order fail2ban asks them, wherever they stand."""
    counts: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for alternative, kind in sorted(_ALTERNATIVE.findall(text)):
        name = _group(f"F-{kind.upper()}")
        if f"(?P<{name}>" not in text and name not in counts:
            counts[name], renamed[alternative] = 0, name
        else:
            counts[name] = counts.get(name, 0) + 1
            renamed[alternative] = f"{name}__again{_FIRST_ALTERNATIVE + counts[name]}"
    return _ALTERNATIVE.sub(lambda found: f"(?P<{renamed[found[1]]}>", text)


def compile_rule(text: str, fail: Fail, *, multiline: bool = False) -> Expression:
    """The expression of a rule; raises what `fail` makes of a message when it does not compile.

    With `multiline` it is matched with several lines at once, where `^` and `$` are those of each line.
    """
    expanded = _lift_flags(expand_tags(text, fail, multiline=multiline))
    try:
        expression = Expression(expanded, re.MULTILINE if multiline else 0)
        ambiguous = _find_ambiguous(expression)
    except (re.error, OverflowError, RecursionError) as error:
        found = _TAG_IN_SET.search(text)
        hint = f"; {found[1]} cannot stand in brackets of an expression: write \\[ for one of the line" if found else ""
        raise fail(f"does not compile: {error}{hint}") from error
    if ambiguous:
        tags = "<HOST>" if ambiguous == "dns" else f"tags for {ambiguous}"
        raise fail(f"does not compile: two {tags} can match at once: keep one, or make them branches, a|b")
    return expression


def find_misspelt_tag(text: str) -> str | None:
    """What may have been meant for the tag of an address, and is none."""
    return next((found for found in _NEARLY_A_TAG.findall(text) if found[1:-1] not in _TAGS), None)


def repeated_groups(expression: Expression) -> tuple[tuple[str, str], ...]:
    """The groups that stand for a tag's second and later uses, each with the name of its first, in the order in which
    they are asked."""
    groups = expression.groupindex
    again = [found for name in groups if (found := _REPEATED.fullmatch(name)) and found[1] in groups]
    return tuple((found[0], found[1]) for found in sorted(again, key=lambda found: int(found[2])))


def _lift_flags(text: str) -> str:
    """`(?i)` in the middle of an expression, which Python refuses since 3.11: at the beginning of a group it holds for
    the group, as fail2ban reads it; elsewhere it is put at the beginning of the whole, which is what it always meant.
    """
    flags: set[str] = set()

    def take(found: re.Match[str]) -> str:
        if found["group"]:
            return f"(?{found['group']}:"
        if not found["rule"]:
            return found[0]
        flags.update(found["rule"])
        return ""

    lifted = _FLAGS.sub(take, text)
    return f"(?{''.join(sorted(flags))}){lifted}" if flags else lifted


def _find_ambiguous(expression: Expression) -> str | None:
    """A tag's name of which two uses may take part in one match, so that it would be open which one is meant."""
    repeated = {
        alias: name
        for alias, name in repeated_groups(expression)
        if int(alias.rpartition("again")[2]) < _FIRST_ALTERNATIVE
    }
    tree = expression.tree if repeated else None
    if tree is None:
        return None
    sequence = type(tree)
    names = {number: repeated.get(name, name) for name, number in expression.groupindex.items()}
    counted = set(repeated.values()) - {"skiplines"}
    both: set[str] = set()

    def join(parts: Iterable[frozenset[str]]) -> frozenset[str]:
        held: frozenset[str] = frozenset()
        for part in parts:
            both.update(held & part)
            held |= part
        return held

    def walk(node: Any) -> frozenset[str]:
        """The counted names below a part of the tree that Python's own parser makes."""
        if isinstance(node, sequence):
            return join(walk(item) for item in node)
        if not isinstance(node, tuple) or len(node) != 2:
            return frozenset()
        operation, argument = str(node[0]), node[1]
        if operation == "BRANCH":
            return frozenset().union(*map(walk, argument[1]))
        if operation == "GROUPREF_EXISTS":
            return frozenset().union(*(walk(branch) for branch in argument[1:] if branch))
        inner = argument if isinstance(argument, sequence) else None
        if isinstance(argument, tuple):
            inner = next((part for part in argument if isinstance(part, sequence)), None)
        below = walk(inner) if inner is not None else frozenset()
        own = names.get(argument[0]) if operation == "SUBPATTERN" else None
        return below | {own} if own in counted else below

    walk(tree)
    return min(both, default=None)
