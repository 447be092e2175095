// The C++ interface: a module of PTX, and launches of its kernels. See docs/api.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"
#include "options.h"
#include "tensor_map.h"

namespace ptx {
struct Program;
}

namespace ptx_emulator {

using ptx::Error;  // what() says what is wrong
using ptx::Fault;  // an Error of a launch, by kind
using ptx::LaunchOptions;
using ptx::Mode;
using ptx::Stats;
using ptx::TensorMapArguments;

struct Parameter {
  std::string name;
  uint64_t offset, bytes;  // in the block of parameters
};

// A kernel and the launch bounds that it declares; zeros where it declares none.
struct Kernel {
  std::string name;
  int line = 0;
  std::vector<Parameter> parameters;
  uint64_t static_shared = 0, local_bytes = 0;
  uint32_t required_block[3] = {}, required_cluster[3] = {};
  uint32_t max_threads = 0, max_registers = 0;
  uint32_t min_ctas = 0;  // of an SM
  size_t index = 0;       // in the module
};

// Something of a module that the emulator does not model.
struct Unsupported {
  int line;
  std::string text, reason;
};

// Memory of the host that a launch may touch; its addresses are the device's, too. Regions that
// overlap become one.
struct Region {
  void* begin = nullptr;
  uint64_t bytes = 0;
  std::string name;  // for reports
  bool read_only = false;
  bool written = true;  // false: what no kernel wrote must not be read
  // A bit for each byte that is written, kept up to date, for memory that several launches share.
  // The region must not overlap another.
  uint64_t* written_bits = nullptr;
};

// Launches of one module may run at once in several threads, as long as they share no memory.
class Module {
 public:
  explicit Module(std::string text);  // throws an Error if it is no PTX
  ~Module();
  Module(Module&&) noexcept;
  Module& operator=(Module&&) noexcept;

  const std::string& target() const;  // "sm_90a"
  const std::vector<Kernel>& kernels() const;
  const Kernel* find(std::string_view name) const;  // null if there is none
  const std::vector<Unsupported>& unsupported() const;
  // A variable in global or constant memory; of no bytes if there is none of that name.
  Region variable(std::string_view name) const;

  // Runs the kernel to its end, and throws a Fault for whatever it does wrong. An argument points
  // to the parameter's value, as for cuLaunchKernel. The variables of the module are always in
  // reach.
  Stats launch(const Kernel& kernel, const LaunchOptions& options,
               const std::vector<const void*>& arguments, const std::vector<Region>& memory) const;

  const ptx::Program& program() const;  // for those who know program.h

 private:
  struct Loaded;
  std::unique_ptr<Loaded> loaded_;
};

// Makes the 128 bytes of a tensor map; throws an Error if cuTensorMapEncodeTiled refuses the
// arguments, or if they are not modelled.
void encode_tensor_map(const TensorMapArguments& arguments, void* out);

}  // namespace ptx_emulator
