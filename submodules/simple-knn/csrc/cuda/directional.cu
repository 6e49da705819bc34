// The k points of smallest positive projection on a direction: an exact scan of all points, because no
// spatial bound helps a search that ignores the distance across the direction.
//
// A warp scans one segment of the points for kOrigins origins at once, 32 points at a time: each loaded point
// serves them all, and the candidates are touched only where one of the 32 passes. A second kernel merges the
// segments' lists.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "launch.h"
#include "search.h"
#include "warp_top_k.h"

namespace simple_knn {
namespace {

using cuda_launch::launch;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kWantedWarps = 8192;  // about two waves of the largest GPUs
constexpr int64_t kMinSegment = 2048;   // points: shorter ones spend their time on filling their lists
constexpr int64_t kMaxWorkspace = int64_t{256} << 20;  // bytes

// Origins per warp: what the registers hold beside the lists.
constexpr int origins_per_warp(int slots) { return slots == 1 ? 4 : slots == 2 ? 2 : 1; }

int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

int64_t num_segments(int64_t count, int64_t num_origins, int k) {
  const int64_t warps = divide_up(num_origins, k <= 32 ? 4 : k <= 64 ? 2 : 1);
  const int64_t wanted = std::min(divide_up(kWantedWarps, warps), divide_up(count, kMinSegment));
  const int64_t affordable = kMaxWorkspace / (num_origins * k * int64_t(sizeof(Key)));
  return std::max<int64_t>(1, std::min(wanted, affordable));
}

// The intrinsics round every step, as the CPU part does.
__device__ __forceinline__ float projection(float3 p, float3 origin, float3 direction) {
  return __fadd_rn(__fadd_rn(__fmul_rn(__fsub_rn(p.x, origin.x), direction.x),
                             __fmul_rn(__fsub_rn(p.y, origin.y), direction.y)),
                   __fmul_rn(__fsub_rn(p.z, origin.z), direction.z));
}

__device__ __forceinline__ float3 load(const float* __restrict__ rows, int64_t row) {
  return make_float3(rows[3 * row], rows[3 * row + 1], rows[3 * row + 2]);
}

// partial: (num_origins, segments, k); blockIdx.y is the segment.
template <int kSlots, int kOrigins>
__global__ void __launch_bounds__(kThreads, 2)
    scan_kernel(const float* __restrict__ points, uint32_t count, uint32_t segment_size,
                const int64_t* __restrict__ origins, const float* __restrict__ directions,
                int64_t num_origins, int k, Key* __restrict__ partial) {
  const int lane = threadIdx.x % 32;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + threadIdx.x / 32) * kOrigins;
  if (first >= num_origins) return;
  float3 origin[kOrigins], direction[kOrigins];
  WarpTopK<kSlots> best[kOrigins];
#pragma unroll
  for (int o = 0; o < kOrigins; ++o) {
    best[o].reset(k, lane);
    const int64_t q = min(first + o, num_origins - 1);  // beyond the end the last one once more, not written
    origin[o] = load(points, origins[q]);
    direction[o] = load(directions, q);
  }
  const int64_t begin = int64_t{blockIdx.y} * segment_size, end = min(begin + segment_size, int64_t{count});
  for (int64_t start = begin; start < end; start += 32) {
    const int64_t i = start + lane;
    const bool inside = i < end;
    const float3 p = load(points, inside ? i : begin);
    float ahead[kOrigins];
    bool any = false;
#pragma unroll
    for (int o = 0; o < kOrigins; ++o) {
      ahead[o] = projection(p, origin[o], direction[o]);
      any |= ahead[o] > 0.0f && ahead[o] <= best[o].worst();
    }
    if (!__any_sync(kAllLanes, any && inside)) continue;
#pragma unroll
    for (int o = 0; o < kOrigins; ++o)
      best[o].offer(inside && ahead[o] > 0.0f ? make_key(ahead[o], static_cast<uint32_t>(i)) : kNoCandidate);
  }
#pragma unroll
  for (int o = 0; o < kOrigins; ++o) {
    if (first + o >= num_origins) break;
    Key* row = partial + ((first + o) * gridDim.y + blockIdx.y) * k;
    best[o].for_each([=](int i, Key key) { row[i] = key; });
  }
}

template <int kSlots>
__global__ void __launch_bounds__(kThreads, 4)
    merge_kernel(const Key* __restrict__ partial, int64_t num_origins, int segments, int k,
                 int64_t* __restrict__ indices, float* __restrict__ projections) {
  const int lane = threadIdx.x % 32;
  const int64_t q = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (q >= num_origins) return;
  WarpTopK<kSlots> best;
  best.reset(k, lane);
  const Key* row = partial + q * segments * k;
  for (int start = 0; start < segments * k; start += 32)
    best.offer(start + lane < segments * k ? row[start + lane] : kNoCandidate);
  best.write(indices + q * k, projections + q * k);
}

}  // namespace

int64_t directional_bytes(int64_t count, int64_t num_origins, int k) {
  return num_origins * num_segments(count, num_origins, k) * k * int64_t(sizeof(Key));
}

void directional_nearest(const float* points, int64_t count, const int64_t* origins, const float* directions,
                         int64_t num_origins, int k, void* workspace, int64_t* indices, float* projections,
                         cudaStream_t stream) {
  const int64_t segments = num_segments(count, num_origins, k);
  const int64_t segment_size = divide_up(divide_up(count, segments), 32) * 32;
  Key* partial = static_cast<Key*>(workspace);
  with_slots(k, [&](auto slots) {
    constexpr int kSlots = decltype(slots)::value, kOrigins = origins_per_warp(kSlots);
    const dim3 grid(unsigned(divide_up(num_origins, kWarps * kOrigins)), unsigned(segments));
    launch(grid, kThreads, stream, scan_kernel<kSlots, kOrigins>, points, uint32_t(count),
           uint32_t(segment_size), origins, directions, num_origins, k, partial);
    launch(unsigned(divide_up(num_origins, kWarps)), kThreads, stream, merge_kernel<kSlots>, partial,
           num_origins, int(segments), k, indices, projections);
  });
}

}  // namespace simple_knn
