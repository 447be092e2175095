#include "limits.h"

#include <algorithm>
#include <charconv>

#include "decoder.h"
#include "error.h"

namespace ptx {
namespace {

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
constexpr MachineLimits kLimits[] = {
    {80, 163 << 10, 164 << 10, 2048, 32, 108, 1},
    {90, 227 << 10, 228 << 10, 2048, 32, 132, 16},
};
constexpr uint64_t kStaticShared = 48 << 10, kRegisters = 65536, kReserved = 1 << 10;
constexpr uint64_t kLocal = 512 << 10;

[[noreturn]] void fail(const std::string& what, uint64_t is, uint64_t limit) {
  throw Fault(Fault::limit,
              what + ": " + std::to_string(is) + ", the limit is " + std::to_string(limit));
}

uint64_t threads_of(const LaunchOptions& o) {
  return uint64_t{o.block[0]} * o.block[1] * o.block[2];
}

}  // namespace

int architecture_of(std::string_view target) {
  int sm = 0;
  if (target.starts_with("sm_"))
    std::from_chars(target.data() + 3, target.data() + target.size(), sm);
  return sm;
}

const MachineLimits& limits_of(int architecture) {
  const MachineLimits* best = &kLimits[0];
  for (const MachineLimits& l : kLimits)
    if (l.architecture <= architecture) best = &l;
  return *best;
}

const MachineLimits& limits_of(const Program& program) {
  return limits_of(architecture_of(program.module->target));
}

uint64_t dynamic_shared_start(const Kernel& kernel) {
  return align_up(kSharedStart + kernel.static_shared, kernel.shared_align);
}

uint64_t shared_bytes(const Kernel& kernel, const LaunchOptions& options) {
  return dynamic_shared_start(kernel) - kSharedStart + options.dynamic_shared;
}

uint64_t resident_ctas(const Program& program, const Kernel& kernel, const LaunchOptions& options) {
  const MachineLimits& l = limits_of(program);
  const uint64_t shared = shared_bytes(kernel, options) + kReserved;
  const uint64_t warps = (threads_of(options) + kLanes - 1) / kLanes;
  const uint64_t per_sm =
      std::min({l.ctas_per_sm, l.shared_per_sm / shared, l.threads_per_sm / (warps * kLanes)});
  return l.sms * std::max<uint64_t>(per_sm, 1);
}

void check_limits(const Program& program, const Kernel& kernel, const LaunchOptions& o) {
  const MachineLimits& l = limits_of(program);
  constexpr uint64_t kGrid[3] = {0x7fffffff, 65535, 65535}, kBlock[3] = {1024, 1024, 64};
  uint64_t cluster = 1;
  for (int i = 0; i < 3; ++i) {
    const std::string axis = std::string(" along ") + "xyz"[i];
    if (o.grid[i] == 0 || o.grid[i] > kGrid[i]) fail("CTAs" + axis, o.grid[i], kGrid[i]);
    if (o.block[i] == 0 || o.block[i] > kBlock[i]) fail("threads" + axis, o.block[i], kBlock[i]);
    if (o.cluster[i] == 0 || o.grid[i] % o.cluster[i])
      throw Fault(Fault::limit, "the grid is no multiple of the cluster" + axis);
    cluster *= o.cluster[i];
  }
  if (cluster > l.cluster_size) fail("CTAs in a cluster", cluster, l.cluster_size);
  const uint64_t threads = threads_of(o);
  if (threads > 1024) fail("threads in a CTA", threads, 1024);
  const Function& f = *kernel.source;
  if (f.max_threads && threads > static_cast<uint64_t>(f.max_threads))
    fail("threads in a CTA (.maxntid)", threads, f.max_threads);
  for (int i = 0; i < 3; ++i) {
    if (f.required_threads[0] && o.block[i] != static_cast<uint32_t>(f.required_threads[i]))
      throw Fault(Fault::limit, "the kernel requires another block (.reqntid)");
    if (f.required_cluster[0] && o.cluster[i] != static_cast<uint32_t>(f.required_cluster[i]))
      throw Fault(Fault::limit, "the kernel requires another cluster (.reqnctapercluster)");
  }
  if (f.max_registers && f.max_registers * threads > kRegisters)
    fail("registers of a CTA (.maxnreg)", f.max_registers * threads, kRegisters);
  if (kernel.local_bytes > kLocal)
    fail("bytes of local memory of a thread", kernel.local_bytes, kLocal);
  if (kernel.static_shared > kStaticShared)
    fail("bytes of static shared memory", kernel.static_shared, kStaticShared);
  if (shared_bytes(kernel, o) > l.shared_per_cta)
    fail("bytes of shared memory of a CTA", shared_bytes(kernel, o), l.shared_per_cta);
}

}  // namespace ptx
