"One thread a process, no network, no progress bars; set before torch is imported."
import os
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"): os.environ[name] = "1"
os.environ.update(TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
                  MPLBACKEND="agg")

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root():
    "The repository."
    return ROOT


@pytest.fixture(scope="session")
def built_rooms(tmp_path_factory):
    "`built_rooms(train, dev, test)`: a folder of generated rooms, to be read only; built once for all workers."
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ: shared = shared.parent

    def build(*numbers):
        from vsgrpo.data.dataset import RoomsSpec, build_rooms
        name = "-".join(map(str, numbers))
        return build_rooms(shared/f"rooms-{name}", RoomsSpec(*numbers), workers=1)
    return build


@pytest.fixture(scope="session")
def data():
    "Optional real data beside the repository; a test that needs it is skipped where it is absent."
    folder = ROOT.parent/"shared"/"data"
    if not folder.is_dir(): pytest.skip("real benchmark data is not here (../shared/data)")
    return folder
