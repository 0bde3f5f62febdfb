# One command for each thing one wants of this project. `make help` lists them.
#
# Every target first makes sure of what it needs (tests/support/setup.sh): as root on Debian it is installed, elsewhere
# you are told what is missing.

CARGO ?= cargo
export CARGO
# Where rustup puts it; not every shell knows.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Most tests wait for an engine rather than compute; more at a time than that overload two processors.
export RUST_TEST_THREADS ?= 3
TARGET := $(or $(CARGO_TARGET_DIR),target)
ENGINE := tests/support/engine.sh run
SOAK_SECONDS ?= 600
SOAK_WORKER ?= $(TARGET)/release/oz-agent-worker

# How long `make fuzz` gives each target, and which: all of them without a name.
FUZZ_SECONDS ?= 30
FUZZ_TARGETS ?=

# `make install`: what is installed, and where. DESTDIR is put before every path.
WORKER ?= $(TARGET)/release/oz-agent-worker
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=

PACKAGE = WORKER="$(abspath $(TARGET)/static/oz-agent-worker)" OUT="$(abspath $(TARGET)/dist)" packaging/package.sh

.PHONY: install uninstall deb rpm dist
.PHONY: help setup needs engine build demo demo-server demo-build test fuzz soak check clean
.PHONY: static reproducible image test-packages
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## make sure of the tools that building and testing need
	@tests/support/setup.sh tests

# Less: what building and the demo need.
needs:
	@tests/support/setup.sh

# Before minutes of building, not after them.
engine: needs
	@tests/support/engine.sh check

build: needs ## build the worker: target/release/oz-agent-worker
	$(CARGO) build --release --locked
	@echo "built $(TARGET)/release/oz-agent-worker"

demo: demo-build ## watch one task go from a control plane through the worker into a container and back
	@$(ENGINE) $(TARGET)/debug/examples/demo run $(TARGET)/debug/oz-agent-worker

demo-server: demo-build ## leave a control plane and a worker running, for runs that you submit with curl
	@$(ENGINE) $(TARGET)/debug/examples/demo serve $(TARGET)/debug/oz-agent-worker

demo-build: engine
	@$(CARGO) build --locked --bin oz-agent-worker --example demo

test: setup engine check ## everything: check, then all tests with a Docker engine, Podman and a registry
	$(CARGO) test --locked --no-run
	@$(ENGINE) --private $(CARGO) test --locked
	@echo "make test: all is well"

fuzz: ## feed each parser with made-up bytes for FUZZ_SECONDS (30), or only those of FUZZ_TARGETS
	@tests/support/setup.sh fuzz
	@tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)
	@echo "make fuzz: all is well"

soak: engine ## ten minutes of random tasks, cuts and cancels (SOAK_SECONDS, SEED): the worker must not grow
	$(CARGO) build --release --locked --bin oz-agent-worker
	$(CARGO) build --locked --example soak
	@SOAK_SECONDS=$(SOAK_SECONDS) $(if $(SEED),OZ_TEST_SEED=$(SEED)) $(ENGINE) --private \
		$(TARGET)/debug/examples/soak $(SOAK_WORKER)

static: ## build the worker as one file for every Linux on x86-64: target/static/oz-agent-worker
	@tests/support/setup.sh static
	@packaging/static/build.sh

reproducible: ## build the static binary twice from nothing, in two folders: the bytes must be the same
	@tests/support/setup.sh static
	@packaging/static/reproducible.sh

image: static ## an image of the static binary: target/image/oz-agent-worker-VERSION.tar, loaded as oz-agent-worker:dev
	@packaging/image/load.sh "$$(packaging/image/build.sh $(TARGET)/static/oz-agent-worker $(TARGET)/image oz-agent-worker:dev)"

deb: static ## make a Debian package of the static binary, in target/dist
	@tests/support/setup.sh packages
	@$(PACKAGE) deb

rpm: static ## make an rpm of the static binary, in target/dist
	@tests/support/setup.sh packages
	@$(PACKAGE) rpm

dist: static ## make all that a release has, in target/dist: packages, archives, checksums, what is linked and its licences
	@tests/support/setup.sh packages
	@$(PACKAGE) dist

install: ## install what `make build` has built, or WORKER, with PREFIX (/usr/local), SYSCONFDIR (/etc) and DESTDIR
	@WORKER="$(WORKER)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" packaging/install.sh install

uninstall: ## remove what `make install` with the same PREFIX, SYSCONFDIR and DESTDIR has installed
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" packaging/install.sh uninstall
# The tests of whole tasks, too, with the static binary.
test-packages: engine dist ## test what is installed: static binary, image, packages, service; and whole tasks with that binary
	@tests/support/setup.sh package-tests
	$(CARGO) test --locked --no-run --test packages --test all
	@OZ_TEST_WORKER=$(abspath $(TARGET))/static/oz-agent-worker $(ENGINE) --private \
		sh -c '$(CARGO) test --locked --test packages && $(CARGO) test --locked --test all worker::'
	@echo "make test-packages: all is well"

check: needs ## format, lints and documentation
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets --test packages -- -D warnings
	$(CARGO) clippy --locked --test packages -- -D warnings
	$(CARGO) clippy --locked --lib --features fuzzing -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --features fuzzing

clean: ## remove everything that was built
	$(CARGO) clean
	rm -rf target
