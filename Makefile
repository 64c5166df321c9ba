# `make` runs the study, `make test` the checks of minutes, `make test-all` all of them; each sets
# itself up from Python, git and make.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test test-all verify accept demo report docs lock

repro: .venv/ready
	python -m tools mend
	dvc repro

test: .venv/ready
	ruff check .
	ruff format --check .
	mypy isoparam pipeline stages tools
	pytest -m 'not slow'

test-all: test
	pytest -m slow

# Does this machine give what is recorded? One depth trained from nothing, in minutes.
verify: .venv/ready
	python -m tools verify

# Record a change of the code that changes no number: a proof of minutes instead of hours of runs.
accept: .venv/ready
	python -m tools accept

# The study on small digits that need no network, in the folder demo/.
demo: .venv/ready
	python -m tools demo

# All results on one page that needs no network, report/index.html.
report: .venv/ready
	python -m tools report

# Write the tables of README.md and docs/ anew from metrics/ and benchmarks/results/.
docs: .venv/ready
	python -m tools docs

# Compiled bytecode saves seconds at each stage. The pages of `dvc plots` then need no network. An
# interrupted set-up leaves no `ready`.
.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: isoparam needs Python 3.11 or later; name one as in 'make PYTHON=python3.12'" >&2; exit 1; }
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
		uv pip sync --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --require-hashes -r requirements.lock; \
	fi
	@$(BIN)/python -m tools plots-page
	@touch $@

# Resolve the dependencies of pyproject.toml anew.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra pipeline --extra remotes --extra test --quiet --output-file requirements.lock pyproject.toml
