"""fail2ban's filter format: read it, compile it, match lines with it, date them. No files but the filters' own.

Which logs are read, and what a hit means for an address, is left to others.
"""

from mcban.filters.filter import Explanation, Filter, load_filter, make_filter
from mcban.filters.folders import FilterFile, list_filters
from mcban.filters.journal import for_journal, load_journal_filter
from mcban.filters.matcher import Matcher
from mcban.filters.rules import Match, Rule, Verdict
from mcban.filters.scanner import OVERLONG, LineMatch, Scanner
from mcban.filters.zones import parse_zone

__all__ = [
    "OVERLONG",
    "Explanation",
    "Filter",
    "FilterFile",
    "LineMatch",
    "Match",
    "Matcher",
    "Rule",
    "Scanner",
    "Verdict",
    "for_journal",
    "list_filters",
    "load_filter",
    "load_journal_filter",
    "make_filter",
    "parse_zone",
]
