// Exact nearest neighbours: one warp per query walks a tree of boxes with 32 children per node, nearest child
// first.
//
// 32 lanes test the 32 boxes of a node, or the 32 points of a leaf, at once, with coalesced loads. The points
// lie in Morton order, whose runs of 32 are compact wherever the points are dense, unlike the cells of a
// uniform grid.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "launch.h"
#include "search.h"
#include "warp_top_k.h"

namespace simple_knn {
namespace {

using cuda_launch::launch;

constexpr int kFan = 32;       // children of a node, points of a leaf: one per lane
constexpr int kMaxLevels = 6;  // 2^32 points: 2^27 leaves, 2^22, 2^17, 2^12, 2^7, 2^2
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr uint32_t kVisited = 0xFFFFFFFFu;  // beyond the bits of every distance
constexpr float kMortonCells = 2097151.0f;  // 2^21 - 1 per axis: 63 bits

struct Boxes {  // low x, y, z, high x, y, z, each (count,)
  float* values;
  uint32_t count;
};

struct Tree {
  float4* points;  // (count,) x, y, z, bits of the index
  uint32_t count;
  int num_levels;
  Boxes levels[kMaxLevels];  // [0]: of the leaves; the last one has at most 32
};

uint32_t divide_up(int64_t n, int64_t by) { return static_cast<uint32_t>((n + by - 1) / by); }

Tree tree_at(const void* memory, int64_t count) {
  Tree tree = {};
  tree.points = static_cast<float4*>(const_cast<void*>(memory));
  tree.count = static_cast<uint32_t>(count);
  float* values = reinterpret_cast<float*>(tree.points + count);
  for (uint32_t boxes = divide_up(count, kFan);; boxes = divide_up(boxes, kFan)) {
    tree.levels[tree.num_levels++] = {values, boxes};
    values += 6 * int64_t{boxes};
    if (boxes <= kFan) return tree;
  }
}

// ---- building
// -------------------------------------------------------------------------------------------------------

__device__ uint64_t spread_bits(uint32_t value) {  // two zeros between the 21 bits
  uint64_t x = value;
  x = (x | x << 32) & 0x001F00000000FFFFull;
  x = (x | x << 16) & 0x001F0000FF0000FFull;
  x = (x | x << 8) & 0x100F00F00F00F00Full;
  x = (x | x << 4) & 0x10C30C30C30C30C3ull;
  return (x | x << 2) & 0x1249249249249249ull;
}

__global__ void __launch_bounds__(kThreads)
    morton_kernel(const float* __restrict__ points, uint32_t count, const float* __restrict__ bounds,
                  int64_t* __restrict__ codes) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  uint64_t code = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const float low = bounds[axis], extent = bounds[3 + axis] - low;
    const float cell = (points[3 * i + axis] - low) / extent * kMortonCells;
    code |= spread_bits(cell > 0.0f ? static_cast<uint32_t>(fminf(cell, kMortonCells)) : 0u)
            << axis;  // NaN: 0
  }
  codes[i] = static_cast<int64_t>(code);
}

__device__ __forceinline__ float warp_minimum(float x) {
  for (int step = 16; step; step /= 2) x = fminf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
__device__ __forceinline__ float warp_maximum(float x) { return -warp_minimum(-x); }

// The box of the warp's lanes, by lane 0.
__device__ __forceinline__ void write_box(const Boxes& boxes, uint32_t node, int lane, const float* low,
                                          const float* high) {
  for (int axis = 0; axis < 3; ++axis) {
    const float least = warp_minimum(low[axis]), greatest = warp_maximum(high[axis]);
    if (lane != 0) continue;
    boxes.values[axis * int64_t{boxes.count} + node] = least;
    boxes.values[(3 + axis) * int64_t{boxes.count} + node] = greatest;
  }
}

__global__ void __launch_bounds__(kThreads)
    leaves_kernel(const float* __restrict__ points, const int64_t* __restrict__ order, Tree tree) {
  const int lane = threadIdx.x % 32;
  const uint32_t leaf = blockIdx.x * kWarps + threadIdx.x / 32;
  if (leaf >= tree.levels[0].count) return;
  const int64_t slot = int64_t{leaf} * kFan + lane;
  float low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
  if (slot < tree.count) {
    const int64_t index = order[slot];
    for (int axis = 0; axis < 3; ++axis) low[axis] = high[axis] = points[3 * index + axis];
    tree.points[slot] = make_float4(low[0], low[1], low[2], __uint_as_float(static_cast<uint32_t>(index)));
  }
  write_box(tree.levels[0], leaf, lane, low, high);
}

__global__ void __launch_bounds__(kThreads) nodes_kernel(Boxes children, Boxes nodes) {
  const int lane = threadIdx.x % 32;
  const uint32_t node = blockIdx.x * kWarps + threadIdx.x / 32;
  if (node >= nodes.count) return;
  const uint32_t child = node * kFan + lane;
  float low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
  for (int axis = 0; axis < 3 && child < children.count; ++axis) {
    low[axis] = children.values[axis * int64_t{children.count} + child];
    high[axis] = children.values[(3 + axis) * int64_t{children.count} + child];
  }
  write_box(nodes, node, lane, low, high);
}

// ---- searching
// ------------------------------------------------------------------------------------------------------

// The intrinsics round every step, as the CPU part does: no fused multiply-add. Subtraction, product and sum
// round monotonically, so that a box is never farther than a point in it and pruning loses nothing, not even
// a tie.
__device__ __forceinline__ float squared_length(float x, float y, float z) {
  return __fadd_rn(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)), __fmul_rn(z, z));
}

__device__ __forceinline__ float side(float low, float high, float q) {
  return fmaxf(fmaxf(__fsub_rn(low, q), __fsub_rn(q, high)), 0.0f);
}

// Bits of the squared distance from the query to a box, which order as it does; kVisited where there is no
// such box.
__device__ __forceinline__ uint32_t box_distance(const Boxes& boxes, uint32_t box, float3 query) {
  if (box >= boxes.count) return kVisited;
  const float* v = boxes.values + box;
  const int64_t n = boxes.count;
  return __float_as_uint(squared_length(side(v[0], v[3 * n], query.x), side(v[n], v[4 * n], query.y),
                                        side(v[2 * n], v[5 * n], query.z)));
}

template <int kSlots>
__device__ __forceinline__ void scan_leaf(const Tree& tree, uint32_t leaf, int lane, float3 query,
                                          int64_t exclude, WarpTopK<kSlots>& best) {
  const int64_t slot = int64_t{leaf} * kFan + lane;
  Key key = kNoCandidate;
  if (slot < tree.count) {
    const float4 p = tree.points[slot];
    const uint32_t index = __float_as_uint(p.w);
    if (index != exclude)
      key = make_key(
          squared_length(__fsub_rn(p.x, query.x), __fsub_rn(p.y, query.y), __fsub_rn(p.z, query.z)), index);
  }
  best.offer(key);
}

// Depth first; of the children not yet visited the nearest is next. `distances` (kMaxLevels, 32): of the
// children of the open node of each level, this lane's at every 32nd place, so that no lane reads another's.
template <int kSlots>
__device__ __forceinline__ void search(const Tree& tree, int lane, float3 query, int64_t exclude,
                                       uint32_t* distances, WarpTopK<kSlots>& best) {
  int level = tree.num_levels - 1;
  uint32_t first = 0;  // child of the open node
  distances[32 * level] = box_distance(tree.levels[level], first + lane, query);
  while (true) {
    const uint32_t mine = distances[32 * level];
    uint32_t nearest = mine;
    for (int step = 16; step; step /= 2) nearest = min(nearest, __shfl_xor_sync(kAllLanes, nearest, step));
    if (nearest > best.worst_bits()) {  // nothing left here: back to the parent
      if (++level == tree.num_levels) return;
      first = first / kFan / kFan * kFan;
      continue;
    }
    const int chosen = __ffs(int(__ballot_sync(kAllLanes, mine == nearest))) - 1;
    if (lane == chosen) distances[32 * level] = kVisited;
    const uint32_t child = first + chosen;
    if (level == 0) {
      scan_leaf(tree, child, lane, query, exclude, best);
    } else {
      first = child * kFan;
      --level;
      distances[32 * level] = box_distance(tree.levels[level], first + lane, query);
    }
  }
}

template <int kSlots>
__global__ void __launch_bounds__(kThreads, kSlots > 4 ? 2 : 4)
    nearest_kernel(const __grid_constant__ Tree tree, const float* __restrict__ queries,
                   const int64_t* __restrict__ exclude, int64_t num_queries, int k,
                   int64_t* __restrict__ indices, float* __restrict__ squared_distances) {
  __shared__ uint32_t distances[kWarps][kMaxLevels][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t q = int64_t{blockIdx.x} * kWarps + warp;
  if (q >= num_queries) return;
  WarpTopK<kSlots> best;
  best.reset(k, lane);
  search(tree, lane, make_float3(queries[3 * q], queries[3 * q + 1], queries[3 * q + 2]),
         exclude ? exclude[q] : -1, &distances[warp][0][lane], best);
  best.write(indices + q * k, squared_distances + q * k);
}

// Queries in the tree's order: the warps of a block read the same leaves.
__global__ void __launch_bounds__(kThreads)
    mean_kernel(const __grid_constant__ Tree tree, int neighbours, float* __restrict__ result) {
  __shared__ uint32_t distances[kWarps][kMaxLevels][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t slot = int64_t{blockIdx.x} * kWarps + warp;
  if (slot >= tree.count) return;
  const float4 p = tree.points[slot];
  const uint32_t index = __float_as_uint(p.w);
  WarpTopK<1> best;
  best.reset(neighbours, lane);
  search(tree, lane, make_float3(p.x, p.y, p.z), index, &distances[warp][0][lane], best);
  float sum = 0.0f;
  for (int i = 0; i < neighbours; ++i) sum += __uint_as_float(static_cast<uint32_t>(best.front(i) >> 32));
  if (lane == 0) result[index] = sum / neighbours;
}

__global__ void __launch_bounds__(32) single_point_kernel(float* result) {
  if (threadIdx.x == 0) result[0] = 0.0f;
}

}  // namespace

int64_t tree_bytes(int64_t count) {
  const Tree tree = tree_at(nullptr, count);
  int64_t bytes = count * int64_t(sizeof(float4));
  for (int level = 0; level < tree.num_levels; ++level)
    bytes += 6 * int64_t(sizeof(float)) * tree.levels[level].count;
  return bytes;
}

void morton_codes(const float* points, int64_t count, const float* bounds, int64_t* codes,
                  cudaStream_t stream) {
  launch(divide_up(count, kThreads), kThreads, stream, morton_kernel, points, uint32_t(count), bounds, codes);
}

void build_tree(const float* points, int64_t count, const int64_t* order, void* memory, cudaStream_t stream) {
  const Tree tree = tree_at(memory, count);
  launch(divide_up(tree.levels[0].count, kWarps), kThreads, stream, leaves_kernel, points, order, tree);
  for (int level = 1; level < tree.num_levels; ++level)
    launch(divide_up(tree.levels[level].count, kWarps), kThreads, stream, nodes_kernel,
           tree.levels[level - 1], tree.levels[level]);
}

void mean_squared_distance(const void* memory, int64_t count, float* result, cudaStream_t stream) {
  const int neighbours = count > 3 ? 3 : int(count - 1);
  if (neighbours < 1) return launch(1, 32, stream, single_point_kernel, result);
  launch(divide_up(count, kWarps), kThreads, stream, mean_kernel, tree_at(memory, count), neighbours, result);
}

void nearest(const void* memory, int64_t count, const float* queries, const int64_t* exclude,
             int64_t num_queries, int k, int64_t* indices, float* squared_distances, cudaStream_t stream) {
  with_slots(k, [&](auto slots) {
    launch(divide_up(num_queries, kWarps), kThreads, stream, nearest_kernel<decltype(slots)::value>,
           tree_at(memory, count), queries, exclude, num_queries, k, indices, squared_distances);
  });
}

}  // namespace simple_knn
