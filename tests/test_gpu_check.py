"""`make gpu-check` as far as it goes without a GPU: the plan, processes, and what is reported."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch

from bench import gpu_check
from bench.gpu import environment, peaks, peers, small_cases, timing
from bench.gpu.primitive_cases import cases
from bench.suite import Row
from dsa_kernels._op import OPS
from dsa_kernels.testing.cases import Work, case

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def command(text: str, seconds: int = 60, **variables) -> gpu_check.Command:
    return gpu_check.Command([sys.executable, "-c", text], seconds, variables)


def test_plan_names_everything(capsys):
    assert gpu_check.main(["--dry-run"]) == 0
    text = capsys.readouterr().out
    for step in gpu_check.STEPS:
        assert f"] {step.name}: {step.about}" in text
    for op in OPS:
        assert (
            f"DSA_TEST_GPU=1 {sys.executable} -m pytest -m 'not slow' -q tests/test_{op}.py" in text
        )
        assert f"bench.gpu.timing --op {op}\n" in text
        assert f"      {op}: {case(op).SMALL[0]}\n" in text
        for name, shape in case(op).BENCH.items():
            assert f"      {name}: {shape}\n" in text
    for name in ("memcheck", "racecheck", "synccheck", "initcheck"):
        assert f"--tool {name} " in text
    for primitive in cases():
        assert f"bench.gpu.compare --kernel {primitive.kernel}\n" in text
        assert f"      {primitive.name}: {primitive.launch_text()}\n" in text


def test_plan_of_a_part(capsys):
    arguments = ["--step", "timing", "--op", "mqa_logits", "--quick", "--json", "x.json"]
    assert gpu_check.main(["--dry-run", *arguments]) == 0
    text = capsys.readouterr().out
    assert "[1/1] timing" in text and "pytest" not in text
    assert text.count("bench.gpu.timing") == 1 and "--quick --json /" in text


def test_planned_files_and_modules_exist():
    args = gpu_check.parse([])
    for step in gpu_check.STEPS:
        for c in step.commands(args):
            for a in c.arguments[1:]:
                if a.endswith(".py"):
                    assert (gpu_check.ROOT / a).is_file(), c
                elif a.startswith("bench."):
                    assert (gpu_check.ROOT / f"{a.replace('.', '/')}.py").is_file(), c


def test_a_command_is_shown_logged_and_judged(capsys):
    log = io.StringIO()
    assert gpu_check.run(command("import os; print(os.environ['A'])", A="here"), log) is None
    assert capsys.readouterr().out == "    here\n"
    assert log.getvalue().endswith("\nhere\n") and "A=here" in log.getvalue()
    assert gpu_check.run(command("import sys; sys.exit(3)"), log) == "exit status 3"
    missing = gpu_check.Command(["/nowhere/compute-sanitizer"], 60)
    assert "No such file" in gpu_check.run(missing, log)


def test_a_command_that_hangs_is_stopped_with_its_children():
    text = "import subprocess; subprocess.run(['sleep', '60'])"
    assert gpu_check.run(command(text, seconds=1), io.StringIO()) == "stopped after 1 s"


def test_a_failed_step_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    def step(name, *texts):
        return gpu_check.Step(name, "of a test", lambda args: map(command, texts))

    steps = (step("bad", "import sys; sys.exit(1)", "print('next')"), step("good", "print('last')"))
    monkeypatch.setattr(gpu_check, "STEPS", steps)
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "LOG", tmp_path / "build" / "gpu-check.log")
    assert gpu_check.main([]) == 1
    shown = capsys.readouterr().out
    for text in (shown, gpu_check.LOG.read_text()):
        assert "next" in text and "last" in text
        summary = text.partition("summary")[2]
        assert "bad           1 FAILED" in summary and "good          ok" in summary
        assert "exit status 1" in summary
    assert gpu_check.main(["--step", "good"]) == 0


def test_what_to_install_is_said():
    problem = environment.torch_problem("2.13.0+cpu", None, False)
    assert '-m pip install --force-reinstall "torch==2.13.0"' in problem
    assert "sees no GPU" in environment.torch_problem("2.13.0+cu130", "13.0", False)
    assert environment.torch_problem("2.13.0+cu130", "13.0", True) is None
    assert environment.gpu_problem("NVIDIA H100 80GB HBM3", (9, 0)) is None
    for capability in ((8, 0), (10, 0), (12, 0)):
        assert "need 9.0" in environment.gpu_problem("other", capability)


@needs_no_gpu
def test_without_a_gpu_the_first_step_fails(capsys):
    assert environment.main() == 1
    assert "lacking: torch" in capsys.readouterr().out


def test_small_cases_of_every_op(capsys):
    assert small_cases.main("cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.partition(" ")[0] for line in lines} == set(OPS)
    assert all(line.endswith(": ok") for line in lines)
    for op in ("mqa_logits", "indexer_topk"):
        assert any(line.startswith(op) and "float8_e4m3fn" in line for line in lines)


def test_small_cases_that_are_wrong_are_reported(monkeypatch, capsys):
    def wrong(*arguments):
        out = arguments[-1]
        out.as_strided((1,), (1,), out.storage_offset() - 1).zero_()

    monkeypatch.setitem(OPS["topk_indices"]._overloads, "native", wrong)
    assert small_cases.main("cpu") == 1
    failed = [x for x in capsys.readouterr().out.splitlines() if "FAILED" in x]
    assert len(failed) == 1 and failed[0].startswith("topk_indices")


def test_roofline_is_of_the_product_and_the_operands():
    assert peaks.peaks_of("NVIDIA H100 80GB HBM3") == (peaks.H100, True)
    assert peaks.peaks_of("NVIDIA H200") == (peaks.H200, True)
    for other in ("NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GH200 480GB"):
        assert peaks.peaks_of(other)[1] is False
    much = Work(flops=10**15, bytes=1)
    for op, shape, bound, rate in (
        ("mqa_logits", {}, "e4m3", 1978.9e12),
        ("paged_indexer_topk", {}, "e4m3", 1978.9e12),
        ("mqa_logits", {"dtype": "bfloat16"}, "bf16", 989.4e12),
        ("sparse_mla_prefill", {}, "bf16", 989.4e12),
        ("indexer_q_rope_quant", {}, "fp32", 66.9e12),
    ):
        found = peaks.floor(op, shape, much, peaks.H100)
        assert (found.bound, found.seconds) == (bound, pytest.approx(1e15 / rate))
    moving = peaks.floor("mqa_logits", {}, Work(flops=1, bytes=335 * 10**10), peaks.H100)
    assert (moving.bound, moving.seconds) == ("memory", pytest.approx(1.0))


def test_table_of_times():
    row = Row("mqa_logits", "a-shape", 1e-3, 10**12, 10**9, "e4m3", 0.5, peers={"DeepGEMM": 1.25})
    header, _, line = timing.table([row], ["DeepGEMM", "FlashMLA"]).splitlines()
    assert header.split()[-2:] == ["DeepGEMM", "FlashMLA"]
    assert line.split() == ["a-shape", "1.00", "ms", "1000", "1000", "50%", "e4m3", "1.25x", "-"]
    assert json.loads(json.dumps(row.as_dict()))["peers"] == {"DeepGEMM": 1.25}


class Recorder:
    """Stands for a peer's module: says which function was called with which shapes."""

    def __getattr__(self, name):
        def function(*args, **kwargs):
            self.called = (name, args, {k: v for k, v in kwargs.items() if v is not None})
            return (None, None)

        return function


def called(adapter, op: str, **shape):
    """(function, positional, keywords) that the peer calls for such arguments, or None."""
    library = Recorder()
    arguments = case(op).make(torch.Generator().manual_seed(0), **shape)
    call = adapter(library).call(op, shape, arguments)
    if call is None:
        return None
    call()
    return library.called


def test_flash_mla_gets_its_shapes():
    prefill = dict(num_queries=2, num_kv=200, num_heads=64, topk=128)
    name, (q, kv, indices, _), more = called(peers.FlashMla, "sparse_mla_prefill", **prefill)
    assert name == "flash_mla_sparse_fwd" and more == {"d_v": 512}
    assert (q.shape, kv.shape, indices.shape) == ((2, 64, 576), (200, 1, 576), (2, 1, 128))
    decode = dict(batch=2, num_kv=128, num_heads=64, topk=64, cache_format="v32")
    name, (q, cache, *_), more = called(peers.FlashMla, "sparse_mla_decode", **decode)
    assert name == "flash_mla_with_kvcache" and more["is_fp8_kvcache"] is True
    assert q.shape == (2, 1, 64, 576) and cache.shape == (2, 64, 1, 656)
    assert more["indices"].shape == (2, 1, 64)
    for op, shape, other in (
        ("sparse_mla_prefill", prefill, dict(num_heads=16)),
        ("sparse_mla_prefill", prefill, dict(topk=64)),
        ("sparse_mla_prefill", prefill, dict(cache_format="v32")),
        ("sparse_mla_decode", decode, dict(num_heads=32)),
        ("sparse_mla_decode", decode, dict(cache_format="bf16")),
        ("sparse_mla_decode", decode, dict(topk_length=True)),
    ):
        assert called(peers.FlashMla, op, **{**shape, **other}) is None


def test_deep_gemm_gets_its_shapes():
    logits = dict(num_rows=3, seq_len=70, num_heads=64, bounds="causal")
    name, (q, (k, scale), _, start, end), more = called(peers.DeepGemm, "mqa_logits", **logits)
    assert name == "fp8_mqa_logits" and more == {"clean_logits": True}
    assert (q.shape, k.shape, scale.shape) == ((3, 64, 128), (70, 128), (70,))
    assert start.tolist() == [0, 0, 0] and end.tolist() == [68, 69, 70]
    paged = dict(seq_lens=[70, 130], num_heads=64)
    name, arguments, more = called(peers.DeepGemm, "paged_mqa_logits", **paged)
    assert name == "fp8_paged_mqa_logits" and more == {"clean_logits": False}
    assert arguments[1].shape[1:] == (64, 1, 132) and arguments[3].shape == (2, 1)
    for op, shape, other in (
        ("mqa_logits", logits, dict(dtype="bfloat16")),
        ("mqa_logits", logits, dict(num_heads=16)),
        ("mqa_logits", logits, dict(k_scale=False)),
        ("paged_mqa_logits", paged, dict(page_size=32)),
        ("paged_mqa_logits", paged, dict(next_n=3)),
    ):
        assert called(peers.DeepGemm, op, **{**shape, **other}) is None


def test_peers_that_are_not_here_are_named():
    present, absent = peers.load()
    assert set(present) | set(absent) == {"FlashMLA", "DeepGEMM"}
