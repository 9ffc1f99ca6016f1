"""From a filter's name to its options as text: INI files, includes, interpolation.

Knows nothing of regular expressions: `compile.py` makes them from what is read here.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcban.errors import FilterError, printable
from mcban.filters.folders import NAME, find_hidden, find_layers, is_file, kind_of

DEEPEST_INCLUDE = 10
MOST_SUBSTITUTIONS = 5_000
LONGEST_VALUE = 1 << 20
_INTERPOLATION = re.compile(r"%(?:%|\(([^()]+)\)s|)")
_KNOWN = re.compile(r"%\(known/([^()]+)\)s|<known/([\w.-]+)>", re.IGNORECASE)
_TAG = re.compile(r"(?<!\?P)<(\w[\w.-]*(?:/[\w.-]+)?(?:\?[\w.=-]+)?)>")
_TAG_HEAD = re.compile(r"<(\w[\w./-]*)\Z")
_OF_FORMAT = re.compile(r"HOST|ADDR|IP[46]|CIDR|DNS|SUBNET|SKIPLINES|F-[A-Z0-9_]+")
"""Tags that mean something by themselves, whatever a filter's options are called."""
_SECTIONS = {name.lower(): name for name in ("INCLUDES", "DEFAULT", "Definition", "Init")}
_TAG_TAIL = re.compile(r"([\w./-]*)>")
_WORD = re.compile(r"[\w.-]*")
_PARAMETER = re.compile(r"""\s*([\w.-]+)\s*=\s*+(?:"([^"]*)"|'([^']*)'|((?!["'])[^,\]]*?))\s*(?:,\s*|\]\s*\[|$)""")

Sections = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Definition:
    """A filter's options after includes and overrides, where each value came from, and all files that were read."""

    name: str
    path: Path
    options: Mapping[str, str]
    origins: Mapping[str, Path]
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    hides: Path | None = None
    """The file of another folder that this one, without a NAME.conf, may have been meant to extend."""


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """The name and the parameters of `NAME` or `NAME[key=value, key="value"]`; raises FilterError."""
    name, bracket, rest = spec.strip().partition("[")
    name = name.strip()
    if not NAME.fullmatch(name):
        raise FilterError(f"'{printable(spec)}' is not the name of a filter: letters, digits, `_`, `.` and `-` only")
    parameters: dict[str, str] = {}
    if bracket:
        if not rest.endswith("]"):
            raise FilterError(f"filter '{printable(spec)}': the parameters do not end with `]`")
        body, position = rest[:-1].strip(), 0
        while position < len(body):
            found = _PARAMETER.match(body, position)
            if not found:
                raise FilterError(f"filter '{printable(spec)}': expected `key=value` at '{printable(body[position:])}'")
            # Blanks and line ends around a value are none of it, quoted or not, as in fail2ban.
            parameters[found[1].lower()] = next((v for v in found.group(2, 3, 4) if v is not None), "").strip()
            position = found.end()
    return name, parameters


def read_definition(spec: str, folders: Sequence[Path]) -> Definition:
    """The options of a filter as a jail's row names it; raises FilterError."""
    name, parameters = parse_spec(spec)
    layers = find_layers(name, folders)
    sections: Sections = {}
    origins: dict[str, Path] = {}
    merged: set[Path] = set()
    remarks: list[str] = []
    for path in layers:
        if path not in merged:
            merged |= _merge_file(name, path, sections, origins, remarks, ())
    files = (*layers, *sorted(merged.difference(layers)))
    warnings = tuple(f"filter {name}: {remark}" for remark in dict.fromkeys(remarks))
    try:
        options = _resolve(name, layers[0], sections, parameters)
    except FilterError as error:
        if not remarks:
            raise
        raise FilterError(f"{error}; {remarks[0]}") from None
    return Definition(name, layers[0], options, origins, files, warnings, find_hidden(name, layers[0], folders))


def _merge_file(
    name: str,
    path: Path,
    sections: Sections,
    origins: dict[str, Path],
    remarks: list[str],
    above: tuple[Path, ...],
) -> set[Path]:
    """Add a file's sections to `sections`, those of its includes before and after it; all files that were read.

    `remarks` takes, in words, what is passed over: includes that do not exist, which filters that were brought along
    may well name, since fail2ban passes over them; what stands twice; sections that nobody reads. `above` are the
    files that led here, each of which includes the next: an include of one of them is passed over, as fail2ban does.
    """
    if len(above) > DEEPEST_INCLUDE:
        raise FilterError(f"filter {name}: {printable(str(above[0]))}: includes go in circles")
    try:
        parser = _parse(path, remarks)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, UnicodeDecodeError):
            said = f"byte {error.start + 1} is no UTF-8: convert it with iconv"
        why = printable(" ".join(said.split()), 200)
        raise kind_of(error)(f"filter {name}: {printable(str(path))} cannot be read: {why}") from error
    includes = {key: value.split() for key, value in parser["INCLUDES"].items()} if "INCLUDES" in parser else {}
    merged = {path}
    chain = (*above, path)
    for include in includes.get("before", ()):
        merged |= _merge_include(name, chain, include, sections, origins, remarks)
    for section in parser.sections():
        if section == "INCLUDES":
            continue
        meant = _SECTIONS.get(section.lower(), section)
        if section != meant:
            remarks.append(f"{printable(str(path))}: nobody reads [{printable(section)}]: write [{meant}]")
        target = sections.setdefault(section, {})
        known = dict(target)

        def recall(found: re.Match[str], known: Mapping[str, str] = known) -> str:
            return known.get((found[1] or found[2]).lower(), found[0])

        for key, value in parser[section].items():
            # What files before this one said is put in now: each layer may extend the one before it.
            target[key] = _KNOWN.sub(recall, value)
            if section == "Definition" or key not in origins:
                origins[key] = path
    for include in includes.get("after", ()):
        merged |= _merge_include(name, chain, include, sections, origins, remarks)
    return merged


def _parse(path: Path, remarks: list[str]) -> configparser.RawConfigParser:
    """A file's sections. fail2ban refuses one with something twice; here the last counts, and `remarks` says so."""
    text = path.read_text("utf-8-sig")
    for strict in (True, False):
        parser = configparser.RawConfigParser(
            inline_comment_prefixes=(";",), strict=strict, default_section="\0none", interpolation=None
        )
        try:
            parser.read_string(text, str(path))
            break
        except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
            option = getattr(error, "option", None)
            what = f"{option} in [{error.section}]" if option else f"[{error.section}]"
            effect = "only the last counts" if option else "they count as one"
            remarks.append(f"{printable(str(path))}: line {error.lineno} has {printable(what)} once more: {effect}")
    return parser


def _merge_include(
    name: str,
    chain: tuple[Path, ...],
    include: str,
    sections: Sections,
    origins: dict[str, Path],
    remarks: list[str],
) -> set[Path]:
    path = chain[-1]
    base = path.parent / include
    if base in chain:
        return set()
    layers = [base] if base.suffix == ".local" else [base, base.with_suffix(".local")]
    if base.suffix != ".local" and not any(is_file(name, layer, path) for layer in layers):
        remarks.append(
            f"{printable(str(path))} includes {printable(include)}, which does not exist; "
            "it is passed over, as fail2ban does"
        )
        return set()
    merged: set[Path] = set()
    for layer in layers:
        # A file may name its own .local as what comes after it, and a .local its .conf as what comes before.
        if layer not in merged and layer not in chain and is_file(name, layer, path):
            merged |= _merge_file(name, layer, sections, origins, remarks, chain)
    return merged


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: its section, and the section, if it is no usual one, in which names are looked up first."""

    section: str = ""
    context: str = ""


_LAYERS = ("", "Init", "Definition", "DEFAULT")
"""Where options are looked up, in this order; the first stands for the parameters."""
_OF_FILES = ("", "Definition", "DEFAULT", "Init")
"""Where `%(name)s` in [Definition] is looked up: there before [Init], which is for what parameters may replace."""


class _Resolver:
    """Looks options up, by default in the order of _LAYERS, and fills in `%(name)s` and `<name>`."""

    def __init__(self, name: str, path: Path, sections: Sections, parameters: Mapping[str, str]) -> None:
        self.name, self.path = name, path
        # A parameter is text, but for `%(known/name)s`, by which it extends what it replaces.
        given = {key: re.sub(r"%(?!\(known/)", "%%", value) for key, value in parameters.items()}
        self.sections = {**sections, "": given}
        self.steps = 0

    def find(self, key: str, at: _Place) -> tuple[str, _Place] | None:
        """An option's text before interpolation as the value at `at` sees it, and where that stands."""
        if key == "__name__":
            # What stands in [DEFAULT] belongs to whichever section asks for it.
            section = "Definition" if at.section in {"", "DEFAULT"} else at.section
            return section.replace("%", "%%"), at
        layers = (at.context, *_LAYERS) if at.context else _LAYERS
        section, slash, option = key.rpartition("/")
        if not slash:
            is_of_files = at.section in {"Definition", "DEFAULT"} and not at.context
            return self._search(key, _OF_FILES if is_of_files else layers, at.context)
        if section.lower() == "known":
            below = layers[layers.index(at.section) + 1 :] if at.section in layers else layers
            others = [layer for layer in layers if layer != at.section and layer not in below]
            return self._search(option, (*below, *others), at.context) or ("", at)
        for real in self.sections:
            if real and real.lower() == section.lower():
                return self._search(option, (real, "DEFAULT"), real)
        return None

    def _search(self, key: str, layers: Iterable[str], context: str) -> tuple[str, _Place] | None:
        for layer in layers:
            value = self.sections.get(layer, {}).get(key)
            if value is not None:
                return value, _Place(layer, context)
        return None

    def find_conditional(self, key: str) -> tuple[str, _Place] | None:
        """What `<name?condition>` stands for: the option of `[Init?condition]`, else the option without one."""
        name, _, condition = key.partition("?")
        if condition:
            places = [f"{layer}?{condition}" for layer in ("Init", "Definition")]
            if found := self._search(
                name, (real for real in self.sections if real.lower() in map(str.lower, places)), ""
            ):
                return found
        found = self.find(name, _Place())
        # `%(known/name)s` of nothing is nothing; a tag of nothing is refused, as others are.
        return None if name.startswith("known/") and found == ("", _Place()) else found

    def who_defines(self, key: str) -> str:
        """For a message: which file beside the filter has an option that the filter lacks, or how else to give it."""
        definition = re.compile(rf"{re.escape(key)}\s*[=:]", re.IGNORECASE)
        for path in sorted(self.path.parent.glob("*common.conf"), key=lambda one: (one.name != "common.conf", one)):
            try:
                lines = path.read_text("utf-8", "replace").splitlines()
            except OSError:
                continue
            if any(map(definition.match, lines)):
                return f": put `before = {printable(path.name)}`, which defines it, under [INCLUDES]"
        return f": define it under [Definition], or write {self.name}[{printable(key)}=…]" if "/" not in key else ""

    def fail(self, what: str) -> FilterError:
        return FilterError(f"filter {self.name}: {printable(str(self.path))}: {what}")

    def count(self, text: str) -> None:
        self.steps += 1
        if self.steps > MOST_SUBSTITUTIONS or len(text) > LONGEST_VALUE:
            raise self.fail("its options refer to one another in circles")

    def interpolate(self, text: str, at: _Place, depth: int = 0) -> str:
        """`text`, which stands at `at`, with `%(name)s` and `%%` filled in."""
        self.count(text)
        if depth > DEEPEST_INCLUDE * 2:
            raise self.fail("its options refer to one another in circles")

        def fill(found: re.Match[str]) -> str:
            if found[0] == "%%":
                return "%"
            if found[1] is None:
                raise self.fail(f"a lone % near '{printable(text[found.start() : found.start() + 20])}': write %%")
            value = self.find(found[1].lower(), at)
            if value is None:
                raise self.fail(f"%({printable(found[1])})s is defined nowhere{self.who_defines(found[1].lower())}")
            return self.interpolate(*value, depth + 1)

        return _INTERPOLATION.sub(fill, text)

    def substitute(self, text: str) -> str:
        """`text` with every `<name>` that names an option filled in, the innermost first."""
        while True:
            for found in _TAG.finditer(text):
                value = None if _OF_FORMAT.fullmatch(found[1]) else self.find_conditional(found[1].lower())
                if value is not None:
                    before, filled, after = text[: found.start()], self.interpolate(*value), text[found.end() :]
                    self._check_choice(before, found[0], filled, after)
                    text = before + filled + after
                    self.count(text)
                    break
            else:
                return text

    def _check_choice(self, before: str, tag: str, filled: str, after: str) -> None:
        """Refuse a value that chooses what does not exist: `<rules-<mode>>` with a mode that the filter lacks."""
        head, tail = _TAG_HEAD.search(before), _TAG_TAIL.match(after)
        if head and tail and _WORD.fullmatch(filled):
            chosen = f"{head[1]}{filled}{tail[1]}"
            if self.find_conditional(chosen.lower()) is None:
                raise self.fail(
                    f"has no option {printable(chosen)}, which <{printable(head[1] + tag + tail[1])}> asks for; "
                    f"is {tag[1:-1]} = {printable(filled)} right?"
                )


def _resolve(name: str, path: Path, sections: Sections, parameters: Mapping[str, str]) -> dict[str, str]:
    resolver = _Resolver(name, path, sections, parameters)
    if "Definition" not in sections and "failregex" not in parameters:
        raise resolver.fail("has no [Definition], where its failregex belongs")

    def read(keys: Iterable[str]) -> dict[str, str]:
        options = {}
        for key in keys:
            value = resolver.find(key, _Place())
            if value is not None:
                options[key] = resolver.substitute(resolver.interpolate(*value)).strip()
        return options

    return read(("failregex", "ignoreregex", "prefregex", "datepattern", "maxlines", "journalmatch", "successregex"))
