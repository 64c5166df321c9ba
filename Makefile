# `make` runs the study, `make test` the checks of minutes, `make test-all` all of them; each sets
# itself up from Python, git and make.

PYTHON ?= python3
export SHELL_PATH := $(PATH)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# What the shell sets for other Pythons stays out, PYTHONPATH and PYTHONHOME first of all.
unexport $(filter PYTHON%,$(.VARIABLES))

# On all cores, file by file.
PYTEST := pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
TESTS := -m 'not slow'

.PHONY: repro test test-all verify accept demo report docs lock repository FORCE

# As `dvc repro`, with an estimate and the time left.
repro: .venv/ready
	@python -m tools mend
	@python -m tools repro

test: repository .venv/ready
	ruff check .
	ruff format --check .
	mypy isoparam pipeline stages tools
	$(PYTEST) $(TESTS)

# All tests at once, which share the study on digits.
test-all: TESTS :=
test-all: test

# Does this machine give what is recorded? One depth trained from nothing, in minutes.
verify: repository .venv/ready
	python -m tools verify

# Record a change of the code that changes no number: a proof of minutes instead of hours of runs.
accept: repository .venv/ready
	python -m tools accept

# The study on small digits that need no network, in the folder demo/.
demo: repository .venv/ready
	@python -m tools demo

# All results on one page that needs no network, report/index.html.
report: .venv/ready
	python -m tools report

# Write the tables of README.md and docs/ anew from metrics/ and benchmarks/results/.
docs: .venv/ready
	python -m tools docs

# By the Python of the shell, not by that in .venv, which may be broken.
define setup
@PATH="$$SHELL_PATH"; command -v $(PYTHON) >/dev/null || \
	{ echo "error: there is no $(PYTHON): name a Python as in 'make PYTHON=python3.12'" >&2; exit 1; }; \
	exec $(PYTHON) -I tools/setup.py
endef

# Looks each time whether .venv is whole, and makes or mends it.
.venv/ready: FORCE
	$(setup) $(if $(filter file,$(origin PYTHON)),,--asked)

# Who copies the project needs git, which a ZIP does not have: said before gigabytes are downloaded.
repository: FORCE
	$(setup) --repository

FORCE:

# Resolve the dependencies of pyproject.toml anew.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra pipeline --extra remotes --extra test --quiet --output-file requirements.lock pyproject.toml
