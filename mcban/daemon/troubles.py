"""What is wrong at the moment: activities that failed, rows that cannot be used, bans that the kernel refused. Each is
said once, however often it is met again, and is there for `mcban status` as long as it lasts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from mcban.firewall.base import Refusal, summarise
from mcban.service.context import Fault

log = logging.getLogger("mcban")


_COUNT = re.compile(r"(?<!\S)\d+(?!\S)")


def _uncounted(why: str) -> str:
    return _COUNT.sub("#", why)


class Troubles:
    """Troubles, faults and refusals of one engine."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}
        self._faults: list[Fault] = []
        self._told: set[str] = set()
        self._refusals: dict[Refusal, None] = {}

    def failed(self, activity: str, why: str) -> None:
        """An activity went wrong. One reason often stops several: it is said once."""
        if not self._is_said(why):
            log.error("%s", why)
        self._failed[activity] = why

    def succeeded(self, activity: str) -> None:
        """An activity went well; when nothing else fails for the reason that it had, that is over."""
        over = self._failed.pop(activity, None)
        if over is not None and not self._is_said(over):
            log.info("over: %s", over)

    def forget(self, activities: Iterable[str]) -> None:
        """These are not done any more: what failed of them is nobody's trouble."""
        for activity in activities:
            self._failed.pop(activity, None)

    def _is_said(self, why: str) -> bool:
        """Whether something fails for this reason, also where that counts a little more, or less."""
        return _uncounted(why) in map(_uncounted, self._failed.values())

    def find(self, faults: Iterable[Fault]) -> None:
        """These cannot be used, and no others."""
        self._faults = list(faults)
        for fault in self._faults:
            if str(fault) not in self._told:
                log.error("cannot be used: %s", fault)
        self._told = {str(fault) for fault in self._faults}

    def say_faults_again(self) -> None:
        """Somebody asked for a reload: what still cannot be used is said once more."""
        self._told.clear()

    def refused(self, refusals: Sequence[Refusal]) -> None:
        """The kernel did not take these."""
        for line in summarise(refusal for refusal in refusals if refusal not in self._refusals):
            log.error("not enforced: %s", line)
        self._refusals.update(dict.fromkeys(refusals))

    def forget_refusals(self, but: Iterable[Refusal]) -> None:
        """Everything was put into the kernel anew: of what it refused before, it still refuses these at the most."""
        still = set(but)
        self._refusals = {refusal: None for refusal in self._refusals if refusal in still}

    def status(self) -> dict[str, Any]:
        """For `mcban status`."""
        return {
            "troubles": sorted({_uncounted(why): why for why in self._failed.values()}.values()),
            "faults": [asdict(fault) for fault in self._faults],
            "not_enforced": [asdict(refusal) for refusal in self._refusals],
        }
