"""Filters in fail2ban's own format: read, compiled, matched."""
