#include "common.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

// Of libtorch_cuda, which a CPU build of torch does not have.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace dsa {

void Call::check_device(const char* name, const Tensor& t) {
  if (backend_ != Backend::kCuda) {
    STD_TORCH_CHECK(t.is_cpu(), op_, ": ", name, " must be on the CPU like the other arguments.");
    return;
  }
  STD_TORCH_CHECK(t.is_cuda(), op_, ": ", name, " must be on a CUDA device.");
  if (device_ < 0) device_ = t.get_device_index();
  STD_TORCH_CHECK(t.get_device_index() == device_, op_, ": ", name,
                  " must be on the device of the other arguments, cuda:", device_, ".");
}

cuda::Stream Call::current_stream() const {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, op_, ": this torch has no CUDA.");
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream) == AOTI_TORCH_SUCCESS, op_,
                  ": no current CUDA stream.");
  return stream;
}

}  // namespace dsa
