# vsGRPO. Needs Python ≥ 3.11 with pip; everything else is installed into .venv.
#
#   make run         train the tiny model on generated rooms (nbs/20_grpo.ipynb -> runs/20_grpo.ipynb)
#   make study       the studies of chapter 20 on the tiny model: training prompts, KL penalty and dynamics, rewards
#   make test        style, sync, notebooks, chapters at smoke scale, unit tests except those marked slow
#   make test-all    the same with all unit tests, as in CI
#   make lab         open the notebooks
#   make tour        one HTML file: a room in 3D, its film, questions drawn in it, answers before and after training
#   make picture     docs/room.png, the picture of the landing page
#   make docs        build the site in _docs/ from the notebooks and their kept outputs
#   make ledger      update the reproduction ledger from the run folders under runs/
#   make notebooks   run the chapters at their default scale and keep their outputs
#   make axes        held-out sets that differ from the training rooms in one respect each: runs/axes/<axis>
#   make doctor      print installed versions, and those that differ from the tested set
#   make base        train the tiny base model (nbs/16_tiny_base.ipynb)
#   make base-general  train it further on the prompts of VideoMME and VideoMMMU (nbs/42_general_rooms.ipynb)
#   make sync        check that vsgrpo/*.py are what the notebooks export
#
# PYTHON=python3.12 chooses the interpreter of .venv; ARGS="-p steps 4" is passed to papermill;
# TORCH_INDEX=https://download.pytorch.org/whl/cpu is the index for torch (default: pip's own).

PYTHON      ?= python3
TORCH_INDEX ?=
ARGS        ?=
VENV        := .venv
PY          := $(VENV)/bin/python
PIP         := $(PY) -m pip install -q
PAPERMILL   := $(PY) -m papermill --kernel python3 --no-progress-bar

# What papermill and the kernel print beside a notebook's own output.
TIDY        := sed -uE '/^(Executing|Ending) Cell|^<(Figure|IPython)|IPKernelApp|comm target|FutureWarning|^ *warnings.warn/d'

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: install run study test test-all lab docs tour picture axes ledger notebooks doctor base base-general \
        sync check nbtest chapters unit

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1
export TOKENIZERS_PARALLELISM := false
export OPEN3D_DISABLE_WEB_VISUALIZER := true
unexport JUPYTER_PATH   # a kernel named python3 there would replace ours

install: $(VENV)/.stamp-package

$(VENV)/.stamp-lock: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else f"Python {v} found, 3.11 or later wanted: make PYTHON=python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.lock into $(VENV), a few minutes the first time"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.lock)"
	@$(PIP) -r requirements.lock
	@touch $@

$(VENV)/.stamp-package: $(VENV)/.stamp-lock pyproject.toml
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

run: install
	@mkdir -p runs
	$(PAPERMILL) --log-output nbs/20_grpo.ipynb runs/20_grpo.ipynb -p model tiny $(ARGS) 2>&1 | $(TIDY)

# Each study has its own notebook and run folder; a stopped study is resumed. On a CPU, as many runs as there are cores
# train at the same time, with one thread each.
STUDY := -p model tiny-cot -p mode think -p steps 60 -p questions_per_step 16 -p lr 0.002 -p test_scenes 40
study: export TQDM_DISABLE := 1
study: install
	@mkdir -p runs
	@for name in kl modes rewards; do \
		out=runs/study/$$name; seeds=1; [ $$name = kl ] && seeds=3; \
		[ -e $$out/run.json ] && resume=True || resume=False; \
		$(PAPERMILL) --log-output nbs/20_grpo.ipynb runs/study_$$name.ipynb -p study $$name -p seeds $$seeds -p out $$out -p resume $$resume $(STUDY) $(ARGS); \
	done

base: install
	@mkdir -p runs
	$(PAPERMILL) nbs/16_tiny_base.ipynb runs/tiny_base.ipynb $(ARGS)

base-general: install
	@mkdir -p runs
	$(PAPERMILL) nbs/42_general_rooms.ipynb runs/tiny_general.ipynb -p steps 600 $(ARGS)

lab: install
	$(PY) -m jupyterlab nbs --config=docs/lab_config.py --LabApp.default_url=/lab/tree/index.ipynb $(ARGS)

doctor: install
	@$(PY) -m vsgrpo.doctor

# Each test process uses one thread: on shared cores more threads are slower.
test test-all sync check nbtest chapters unit: export OMP_NUM_THREADS := 1
test test-all sync check nbtest chapters unit: export MKL_NUM_THREADS := 1

# The parts run one after the other, each on two cores. The chapters leave the run that the test of the tour opens.
test: check sync nbtest chapters unit

test-all: SLOW := 1
test-all: check sync nbtest chapters unit

check: install
	$(PY) -m ruff check -q nbs tests bench docs vsgrpo
	$(PY) docs/notebooks.py --check

sync: install
	$(PY) -m pytest -q tests/test_sync.py

nbtest: install
	$(VENV)/bin/nbdev_test --n_workers 2

# Run the chapters at their default scale and keep the outputs: `make notebooks`, or `make notebooks ARGS="20 30"`.
notebooks: install
	$(PY) docs/notebooks.py $(ARGS)

docs: install
	@$(PY) docs/build.py

ledger: install
	@$(PY) docs/ledger.py $(ARGS)

# `make axes ARGS="rooms=20"` builds 20 rooms of each axis instead of 60.
axes: install
	$(PY) -c "from vsgrpo.data.axes import build_axes; build_axes('runs/axes', $(ARGS))"

tour: install
	@$(PY) docs/tour.py $(ARGS)

picture: install
	@$(PY) docs/picture.py $(ARGS)

# Two at a time on two cores, the longest first. They share datasets and caches, as any two runs do.
chapters: install
	@mkdir -p runs/smoke
	@printf "%s\n" nbs/30_*.ipynb nbs/20_*.ipynb nbs/[!23]0_*.ipynb | xargs -P 2 -I NB sh -c \
		'echo "papermill NB -p scale smoke"; $(PAPERMILL) NB "runs/smoke/$$(basename NB)" -p scale smoke'

# Two workers on two cores. A worker that has finished takes over half of the other's remaining tests.
unit: install
	$(PY) -m pytest tests -q -n 2 --dist worksteal $(if $(SLOW),,-m "not slow") --ignore=tests/test_sync.py
