"""The rules, without I/O: standard library only; no clock, file, socket, SQL or logging; `now` is an argument."""
