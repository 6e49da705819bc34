// The k best candidates of one query, kept sorted by the 32 lanes of a warp.
//
// A candidate is the key of ../top_k.h: the bits of its value (a float >= 0) above its index, so that one
// comparison orders by value and breaks ties by index. The i-th best lies in lane i % 32, register i / 32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace simple_knn {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

using Key = unsigned long long;  // the type that the shuffles of CUDA know
constexpr uint32_t kNoIndex = 0xFFFFFFFFu;
constexpr uint32_t kInfinityBits = 0x7F800000u;
constexpr Key kEmpty = (Key{kInfinityBits} << 32) | kNoIndex;  // behind every candidate
constexpr Key kNoCandidate = ~Key{0};                          // never enters

__device__ __forceinline__ Key make_key(float value, uint32_t index) {
  return (Key{__float_as_uint(value)} << 32) | index;
}

// kSlots: registers per lane, k <= 32 kSlots. All lanes of the warp call every function together.
template <int kSlots>
class WarpTopK {
 public:
  __device__ __forceinline__ void reset(int k, int lane) {
    k_ = k, lane_ = lane, worst_ = kEmpty;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) keys_[s] = kEmpty;
  }

  // A larger value cannot enter; an equal one can, with a smaller index.
  __device__ __forceinline__ uint32_t worst_bits() const { return static_cast<uint32_t>(worst_ >> 32); }

  __device__ __forceinline__ float worst() const { return __uint_as_float(worst_bits()); }

  // Every lane offers one key, kNoCandidate if it has none.
  __device__ __forceinline__ void offer(Key key) {
    for (unsigned pending = __ballot_sync(kAllLanes, key < worst_); pending; pending &= pending - 1) {
      const Key candidate = __shfl_sync(kAllLanes, key, __ffs(int(pending)) - 1);
      if (candidate < worst_) insert(candidate);
    }
  }

  // The i-th best key, i < 32, for all lanes.
  __device__ __forceinline__ Key front(int i) const { return __shfl_sync(kAllLanes, keys_[0], i); }

  // Calls use(i, key) for the items of this lane.
  template <class Use>
  __device__ __forceinline__ void for_each(Use use) const {
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      if (32 * s + lane_ < k_) use(32 * s + lane_, keys_[s]);
  }

  // Writes k indices (-1 where there is none) and k values (infinity there), ascending.
  __device__ __forceinline__ void write(int64_t* indices, float* values) const {
    for_each([=](int i, Key key) {
      const uint32_t index = static_cast<uint32_t>(key);
      indices[i] = index == kNoIndex ? -1 : int64_t{index};
      values[i] = __uint_as_float(static_cast<uint32_t>(key >> 32));
    });
  }

 private:
  // From register s on. A recursion, not a loop: nvcc keeps the array in registers only where every index is
  // a constant before it unrolls.
  template <int s = 0>
  __device__ __forceinline__ void insert(Key key) {
    const unsigned behind = __ballot_sync(kAllLanes, keys_[s] > key);
    if (behind) {
      const int place = __ffs(int(behind)) - 1;
      const Key last = __shfl_sync(kAllLanes, keys_[s], 31);
      const Key previous = __shfl_up_sync(kAllLanes, keys_[s], 1);
      const Key mine = lane_ < place ? keys_[s] : lane_ == place ? key : previous;
      keys_[s] = mine;
      if (s == (k_ - 1) / 32) worst_ = __shfl_sync(kAllLanes, mine, (k_ - 1) % 32);
      key = last;  // the next register's first
    }
    if constexpr (s + 1 < kSlots) insert<s + 1>(key);
  }

  int k_, lane_;
  Key worst_;
  Key keys_[kSlots];
};

// Calls run(integral_constant of kSlots) with the fewest registers that hold k.
template <class Run>
void with_slots(int k, Run run) {
  if (k <= 32)
    run(std::integral_constant<int, 1>{});
  else if (k <= 64)
    run(std::integral_constant<int, 2>{});
  else if (k <= 128)
    run(std::integral_constant<int, 4>{});
  else
    run(std::integral_constant<int, 16>{});
}

}  // namespace simple_knn
