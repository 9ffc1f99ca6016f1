"""mcban against Debian's fail2ban package: its filters load, and its sample lines are judged as fail2ban judges them.

The package is fetched and unpacked, never installed; `FAIL2BAN_ROOT` names one that is unpacked already.
"""

import shutil
from collections import Counter
from datetime import UTC
from pathlib import Path

import pytest

from mcban.filters import Filter, LineMatch, Scanner, load_filter
from tests.fail2ban_package import FILTERS, MODULES, SAMPLES
from tests.filters.agreement import Reading, read_samples
from tests.filters.blocks import FINDERS, MakeFinder, in_blocks, one_by_one

NOW = 1_795_352_400  # 2026-11-22 13:00:00 UTC
KNOWN: dict[tuple[str, str], str] = {}
"""Where mcban differs, by filter with its parameters and by file and line of the sample, with the reason."""
FRAGMENTS = {"apache-common", "botsearch-common", "common", "exim-common", "selinux-common"}
"""Files that other filters include, and no filters by themselves."""


@pytest.fixture(scope="session")
def folders(package: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The package's filters, and those which fail2ban keeps for its own tests: they expect its source tree around."""
    tree = tmp_path_factory.mktemp("source")
    (tree / "config").symlink_to((package / FILTERS).parent)
    of_tests = tree / "a/b/c/d/e/f/filter.d"  # they include ../../../../../../../config/filter.d/common.conf
    shutil.copytree(package / MODULES / "tests/config/filter.d", of_tests)
    return [package / FILTERS, of_tests]


def names(folders: list[Path]) -> list[str]:
    """The filters that have samples or are meant to have: fail2ban's tests name theirs zzz-."""
    usual = {path.stem for path in folders[0].glob("*.conf")}
    return sorted(usual - FRAGMENTS | {path.stem for path in folders[1].glob("zzz-*.conf")})


def test_every_filter_of_the_package_loads(folders: list[Path]) -> None:
    """Whatever filter Debian's package brings can stand in a jail's row, unchanged."""
    loaded = [load_filter(name, folders) for name in names(folders)]
    assert len(loaded) > 80
    assert all(one.rules for one in loaded)


def test_every_sample_is_judged_as_by_fail2ban(
    package: Path, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines that should match do, with the right address, time and login; the others do not."""
    counts: Counter[str] = Counter()
    differences = {}
    for name in names(folders):
        if not (package / SAMPLES / name).is_file():
            counts["filters without samples"] += 1
            continue
        reading = Reading(name, folders)
        for sample in read_samples(name, package / SAMPLES):
            difference = reading.difference(sample)
            if difference:
                differences[name + sample.spec, sample.where] = difference
            counts["other" if difference else "match" if sample.expected.get("match") else "no match"] += 1
        counts["name"] += reading.names
    agreed = counts["match"] + counts["no match"]
    with capsys.disabled():
        print(
            f"\nfail2ban's samples: {agreed} of {agreed + counts['other']} agree "
            f"({counts['match']} that match, {counts['name']} of them by a host name; {counts['no match']} that do not)"
        )
        for (spec, where), difference in differences.items():
            print(f"  {spec} {where}: {difference} ({KNOWN.get((spec, where), 'NEW')})")
    assert agreed > 1_500
    assert set(differences) == set(KNOWN), "a disagreement is new, or one that is listed is gone"


Judged = tuple[list[Filter], list[bytes], list[LineMatch]]


@pytest.fixture(scope="module")
def judged(package: Path, folders: list[Path]) -> Judged:
    """Debian's filters, blocks of the lines of all sample logs, and what each filter finds in each line."""
    filters = [load_filter(name, folders) for name in names(folders)]
    logs = [path for path in sorted((package / SAMPLES).rglob("*")) if path.is_file()]
    lines = [line for log in logs for line in log.read_bytes().split(b"\n") if line and not line.startswith(b"#")]
    lines = [line + b"\r" if number % 7 == 0 else line for number, line in enumerate(lines)]
    blocks = [b"".join(line + b"\n" for line in lines[start : start + 400]) for start in range(0, len(lines), 400)]
    return filters, blocks, one_by_one(filters, lines, NOW, UTC)


@pytest.mark.xdist_group("judged")  # all that is judged once
@pytest.mark.parametrize("finder", FINDERS)
def test_all_of_debian_s_filters_find_in_a_log_what_each_finds_in_its_lines(judged: Judged, finder: MakeFinder) -> None:
    """Over all sample logs of Debian's fail2ban together, its filters find in blocks what they find line by line."""
    filters, blocks, expected = judged
    assert len(expected) > 800
    assert in_blocks(Scanner(filters, UTC, finder), blocks, NOW) == expected
