// Reads of wgmma's operands: many chunks at once, and mostly the same ones again.
#include <algorithm>

#include "races.h"

namespace ptx {

void Races::read_tile(const AsyncOperation& op, const Block& block, const Tile& tile,
                      const uint8_t* const* chunks) {
  const auto address_of = [&](size_t i) {
    return block.begin + static_cast<uint64_t>(chunks[i] - block.data);
  };
  TileRead* last = find_read(op, tile, *block.cell(address_of(0)));
  if (last && read_again(op, *last)) return;
  const uint32_t index = new_read(op, tile);
  Entry plain = entry_of(op, false, tile.lanes);
  plain.bytes = 0xffff;
  Entry entry = plain;
  entry.sharing = static_cast<uint64_t>(Sharing::tile);
  entry.time = index;
  constexpr size_t kAhead = 8;  // swizzled chunks lie where no hardware prefetches them
  for (size_t i = 0; i < tile.chunks; ++i) {
    if (i + kAhead < tile.chunks) __builtin_prefetch(block.cell(address_of(i + kAhead)), 1);
    if (read_chunk(op, *block.cell(address_of(i)), entry)) continue;
    reads_[index].intact = false;
    touch(judge_of(op), block, address_of(i), plain);
  }
  if (--reads_[index].entries == 0) free_reads_.push_back(index);
}

// The agent's last read of these chunks, if it is intact.
TileRead* Races::find_read(const AsyncOperation& op, const Tile& tile, const Cell& cell) {
  if (!cell.tile_reads) return nullptr;
  for (const Entry& e : cell.entries) {
    if (!e.bytes || static_cast<Sharing>(e.sharing) != Sharing::tile || e.agent != op.agent)
      continue;
    TileRead& read = reads_[e.time];
    if (read.intact && read.tile == tile) return &read;
  }
  return nullptr;
}

// False: a writer is not known to be done, as far as `writers` tell.
bool Races::read_again(const AsyncOperation& op, TileRead& read) const {
  for (int i = 0; i < read.writer_count; ++i)
    if (!knows_of(op, read.writers[i])) return false;
  read.time = op.time;
  read.pc = op.pc;
  return true;
}

// It has one entry more than it will have, so that it lasts until all chunks have been read.
uint32_t Races::new_read(const AsyncOperation& op, const Tile& tile) {
  if (free_reads_.empty()) {
    free_reads_.push_back(static_cast<uint32_t>(reads_.size()));
    reads_.emplace_back();
  }
  const uint32_t index = free_reads_.back();
  free_reads_.pop_back();
  TileRead& read = reads_[index];
  read.tile = tile;
  read.intact = true;
  read.time = op.time;
  read.pc = op.pc;
  read.entries = 1;
  read.writer_count = 0;
  return index;
}

// An entry no longer stands for it.
void Races::release_read(uint32_t index) {
  TileRead& read = reads_[index];
  read.intact = false;
  if (--read.entries == 0) free_reads_.push_back(index);
}

// The same as touch for most cells that wgmma reads: they hold a write known to be done, the
// agent's own last read, and perhaps another's. False: all is yet to be done.
bool Races::read_chunk(const AsyncOperation& op, Cell& cell, const Entry& entry) {
  if (cell.more) return false;
  TileRead& read = reads_[entry.time];
  Entry* place = nullptr;
  for (Entry& earlier : cell.entries) {
    if (!earlier.bytes) {
      place = &earlier;
    } else if (earlier.write) {
      if (!may_read(op, earlier, read)) return false;
    } else if (earlier.agent == entry.agent) {
      const bool of_tile = static_cast<Sharing>(earlier.sharing) == Sharing::tile;
      if (earlier.lanes & ~entry.lanes) {
        // To read that tile again is to take the place of this entry, too.
        if (of_tile) reads_[earlier.time].intact = false;
        continue;
      }
      if (of_tile) {
        --cell.tile_reads;
        release_read(static_cast<uint32_t>(earlier.time));
      }
      earlier.bytes = 0;
      place = &earlier;
    }
  }
  if (!place) return false;
  *place = entry;
  ++cell.tile_reads;
  ++read.entries;
  return true;
}

bool Races::knows_of(const AsyncOperation& op, const TileRead::Writer& w) const {
  const Knowledge& known = *op.view.known;
  return known.covers(w.agent, w.time, w.lanes) &&
         (proxy_of(w.agent) != Proxy::generic || known.covers(w.agent, w.time, w.lanes, kProxied));
}

// Whether the write is known to be done, which adds it to the read's writers.
bool Races::may_read(const AsyncOperation& op, const Entry& write, TileRead& read) const {
  const TileRead::Writer alone{write.agent, static_cast<uint32_t>(write.time), write.lanes};
  TileRead::Writer* const end = read.writers + read.writer_count;
  TileRead::Writer* const known = std::find_if(
      read.writers, end, [&](const TileRead::Writer& w) { return w.agent == alone.agent; });
  if (known == end) {
    if (!knows_of(op, alone)) return false;
    if (read.writer_count < TileRead::kMostWriters)
      read.writers[read.writer_count++] = alone;
    else
      read.intact = false;
    return true;
  }
  if (alone.time <= known->time && (alone.lanes & ~known->lanes) == 0) return true;
  const TileRead::Writer both{alone.agent, std::max(alone.time, known->time),
                              alone.lanes | known->lanes};
  if (knows_of(op, both)) {
    *known = both;
    return true;
  }
  read.intact = false;
  return knows_of(op, alone);
}

// Entries that stand for reads of tiles become such as others are.
void Races::settle_tile_reads(Cell& cell) {
  for (Entry& e : cell.entries) {
    if (!e.bytes || static_cast<Sharing>(e.sharing) != Sharing::tile) continue;
    const auto index = static_cast<uint32_t>(e.time);
    e.time = reads_[index].time;
    e.pc = reads_[index].pc;
    e.sharing = static_cast<uint64_t>(Sharing::each);
    release_read(index);
  }
  cell.tile_reads = 0;
}

}  // namespace ptx
