"""The products around attention give what torch's own give, and leave alone what is not plain."""

import pytest
import torch

pytest.importorskip("transformers", minversion="5.23")

from dsa_kernels.integrations.transformers import products


@pytest.fixture
def through_onednn(monkeypatch):
    """How many products went to oneDNN."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    rows = []
    ask = products._through_onednn

    def recorded(*arguments):
        answer = ask(*arguments)
        rows.extend([arguments[0]] * answer)
        return answer

    monkeypatch.setattr(products, "_through_onednn", recorded)
    return rows


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 32, 96), (2, 40, 96), (100, 96)])
def test_linear(through_onednn, bias, shape):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(96, 80, bias=bias), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(products.linear(layer, x), layer(x))
    assert len(through_onednn) == 1


def test_bmm_into(through_onednn):
    torch.manual_seed(0)
    a = torch.randn(64, 3, 192).transpose(0, 1)[..., :128]  # as the queries lie
    b = torch.randn(3, 256, 512)[:, :128]
    out = torch.full((64, 3, 576), torch.nan)
    products.bmm_into(a, b, out[..., :512])
    torch.testing.assert_close(out[..., :512], torch.bmm(a, b).transpose(0, 1))
    assert out[..., 512:].isnan().all() and len(through_onednn) == 1


def test_bmm_into_bfloat16(through_onednn):
    torch.manual_seed(0)
    a, b = torch.randn(3, 64, 128), torch.randn(3, 128, 64)
    out = torch.empty(64, 3, 64, dtype=torch.bfloat16)
    products.bmm_into(a, b, out)
    torch.testing.assert_close(out, torch.bmm(a, b).transpose(0, 1).to(torch.bfloat16))
    assert len(through_onednn) == 1


class Doubled(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def patched(layer):
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)
    return layer


@pytest.mark.parametrize(
    "make", [Doubled, lambda *sizes: hooked(torch.nn.Linear(*sizes)),
             lambda *sizes: patched(torch.nn.Linear(*sizes))],
    ids=["subclass", "hook", "patched forward"],
)  # fmt: skip
def test_layers_that_do_more_than_the_product_are_called(through_onednn, make):
    layer, x = make(96, 80), torch.ones(64, 96)
    with torch.no_grad():
        plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(products.linear(layer, x), 2 * plain)
    assert not through_onednn


def test_compiled_code_stays_with_torch(through_onednn):
    """Inductor, which fails on oneDNN's product, would take long; test_transformers.py has it."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(96, 80), torch.randn(64, 96)
    b = torch.randn(3, 96, 40)

    def both(x):
        out = torch.empty(64, 3, 40)
        products.bmm_into(x.expand(3, -1, -1), b, out)
        return products.linear(layer, x), out

    torch._dynamo.reset()
    with torch.no_grad():
        expected, there = both(x), len(through_onednn)
        got = torch.compile(both, fullgraph=True, backend="eager")(x)
    assert there == len(through_onednn) == 2
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("reason", ["few rows", "bfloat16", "autocast", "disabled"])
def test_what_stays_with_torch(through_onednn, reason):
    layer, x = torch.nn.Linear(96, 80), torch.ones(64, 96)
    if reason == "few rows":
        x = x[: products.MIN_ROWS - 1]
    if reason == "bfloat16":
        layer, x = layer.bfloat16(), x.bfloat16()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=reason == "autocast")
    with torch.no_grad(), autocast, torch.backends.mkldnn.flags(enabled=reason != "disabled"):
        out = products.linear(layer, x)
        assert torch.equal(out, layer(x)) and not through_onednn
