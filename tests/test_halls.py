"A chapter refuses bad parameters before it does any work."
import pytest
from chapters import first_error


@pytest.mark.parametrize("given, words", [
    (dict(modle="7B"), "-p modle: no such parameter, did you mean mode"),
    (dict(num_generations=1), "num_generations is 1: wanted at least 2"),
    (dict(data="nbs"), "no train.parquet"),
    (dict(study="kl"), "pass -p mode think"),
    (dict(push_to_hub="nobody"), "push_to_hub is 'nobody', wanted owner/name"),
    (dict(report_to="pigeon"), "report_to is 'pigeon': wanted one of"),
    (dict(rewards="acuracy"), "'acuracy' is not a term"),
    (dict(num_processes=3), "num_processes is 3: wanted a divisor of questions_per_step 2"),
])
def test_grpo_refuses(tmp_path, given, words):
    assert words in first_error("20_grpo", scale="smoke", out=str(tmp_path/"run"), **given)
    assert not (tmp_path/"run").exists()
