// Launches and tensor maps.
#include <cstdio>
#include <cstring>

#include "driver.h"
#include "driver_device.h"
#include "limits.h"
#include "program.h"

namespace ptx::driver {
namespace {

// A cluster of more CTAs may not fit a smaller chip of the architecture.
constexpr uint64_t kPortableCluster = 8;

uint64_t volume(const uint32_t (&d)[3]) {
  return uint64_t{d[0]} * d[1] * d[2];
}

void apply_attributes(const LaunchConfig& config, LaunchOptions& options, bool& cooperative) {
  for (uint32_t i = 0; i < config.attribute_count; ++i) {
    const LaunchAttribute& a = (&checked(config.attributes, "attrs"))[i];
    switch (a.id) {
      case LaunchAttribute::cluster_dimension:
        for (int axis = 0; axis < 3; ++axis) options.cluster[axis] = a.value.cluster[axis];
        break;
      case LaunchAttribute::cooperative: cooperative = a.value.number != 0; break;
      // Launches run one after another, each to its end.
      case LaunchAttribute::programmatic_serialization:
      case LaunchAttribute::cluster_scheduling:
      case LaunchAttribute::priority:
      case LaunchAttribute::ignore: break;
      default:
        throw Failure{kNotSupported,
                      "attribute " + std::to_string(a.id) + " of a launch is not modelled"};
    }
  }
}

void check_cluster(const Function& f, const LaunchOptions& options) {
  const auto& required = f.kernel->required_cluster;
  const uint64_t size = volume(options.cluster);
  for (int axis = 0; axis < 3; ++axis)
    if (required[0] && options.cluster[axis] != required[axis])
      throw Failure{kInvalidClusterSize, f.kernel->name + " requires another cluster"};
  if (size == 0 || size > limits_of(kArchitecture).cluster_size)
    throw Failure{kInvalidClusterSize, "a cluster of " + std::to_string(size) + " CTAs"};
  if (size > kPortableCluster && !f.non_portable_cluster)
    throw Failure{kInvalidClusterSize,
                  "a cluster of " + std::to_string(size) +
                      " CTAs needs CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED"};
}

void check_shared(const Function& f, uint64_t bytes) {
  if (bytes <= f.max_dynamic_shared) return;
  throw Failure{kInvalidValue, f.kernel->name + " is launched with " + std::to_string(bytes) +
                                   " bytes of dynamic shared memory, and may have " +
                                   std::to_string(f.max_dynamic_shared) +
                                   ": raise CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES first"};
}

std::vector<const void*> arguments_of(const Function& f, void** params) {
  std::vector<const void*> arguments;
  for (size_t i = 0; i < f.kernel->parameters.size(); ++i) {
    arguments.push_back((&checked(params, "kernelParams"))[i]);
    checked(arguments.back() ? params : nullptr, "an element of kernelParams");
  }
  return arguments;
}

std::vector<ptx_emulator::Region> all_memory() {
  std::vector<ptx_emulator::Region> all;
  for (const auto& [begin, m] : device().memory)
    all.push_back({reinterpret_cast<void*>(begin), m.bytes, m.name, m.read_only,
                   m.written_bits.data() == nullptr,
                   static_cast<uint64_t*>(m.written_bits.data())});
  return all;
}

void warn_of_races() {
  if (device().options.races || device().warned) return;
  device().warned = true;
  std::fputs("ptx_emulator: RACES ARE NOT LOOKED FOR\n", stderr);
}

// The parameters as the kernel has them, behind each other.
std::vector<uint8_t> block_of(const Function& f, const std::vector<const void*>& arguments) {
  std::vector<uint8_t> block;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const ptx_emulator::Parameter& p = f.kernel->parameters[i];
    block.resize(p.offset + p.bytes);
    std::memcpy(block.data() + p.offset, arguments[i], p.bytes);
  }
  return block;
}

void launch_elsewhere(const Function& f, const LaunchOptions& options,
                      const std::vector<const void*>& arguments) {
  const std::vector<uint8_t> params = block_of(f, arguments);
  const std::vector<ptx_emulator::Region> memory = all_memory();
  std::vector<PtxDriverRegion> regions;
  for (const auto& m : memory)
    regions.push_back({m.begin, m.bytes, m.name.c_str(), m.read_only, m.written, m.written_bits});
  PtxDriverLaunch l{f.library->text.c_str(),
                    f.kernel->name.c_str(),
                    {},
                    {},
                    {},
                    options.dynamic_shared,
                    params.data(),
                    params.size(),
                    regions.data(),
                    regions.size()};
  std::memcpy(l.grid, options.grid, sizeof(l.grid));
  std::memcpy(l.block, options.block, sizeof(l.block));
  std::memcpy(l.cluster, options.cluster, sizeof(l.cluster));
  if (device().instead_of_launch(&l))
    throw Failure{kLaunchFailed, f.kernel->name + " was intercepted, and failed"};
}

void launch(const LaunchConfig& config, void* handle, void** params, void** extra) {
  need_context();
  const Function& f = function_at(handle);
  if (extra) throw Failure{kNotSupported, "arguments in `extra` are not modelled"};
  LaunchOptions options = device().options;
  for (int axis = 0; axis < 3; ++axis) {
    options.grid[axis] = config.grid[axis];
    options.block[axis] = config.block[axis];
    if (f.kernel->required_cluster[0]) options.cluster[axis] = f.kernel->required_cluster[axis];
  }
  bool cooperative = false;
  apply_attributes(config, options, cooperative);
  check_cluster(f, options);
  check_shared(f, config.shared_bytes);
  options.dynamic_shared = config.shared_bytes;
  const Program& program = f.library->module.program();
  if (cooperative &&
      volume(options.grid) > resident_ctas(program, program.kernels[f.kernel->index], options))
    throw Failure{kCooperativeLaunchTooLarge, "more CTAs than can be resident at once"};
  warn_of_races();
  const std::vector<const void*> arguments = arguments_of(f, params);
  if (device().instead_of_launch) return launch_elsewhere(f, options, arguments);
  f.library->module.launch(*f.kernel, options, arguments, all_memory());
}

Result launch_kernel_ex(const LaunchConfig* config, void* f, void** params, void** extra) {
  return guarded([&] { launch(checked(config, "config"), f, params, extra); });
}

Result launch_kernel(void* f, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z, uint32_t block_x,
                     uint32_t block_y, uint32_t block_z, uint32_t shared_bytes, void* stream,
                     void** params, void** extra) {
  const LaunchConfig config{
      {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, nullptr, 0};
  return launch_kernel_ex(&config, f, params, extra);
}

Result encode_tiled(void* out, int32_t data_type, uint32_t rank, void* address,
                    const uint64_t* dims, const uint64_t* strides, const uint32_t* box,
                    const uint32_t* element_strides, int32_t interleave, int32_t swizzle,
                    int32_t l2_promotion, int32_t oob_fill) {
  return guarded([&] {
    if (!out || reinterpret_cast<uint64_t>(out) % 64)
      throw Failure{kInvalidValue, "tensorMap must be aligned to 64 bytes"};
    TensorMapArguments a{};
    a.data_type = data_type;
    a.rank = static_cast<int32_t>(rank);
    a.address = reinterpret_cast<uint64_t>(address);
    for (uint32_t d = 0; d < rank && d < kMaxRank; ++d) {
      a.dims[d] = (&checked(dims, "globalDim"))[d];
      a.box[d] = (&checked(box, "boxDim"))[d];
      a.element_strides[d] = (&checked(element_strides, "elementStrides"))[d];
      if (d > 0) a.strides[d - 1] = (&checked(strides, "globalStrides"))[d - 1];
    }
    a.interleave = interleave;
    a.swizzle = swizzle;
    a.l2_promotion = l2_promotion;
    a.oob_fill = oob_fill;
    const std::string wrong = check(a);
    if (!wrong.empty()) throw Failure{kInvalidValue, wrong};
    TensorMap map;
    if (const auto unmodelled = encode(a, map)) throw Failure{kNotSupported, *unmodelled};
    ptx_emulator::encode_tensor_map(a, out);
  });
}

}  // namespace

Entries launch_functions() {
  return {
      entry("cuLaunchKernel", launch_kernel),
      entry("cuLaunchKernelEx", launch_kernel_ex),
      entry("cuTensorMapEncodeTiled", encode_tiled),
  };
}

}  // namespace ptx::driver
