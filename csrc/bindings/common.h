// torch tensors -> params.h views. Policy is checked in Python; what is checked again here is what
// memory safety needs, so that a direct torch.ops call with bad arguments raises and never crashes.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <ostream>
#include <utility>
#include <vector>

#include "../cuda/emulator.h"
#include "../cuda/launch.h"
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

enum class Backend { kCpu, kCuda, kEmulated };

enum class Access { kRead, kWrite, kUpdate };  // kUpdate: keeps what the op does not write

// One call of an op by one backend: unwraps the arguments, then runs the op.
class Call {
 public:
  Call(const char* op, Backend backend) : op_(op), backend_(backend) {}

  template <int N>
  View<N> unwrap(const char* name, const Tensor& t, const Expect<N>& expect, Access access);

  template <int N>
  View<N> view(const char* name, const Tensor& t, const Expect<N>& expect) {
    return unwrap<N>(name, t, expect, Access::kRead);
  }
  template <int N>
  View<N> view(const char* name, const std::optional<Tensor>& t, const Expect<N>& expect) {
    return t.has_value() ? view<N>(name, *t, expect) : View<N>{};
  }
  template <int N>
  View<N> output(const char* name, const Tensor& t, const Expect<N>& expect) {
    return unwrap<N>(name, t, expect, Access::kWrite);
  }
  template <int N>
  View<N> update(const char* name, const Tensor& t, const Expect<N>& expect) {
    return unwrap<N>(name, t, expect, Access::kUpdate);
  }

  // The op as the backend has it. `cuda` is null where there is no such kernel.
  template <class Params>
  void run(const Params& p, void (*cpu)(const Params&),
           void (*cuda)(const Params&, const cuda::Target&) = nullptr) {
    switch (backend_) {
      case Backend::kCpu: return cpu(p);
      case Backend::kCuda: return cuda(p, {cuda::hardware_driver(), device_, current_stream()});
      case Backend::kEmulated: {
        const cuda::HostMemoryRegistration memory(std::move(memory_));
        return cuda(p, {cuda::emulated_driver(), 0, nullptr});
      }
    }
  }

  friend std::ostream& operator<<(std::ostream& stream, const Call& call) {
    return stream << call.op_;
  }

 private:
  void check_device(const char* name, const Tensor& t);
  cuda::Stream current_stream() const;

  const char* op_;
  Backend backend_;
  int device_ = -1;  // of the first tensor, on CUDA
  std::vector<cuda::HostMemory> memory_;
};

template <int N>
View<N> Call::unwrap(const char* name, const Tensor& t, const Expect<N>& expect, Access access) {
  View<N> v;
  bool ok = dtype_of(t, &v.dtype);
  bool listed = false;
  for (DType d : expect.dtypes) listed |= d == v.dtype;
  STD_TORCH_CHECK(ok && listed, op_, ": ", name, " has a dtype that this op does not take.");
  check_device(name, t);
  STD_TORCH_CHECK(t.dim() == N, op_, ": ", name, " must have ", N, " dims; got ", t.dim(), ".");
  bool empty = false;
  for (int i = 0; i < N; ++i) {
    v.size[i] = t.size(i);
    v.stride[i] = t.stride(i);
    empty |= v.size[i] == 0;
    STD_TORCH_CHECK(expect.sizes[i] < 0 || v.size[i] == expect.sizes[i], op_, ": ", name,
                    " must have size ", expect.sizes[i], " in dim ", i, "; got ", v.size[i], ".");
  }
  int64_t packed = 1, last = 0;  // `last`: offset of the last element
  for (int i = N - 1; i >= 0 && !empty; --i) {
    last += (v.size[i] - 1) * v.stride[i];
    if (i < expect.packed_from) continue;
    STD_TORCH_CHECK(v.size[i] <= 1 || v.stride[i] == packed, op_, ": ", name, " must have stride ",
                    packed, " in dim ", i, "; got ", v.stride[i], ".");
    packed *= v.size[i];
  }
  v.data = t.data_ptr();
  if (backend_ == Backend::kEmulated && !empty)
    memory_.push_back({v.data, static_cast<size_t>((last + 1) * element_size(v.dtype)), name,
                       access != Access::kRead, access != Access::kWrite});
  return v;
}

// Of the selections: Python bounds topk from above, memory safety does not.
inline int64_t checked_topk(const Call& op, int64_t topk) {
  STD_TORCH_CHECK(topk >= 1, op, ": topk must be at least 1; got ", topk, ".");
  return topk;
}

// Workspace of the fused selections: at least `floats` float32, aligned for them.
inline View<1> logits_workspace(Call& op, const Tensor& workspace, int64_t floats) {
  const View<1> v = op.output<1>("workspace", workspace, {{DType::kUInt8}, {-1}});
  STD_TORCH_CHECK(v.size[0] >= 4 * floats && reinterpret_cast<uintptr_t>(v.data) % 4 == 0, op,
                  ": workspace must hold ", floats, " aligned float32; got ", v.size[0], " bytes.");
  return v;
}

}  // namespace dsa
