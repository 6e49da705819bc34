// From visible Gaussians to depth-ordered tile lists.
#pragma once

#include "frame.h"

namespace gs {
namespace cuda {

struct Span {
  int begin, end;
};

/// `tile_row_span`, compiled once: counting and listing the tiles of a Gaussian must round alike.
template <class T>
__attribute__((noinline)) __device__ Span reached_tiles(const T* row, int box_x0, int box_x1, int ty) {
  Span span;
  tile_row_span(row, box_x0, box_x1, ty, span.begin, span.end);
  return span;
}

/// Tiles that the segments' Gaussians reach, summed per segment.
__global__ void __launch_bounds__(kSegment)
    count_rows(const uint32_t* order, const int32_t* tile_count, const Counts* counts, int64_t* segment_row) {
  __shared__ int64_t scratch[kSegment / kWarp];
  const int64_t k = int64_t(blockIdx.x) * kSegment + threadIdx.x;
  int64_t total;
  block_exclusive_scan<kSegment>(k < counts->visible ? int64_t(tile_count[order[k]]) : int64_t(0), scratch, total);
  if (threadIdx.x == 0) segment_row[blockIdx.x] = total;
}

constexpr int kScanThreads = 1024;

/// One block: the segments' sums to the rows at which they begin.
__global__ void __launch_bounds__(kScanThreads) scan_segments(int64_t* segment_row, int64_t segments, Counts* counts) {
  __shared__ int64_t scratch[kScanThreads / kWarp];
  int64_t carry = 0;
  for (int64_t first = 0; first < segments; first += kScanThreads) {
    const int64_t i = first + threadIdx.x;
    int64_t total;
    const int64_t before = block_exclusive_scan<kScanThreads>(i < segments ? segment_row[i] : int64_t(0), scratch, total);
    if (i < segments) segment_row[i] = carry + before;
    carry += total;
  }
  if (threadIdx.x == 0) counts->instances = carry;
}

constexpr int kManyTiles = 32;  // from here on a warp lists a Gaussian's tiles together

/// Lists the tiles of every visible Gaussian in its gradient rows.
template <class T, class Key>
__global__ void __launch_bounds__(kSegment)
    list_tiles(const T* packed, const int32_t* radii, const int32_t* tile_count, const uint32_t* order, const Counts* counts,
               const int64_t* segment_row, Grid grid, uint32_t* first_row, Key* tile_of_row, uint32_t* gaussian_of_row) {
  __shared__ int64_t scratch[kSegment / kWarp];
  const int64_t k = int64_t(blockIdx.x) * kSegment + threadIdx.x;
  const bool visible = k < counts->visible;
  const uint32_t g = visible ? order[k] : 0;
  const int count = visible ? tile_count[g] : 0;
  int64_t total;
  const int64_t before = block_exclusive_scan<kSegment>(int64_t(count), scratch, total);
  const uint32_t first = uint32_t(segment_row[blockIdx.x] + before);
  if (visible) first_row[g] = first;

  auto list = [&](uint32_t gaussian, uint32_t row, int lane, int lanes) {
    const T* p = packed + int64_t(gaussian) * kPackedRow;
    const TileBox box = tile_box(p, radii[gaussian], grid.tiles_x, grid.tiles_y);
    for (int ty = box.y0; ty < box.y1; ++ty) {
      const Span span = reached_tiles(p, box.x0, box.x1, ty);
      for (int x = span.begin + lane; x < span.end; x += lanes) {
        tile_of_row[row + x - span.begin] = Key(ty * grid.tiles_x + x);
        gaussian_of_row[row + x - span.begin] = gaussian;
      }
      if (span.begin < span.end) row += span.end - span.begin;
    }
  };
  if (count > 0 && count < kManyTiles) list(g, first, 0, 1);
  for (unsigned many = __ballot_sync(kAllLanes, count >= kManyTiles); many; many &= many - 1) {
    const int lane = __ffs(many) - 1;
    const uint32_t gaussian = __shfl_sync(kAllLanes, g, lane), row = __shfl_sync(kAllLanes, first, lane);
    list(gaussian, row, lane_id(), kWarp);
  }
}

/// Sorted rows to instances.
__global__ void __launch_bounds__(256)
    make_instances(const uint32_t* rows, const uint32_t* gaussian_of_row, int64_t count, Instance* instances) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i < count) instances[i] = {gaussian_of_row[rows[i]], rows[i]};
}

/// tile_begin[t]: the first instance whose tile is not before t.
template <class Key>
__global__ void __launch_bounds__(256) find_tiles(const Key* sorted, uint32_t count, int tiles, uint32_t* tile_begin) {
  const int tile = int(blockIdx.x) * 256 + threadIdx.x;
  if (tile > tiles) return;
  uint32_t low = 0, high = count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (int64_t(sorted[middle]) < tile)
      low = middle + 1;
    else
      high = middle;
  }
  tile_begin[tile] = low;
}

/// One block: tiles in falling order of their lists' lengths, roughly: what takes long starts first. Which of two like tiles
/// comes first is left to chance and changes no result.
__global__ void __launch_bounds__(kScanThreads) order_tiles(const uint32_t* tile_begin, int tiles, uint32_t* tile_order) {
  constexpr int kBuckets = 256, kStep = 16;  // lists of 4,096 and more count as equal
  __shared__ uint32_t place[kScanThreads];
  __shared__ uint32_t scratch[kScanThreads / kWarp];
  auto bucket_of = [&](int tile) {
    const uint32_t length = (tile_begin[tile + 1] - tile_begin[tile]) / kStep;
    return kBuckets - 1 - int(length < kBuckets ? length : kBuckets - 1);
  };
  place[threadIdx.x] = 0;
  __syncthreads();
  for (int tile = threadIdx.x; tile < tiles; tile += kScanThreads) atomicAdd(&place[bucket_of(tile)], 1u);
  __syncthreads();
  uint32_t total;
  const uint32_t before = block_exclusive_scan<kScanThreads>(place[threadIdx.x], scratch, total);
  place[threadIdx.x] = before;
  __syncthreads();
  for (int tile = threadIdx.x; tile < tiles; tile += kScanThreads) tile_order[atomicAdd(&place[bucket_of(tile)], 1u)] = uint32_t(tile);
}

}  // namespace cuda
}  // namespace gs
