#include "clocks.h"

#include <algorithm>
#include <functional>

namespace ptx {
namespace {

void join(std::vector<Known>& a, const std::vector<Known>& b) {
  if (a.size() < b.size()) a.resize(b.size());
  for (size_t i = 0; i < b.size(); ++i) a[i].join(b[i]);
}

bool includes(const std::vector<Known>& a, const std::vector<Known>& b) {
  for (size_t i = 0; i < b.size(); ++i)
    if (i < a.size() ? !a[i].includes(b[i]) : !Known{}.includes(b[i])) return false;
  return true;
}

void meet(std::vector<Known>& a, const std::vector<Known>& b) {
  if (a.size() > b.size()) a.resize(b.size());
  for (size_t i = 0; i < a.size(); ++i) a[i].meet(b[i]);
}

void add(std::vector<Known>& v, uint32_t index, uint32_t time, Mask lanes, bool full) {
  if (v.size() <= index) v.resize(index + 1);
  v[index].join(full ? Known(time) : Known(time, lanes));
}

}  // namespace

// Sets the levels from the lanes that a and b know up to each time above `all`. All 32 lanes are
// all. Of more than two levels the lower ones are taken for the second: that may hide a race
// between lanes, and never makes one up.
template <class Merge>
void Known::set_levels(const Known& a, const Known& b, Merge merge) {
  uint32_t times[2 * (kPartial + 1)];
  int count = 0;
  for (const Known* k : {&a, &b}) {
    times[count++] = k->all;
    for (const Level& l : k->levels) times[count++] = l.time;
  }
  std::sort(times, times + count, std::greater<>());
  Level found[std::size(times)];
  int kept = 0;
  const auto lanes_of = [](const Known& k, uint32_t t) {
    return t <= k.all ? kAllLanes : k.lanes_at(t);
  };
  for (int i = 0; i < count && times[i] > all; ++i) {
    const Mask lanes = merge(lanes_of(a, times[i]), lanes_of(b, times[i]));
    if (lanes == kAllLanes) {
      all = times[i];
    } else if (lanes != (kept ? found[kept - 1].lanes : 0)) {
      found[kept++] = {times[i], lanes};
    }
  }
  if (kept > kPartial) found[kPartial - 1].lanes = found[kept - 1].lanes;
  std::copy_n(found, kPartial, levels);
}

void Known::join_levels(const Known& o) {
  const Known a = *this;
  all = std::max(all, o.all);
  set_levels(a, o, [](Mask x, Mask y) { return x | y; });
}

void Known::meet(const Known& o) {
  const Known a = *this;
  all = std::min(all, o.all);
  set_levels(a, o, [](Mask x, Mask y) { return x & y; });
}

void ClusterView::join(const ClusterView& o) {
  for (int i = 0; i < kAspects; ++i) ptx::join(of[i], o.of[i]);
}

bool ClusterView::includes(const ClusterView& o) const {
  for (int i = 0; i < kAspects; ++i)
    if (!ptx::includes(of[i], o.of[i])) return false;
  return true;
}

void Knowledge::clear(uint32_t cluster) {
  cluster_ = cluster;
  for (auto& known : own_.of) known.clear();
  foreign_.clear();
}

const ClusterView* Knowledge::find(uint32_t cluster) const {
  const auto it = std::lower_bound(foreign_.begin(), foreign_.end(), cluster,
                                   [](const Foreign& f, uint32_t c) { return f.cluster < c; });
  return it != foreign_.end() && it->cluster == cluster ? it->view.get() : nullptr;
}

Known Knowledge::of(Agent agent, int aspect) const {
  const ClusterView* view = view_of(agent);
  const uint32_t i = local_of(agent);
  return view && i < view->of[aspect].size() ? view->of[aspect][i] : Known{};
}

void Knowledge::join_view(uint32_t cluster, std::shared_ptr<const ClusterView> view) {
  if (cluster == cluster_) return own_.join(*view);
  const auto it = std::lower_bound(foreign_.begin(), foreign_.end(), cluster,
                                   [](const Foreign& f, uint32_t c) { return f.cluster < c; });
  if (it == foreign_.end() || it->cluster != cluster) {
    foreign_.insert(it, {cluster, std::move(view)});
    return;
  }
  // Knowledge mostly grows: the newer view then is shared, not copied.
  if (it->view == view || it->view->includes(*view)) return;
  if (view->includes(*it->view)) {
    it->view = std::move(view);
    return;
  }
  auto both = std::make_shared<ClusterView>(*it->view);
  both->join(*view);
  it->view = std::move(both);
}

void Knowledge::join(const Knowledge& o) {
  if (cluster_ == o.cluster_) {
    own_.join(o.own_);
  } else {
    join_view(o.cluster_, std::make_shared<ClusterView>(o.own_));
  }
  for (const Foreign& f : o.foreign_) join_view(f.cluster, f.view);
}

void Knowledge::add(Agent agent, uint32_t time, Mask lanes, bool full, int aspect) {
  if (cluster_of(agent) == cluster_)
    return ptx::add(own_.of[aspect], local_of(agent), time, lanes, full);
  auto view = std::make_shared<ClusterView>();
  ptx::add(view->of[aspect], local_of(agent), time, lanes, full);
  join_view(cluster_of(agent), std::move(view));
}

// Foreign views are shared: a changed one is a new one. changes(view) tells whether there is a
// need.
template <class Changes, class Change>
void Knowledge::change_views(Changes changes, Change change) {
  change(own_);
  for (Foreign& f : foreign_) {
    if (!changes(*f.view)) continue;
    auto view = std::make_shared<ClusterView>(*f.view);
    change(*view);
    f.view = std::move(view);
  }
}

void Knowledge::proxy() {
  change_views([](const ClusterView& v) { return !ptx::includes(v.of[kProxied], v.of[kSeen]); },
               [](ClusterView& v) { ptx::join(v.of[kProxied], v.of[kSeen]); });
}

void Knowledge::fence(int level) {
  change_views(
      [=](const ClusterView& v) {
        for (int l = 0; l <= level; ++l)
          if (!v.of[kHeld + l].empty()) return true;
        return !ptx::includes(v.of[kFlushed + level], v.of[kSeen]);
      },
      [=](ClusterView& v) {
        for (int l = 0; l <= level; ++l) {
          ptx::join(v.of[kSeen], v.of[kHeld + l]);
          v.of[kHeld + l].clear();
        }
        ptx::join(v.of[kFlushed + level], v.of[kSeen]);
      });
}

void Knowledge::hold(const Knowledge& o, int level) {
  const auto hold_view = [&](uint32_t cluster, const ClusterView& v) {
    const ClusterView* mine = cluster == cluster_ ? &own_ : find(cluster);
    if (mine && ptx::includes(mine->of[kProxied], v.of[kProxied]) &&
        (ptx::includes(mine->of[kSeen], v.of[kSeen]) ||
         ptx::includes(mine->of[kHeld + level], v.of[kSeen])))
      return;
    auto view = std::make_shared<ClusterView>();
    view->of[kHeld + level] = v.of[kSeen];
    view->of[kProxied] = v.of[kProxied];
    join_view(cluster, std::move(view));
  };
  hold_view(o.cluster_, o.own_);
  for (const Foreign& f : o.foreign_) hold_view(f.cluster, *f.view);
}

bool Knowledge::has_flushed(int level) const {
  // What a fence flushes holds the fencing warp itself, of the own cluster.
  return !own_.of[kFlushed + level].empty();
}

Knowledge Knowledge::flushed(int level) const {
  const auto flushed = [=](const ClusterView& v) {
    ClusterView view;
    view.of[kSeen] = v.of[kFlushed + level];
    ptx::meet(view.of[kSeen], v.of[kSeen]);
    view.of[kProxied] = v.of[kProxied];
    return view;
  };
  Knowledge result(cluster_);
  result.own_ = flushed(own_);
  for (const Foreign& f : foreign_)
    result.foreign_.push_back({f.cluster, std::make_shared<ClusterView>(flushed(*f.view))});
  return result;
}

void Knowledge::meet(const Knowledge& o) {
  for (int i = 0; i < kAspects; ++i) ptx::meet(own_.of[i], o.own_.of[i]);
  std::vector<Foreign> kept;
  for (Foreign& f : foreign_) {
    const ClusterView* other = o.find(f.cluster);
    if (!other) continue;
    if (other != f.view.get()) {
      auto view = std::make_shared<ClusterView>(*f.view);
      for (int i = 0; i < kAspects; ++i) ptx::meet(view->of[i], other->of[i]);
      f.view = std::move(view);
    }
    kept.push_back(std::move(f));
  }
  foreign_ = std::move(kept);
}

}  // namespace ptx
