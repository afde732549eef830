# What there is to do: make help
SHELL := /bin/bash
PYTEST := .venv/bin/pytest
TESTS_DIRECT := $(wildcard tests/unit tests/golden)
TESTS_ISOLATED := $(wildcard tests/integration tests/hostile tests/e2e)
# Side by side in so many machines of their own (scripts/isolated): `make test MACHINES=1` where RAM is short.
MACHINES := 2
PYTEST_ISOLATED := $(PYTEST) --tx '$(MACHINES)*popen//python=scripts/isolated .venv/bin/python3' --dist loadscope

# Each of so many whole hosts has a file of tests at a time, by name: that makes both take equally long.
PYTEST_HOST := $(PYTEST) -n $(MACHINES) --dist loadfile --no-loadscope-reorder tests/host

.PHONY: help setup demo test test-nova test-host test-debian13 deb release soak check format bench bench-nova clean
.DEFAULT_GOAL := help

help: ## Show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || \
	  sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

setup: ## Install all that the others need: distribution packages, .venv, a kernel for guests (root)
	@scripts/setup test

demo: ## Show ramshelf at work with a real guest, apart from this machine's own libvirt (root)
	@scripts/setup demo
	@PYTHONPATH=tests scripts/isolated .venv/bin/python scripts/demo.py

test: ## Run all tests; those that need libvirt, QEMU and devices in a machine of their own (root)
	@scripts/setup test
	$(PYTEST) $(TESTS_DIRECT)
	$(PYTEST_ISOLATED) $(TESTS_ISOLATED)

test-nova: ## Run the tests of ramshelf-nova, and of ramshelf beside a real Nova, the newest (root)
	@scripts/setup nova
	PYTHONPATH=tests .venv-nova/bin/pytest -c tests/nova/pytest.ini tests/nova/unit
	$(PYTEST_ISOLATED) -c tests/nova/pytest.ini tests/nova/integration

test-host: ## Run the tests on a whole Debian 13 in a virtual machine: systemd, AppArmor, KVM guests, boots (root)
	@scripts/setup host
	$(PYTEST_HOST)

test-debian13: ## Run all tests on a bare Debian 13, made by debootstrap below .cache (root)
	@scripts/bare-debian --suite trixie make test

deb: ## Build the Debian packages for the Debian that this is, into dist/ (root where something is to be installed)
	@scripts/setup deb
	@scripts/deb

release: ## Make what a release consists of, into dist/: source, wheels, Debian packages, checksums; uploads nothing (root)
	@scripts/setup release
	@scripts/release

soak: ## Run what make test, test-nova and test-host leave out: many more rounds, more stores, the oldest Nova; hours (root)
	@scripts/setup soak
	$(PYTEST_ISOLATED) -m soak $(TESTS_ISOLATED)
	[ ! -e .venv-nova-oldest ] || PYTHONPATH=tests .venv-nova-oldest/bin/pytest -c tests/nova/pytest.ini tests/nova/unit
	$(PYTEST_ISOLATED) -m soak -c tests/nova/pytest.ini tests/nova/integration
	for suite in trixie bookworm; do $(PYTEST_HOST) -m 'soak or not soak' --record --suite $$suite || exit; done
	.venv/bin/python scripts/reference.py

check: ## Check style, types, the layers and the syntax of the Ansible role
	@scripts/setup check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	ANSIBLE_HOME=.cache/ansible LC_ALL=C.UTF-8 .venv/bin/ansible-playbook --syntax-check \
	  --inventory deploy/ansible/inventory.example.yml deploy/ansible/site.yml
	$(PYTEST) -q tests/unit/test_imports.py

format: ## Format the code as `make check` wants it
	@scripts/setup check
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: ## Measure what the README claims, for an hour and a half (root)
	@scripts/setup bench
	scripts/isolated .venv/bin/python -m bench

bench-nova: ## Measure what the scheduler filter costs beside one of Nova's own (root)
	@scripts/setup nova
	PYTHONPATH=tests:src:. .venv-nova/bin/python -W ignore -m bench.nova_filter

clean: ## Remove what the others made here (installed packages stay)
	rm -rf .venv .venv-nova .venv-nova-oldest .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
