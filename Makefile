# What a person types here. Everything works as root and as an ordinary user.

GO ?= go
FUZZTIME ?= 10s
FAULTS ?= all
# Those of the tests in virtual machines; see CONTRIBUTING.md.
KERNELS ?= 6.1 6.12
KERNEL ?= $(firstword $(KERNELS))
PKG ?= ./plumbing
RUN ?= .
SCALE ?= 1000
PREFIX ?= /usr/local
UNITDIR ?= $(PREFIX)/lib/systemd/system

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PROGRAMS := vsrun vsd ipmd vs-init
UNITS := $(wildcard cmd/*/*.service)
BIN := $(CURDIR)/bin
CACHE := $(CURDIR)/.cache
TOOL := $(GO) tool -modfile=tools/go.mod
BUILDFLAGS = -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

# Tests run the programs that are in bin; see test/lab.
export VSRUN_BIN := $(BIN)
export CGO_ENABLED := 0
# Programs that are measured beside them; see test/bench.
export VSRUN_BENCH_TOOLS := $(CACHE)/bench

.PHONY: help build install uninstall test test-vm test-vm-kernel vm-shell lint bench bpf demo fuzz crash-matrix clean
.PHONY: check-native check-as-user check-vm vm peers summary

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

build: ## the programs, into bin/
	@$(GO) build $(BUILDFLAGS) -o bin/ $(filter-out ./cmd/vs-init,$(PROGRAMS:%=./cmd/%))
	@$(GO) build $(BUILDFLAGS) -gcflags=all=-l -o bin/ ./cmd/vs-init # a thousand run: small before fast
	@echo "built $(PROGRAMS:%=bin/%), version $(VERSION)"

test: lint build ## everything: lint, then all tests here, as an ordinary user, and in virtual machines
	@test/install
	@rm -rf $(CACHE)/tests && mkdir -p $(CACHE)/tests
	@lanes="check-native check-vm"; [ "$$(id -u)" != 0 ] || lanes="$$lanes check-as-user"; \
	echo "== $$lanes, at once; each shows its results when it has ended, the last after about 15 minutes"; \
	$(MAKE) --no-print-directory --keep-going --jobs --output-sync=target $$lanes; status=$$?; \
	$(MAKE) --no-print-directory summary; exit $$status

test-vm: build ## tests on other kernels, in virtual machines: KERNELS="6.1 6.12"
	@test/install vm
	@rm -rf $(CACHE)/tests && mkdir -p $(CACHE)/tests
	@$(MAKE) --no-print-directory check-vm; status=$$?; $(MAKE) --no-print-directory summary; exit $$status

test-vm-kernel: build vm ## tests of PKG=./plumbing that match RUN=. on one KERNEL=6.1
	@test/install vm
	@VSRUN_REQUIRE=all,kind:all,controller:all,capability:all,kernel:all $(GO) test -count=1 -v -timeout 30m -exec '$(BIN)/vm -kernel $(KERNEL)' -run '$(RUN)' $(PKG)

vm-shell: build vm ## a root shell on KERNEL=6.1, with the programs
	@test/install vm
	@bin/vm -kernel $(KERNEL) -shell

lint: ## gofmt, go vet, staticcheck
	@echo "== lint: gofmt, go vet, staticcheck"
	@bad=$$(find . -name '*.go' -not -path './.*/*' -exec gofmt -l {} +); \
		[ -z "$$bad" ] || { echo "gofmt would change:" $$bad; exit 1; }
	@$(GO) vet ./...
	@$(TOOL) staticcheck ./...

# As root nothing may be skipped that could be installed or granted; as an
# ordinary user, only what needs a second user or a cgroup.
ifeq ($(shell id -u),0)
check-native: REQUIRE := all
else
check-native: REQUIRE := all,-root,-cgroup2
endif
check-native: peers
	@echo "== tests as $$(id -un), in throw-away hosts"
	@VSRUN_REQUIRE=$(REQUIRE) TESTS="$$($(GO) list ./... | grep -vE '/test/(vm|systemd)$$')" \
		test/lane native $(GO) test -json -count=1

# The packages whose tests make namespaces; the others do not care who runs them.
IN_HOSTS = $(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | \
	sed -nE '/\/test\/(vm|systemd) /d; s,^([^ ]*) .*/(test/lab|nsutil)[] ].*,\1,p'

check-as-user:
	@echo "== tests as nobody, in user namespaces"
	@VSRUN_REQUIRE=all,-root,-cgroup2 TESTS="$$($(IN_HOSTS))" test/lane as-user test/as-user

# Virtual machines take all the processors; tests here mostly wait, and mind waiting more.
check-vm: vm
	@nice test/on-kernels $(KERNELS)

vm:
	@$(GO) build -o bin/vm ./test/vm

# Counts test functions and subtests of each lane, once if they were run again. One that
# began and never ended, because its process died, has failed.
summary:
	@cd $(CACHE)/tests && \
	count() { for lane in *.json; do \
		sed -nE '/"Test":/s/.*"Action":"'$$1'",(.*"Test":".*)"[,}].*/\1/p' $$lane | sort -u; done | wc -l; }; \
	run=$$(count run) passed=$$(count pass) skipped=$$(count skip); \
	again=$$(grep -Eo '/[^/]*\.Test[^/]*: 2 runs, 1 failures$$' *.again /dev/null 2>/dev/null | \
		sed -E 's,(.*)\.again:/([^:]*).*,   \2 (\1),'); \
	[ -z "$$again" ] || printf '== %d TESTS PASSED ONLY WHEN RUN AGAIN; mend them:\n%s\n' \
		"$$(echo "$$again" | wc -l)" "$$again"; \
	echo "$$passed passed, $$((run - passed - skipped)) failed, $$skipped skipped"

install: build ## the programs and systemd's units: PREFIX=/usr/local UNITDIR=PREFIX/lib/systemd/system DESTDIR=
	@install -d '$(DESTDIR)$(PREFIX)/sbin' '$(DESTDIR)$(UNITDIR)'
	@install $(PROGRAMS:%=bin/%) '$(DESTDIR)$(PREFIX)/sbin'
	@for unit in $(UNITS); do \
		sed 's,/usr/local/sbin,$(PREFIX)/sbin,' $$unit >'$(DESTDIR)$(UNITDIR)'/$${unit##*/}; done
	@echo "installed below $(DESTDIR)$(PREFIX); at boot: systemctl enable --now vsrun vsd ipmd"

uninstall: ## what install has put there; virtual servers stay as they are
	@rm -f $(PROGRAMS:%='$(DESTDIR)$(PREFIX)/sbin/%') $(patsubst %,'$(DESTDIR)$(UNITDIR)/%',$(notdir $(UNITS)))

bench: build peers ## vsrun beside the bare kernel and beside others, in docs/bench.md: SCALE=1000, 4000 at most
	@test/install base metrics
	@VSRUN_BENCH=$(SCALE) VSRUN_BENCH_OUT=$(CURDIR) $(GO) test -count=1 -v -timeout 2h -run '^TestBench$$' ./test/bench

peers:
	@$(GO) build -trimpath -ldflags '-s -w' -o $(VSRUN_BENCH_TOOLS)/ ./test/bench/bare
	@$(GO) build -modfile=tools/go.mod -trimpath -ldflags '-s -w' -o $(VSRUN_BENCH_TOOLS)/ github.com/containernetworking/cni/cnitool \
		github.com/containernetworking/plugins/plugins/main/macvlan github.com/containernetworking/plugins/plugins/ipam/static

bpf: ## the program for the kernel, of its source
	@test/install bpf
	@stats/ebpf/build

demo: build ## two virtual servers on one port, seen from a client; KEEP=1 to stay in
	@test/install base web files
	@test/demo.sh

fuzz: ## each fuzz test for FUZZTIME (10s)
	@grep -rnoE --include='*_test.go' 'func Fuzz[A-Za-z0-9_]+' . | sed 's/:.*func /\t/' | \
	while read -r file name; do \
		echo "== $$name for $(FUZZTIME)"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x "$$(dirname "$$file")" </dev/null || exit 1; \
	done

crash-matrix: build ## every call of every operation fails, and is killed at: FAULTS=all, first for one of a kind and repeats for the rest, fsync for some, "first 97/5" for each 97th of them
	@VSRUN_FAULTS='$(FAULTS)' $(GO) test -count=1 -v -timeout 24h -run 'TestFaults' ./test/e2e

clean: ## remove what these make
	rm -rf bin .cache
