"""Port lists as a jail's row has them: `25,465,587`, `1000:2000`, `smtp,submission`, `all`."""

from __future__ import annotations

from collections.abc import Callable

from mcban.core.model import Ports


def parse_ports(text: str, resolve: Callable[[str], int]) -> Ports:
    """The ports in `text`, sorted and merged. `resolve` gives the number of a service's name, or raises OSError.

    Raises ValueError with one clear line.
    """
    words = text.replace(",", " ").split()
    if not words:
        raise ValueError("no port is given: write 25,465,587 or all")
    if words == ["all"]:
        return Ports(())
    ranges = sorted(_range(word, resolve) for word in words)
    merged = [ranges[0]]
    for low, high in ranges[1:]:
        if low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return Ports(tuple(merged))


def join_ports(lists: list[Ports]) -> Ports:
    """What closes the ports of all of `lists`."""
    if any(ports.everything for ports in lists):
        return Ports(())
    return parse_ports(",".join(str(ports) for ports in lists), _no_names)


def _range(word: str, resolve: Callable[[str], int]) -> tuple[int, int]:
    low_text, colon, high_text = word.replace("-", ":").partition(":") if word[:1].isdigit() else (word, "", "")
    low = _port(low_text, word, resolve)
    high = _port(high_text, word, resolve) if colon else low
    if low > high:
        raise ValueError(f"{word!r} is a range that ends before it begins")
    return low, high


def _port(text: str, word: str, resolve: Callable[[str], int]) -> int:
    if text.isascii() and text.isdigit():
        number = int(text[:9])
    else:
        try:
            number = resolve(text)
        except (OSError, ValueError):
            raise ValueError(f"{word!r} is no port: write numbers from 1 to 65535, ranges 1000:2000 or names") from None
    if not 1 <= number <= 65_535:
        raise ValueError(f"{word!r} is no port: they go from 1 to 65535")
    return number


def _no_names(name: str) -> int:
    raise ValueError(name)
