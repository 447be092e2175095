// torch tensors -> params.h views. Policy is checked in Python; what is checked again here is what
// memory safety needs, so that a direct torch.ops call with bad arguments raises and never crashes.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>

#include "../params.h"

namespace dsa {

using torch::stable::Tensor;

inline bool dtype_of(const Tensor& t, DType* out) {
  using torch::headeronly::ScalarType;
  switch (t.scalar_type()) {
    case ScalarType::Float: *out = DType::kFloat32; return true;
    case ScalarType::BFloat16: *out = DType::kBFloat16; return true;
    case ScalarType::Float8_e4m3fn: *out = DType::kFloat8E4M3; return true;
    case ScalarType::Byte: *out = DType::kUInt8; return true;
    case ScalarType::Int: *out = DType::kInt32; return true;
    case ScalarType::Long: *out = DType::kInt64; return true;
    default: return false;
  }
}

// What a tensor must be for `view`. A size of -1 is free; dims from `packed_from` on (the last dim
// always) are contiguous.
template <int N>
struct Expect {
  std::initializer_list<DType> dtypes;
  int64_t sizes[N];
  int packed_from = N - 1;
};

template <int N>
View<N> view(const char* op, const char* name, const Tensor& t, const Expect<N>& expect) {
  View<N> v;
  bool ok = dtype_of(t, &v.dtype);
  bool listed = false;
  for (DType d : expect.dtypes) listed |= d == v.dtype;
  STD_TORCH_CHECK(ok && listed, op, ": ", name, " has a dtype that this op does not take.");
  STD_TORCH_CHECK(t.is_cpu(), op, ": ", name, " must be on the CPU like the other arguments.");
  STD_TORCH_CHECK(t.dim() == N, op, ": ", name, " must have ", N, " dims; got ", t.dim(), ".");
  bool empty = false;
  for (int i = 0; i < N; ++i) {
    v.size[i] = t.size(i);
    v.stride[i] = t.stride(i);
    empty |= v.size[i] == 0;
    STD_TORCH_CHECK(expect.sizes[i] < 0 || v.size[i] == expect.sizes[i], op, ": ", name,
                    " must have size ", expect.sizes[i], " in dim ", i, "; got ", v.size[i], ".");
  }
  int64_t packed = 1;
  for (int i = N - 1; i >= expect.packed_from && !empty; --i) {
    STD_TORCH_CHECK(v.size[i] <= 1 || v.stride[i] == packed, op, ": ", name, " must have stride ",
                    packed, " in dim ", i, "; got ", v.stride[i], ".");
    packed *= v.size[i];
  }
  v.data = t.data_ptr();
  return v;
}

template <int N>
View<N> view(const char* op, const char* name, const std::optional<Tensor>& t,
             const Expect<N>& expect) {
  return t.has_value() ? view(op, name, *t, expect) : View<N>{};
}

// Of the selections: Python bounds topk from above, memory safety does not.
inline int64_t checked_topk(const char* op, int64_t topk) {
  STD_TORCH_CHECK(topk >= 1, op, ": topk must be at least 1; got ", topk, ".");
  return topk;
}

// Workspace of the fused selections: at least `floats` float32, aligned for them.
inline View<1> logits_workspace(const char* op, const Tensor& workspace, int64_t floats) {
  const View<1> v = view<1>(op, "workspace", workspace, {{DType::kUInt8}, {-1}});
  STD_TORCH_CHECK(v.size[0] >= 4 * floats && reinterpret_cast<uintptr_t>(v.data) % 4 == 0, op,
                  ": workspace must hold ", floats, " aligned float32; got ", v.size[0], " bytes.");
  return v;
}

}  // namespace dsa
