// cuTensorMapEncodeTiled's stand-in, for Python's ctypes.
#include <cstring>

#include "tensor_map.h"

// 0, or 1 with the reason in `message`.
extern "C" int ptx_encode_tensor_map(const ptx::TensorMapArguments* a, void* out, char* message,
                                     uint64_t size) {
  std::string wrong = ptx::check(*a);
  ptx::TensorMap map{};
  if (wrong.empty()) wrong = ptx::encode(*a, map).value_or("");
  std::memset(out, 0, ptx::kTensorMapBytes);
  std::memcpy(out, &map, sizeof(map));
  std::strncpy(message, wrong.c_str(), size - 1);
  message[size - 1] = 0;
  return wrong.empty() ? 0 : 1;
}
