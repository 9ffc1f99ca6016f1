# make run    an engine from this checkout, in the foreground      make demo   see it work, in half a minute
# make test   every check and test, with all that they need        make soak   the same at full length: hours
# make bench  figures, beside those of other programs, in one run
# make lint   style, types and imports only                        make clean  take away what these made
.PHONY: help run demo test compiled bench lint soak clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONDONTWRITEBYTECODE :=  # what is compiled is kept

# command:package of Debian's. Nothing here starts a service.
RUN_NEEDS := ipset:ipset iptables-restore:iptables ip6tables-restore:iptables
TEST_NEEDS := $(RUN_NEEDS) nft:nftables conntrack:conntrack ip:iproute2 mariadbd:mariadb-server-core \
	mariadb-install-db:mariadb-server-core mariadb:mariadb-client-core sqlite3:sqlite3 setpriv:util-linux \
	shellcheck:shellcheck systemd-analyze:systemd journalctl:systemd openssl:openssl unshare:util-linux mount:mount

# Installs the packages of the commands in $(1) that are missing, when root; says what to do otherwise.
define install_missing
missing=; for need in $(1); do command -v "$${need%%:*}" >/dev/null || missing="$$missing $${need#*:}"; done; \
missing=$$(printf '%s\n' $$missing | sort -u | tr '\n' ' '); \
if [ -n "$${missing% }" ] && [ "$$(id -u)" != 0 ]; then echo "missing: $$missing(apt-get install them)" >&2; \
elif [ -n "$${missing% }" ]; then echo "installing $$missing" >&2; export DEBIAN_FRONTEND=noninteractive; \
  apt-get install -qq -y --no-install-recommends $$missing >/dev/null 2>&1 || \
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null; }; fi
endef

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

# As root with ipset, otherwise with memory: only root may change the firewall. What is set already stays.
run: $(VENV)/run
	@set -e; if [ "$$(id -u)" = 0 ]; then \
	  : "$${MCBAN_FIREWALL:=ipset}" "$${MCBAN_STATE_DIR:=/var/lib/mcban}"; \
	  if [ "$$MCBAN_FIREWALL" = ipset ]; then $(call install_missing,$(RUN_NEEDS)); fi; \
	else : "$${MCBAN_FIREWALL:=memory}" "$${MCBAN_STATE_DIR:=$(CURDIR)/.state}"; fi; \
	: "$${MCBAN_CONFIG:=$(CURDIR)/etc/mcban.toml}"; export MCBAN_FIREWALL MCBAN_STATE_DIR MCBAN_CONFIG; \
	$(BIN)/mcban db upgrade; \
	echo "The firewall is $$MCBAN_FIREWALL. Ctrl-C stops the engine. In another shell:"; \
	echo "  export PATH=\"$(CURDIR)/$(BIN):\$$PATH\" MCBAN_CONFIG=\"$$MCBAN_CONFIG\"" \
	  "MCBAN_STATE_DIR=\"$$MCBAN_STATE_DIR\" MCBAN_FIREWALL=$$MCBAN_FIREWALL"; \
	echo "  mcban status"; \
	exec $(BIN)/mcban run

demo: $(VENV)/run
	@if [ "$$(id -u)" = 0 ]; then $(call install_missing,$(RUN_NEEDS) ip:iproute2); fi
	@$(BIN)/python tests/demo.py

test: $(VENV)/test
	@if [ "$$(id -u)" = 0 ]; then $(call install_missing,$(TEST_NEEDS)); fi
	@$(MAKE) --no-print-directory -j 2 lint compiled
	$(BIN)/pytest -n 4 --dist loadgroup -m "not soak"  # more than the two cores: many tests wait

# As an installation has them, since the tests start a thousand commands; and the tests, once instead of in each worker.
compiled: $(VENV)/test
	@$(BIN)/python -m compileall -q mcban
	@$(BIN)/pytest --collect-only -q >/dev/null || true  # what is wrong there is told by the tests

soak: $(VENV)/test
	@if [ "$$(id -u)" = 0 ]; then $(call install_missing,$(TEST_NEEDS)); fi
	$(BIN)/pytest -m soak --timeout 14400

bench: $(VENV)/test
	@if [ "$$(id -u)" = 0 ]; then $(call install_missing,$(TEST_NEEDS)); fi
	$(BIN)/python -m tests.bench.bench_firewall
	$(BIN)/python -m tests.bench.bench_engine
	$(BIN)/python -m tests.bench.bench_logs
	$(BIN)/python -m tests.bench.bench_follow
	$(BIN)/python -m tests.bench.bench_nodes

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The stamps say which of the two installations the environment has. An editable one runs what the checkout holds.
$(VENV)/run: pyproject.toml
	@$(call make_venv,.)

$(VENV)/test: pyproject.toml
	@$(call make_venv,.[test])
	@touch $(VENV)/run

define make_venv
set -e; $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "mcban needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }; \
if ! [ -x $(BIN)/pip ]; then rm -rf $(VENV); $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
  { rm -rf $(VENV); if [ "$$(id -u)" = 0 ]; then echo "installing python3-venv" >&2; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null; \
    $(PYTHON) -m venv $(VENV); else echo "missing: python3-venv (apt-get install it)" >&2; exit 1; fi; }; fi; \
echo "installing mcban into $(VENV)" >&2; \
$(BIN)/pip install --quiet --disable-pip-version-check -e '$(1)' 2>$(VENV)/pip.log || \
  { if grep -qF 'Retry(total=0,' $(VENV)/pip.log; then \
      echo "pip reaches no package index: no network, or a proxy that wants https_proxy? See $(VENV)/pip.log" >&2; \
    else cat $(VENV)/pip.log >&2; fi; exit 1; }; \
touch $@
endef

clean:
	rm -rf $(VENV) .state build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
