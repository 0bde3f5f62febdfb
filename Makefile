# `make help` lists the targets.
#
# As root on Debian, every target first installs the tools that it needs (tests/support/setup.sh); elsewhere it lists the missing
# ones.

CARGO ?= cargo
export CARGO
# rustup's folder, which not every shell has in its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Most tests wait for an engine; more at a time overload two processors.
export RUST_TEST_THREADS ?= 3
TARGET := $(or $(CARGO_TARGET_DIR),target)
ENGINE := tests/support/engine.sh run
DENY := target/tools/bin/cargo-deny --locked

# Parameters of `make demo`, `make soak`, `make fuzz`, and `make install`. No DIALECT is the old control plane. No SOAK_WORKER is the static binary, which is then built. No
# FUZZ_TARGETS are all of them. DESTDIR is put before every path.
DIALECT ?=
SOAK_SECONDS ?= 600
SOAK_WORKER ?=
FUZZ_SECONDS ?= 30
FUZZ_TARGETS ?=
WORKER ?= $(TARGET)/release/oz-agent-worker
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=

# The architecture of `make static`, `make deb` and `make rpm`, and those of a release and of an image.
MACHINE := $(shell uname -m)
ARCH ?= $(MACHINE)
ARCHITECTURES ?= x86_64 aarch64
# The static binary for architecture $(1).
static_binary = $(TARGET)/static$(if $(filter-out $(MACHINE),$(1)),-$(1))/oz-agent-worker
STATIC_BINARIES = $(foreach arch,$(ARCHITECTURES),$(call static_binary,$(arch)))
# The tests of whole tasks that also run with the binary of another architecture: the emulator takes longer.
EMULATED := worker::task_lifecycle worker::adopt worker::cancel worker::stop worker::signals
PACKAGE = OUT="$(abspath $(TARGET)/dist)" packaging/package.sh

.PHONY: help setup needs engine build install uninstall clean
.PHONY: demo demo-server demo-build
.PHONY: test one check deny coverage fuzz soak bench instructions test-engines test-fleet test-packages test-emulated
.PHONY: static static-all reproducible image deb rpm dist
.DEFAULT_GOAL := help
# Prerequisites are in the order in which they must run.
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-15s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ Build and install

setup: ## install the tools that building and testing need
	@tests/support/setup.sh tests

# The tools that building and the demo need.
needs:
	@tests/support/setup.sh

build: needs ## build the worker: target/release/oz-agent-worker
	$(CARGO) build --release --locked
	@echo "built $(TARGET)/release/oz-agent-worker"

install: ## install what `make build` has built, or WORKER, with PREFIX (/usr/local), SYSCONFDIR (/etc) and DESTDIR
	@WORKER="$(WORKER)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" packaging/install.sh install

uninstall: ## remove what `make install` with the same PREFIX, SYSCONFDIR and DESTDIR has installed
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" packaging/install.sh uninstall

clean: ## remove everything that was built
	$(CARGO) clean
	rm -rf target

##@ Try

demo: demo-build ## run one task from a control plane through the worker in a container (DIALECT=upstream: from the public one's stand-in)
	@$(ENGINE) $(TARGET)/debug/examples/demo run $(TARGET)/debug/oz-agent-worker $(DIALECT)

demo-server: demo-build ## leave a control plane and a worker running, for runs that you submit with curl
	@$(ENGINE) $(TARGET)/debug/examples/demo serve $(TARGET)/debug/oz-agent-worker $(DIALECT)

demo-build: engine
	@tests/support/setup.sh demo
	@$(CARGO) build --locked --bin oz-agent-worker --example demo

##@ Test

# Fails without an engine before anything is installed or built.
engine:
	@tests/support/engine.sh check

test: engine setup check ## check, then the tests that need one machine and one Docker engine; also Podman and a registry
	$(CARGO) test --locked --no-run
	@$(ENGINE) --private $(CARGO) test --locked
	@echo "make test: passed"

one: engine setup ## the tests whose name contains TEST, as TEST=worker::stop or TEST=protocol::decode
	@test -n "$(TEST)" || { echo "usage: make one TEST=NAME" >&2; exit 2; }
	$(CARGO) test --locked --lib --test all --no-run
	@$(CARGO) test --locked --quiet --lib --test all $(TEST) -- --list | grep -q ': test$$' || \
		{ echo "make one: no test has \"$(TEST)\" in its name" >&2; exit 2; }
	@$(ENGINE) --private $(CARGO) test --locked --lib --test all $(TEST)

check: ## format, lints, documentation, unused items and the declared Rust
	@tests/support/setup.sh check
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets --test packages -- -D warnings
	$(CARGO) clippy --locked --test packages --test fleet -- -D warnings
	$(CARGO) clippy --locked --lib --example instructions --features fuzzing -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --features fuzzing
	$(CARGO) check --locked --example unused --features dead-code
	@tests/tidy/rust-version.sh

deny: needs ## licences, sources, duplicates and bans of crates, and advisories if their database can be fetched
	@tests/support/setup.sh deny
	@$(DENY) check licenses sources bans
	@if $(DENY) fetch db 2>/dev/null; then $(DENY) check advisories; \
		else echo "make deny: the advisory database cannot be fetched, so advisories were not checked"; fi

coverage: engine setup ## which lines the tests run, TEST as above: a table, and target/coverage/html
	@tests/support/setup.sh coverage
	@tests/tidy/coverage.sh $(TEST)

fuzz: ## feed each parser with generated bytes for FUZZ_SECONDS (30), or only those of FUZZ_TARGETS
	@tests/support/setup.sh fuzz
	@tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)
	@echo "make fuzz: passed"

soak: engine $(if $(SOAK_WORKER),,static) ## ten minutes of random tasks, cuts and cancels: the worker must not grow (SOAK_SECONDS, SEED, SOAK_WORKER)
	@tests/support/setup.sh demo
	$(CARGO) build --locked --example soak
	@SOAK_SECONDS=$(SOAK_SECONDS) $(if $(SEED),OZ_TEST_SEED=$(SEED)) $(ENGINE) --private \
		$(TARGET)/debug/examples/soak $(or $(SOAK_WORKER),$(TARGET)/static/oz-agent-worker)

# Measures the static binary if `make static` has built it. Without BENCH_ONLY also counts instructions.
bench: engine setup ## measure the worker beside the same work by hand (BENCH_QUICK=1, BENCH_VS=COMMAND)
	$(CARGO) build --release --locked --bin oz-agent-worker --example bench
	@$(ENGINE) --private $(TARGET)/release/examples/bench
	$(if $(BENCH_ONLY),,@$(MAKE) --no-print-directory instructions)

instructions: needs ## count instructions and allocations of common work under valgrind, and compare with recorded numbers
	$(CARGO) build --release --locked --features fuzzing --example instructions
	@$(TARGET)/release/examples/instructions

# Runs the tests of whole tasks with the static binary, too.
test-packages: engine needs dist ## the static binaries, images, packages and service, and whole tasks with those binaries
	@tests/support/setup.sh package-tests
	$(CARGO) test --locked --no-run --test packages --test all
	@ARCHITECTURES="$(ARCHITECTURES)" OZ_TEST_WORKER=$(abspath $(TARGET))/static/oz-agent-worker $(ENGINE) --private \
		sh -c '$(CARGO) test --locked --test packages && $(CARGO) test --locked --test all worker::'
	@for arch in $(filter-out $(MACHINE),$(ARCHITECTURES)); do $(MAKE) --no-print-directory test-emulated ARCH=$$arch || exit 1; done
	@echo "make test-packages: passed"

# Tests of the packages and of whole tasks with the binary of another architecture in an emulator. A script starts that, because a
# test has only a path for the worker; the process id stays, so a signal reaches the worker.
test-emulated: engine
	@printf '#!/bin/sh\nexec %s %s "$$@"\n' $(abspath target/tools/qemu-$(ARCH)-static) \
		$(abspath $(call static_binary,$(ARCH))) >$(TARGET)/static-$(ARCH)/emulated
	@chmod 755 $(TARGET)/static-$(ARCH)/emulated
	@ARCHITECTURES="$(ARCHITECTURES)" OZ_TEST_ARCH=$(ARCH) OZ_TEST_WORKER=$(abspath $(TARGET))/static-$(ARCH)/emulated $(ENGINE) --private \
		sh -c '$(CARGO) test --locked --test packages -- static_binary:: dist:: deb::lintian rpm::rpmlint && \
			$(CARGO) test --locked --test all -- $(EMULATED)'

test-engines: needs ## whole tasks on the engines of Debian 12, 13 and the next one, which it unpacks (ENGINES="docker-13 podman-12 change")
	@tests/support/setup.sh engine
	@tests/support/setup.sh tests
	$(CARGO) test --locked --no-run --test all
	@ENGINES="$(ENGINES)" CARGO="$(CARGO)" tests/engines/run.sh
	@echo "make test-engines: passed"

# The static binary, because the image of the worker has no other file. Optimized, because a thousand workers share this machine.
test-fleet: static ## a thousand workers and a control plane that restarts, and a real Swarm of three nodes; root only
	@tests/support/setup.sh engine
	@tests/support/setup.sh fleet
	$(CARGO) test --release --locked --no-run --test fleet
	@OZ_TEST_WORKER=$(abspath $(TARGET))/static/oz-agent-worker tests/fleet/run.sh \
		$(CARGO) test --release --locked --test fleet -- --nocapture --test-threads 1
	@echo "make test-fleet: passed"

##@ Package

static: ## build the worker as one file for every Linux: target/static/oz-agent-worker (ARCH=aarch64: target/static-aarch64)
	@tests/support/setup.sh static $(ARCH)
	@ARCH=$(ARCH) packaging/static/build.sh

static-all:
	@for arch in $(ARCHITECTURES); do $(MAKE) --no-print-directory static ARCH=$$arch || exit 1; done

reproducible: ## build the static binary twice from nothing, in two folders, and compare the bytes (ARCH)
	@tests/support/setup.sh static $(ARCH)
	@ARCH=$(ARCH) packaging/static/reproducible.sh

image: static-all ## build images for x86-64 and arm64 and an index of both in target/image; load this machine's as oz-agent-worker:dev
	@files=$$(packaging/image/build.sh $(TARGET)/image oz-agent-worker:dev $(STATIC_BINARIES)) && echo "$$files" && \
		packaging/image/load.sh "$$(echo "$$files" | grep -e '-$(MACHINE).tar$$')"

deb: static ## build a Debian package in target/dist (ARCH)
	@tests/support/setup.sh packages $(ARCH)
	@$(PACKAGE) deb $(call static_binary,$(ARCH))

rpm: static ## build an rpm in target/dist (ARCH)
	@tests/support/setup.sh packages $(ARCH)
	@$(PACKAGE) rpm $(call static_binary,$(ARCH))

dist: static-all ## build a release for x86-64 and arm64 in target/dist: packages, archives, checksums, lists of dependencies, licences
	@for arch in $(ARCHITECTURES); do tests/support/setup.sh packages $$arch || exit 1; done
	@$(PACKAGE) dist $(STATIC_BINARIES)
