# Each of these works as the first command in a fresh checkout.

.PHONY: demo test lint format bench lock clean

demo: .venv/demo  ## 30 seconds of tokens that expire while nobody notices
	.venv/bin/mqtt-token demo --seconds 30

test: .venv/dev  ## everything, against real servers
	scripts/setup-servers
	$(MAKE) lint
	scripts/test

lint: .venv/dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/codespell
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv/dev  ## speed and footprint compared with other libraries, in three minutes
	.venv/bin/python -m benchmarks.speed

lock: .venv/dev  ## renew constraints.txt with the newest versions of all tools and dependencies
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev \
		--annotation-style line --custom-compile-command "make lock" --output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv .venv-peers .nox .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf devtools/servers/node_modules devtools/servers/build

.venv/demo: pyproject.toml constraints.txt scripts/make-venv
	scripts/make-venv -e '.[demo]'
	touch $@

.venv/dev: pyproject.toml constraints.txt scripts/make-venv
	scripts/make-venv -e '.[demo,proxy,websocket]' --group dev
	touch $@ .venv/demo
