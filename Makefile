# The words of this repository. Each sets up .venv first (scripts/setup.sh); a second time that costs nothing.
# ARGS="…" is handed on to the command behind a word: make run ARGS="--port 4242", make test ARGS="-k receipt".

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
ARGS ?=
FUZZ_SECONDS ?= 60
# Not from the environment: shells count seconds under this name.
SECONDS := 7200

.DEFAULT_GOAL := help
.PHONY: help run test test-peers check check-types check-tests bench soak fuzz format clean peers
export PYTHON

# A virtual environment knows its own path, so one that was moved, copied or lost its Python is made anew.
ifneq ($(shell test -x $(PY) && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

help:
	@echo "make run      serve in the foreground with the archive in ./archive; Ctrl-C ends it"
	@echo "make test     every test (PEERS=1 installs DCMTK, Orthanc and other peers of the interop tests first)"
	@echo "make test-peers   every command line of the table through DCMTK's storescp and dcmrecv and through ours"
	@echo "make check    format, lint, types, import contracts and the fast tests"
	@echo "make bench    compare with other receivers, side by side (docs/benchmarks.md)"
	@echo "make soak     mixed load on a real server for SECONDS=$(SECONDS), with kills; nothing may be lost or grow"
	@echo "make fuzz     each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)"
	@echo "make format   let ruff format the code and mend what it can"
	@echo "make clean    remove .venv, caches and what was built; archives stay"

$(READY): pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh $(VENV)

# exec: the server gets the signals of the terminal and of whoever stops make, and ends in its own order.
run: $(READY)
	@exec $(PY) -m stowkeeper serve $(ARGS)

test: $(READY) peers
	$(PY) -m pytest -n auto --dist worksteal $(ARGS)

test-peers: $(READY) peers
	DIFFERENTIAL=all $(PY) -m pytest -n auto --dist worksteal tests/dcmtk/test_dcmtk_differential.py \
	  tests/dcmtk/test_dcmtk_differential_planted.py $(ARGS)

# mypy works on one processor and takes as long as a fifth of the tests: it runs beside them.
check: $(READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(VENV)/bin/lint-imports
	@$(MAKE) --no-print-directory -j 2 check-types check-tests

check-types: $(READY)
	$(PY) -m mypy

check-tests: $(READY)
	$(PY) -m pytest -n auto --dist worksteal -m "not slow" --hypothesis-profile quick $(ARGS)

bench: $(READY)
	$(PY) bench/run.py $(ARGS)

soak: $(READY)
	$(PY) bench/soak.py --seconds $(SECONDS) $(ARGS)

fuzz: $(READY)
	@$(PY) -c "import atheris" 2>/dev/null || $(PY) -m pip install --quiet --only-binary :all: atheris \
	  || echo "No atheris for this Python: the built-in mutation loop takes its place."
	$(PY) fuzz/run.py --seconds $(FUZZ_SECONDS) $(ARGS)

format: $(READY)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

peers:
	@sh scripts/peers.sh

clean:
	rm -rf $(VENV) build dist bench/sets bench/results .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
