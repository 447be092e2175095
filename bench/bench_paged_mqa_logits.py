"""Times `paged_mqa_logits`: python -m pytest bench/bench_paged_mqa_logits.py"""

from bench.common import each_row, run


@each_row("paged_mqa_logits")
def test_paged_mqa_logits(benchmark, shape, backend):
    run(benchmark, "paged_mqa_logits", shape, backend)
