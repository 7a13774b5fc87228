# Two commands do everything on a fresh machine (Python 3.11+, make, a C compiler):
#   make demo   the main job on real data: fetch, pack, pretrain, evaluate, report, search
#   make test   the tests
# Each sets up .venv first, from the versions in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
BENCHMARKS := $(addprefix benchmarks/,step.py accumulate.py locked.py loss_memory.py input.py retrieval_memory.py zero_shot_build.py \
	scaling.py time_to_accuracy.py gpu.py help.py)
DATA_PEERS := collect_rates filter_rates
NO_PEER := curation_memory billion_pairs
ARGS ?=
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
# Compiled modules are kept, also where the environment says otherwise: tests start some hundred processes.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

.PHONY: demo test test-slow check format clean help bench bench-data

help:
	@echo "make demo       pretrain a CLIP on emoji by three artists, test it on a fourth, write a report (minutes)"
	@echo "make test       the tests (minutes)"
	@echo "make test-slow  the long tier: kills and resumes, ten thousand records, every corpus that can be fetched"
	@echo "make bench      set up the peer of the benchmarks; then make bench-step, bench-loss_memory, bench-help, ..."
	@echo "make bench-data  set up the peers of the data engine; then make bench-collect_rates, bench-filter_rates"
	@echo "make check      formatting, lint, types, and the floors of the house"

.venv/python.stamp:
	@echo "== Setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "Diptych needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1)
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/demo.stamp: .venv/python.stamp pyproject.toml constraints.txt
	@echo "== Installing diptych and what it needs (torch is the large one: a minute or two)"
	@$(PIP) -e '.[demo]'
	@touch $@

.venv/test.stamp: .venv/python.stamp pyproject.toml constraints.txt
	@echo "== Installing diptych, the test tools, and the peers it is compared with (a few minutes)"
	@$(PIP) -e '.[test]'
	@$(PIP) --no-deps torchscale DALL-E  # they ask for packages that what is compared here does not need
	@touch $@ .venv/demo.stamp

demo: .venv/demo.stamp
	@echo "== 1/5  The emoji corpus: ~1.85 k concepts, each drawn by four artists (three to train on, one held out)"
	@$(BIN)/diptych corpus get emoji --out $(DEMO)/emoji
	@echo "== 2/5  Pretraining a CLIP from scratch"
	@rm -rf $(DEMO)/run
	@$(BIN)/diptych pretrain clip:tiny data=$(DEMO)/emoji --run $(DEMO)/run
	@echo "== 3/5  Retrieval on the pictures of the artist whom it has never seen"
	@$(BIN)/diptych eval $(DEMO)/run --data $(DEMO)/emoji --split test --task retrieval
	@echo "== 4/5  The report"
	@$(BIN)/diptych report $(DEMO)/run
	@echo "== 5/5  A search"
	@$(BIN)/diptych search $(DEMO)/run --data $(DEMO)/emoji --split test "a red fruit" --save $(DEMO)/search
	@echo
	@echo "The report:  $(DEMO)/run/report.html"
	@echo "Search on:   $(BIN)/diptych search $(DEMO)/run --data $(DEMO)/emoji --split test \"a sad face\""

test: .venv/test.stamp
	@echo "== The tests"
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests

test-slow: .venv/test.stamp
	@echo "== The long tier"
	@$(BIN)/python -m pytest -n 2 -m slow --timeout 1500 tests

# The peer is kept apart, with the versions that it asks for itself; only torch is the same build as ours.
.venv-bench/bench.stamp: .venv/demo.stamp benchmarks/requirements.txt constraints.txt
	@echo "== Setting up .venv-bench: open_clip with what its trainer needs (a few minutes)"
	@$(PYTHON) -m venv .venv-bench
	@grep -v '^webdataset==' constraints.txt > .venv-bench/constraints.txt
	@PIP_CONSTRAINT=$(CURDIR)/.venv-bench/constraints.txt .venv-bench/bin/python -m pip \
		--disable-pip-version-check install -qq -r benchmarks/requirements.txt
	@touch $@

bench: .venv-bench/bench.stamp
	@echo "Ready. Each benchmark is a command, best run alone on the machine: $(patsubst benchmarks/%.py,%,$(BENCHMARKS))"
	@echo "For example: make bench-step, or with options: $(BIN)/python -m benchmarks.step --help"

bench-%: .venv-bench/bench.stamp
	@$(BIN)/python -m benchmarks.$* $(ARGS)

# The peers of the data engine: packages that fit neither ours nor open_clip's.
.venv-data/bench.stamp: .venv/demo.stamp benchmarks/requirements-data.txt
	@echo "== Setting up .venv-data: img2dataset, cleanvision, data-juicer (a few minutes; Python 3.11 or 3.12)"
	@$(PYTHON) -m venv .venv-data
	@PIP_CONSTRAINT= .venv-data/bin/python -m pip --disable-pip-version-check install -qq -r benchmarks/requirements-data.txt
	@touch $@

bench-data: .venv-data/bench.stamp
	@echo "Ready: $(DATA_PEERS) (with peers), $(NO_PEER) (without). For example: make bench-collect_rates"

$(addprefix bench-,$(DATA_PEERS)): bench-%: .venv-data/bench.stamp
	@$(BIN)/python -m benchmarks.$* $(ARGS)

$(addprefix bench-,$(NO_PEER)): bench-%: .venv/demo.stamp
	@$(BIN)/python -m benchmarks.$* $(ARGS)

check: .venv/test.stamp
	@echo "== Formatting, lint, types, floors"
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/test.stamp
	@$(BIN)/ruff format src tests benchmarks
	@$(BIN)/ruff check --fix src tests benchmarks

clean:
	rm -rf .venv .venv-bench .venv-data $(DEMO) build dist src/*.egg-info
