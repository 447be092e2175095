// A launch: resident clusters of CTAs, the order in which their warps run, and what happens later.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "memory.h"
#include "options.h"
#include "program.h"
#include "warp.h"

namespace ptx {

class Profile;
class Races;
class Machine;
struct Cluster;

// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }

 private:
  uint64_t state_;
};

struct Cta {
  Cluster* cluster = nullptr;
  uint32_t rank = 0;
  uint32_t index[3] = {0, 0, 0};
  std::vector<std::unique_ptr<Warp>> warps;
  uint32_t threads = 0, running = 0;  // running: warps that have not finished
  Block shared;
  std::vector<uint8_t> shared_bytes;
  std::vector<uint64_t> shared_written;
  Pages cells;
  std::unique_ptr<Attachment> barriers;  // bar, barrier
  std::unique_ptr<Attachment> engines;
};

struct Cluster {
  uint64_t index = 0;  // in the grid; the order of starting
  std::vector<std::unique_ptr<Cta>> ctas;
  uint32_t running = 0;
  std::unique_ptr<Attachment> barrier;
  std::unique_ptr<Attachment> engines;
};

class Machine {
 public:
  Machine(const Program& program, const Kernel& kernel, const LaunchOptions& options,
          GlobalMemory& global, std::vector<uint8_t> params);
  ~Machine();
  void run();

  // Makes a parked warp run again; its groups must have been woken.
  void ready(Warp& w);
  // Runs the action later: at once in eager mode, else as mode and seed have it.
  void later(std::function<void()> action);
  // Something changed that a spinning warp may see; without such changes a launch ends as stuck.
  void progress() { last_progress_ = now; }
  // The warp did what warps wait by: a strong load, an atomic operation, a test of an mbarrier.
  void polls(Warp& w) { w.polled = now; }
  // Has the next of what is to happen later happen now; false if there is none.
  bool run_one_later();

  const Program& program;
  const Kernel& kernel;
  const LaunchOptions options;
  GlobalMemory& global;
  std::vector<uint8_t> params;
  Block param_block;            // of them, in their window
  uint64_t grid_workspace = 0;  // address of what a cooperative launch keeps its barrier in
  Random random;
  uint64_t now = 0;  // warp instructions before this slice
  uint64_t elapsed() const { return now + (slice_left_ ? slice_length_ - *slice_left_ : 0); }
  Stats stats;
  std::unique_ptr<Races> races;      // null if they are not looked for
  std::unique_ptr<Profile> profile;  // null if it is not asked for
  std::unique_ptr<Attachment> engines;

  // A fault to be thrown at the end, together with the races that may have led to it.
  void report_later(const Warp& w, const Fault& fault);
  std::string thread_name(const Cta& cta, int warp, int lane) const;
  std::string cta_name(const Cta& cta) const;

 private:
  struct Later {
    uint64_t due, order;
    std::function<void()> action;
    bool operator<(const Later& other) const {
      return due != other.due ? due > other.due : order > other.order;
    }
  };

  void admit();
  void start(Cluster& cluster, uint64_t index);
  void start_shared(Cta& cta);
  void start_warp(Warp& w, Cta& cta, int index);
  void fill_specials(Warp& w, const Cta& cta);
  void slice(size_t place, uint32_t length);
  bool all_spin();
  bool all_poll() const;
  void finish(Warp& w);
  [[noreturn]] void fail(Fault::Kind kind, const std::string& text) const;
  std::string text_of(const Warp& w, const Fault& fault) const;
  [[noreturn]] void rethrow(const Warp& w, const Fault& fault);
  void finish() const;
  [[noreturn]] void report_stuck(const std::string& why);

  uint64_t clusters_ = 0, started_ = 0, most_resident_ = 0;
  std::vector<std::unique_ptr<Cluster>> resident_, retired_;
  std::vector<Warp*> queue_;
  std::vector<Later> later_;  // a heap by due time
  uint64_t later_count_ = 0, last_progress_ = 0, next_probe_ = 0;
  std::string reported_later_;
  const uint32_t* slice_left_ = nullptr;
  uint32_t slice_length_ = 0;
  uint64_t target_ = 1;  // clusters that are to be resident
};

}  // namespace ptx
