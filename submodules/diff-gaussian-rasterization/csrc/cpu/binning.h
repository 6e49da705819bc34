// From visible Gaussians to depth-ordered tile lists. Every sort is a stable counting sort over contiguous chunks, one a thread,
// so that the result does not depend on how many chunks there are.
#pragma once

#include "frame.h"
#include "packed.h"

namespace gs {
namespace GS_ISA {
namespace {

/// Chunks that `count` elements are worth, at most one a thread. Each loop over them ends in a barrier, which costs a little on
/// an idle machine and a time slice of the scheduler where another process holds the core: small loops stay on one thread.
inline int chunks_of(int64_t count, int64_t grain, int threads) {
  const int64_t chunks = count / grain;
  return chunks < 1 ? 1 : chunks < threads ? int(chunks) : threads;
}
constexpr int kBinAhead = 16;  // Gaussians between asking for one and binning it
constexpr int64_t kSortGrain = 1 << 16, kBinGrain = 1 << 12;

/// Calls body(chunk, begin, end) for `chunks` contiguous ranges that cover [0, count).
template <class Body>
void parallel_chunks(int chunks, int64_t count, Body body) {
#pragma omp parallel for num_threads(chunks) schedule(static, 1)
  for (int chunk = 0; chunk < chunks; ++chunk) body(chunk, count * chunk / chunks, count * (chunk + 1) / chunks);
}

/// Turns counts histogram[chunk][bucket] into the position of the first element of each (bucket, chunk); returns the sum.
inline int64_t exclusive_positions(int64_t* histogram, int chunks, int64_t buckets) {
  int64_t sum = 0;
  for (int64_t bucket = 0; bucket < buckets; ++bucket)
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int64_t count = histogram[chunk * buckets + bucket];
      histogram[chunk * buckets + bucket] = sum;
      sum += count;
    }
  return sum;
}

template <class Key>
void radix_sort(Frame& frame, int64_t count, int chunks) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  Key* keys = frame.keys.as<Key>();
  Key* keys_swap = reinterpret_cast<Key*>(frame.keys_swap.resize(count * sizeof(Key)));
  uint32_t *order = frame.order.data(), *order_swap = frame.order_swap.resize(count);
  int64_t* histogram = frame.histogram.resize(int64_t(chunks) * kBuckets);
  int passes = 0;
  for (int shift = 0; shift < int(sizeof(Key)) * 8; shift += kBits, ++passes) {
    memset(histogram, 0, sizeof(int64_t) * chunks * kBuckets);
    parallel_chunks(chunks, count, [&](int chunk, int64_t begin, int64_t end) {
      int64_t* h = histogram + int64_t(chunk) * kBuckets;
      for (int64_t i = begin; i < end; ++i) ++h[(keys[i] >> shift) & (kBuckets - 1)];
    });
    exclusive_positions(histogram, chunks, kBuckets);
    parallel_chunks(chunks, count, [&](int chunk, int64_t begin, int64_t end) {
      int64_t* h = histogram + int64_t(chunk) * kBuckets;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t to = h[(keys[i] >> shift) & (kBuckets - 1)]++;
        keys_swap[to] = keys[i];
        order_swap[to] = order[i];
      }
    });
    Key* k = keys;
    keys = keys_swap, keys_swap = k;
    uint32_t* o = order;
    order = order_swap, order_swap = o;
  }
  if (passes % 2) memcpy(frame.order.data(), order, sizeof(uint32_t) * count);
}

template <class T>
struct KeyOf;
template <>
struct KeyOf<float> {
  using Key = uint32_t;
};
template <>
struct KeyOf<double> {
  using Key = uint64_t;
};

/// Lists the visible Gaussians nearest first, equal depths by index: positive floats compare as their bits do.
template <class T>
void sort_by_depth(Frame& frame, const Inputs& in, const int32_t* radii) {
  using Key = typename KeyOf<T>::Key;
  const int stride = row_stride(in.num_identity);
  const T* packed = frame.packed.as<const T>();
  const int chunks = chunks_of(in.num_gaussians, kSortGrain, in.threads);
  int64_t* position = frame.histogram.resize(2 * chunks);
  memset(position, 0, sizeof(int64_t) * 2 * chunks);
  parallel_chunks(chunks, in.num_gaussians, [&](int chunk, int64_t begin, int64_t end) {
    int64_t visible = 0, rows = 0;
    for (int64_t i = begin; i < end; ++i)
      if (radii[i] > 0) ++visible, rows += frame.tile_count[i];
    position[chunk] = visible, position[chunks + chunk] = rows;
  });
  frame.num_visible = exclusive_positions(position, chunks, 1);
  frame.num_instances = exclusive_positions(position + chunks, chunks, 1);
  Key* keys = reinterpret_cast<Key*>(frame.keys.resize(frame.num_visible * sizeof(Key)));
  uint32_t* order = frame.order.resize(frame.num_visible);
  int64_t* first_row = frame.first_row.resize(in.num_gaussians);
  parallel_chunks(chunks, in.num_gaussians, [&](int chunk, int64_t begin, int64_t end) {
    int64_t to = position[chunk], row = position[chunks + chunk];
    for (int64_t i = begin; i < end; ++i) {
      if (radii[i] <= 0) continue;
      memcpy(&keys[to], &packed[i * stride + kDepth], sizeof(Key));
      order[to++] = uint32_t(i);
      first_row[i] = row;
      row += frame.tile_count[i];
    }
  });
  radix_sort<Key>(frame, frame.num_visible, chunks);
}

/// Asks for what the binning of the Gaussians that come a little later in depth order is going to read: they lie anywhere.
GS_HD void prefetch_gaussian(const Frame& frame, int64_t k) {
  if (k + 2 * kBinAhead >= frame.num_visible) return;
  const uint32_t far = frame.order[k + 2 * kBinAhead], near = frame.order[k + kBinAhead];
  __builtin_prefetch(&frame.first_row[far]);
  __builtin_prefetch(&frame.tile_count[far]);
  __builtin_prefetch(&frame.tile_rows[far]);
  __builtin_prefetch(&frame.place_of_row[frame.first_row[near]]);
}

/// Fills the tile lists, in depth order within each tile.
template <class T>
void bin_into_tiles(Frame& frame, const Inputs& in, const int32_t* radii) {
  const int stride = row_stride(in.num_identity);
  const T* packed = frame.packed.as<const T>();
  const int64_t tiles = int64_t(frame.tiles_x) * frame.tiles_y;
  const int chunks = chunks_of(frame.num_visible, kBinGrain, in.threads);
  int64_t* histogram = frame.histogram.resize(tiles * chunks);
  uint32_t* place_of_row = frame.place_of_row.resize(frame.num_instances);  // until the lists are filled: the tile
  memset(histogram, 0, sizeof(int64_t) * tiles * chunks);
  parallel_chunks(chunks, frame.num_visible, [&](int chunk, int64_t begin, int64_t end) {
    int64_t* h = histogram + chunk * tiles;
    for (int64_t k = begin; k < end; ++k) {
      const uint32_t g = frame.order[k];
      prefetch_gaussian(frame, k);
      if (frame.tile_count[g] == 0) continue;
      uint32_t* to = place_of_row + frame.first_row[g];
      const auto list = [&](int begin, int end, int y) {
        for (int x = begin; x < end; ++x) {
          const int64_t tile = int64_t(y) * frame.tiles_x + x;
          *to++ = uint32_t(tile);
          ++h[tile];
        }
      };
      const TileRows& rows = frame.tile_rows[g];
      const T* row = packed + g * int64_t(stride);
      if (rows.count > TileRows::kMost)
        for_tile_rows(row, tile_box(row, radii[g], frame.tiles_x, frame.tiles_y), list);
      else
        for (int r = 0; r < rows.count; ++r) list(rows.spans[r].begin, rows.spans[r].end, rows.spans[r].y);
    }
  });
  exclusive_positions(histogram, chunks, tiles);
  int64_t* tile_begin = frame.tile_begin.resize(tiles + 1);
  memcpy(tile_begin, histogram, sizeof(int64_t) * tiles);  // the first chunk's positions are where the tiles begin
  tile_begin[tiles] = frame.num_instances;
  Instance* instances = frame.instances.resize(frame.num_instances);
  parallel_chunks(chunks, frame.num_visible, [&](int chunk, int64_t begin, int64_t end) {
    int64_t* h = histogram + chunk * tiles;
    for (int64_t k = begin; k < end; ++k) {
      const uint32_t g = frame.order[k];
      prefetch_gaussian(frame, k);
      const int64_t first = frame.first_row[g];
      for (int64_t r = first; r < first + frame.tile_count[g]; ++r) {
        const int64_t place = h[place_of_row[r]]++;
        instances[place] = {g, uint32_t(r)};
        place_of_row[r] = uint32_t(place);
      }
    }
  });
}

}  // namespace
}  // namespace GS_ISA
}  // namespace gs
