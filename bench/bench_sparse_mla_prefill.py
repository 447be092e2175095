"""Times `sparse_mla_prefill`: python -m pytest bench/bench_sparse_mla_prefill.py"""

from bench.common import each_row, run


@each_row("sparse_mla_prefill")
def test_sparse_mla_prefill(benchmark, shape, backend):
    run(benchmark, "sparse_mla_prefill", shape, backend)
