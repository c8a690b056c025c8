# Everything a developer or CI runs. `make setup` leaves the command at .venv/bin/helios; `make test` is what CI checks.

BIN := .venv/bin
BENCH ?=
# Files of tests run three at a time: most of their time is spent waiting for a disk or another process.
AT_ONCE := -n 3 --dist loadfile

.PHONY: setup test check unit ordinary-user bench torture clean

# System packages where root, the virtual environment, the package (editable) and the tools that tests need.
setup:
	@./mount.py --setup-only --dev

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	.ci/check-unit systemd/helios@.service

test: check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(AT_ONCE)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=90
	.ci/as-ordinary-user $(AT_ONCE)

# A subset as an ordinary user, whoever calls it.
ordinary-user: setup
	.ci/as-ordinary-user $(AT_ONCE)

bench: setup
	$(BIN)/python -m benchmarks $(BENCH)

# Kill, damage and fill-up tests, for longer than CI has time for.
torture: setup
	HELIOS_TORTURE=1 HELIOS_MODEL_STEPS=20000 HELIOS_MODEL_EXAMPLES=2000 \
		$(BIN)/python -m pytest -q --timeout 3600 tests/crash tests/mount tests/model

clean:
	rm -rf .venv build *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
