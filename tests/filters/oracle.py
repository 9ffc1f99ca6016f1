"""fail2ban's own modules as a judge: run in a process of their own, asked by one JSON document a line.

`{"read": NAME, "options": {…}, "folder": …}` gives a filter's options as fail2ban resolves them, by their names.
`{"judge": {option: …}, "lines": […]}` gives for each line the failure that it completes, as rule, address and login,
or null. An exception becomes `{"error": …}`.
"""

import json
import logging
import sys
from typing import Any

NAMES = {"addfailregex": "failregex", "addignoreregex": "ignoreregex"}


def read(job: dict[str, Any]) -> dict[str, list[str]]:
    """A filter's options."""
    from fail2ban.client.filterreader import FilterReader

    reader = FilterReader(job["read"], "jail", job["options"], basedir=job["folder"])
    reader.read()
    reader.getOptions({})
    options: dict[str, list[str]] = {}
    for command in reader.convert():
        value = command[3]
        lines = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        options.setdefault(NAMES.get(command[2], command[2]), []).extend(lines.splitlines())
    return options


def judge(job: dict[str, Any]) -> list[list[Any] | None]:
    """What each line is to a filter."""
    from fail2ban.server.filter import Filter

    one = Filter(None)
    one.returnRawHost, one.checkFindTime, one.active = True, False, True
    one.prefRegex = job["judge"]["prefregex"]
    for rule in job["judge"]["failregex"]:
        one.addFailRegex(rule)
    for rule in job["judge"]["ignoreregex"]:
        one.addIgnoreRegex(rule)
    one.setDatePattern("{^LN-BEG}")
    found: list[list[Any] | None] = []
    for line in job["lines"]:
        hits = [hit for hit in one.processLine(line) if hit[1] is not None and not hit[3].get("nofail")]
        found.append([hits[0][0] + 1, str(hits[0][1]), hits[0][3].get("user") or None] if hits else None)
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer: Any = read(job) if "read" in job else judge(job)
        except Exception as error:  # noqa: BLE001  # told to who asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
