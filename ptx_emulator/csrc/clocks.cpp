#include "clocks.h"

#include <algorithm>

namespace ptx {
namespace {

void join(std::vector<Known>& a, const std::vector<Known>& b) {
  if (a.size() < b.size()) a.resize(b.size());
  for (size_t i = 0; i < b.size(); ++i) a[i].join(b[i]);
}

void add(std::vector<Known>& v, uint32_t index, uint32_t time, Mask lanes, bool full) {
  if (v.size() <= index) v.resize(index + 1);
  v[index].join(full ? Known{time, 0, 0} : Known{0, time, lanes});
}

}  // namespace

void ClusterView::join(const ClusterView& o) {
  ptx::join(seen, o.seen);
  ptx::join(proxied, o.proxied);
}

void Knowledge::clear(uint32_t cluster) {
  cluster_ = cluster;
  own_.seen.clear();
  own_.proxied.clear();
  foreign_.clear();
}

const ClusterView* Knowledge::find(uint32_t cluster) const {
  const auto it =
      std::lower_bound(foreign_.begin(), foreign_.end(), cluster,
                       [](const Foreign& f, uint32_t c) { return f.cluster < c; });
  return it != foreign_.end() && it->cluster == cluster ? it->view.get() : nullptr;
}

void Knowledge::join_foreign(uint32_t cluster, std::shared_ptr<const ClusterView> view) {
  const auto it =
      std::lower_bound(foreign_.begin(), foreign_.end(), cluster,
                       [](const Foreign& f, uint32_t c) { return f.cluster < c; });
  if (it == foreign_.end() || it->cluster != cluster) {
    foreign_.insert(it, {cluster, std::move(view)});
    return;
  }
  if (it->view == view) return;
  auto both = std::make_shared<ClusterView>(*it->view);
  both->join(*view);
  // Knowledge mostly grows: the newer view then is shared, not copied.
  it->view = *both == *view ? std::move(view) : std::move(both);
}

void Knowledge::join(const Knowledge& o) {
  if (cluster_ == o.cluster_) {
    own_.join(o.own_);
  } else if (!o.own_.seen.empty()) {
    join_foreign(o.cluster_, std::make_shared<ClusterView>(o.own_));
  }
  for (const Foreign& f : o.foreign_) {
    if (f.cluster == cluster_) {
      own_.join(*f.view);
    } else {
      join_foreign(f.cluster, f.view);
    }
  }
}

void Knowledge::add(Agent agent, uint32_t time, Mask lanes, bool full) {
  if (cluster_of(agent) == cluster_) {
    ptx::add(own_.seen, local_of(agent), time, lanes, full);
    return;
  }
  auto view = std::make_shared<ClusterView>();
  ptx::add(view->seen, local_of(agent), time, lanes, full);
  join_foreign(cluster_of(agent), std::move(view));
}

void Knowledge::add_proxied(Agent agent, uint32_t time, Mask lanes, bool full) {
  ptx::add(own_.proxied, local_of(agent), time, lanes, full);
}

void Knowledge::proxy() {
  ptx::join(own_.proxied, own_.seen);
  for (Foreign& f : foreign_) {
    auto view = std::make_shared<ClusterView>(*f.view);
    ptx::join(view->proxied, view->seen);
    if (!(*view == *f.view)) f.view = std::move(view);
  }
}

void Knowledge::meet(const Knowledge& o) {
  const auto meet = [](std::vector<Known>& a, const std::vector<Known>& b) {
    if (a.size() > b.size()) a.resize(b.size());
    for (size_t i = 0; i < a.size(); ++i) a[i].meet(b[i]);
  };
  meet(own_.seen, o.own_.seen);
  meet(own_.proxied, o.own_.proxied);
  std::vector<Foreign> kept;
  for (Foreign& f : foreign_) {
    const ClusterView* other = o.find(f.cluster);
    if (!other) continue;
    if (other != f.view.get()) {
      auto view = std::make_shared<ClusterView>(*f.view);
      meet(view->seen, other->seen);
      meet(view->proxied, other->proxied);
      f.view = std::move(view);
    }
    kept.push_back(std::move(f));
  }
  foreign_ = std::move(kept);
}

}  // namespace ptx
