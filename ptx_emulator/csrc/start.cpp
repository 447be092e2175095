// Setting up clusters, CTAs and warps.
#include <algorithm>
#include <cstring>

#include "limits.h"
#include "machine.h"
#include "races.h"
#include "shadow.h"

namespace ptx {

void Machine::admit() {
  std::unique_ptr<Cluster> cluster;
  if (retired_.empty()) {
    cluster = std::make_unique<Cluster>();
    const uint32_t size = options.cluster[0] * options.cluster[1] * options.cluster[2];
    for (uint32_t rank = 0; rank < size; ++rank) cluster->ctas.push_back(std::make_unique<Cta>());
  } else {
    cluster = std::move(retired_.back());
    retired_.pop_back();
  }
  resident_.push_back(std::move(cluster));
  stats.max_resident = std::max<uint64_t>(stats.max_resident, resident_.size());
  start(*resident_.back(), started_++);
}

void Machine::start(Cluster& cluster, uint64_t index) {
  cluster.index = index;
  cluster.running = 0;
  cluster.barrier.reset();
  cluster.engines.reset();
  const uint32_t* c = options.cluster;
  const uint64_t along_x = options.grid[0] / c[0], along_y = options.grid[1] / c[1];
  const uint64_t at[3] = {index % along_x, index / along_x % along_y, index / along_x / along_y};
  const uint32_t threads = options.block[0] * options.block[1] * options.block[2];
  const uint32_t warps = (threads + kLanes - 1) / kLanes;
  for (uint32_t rank = 0; rank < cluster.ctas.size(); ++rank) {
    Cta& cta = *cluster.ctas[rank];
    cta.cluster = &cluster;
    cta.rank = rank;
    const uint32_t in_cluster[3] = {rank % c[0], rank / c[0] % c[1], rank / c[0] / c[1]};
    for (int i = 0; i < 3; ++i) cta.index[i] = static_cast<uint32_t>(at[i] * c[i] + in_cluster[i]);
    cta.threads = threads;
    cta.running = warps;
    cluster.running += warps;
    cta.barriers.reset();
    cta.engines.reset();
    start_shared(cta);
    while (cta.warps.size() < warps) cta.warps.push_back(std::make_unique<Warp>());
  }
  if (races) races->start(cluster);
  for (auto& cta : cluster.ctas)
    for (uint32_t i = 0; i < warps; ++i) start_warp(*cta->warps[i], *cta, static_cast<int>(i));
}

// Nobody has written it, and whoever reads it all the same gets NaNs.
void Machine::start_shared(Cta& cta) {
  const uint64_t bytes = shared_bytes(kernel, options);
  cta.shared_bytes.assign(bytes, 0xff);
  cta.shared_written.assign((bytes + 63) / 64, 0);
  Block& b = cta.shared;
  b.begin = kSharedWindow + (uint64_t{cta.rank} << kRankShift) + kSharedStart;
  b.end = b.begin + bytes;
  b.data = cta.shared_bytes.data();
  b.written = cta.shared_written.data();
  b.name = "shared memory";
  if (!races) return;
  const bool fresh = !cta.cells.data();
  if (fresh) cta.cells = Pages((bytes + 15) / 16 * sizeof(Cell));
  b.cells = static_cast<Cell*>(cta.cells.data());
  if (!fresh) races->forget(b);
}

void Machine::start_warp(Warp& w, Cta& cta, int index) {
  w.machine = this;
  w.cta = &cta;
  w.index = index;
  w.register_bytes = (kernel.register_bytes + 63) / 64 * 64;
  if (!w.registers) w.registers = std::make_unique_for_overwrite<uint8_t[]>(w.register_bytes + 64);
  w.base[0] =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(w.registers.get()) + 63) / 64 * 64);
  std::memset(w.base[0], 0xff, w.register_bytes);
  w.base[1] = const_cast<uint8_t*>(program.constant_base());
  w.counts = stats.counts[index].data();
  w.skipped = stats.skipped[index].data();
  w.profile = profile.get();
  const uint32_t first = static_cast<uint32_t>(index) * kLanes;
  const uint32_t lanes = std::min<uint32_t>(kLanes, cta.threads - first);
  w.existing = lanes == kLanes ? kAllLanes : (Mask{1} << lanes) - 1;
  w.alive = w.active = w.existing;
  w.pc = kernel.entry;
  w.merge_pc = ~0u;
  w.groups.clear();
  w.carry = 0;
  w.slices = 0;
  w.last_block = nullptr;
  w.local.assign(kLanes * kernel.local_bytes, 0xff);
  w.local_written.assign(kLanes * kernel.local_bytes, 0);
  w.engines.reset();
  fill_specials(w, cta);
  if (races) races->start(w);
  w.queued = false;
  ready(w);
}

void Machine::fill_specials(Warp& w, const Cta& cta) {
  const auto set = [&](int special, auto value_of_lane) {
    uint32_t* r = w.out<uint32_t>(special * kLanes * sizeof(uint32_t));
    for (int l = 0; l < kLanes; ++l) r[l] = static_cast<uint32_t>(value_of_lane(l));
  };
  const auto same = [&](int special, uint64_t value) { set(special, [&](int) { return value; }); };
  const auto axes = [&](int special, auto value_of_axis) {
    for (int i = 0; i < 3; ++i) same(special + i, value_of_axis(i));
  };
  const uint32_t* block = options.block;
  const auto thread = [&](int l) { return static_cast<uint32_t>(w.index * kLanes + l); };
  set(kTidX, [&](int l) { return thread(l) % block[0]; });
  set(kTidY, [&](int l) { return thread(l) / block[0] % block[1]; });
  set(kTidZ, [&](int l) { return thread(l) / block[0] / block[1]; });
  axes(kNtidX, [&](int i) { return block[i]; });
  axes(kCtaidX, [&](int i) { return cta.index[i]; });
  axes(kNctaidX, [&](int i) { return options.grid[i]; });
  set(kLaneId, [](int l) { return l; });
  same(kWarpId, w.index);
  same(kNwarpId, cta.warps.size());
  const uint64_t sms = limits_of(program).sms;
  same(kSmId, (cta.cluster->index * cta.cluster->ctas.size() + cta.rank) % sms);
  same(kNsmId, sms);
  same(kGridId, 1);
  set(kLanemaskEq, [](int l) { return Mask{1} << l; });
  set(kLanemaskLe, [](int l) { return (Mask{2} << l) - 1; });
  set(kLanemaskLt, [](int l) { return (Mask{1} << l) - 1; });
  set(kLanemaskGe, [](int l) { return ~((Mask{1} << l) - 1); });
  set(kLanemaskGt, [](int l) { return ~((Mask{2} << l) - 1); });
  const uint32_t* c = options.cluster;
  axes(kClusterIdX, [&](int i) { return cta.index[i] / c[i]; });
  axes(kNclusterIdX, [&](int i) { return options.grid[i] / c[i]; });
  axes(kClusterCtaIdX, [&](int i) { return cta.index[i] % c[i]; });
  axes(kClusterNctaIdX, [&](int i) { return c[i]; });
  same(kClusterCtaRank, cta.rank);
  same(kClusterNctaRank, cta.cluster->ctas.size());
  same(kDynamicSmemSize, options.dynamic_shared);
  same(kTotalSmemSize, shared_bytes(kernel, options));
  same(kAggrSmemSize, shared_bytes(kernel, options));
  same(kEnvReg1, grid_workspace >> 32);
  same(kEnvReg2, grid_workspace);
  same(kZero, 0);
  const uint64_t rank = uint64_t{cta.rank} << kRankShift;
  same(kSharedBase, rank + kSharedStart);
  same(kDynamicShared, rank + dynamic_shared_start(kernel));
}

uint64_t elapsed(const Warp& w) {
  return w.machine->elapsed();
}

}  // namespace ptx
