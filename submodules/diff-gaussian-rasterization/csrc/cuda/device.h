// What every kernel uses: aligned loads, the exponential, scans of a block.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

#include "gs/blend.h"
#include "gs/ellipse.h"
#include "gs/projection.h"
#include "gs/sh.h"
#include "launch.h"

namespace gs {
namespace cuda {

using cuda_launch::check;
using cuda_launch::launch;

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kWarp = 32;

/// 2^x
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));  // 2 ulp
  return result;
#else
  return exp2f(x);
#endif
}

/// Four neighbours that are loaded and stored together.
template <class T>
struct alignas(16) Four {
  T v[4];
};
template <class T>
__device__ __forceinline__ Four<T> load_four(const T* from) {
  return *reinterpret_cast<const Four<T>*>(from);
}
template <class T>
__device__ __forceinline__ void store_four(T* to, const Four<T>& value) {
  *reinterpret_cast<Four<T>*>(to) = value;
}

__device__ __forceinline__ int lane_id() { return int(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_id() { return int(threadIdx.x) / kWarp; }
__device__ __forceinline__ unsigned lanes_below() { return (1u << lane_id()) - 1; }

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Sum of `value` over the lanes up to this one.
template <class T>
__device__ T warp_inclusive_scan(T value) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const T other = __shfl_up_sync(kAllLanes, value, step);
    if (lane_id() >= step) value += other;
  }
  return value;
}

/// Sum of `value` over the threads before this one, and over all in `total`. `scratch` is shared and free again on return.
template <int kThreads, class T>
__device__ T block_exclusive_scan(T value, T* scratch, T& total) {
  const T sum = warp_inclusive_scan(value);
  if (lane_id() == kWarp - 1) scratch[warp_id()] = sum;
  __syncthreads();
  T before = 0;
  total = 0;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) {
    if (warp == warp_id()) before = total;
    total += scratch[warp];
  }
  __syncthreads();
  return before + sum - value;
}

}  // namespace cuda
}  // namespace gs
