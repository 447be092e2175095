"""Times `indexer_q_rope_quant`: python -m pytest bench/bench_indexer_q_rope_quant.py"""

from bench.common import each_row, run


@each_row("indexer_q_rope_quant")
def test_indexer_q_rope_quant(benchmark, shape, backend):
    run(benchmark, "indexer_q_rope_quant", shape, backend)
