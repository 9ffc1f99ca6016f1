"""A firewall that decides and records but touches no kernel: for a look around without root, and for tests."""

from __future__ import annotations

from collections.abc import Collection

from mcban.core.address import is_ipv6
from mcban.core.model import FOREVER
from mcban.core.plan import Actual, Plan, Rule, timeout
from mcban.firewall.base import Glance, Refusal, Turnover


class MemoryFirewall:
    """Keeps what a kernel would hold in dicts, which are gone with it. Entries do not end by themselves here:
    a plan made after their end takes them out.

    `longest` is a parameter so that tests can have a kernel's limit, and `maxelem` so that they can have a full set.
    """

    name = "memory"
    enforces = False

    def __init__(self, longest: int = FOREVER, maxelem: int | None = None) -> None:
        self.longest = longest
        self.maxelem = maxelem
        self.entries: dict[str, dict[str, int]] = {}
        self.rules: dict[str, Rule] = {}
        self._told: dict[str, set[str]] = {}

    def stands(self) -> bool:
        """Whether there is a rule."""
        return bool(self.rules)

    def read(self, jails: Collection[str]) -> Actual:
        """Everything that was applied; `jails` makes no difference."""
        return Actual(
            rules=dict(self.rules),
            entries={jail: dict(ends) for jail, ends in self.entries.items()},
        )

    def glance(self, jails: Collection[str]) -> Glance:
        """Nobody else can change what is here."""
        return Glance(True, {jail: len(ends) for jail, ends in self.entries.items()})

    def turnover(self, jail: str) -> Turnover | None:
        """What was applied since."""
        held, told = set(self.entries.get(jail, ())), self._told.get(jail, set())
        self._told[jail] = held
        return Turnover(held - told, told - held) if jail in self.entries else None

    def apply(self, plan: Plan, now: int) -> list[Refusal]:
        """Carry the plan out. Refuses an entry only when `maxelem` is set and reached."""
        refused: list[Refusal] = []
        for jail in plan.create:
            self.entries.setdefault(jail, {})
        for jail, ends in plan.add.items():
            held = self.entries.setdefault(jail, {})
            for entry, end in ends.items():
                if entry not in held and self._full(held, is_ipv6(entry)):
                    refused.append(Refusal(jail, entry, f"the set is full (maxelem {self.maxelem})"))
                    continue
                left = timeout(end, now, self.longest)
                held[entry] = now + left if left else FOREVER
        self.rules.update(plan.rules)
        for group in plan.drop_rules:
            self.rules.pop(group, None)
        for jail, gone in plan.remove.items():
            held = self.entries.get(jail, {})
            for entry in gone:
                held.pop(entry, None)
        for jail in plan.drop:
            self.entries.pop(jail, None)
        return refused

    def _full(self, held: dict[str, int], six: bool) -> bool:
        """Whether a jail's set of one family has no room."""
        if self.maxelem is None or len(held) < self.maxelem:
            return False
        return sum(is_ipv6(entry) == six for entry in held) >= self.maxelem

    def remove(self, jails: Collection[str]) -> None:
        """Forget everything."""
        self.entries.clear()
        self.rules.clear()
        self._told.clear()

    def close(self) -> None:
        """Nothing to give back."""
