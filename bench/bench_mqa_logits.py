"""Times `mqa_logits`: python -m pytest bench/bench_mqa_logits.py"""

from bench.common import each_row, run


@each_row("mqa_logits")
def test_mqa_logits(benchmark, shape, backend):
    run(benchmark, "mqa_logits", shape, backend)
