"""The kernel fails after SQL was written: nobody must take what he asked for as undone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mcban.errors import FirewallError
from mcban.firewall.memory import MemoryFirewall
from mcban.service.allow import allow, disallow
from mcban.service.bans import Report, ban, unban
from mcban.service.context import Context
from mcban.service.exchange import import_allowed, import_list
from mcban.service.jail_changes import enable, remove
from mcban.service.sync import sync
from tests.service.desk import IP, held

OTHER = "198.51.100.7"

ASKED: dict[str, tuple[Callable[[Context], Report], str]] = {
    "ban": (
        lambda c: ban(c, "mc-ssh-1d", [OTHER], None, force=False, yes=False),
        f"{OTHER} banned in mc-ssh-1d for 1d",
    ),
    "unban": (lambda c: unban(c, None, [IP]), f"{IP} lifted in mc-exim-1d"),
    "allow": (lambda c: allow(c, None, [IP]), f"{IP} allowed everywhere; {IP} lifted in mc-exim-1d"),
    "disallow": (lambda c: disallow(c, None, [OTHER]), f"{OTHER} is not allowed everywhere"),
    "import": (
        lambda c: import_list(c, "mc-ssh-1d", {OTHER: None}, None, "list", yes=False),
        "1 banned in mc-ssh-1d",
    ),
    "import of allowances": (
        lambda c: import_allowed(c, None, {IP: None}),
        "1 allowed everywhere; 1 ban lifted",
    ),
    "disable": (lambda c: enable(c, "mc-exim-1d", on=False), "mc-exim-1d disabled"),
    "remove": (lambda c: remove(c, "mc-exim-1d", yes=True), "mc-exim-1d removed; 1 ban lifted"),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_sql_has_is_said_when_the_kernel_fails(
    context: Context, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """One line says what went wrong and what was written all the same; the next sync does the rest."""
    ban(context, "mc-exim-1d", [IP], None, force=False, yes=False)
    sync(context)
    work, said = ASKED[asked]

    def refuse(*_: object) -> None:
        raise FirewallError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFirewall, "apply", refuse)
        patch.setattr(MemoryFirewall, "read", refuse)
        with pytest.raises(FirewallError) as caught:
            work(context)
    assert str(caught.value) == f"out of order; the database has it all the same: {said}"
    sync(context)
    gone = asked not in {"ban", "disallow", "import"}
    assert (held(context, IP), held(context, OTHER)) == (
        [] if gone else ["mc-exim-1d"],
        ["mc-ssh-1d"] if asked in {"ban", "import"} else [],
    )
