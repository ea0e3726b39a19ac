# Every target sets up its environment first: a Python 3.12 (PATH, pyenv or uv) is all that a fresh machine needs.

SHELL := /bin/bash
# Where bytecode is not kept, each process compiles what it imports anew: importing lerobot takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
WORKERS ?= 2
# One more than the cores of a small machine: many tests wait for a process that sleeps.
TEST_WORKERS ?= 3
# Of `make soak`: 30 rounds for each engine, and by how much this machine may be slower than one that does nothing else.
ROUNDS ?= 30
SOAK_PATIENCE ?= 1
# Of `make bench-scale`.
SCALE_FOLDER ?= /tmp
SMOKE := tasks/smoke-libero-object
ANSWERS := tasks/known-answers
# K of N for three K, batch sizes 1 and 4: eleven minutes on two cores, where the whole campaign takes hours.
SOME_ANSWERS := mix_1_of_5_b1,mix_2_of_8_b4,nothing_b1_e2

PYTEST = $(VENV)/bin/python -m pytest -n $(TEST_WORKERS) --dist worksteal

# A pyenv shim may exist and not run, so a candidate counts only when it runs and says 3.12.
define FIND_PYTHON
for candidate in "$$PYTHON" python3.12 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.12*/bin/python3.12 python3 \
    "$$(uv python find --system 3.12 2>/dev/null)"; do
  if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; then
    echo "$$candidate"
    exit 0
  fi
done
echo "error: Python 3.12 was not found in PATH, pyenv or uv. Install it (apt-get install python3.12 python3.12-venv," \
  "pyenv install 3.12, or uv python install 3.12), or name one: make PYTHON=/path/to/python3.12" >&2
exit 3
endef
export FIND_PYTHON PYTHON

.DEFAULT_GOAL := help
.PHONY: accept test test-slow test-browser dose soak ci-full test-faults test-stats known-answers known-answers-full demonstrations sim-validity \
  sim-validity-full sim-table parity planted-engines parity-full bench bench-standby bench-schedule bench-matrix bench-scale bench-overhead bench-slurm test-slurm setup \
  docs lock clean-artifacts help

accept: setup ## run the acceptance gates on the embedded campaign (JUnit in reports/accept.xml)
	$(VENV)/bin/python -m pytest acceptance -n $(WORKERS) --junitxml=reports/accept.xml

test: setup ## run the linter, the type checker and the harness's own tests, minutes (JUnit in reports/test.xml)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTEST) tests -m "not slow and not browser and not slurm" --durations=10 --durations-min=1 --junitxml=reports/test.xml

# `make ci-full` leaves out what it runs in another form besides, and plants faults into the engine of one policy alone.
SLOW := slow and not slurm
PLANTED :=
ci-full: SLOW := slow and not slurm and not repeated
ci-full: PLANTED := --policies act --honest 4
test-slow: setup ## run the tests that are long by nature: many kills, many simulators, all tables, small benchmarks
	$(PYTEST) tests -m "$(SLOW)" --durations=10 --durations-min=1 --junitxml=reports/test-slow.xml

# Whole modules a worker, since those of a fresh installation make it once for all their tests.
dose: setup ## run a few of the slow tests: a kill, a faulty policy and both engines on the real simulator
	$(PYTEST) --dist loadfile tests -m dose --durations=5 --durations-min=1 --junitxml=reports/dose.xml

ci-full: test test-slow test-slurm test-browser docs accept known-answers sim-validity parity planted-engines bench bench-standby bench-schedule bench-matrix bench-overhead bench-slurm ## run everything but what takes hours

test-faults: setup ## the fault suite alone: kills, hangs, damaged files, full disks (docs/reliability.md)
	$(PYTEST) tests/faults tests/execution/test_process.py tests/execution/test_lease.py tests/execution/test_gpu.py tests/campaign/test_matrix.py tests/core/test_redaction.py tests/simulator/test_warm_process.py --junitxml=reports/test-faults.xml

# Of one worker, since two rounds at a time would disturb each other's clocks.
soak: setup ## (hours) ROUNDS rounds of KILL, STOP and CONT over all kinds of processes, both engines, the real simulator; prints SOAK_SEED
	SOAK_ROUNDS=$(ROUNDS) SOAK_PATIENCE=$(SOAK_PATIENCE) $(VENV)/bin/python -m pytest tests/faults/test_soak.py -s --junitxml=reports/soak.xml

test-browser: setup ## open report.html in Debian's chromium: filters, videos, keyboard, themes, a phone (skipped without chromium)
	$(PYTEST) tests/browser -m browser --durations=5 --durations-min=1 --junitxml=reports/test-browser.xml

# Of one worker, since each would start a Slurm of its own.
test-slurm: setup ## rows on a real Slurm that the tests start, as root (apt-get install slurmctld slurmd slurm-client munge); else it says that it did not run
	$(VENV)/bin/python -m pytest tests/slurm -m slurm --durations=10 --durations-min=1 --junitxml=reports/test-slurm.xml

test-stats: setup ## the statistics alone, with ten thousand simulated campaigns, statsmodels and scipy beside them (a minute)
	$(PYTEST) tests/statistics --durations=10 --durations-min=1 --junitxml=reports/test-stats.xml

known-answers: setup ## hold reported successes against known ones, for some policies whose outcome is known
	$(VENV)/bin/python -m fixtures.known_answers $(ANSWERS) --rows $(SOME_ANSWERS) --folder reports/known-answers

known-answers-full: setup ## (hours) the same for every stored demonstration; what has passed is not run again
	$(VENV)/bin/python -m fixtures.known_answers $(ANSWERS) --output docs/known-answers.txt

demonstrations: setup ## (hours) record what is missing, verify what is stored, write docs/demonstrations.md (DEMONSTRATIONS="--suite libero_goal" for a part)
	$(VENV)/bin/python -m fixtures.demonstrations regenerate $(DEMONSTRATIONS)

sim-validity: setup ## preflight's settle probe: MuJoCo 3.3.7 passes, 3.8.1 is refused for libero_spatial task 5
	$(VENV)/bin/python -m fixtures.validity check

sim-validity-full: setup ## (hours) the place error of 40 tasks on three MuJoCos; writes docs/simulator-validity.md (what is measured is kept)
	$(VENV)/bin/python -m fixtures.validity measure

sim-table: setup ## make the committed table of objects' places anew, on MuJoCo 3.3.2 to 3.3.7
	$(VENV)/bin/python -m fixtures.validity table

bench-schedule: setup ## how near the lower bound a sweep ends, beside xdist's own ways to deal (a minute)
	$(VENV)/bin/python -m benchmarks.schedule

bench-matrix: setup ## time and memory of parsing and collecting 10,000 rows; fails above 5 s or 300 MB
	$(VENV)/bin/python -m benchmarks.matrix

bench-scale: setup ## (hours) time and memory of judging 100,000 rows on 1,000 nodes; 9 GB of disk in SCALE_FOLDER meanwhile
	$(VENV)/bin/python -m benchmarks.scale --folder $(SCALE_FOLDER)

bench-overhead: setup ## what the harness adds to one row, median of five; fails above 3%
	$(VENV)/bin/python -m benchmarks.overhead

bench-slurm: setup ## what a cluster adds to a row beside this host, paired, as root; fails above 1 s in an allocation
	$(VENV)/bin/python -m benchmarks.slurm_overhead

parity: setup ## hold the resident engine against lerobot-eval, episode by episode: some cases, minutes
	$(VENV)/bin/python -m fixtures.parity some --processes 2

planted-engines: setup ## what the parity gate says of engines with a planted fault, and of 51 honest runs (ten minutes)
	$(VENV)/bin/python -m fixtures.planted $(PLANTED)
	$(VENV)/bin/python -m fixtures.planted.fast

parity-full: setup ## (hours) the same for all cases; what was measured is kept; writes docs/parity.txt
	$(VENV)/bin/python -m fixtures.parity all --processes 2 --output docs/parity.txt

bench: setup ## the resident engine against lerobot-eval on one row; fails below 6 times end to end, 15 times under way
	$(VENV)/bin/python -m benchmarks.engines

bench-standby: setup ## what rows gain by the process that plays one after the other, and what lies between two of them (minutes)
	$(VENV)/bin/python -m benchmarks.standby
	$(VENV)/bin/python -m benchmarks.handover

setup: ## make or refresh the virtual environment, the GL libraries and LIBERO's files
	@python="$$(eval "$$FIND_PYTHON")" && "$$python" -m tracka setup --artifacts-dir reports/setup

docs: setup ## build the documentation's site into reports/site; a warning or a link that leads nowhere fails (seconds)
	$(VENV)/bin/python -m documentation.reference
	$(VENV)/bin/python -m documentation reports/site
	@echo "open reports/site/index.html"

release-check: setup ## hold version, CHANGELOG.md and tag against each other, build wheel and sdist into reports/release and check them
	$(VENV)/bin/python -m pytest tests/repository/test_release.py --junitxml=reports/release.xml
	rm -rf reports/release
	$(VENV)/bin/python -m build --no-isolation --outdir reports/release .

lock: ## resolve pyproject.toml anew into requirements.lock (UPGRADE=--upgrade takes newer versions)
	@uv="$$(command -v $(VENV)/bin/uv || command -v uv)" || { echo "error: no uv; run make setup first" >&2; exit 3; }; \
	"$$uv" pip compile pyproject.toml --extra libero --extra dev --extra bootstrap --generate-hashes --no-header --quiet \
	  --python-version 3.12 --python-platform x86_64-manylinux_2_28 $(UPGRADE) --output-file requirements.lock

clean-artifacts: ## remove what the campaigns with stand-in policies generated
	rm -rf $(foreach task,$(SMOKE) $(ANSWERS),$(addprefix $(task)/,artifacts checkpoints todo plan.md runbook*.md results*.md report*.html))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
