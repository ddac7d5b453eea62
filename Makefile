# `make run` shows the database, `make test` checks it, `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
# Everything is built in one profile, so that the query engine is compiled once.
CARGO_TARGET_DIR ?= $(ROOT)/target
export CARGO_TARGET_DIR
# luarocks names a compiler on the command line; C parts of crates would be built again for each spelling of it.
unexport CC CFLAGS LIBFLAG
MAKEOVERRIDES :=
RELEASE := $(CARGO_TARGET_DIR)/release
BUILD := $(ROOT)/build
VENV := $(BUILD)/venv
PYTHON := $(VENV)/bin/python

# Processes that the cluster tests run side by side.
TEST_JOBS ?= 2
# More words for pytest, such as TEST='-k restart'.
TEST ?=

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LUADIR ?= $(PREFIX)/share/lua/5.1
LIBDIR ?= $(PREFIX)/lib/lua/5.1
LUA_FILES := $(notdir $(wildcard $(ROOT)/lua/picodata/*.lua))

export LUA_PATH := $(ROOT)/lua/?.lua;;
export LUA_CPATH := $(BUILD)/?.so;;

.PHONY: help deps deps-tests build install env run stop test test-unit test-cluster sim differential conformance \
	verify fix bench tpch chaos fuzz clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(ROOT)/Makefile | expand -t 22

deps: ## install what the build lacks: Debian packages (as root), a Python environment
	@$(ROOT)/.ci/deps $(VENV)

deps-tests: ## the same for the tests, which compare with PostgreSQL and install with luarocks
	@$(ROOT)/.ci/deps $(VENV) tests

build: deps ## build the module into build/
	cd $(ROOT) && cargo build --release --workspace --lib
	@mkdir -p $(BUILD)/picodata $(BUILD)/floor/picodata
	@place() { cmp -s $$1 $$2 || ln -f $$1 $$2 2>/dev/null || install -m 755 $$1 $$2; }; \
	place $(RELEASE)/libpicodata_core.so $(BUILD)/picodata/core.so; \
	for door in picodata.so picodata/crud.so picodata/peer.so; do \
		place $(RELEASE)/libpicodata_doors.so $(BUILD)/$$door; \
	done; \
	place $(RELEASE)/libpicodata_floor.so $(BUILD)/floor/picodata/core.so; \
	place $(RELEASE)/libpicodata_doors.so $(BUILD)/floor/picodata/peer.so

install: ## install what `make build` made below PREFIX (/usr/local)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LUADIR)/picodata $(DESTDIR)$(LIBDIR)/picodata
	install -m 755 $(ROOT)/lua/bin/picodata $(DESTDIR)$(BINDIR)/picodata
	cd $(ROOT)/lua/picodata && install -m 644 $(LUA_FILES) $(DESTDIR)$(LUADIR)/picodata
	install -m 755 $(BUILD)/picodata.so $(DESTDIR)$(LIBDIR)
	cd $(BUILD)/picodata && install -m 755 core.so crud.so peer.so $(DESTDIR)$(LIBDIR)/picodata

env: ## for eval "$(make -s env)": paths that let any tarantool find the build
	@echo "export LUA_PATH='$(LUA_PATH)'"
	@echo "export LUA_CPATH='$(LUA_CPATH)'"
	@echo "export PATH='$(ROOT)/lua/bin':\"\$$PATH\""

run: build ## start four instances, load the demo data, run queries, open an SQL prompt
	@cd $(ROOT) && PYTHON=$(PYTHON) lua/bin/picodata demo start

stop: ## end what `make run` started
	@cd $(ROOT) && lua/bin/picodata demo stop

test: deps-tests build ## all tests
	@status=0; $(MAKE) -s test-unit || status=1; $(MAKE) -s test-cluster || status=1; exit $$status

test-unit: ## the tests of the crates
	cd $(ROOT) && cargo test --release --workspace --no-fail-fast

test-cluster: ## the tests on real processes; needs `make build`
	cd $(ROOT)/test/cluster && $(PYTHON) -m pytest -n $(TEST_JOBS) $(TEST)

# Seeds of `make sim`.
SEEDS ?= 10000
sim: ## simulated clusters under SEEDS=10000 seeds; SIM_SEED=4711 SEEDS=1 runs one again
	cd $(ROOT) && SIM_SEEDS=$(SEEDS) cargo test --release --package picodata-sim --test seeds --test cluster -- --nocapture

# Queries of `make differential`, and a seed to ask the same again.
QUERIES ?= 100000
SEED ?=
differential: deps-tests ## random queries to clusters in memory and to PostgreSQL; QUERIES=100000 SEED=...
	cd $(ROOT) && cargo build --release --package picodata-sql --example memory_cluster
	cd $(ROOT)/test/differential && $(PYTHON) run.py --memory $(RELEASE)/examples/memory_cluster \
		--queries $(QUERIES) $(if $(SEED),--seed $(SEED))

conformance: deps ## write docs/conformance.md from the SQL tests
	cd $(ROOT)/test/cluster && $(PYTHON) -m conformance

verify: build ## format, lints, style and symbols; changes nothing
	cd $(ROOT) && cargo fmt --all --check
	cd $(ROOT)/test && $(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .
	cd $(ROOT) && cargo clippy --release --workspace --all-targets -- -D warnings
	cd $(ROOT) && cargo test --release --package picodata-tidy
	cd $(ROOT)/test/cluster && $(PYTHON) -m pytest test_module_loads.py test_conformance.py

fix: ## format, and apply the lints that can be applied
	cd $(ROOT) && cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
	cd $(ROOT) && cargo fmt --all
	cd $(ROOT)/test && $(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

bench: build ## measure, and write build/bench.md
	cd $(ROOT) && cargo build --release --workspace --bins
	cd $(ROOT)/test/cluster && $(PYTHON) -m bench --out $(BUILD)/bench.md

# The scale of `make tpch`: 1 is six million lines of orders.
SF ?= 1
tpch: build deps-tests ## time TPC-H beside PostgreSQL and DuckDB at scale SF=1, and write build/tpch.md
	cd $(ROOT)/test/cluster && $(PYTHON) -m bench_tpch --scale $(SF) --out $(BUILD)/tpch.md

# How long `make chaos` and `make fuzz` go on.
MINUTES ?= 10
# More words for them, such as CHAOS='--seed 4711'.
CHAOS ?=
FUZZ ?=

chaos: build ## faults under load for MINUTES, judged; then how long writes take to go on after a fault
	cd $(ROOT)/test/cluster && $(PYTHON) -m chaos --minutes $(MINUTES) $(CHAOS)
	cd $(ROOT)/test/cluster && $(PYTHON) -m recovery

fuzz: build ## statements that nobody would write, for MINUTES
	cd $(ROOT)/test/cluster && $(PYTHON) -m fuzz --minutes $(MINUTES) $(FUZZ)

clean: ## remove what was built and what the demo wrote; not cargo's target folder
	rm -rf $(BUILD) $(ROOT)/.run
