// Stable radix sort of (key, value) pairs by least significant digits: per pass a histogram, its scan, and a scatter that goes
// through shared memory so that neighbours leave together. It is ours rather than CUB's so that the code that runs is the code
// that the tests prove, and so that nvcc alone is enough to build; docs/performance_cuda.md has the price.
#pragma once

#include "device.h"

namespace gs {
namespace cuda {

constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
constexpr int kSortThreads = 256, kSortRounds = 16, kSortBlock = kSortThreads * kSortRounds;
constexpr int kSortWarps = kSortThreads / kWarp;

/// Elements with this key are left out.
template <class Key>
constexpr Key kLeftOut = Key(~Key(0));

/// How many elements there are: known to the host, or on the device.
struct SortCount {
  int64_t known;
  const int64_t* on_device;
  __device__ int64_t get() const { return on_device ? *on_device : known; }
};

/// Where a thread finds its element of a round: each warp has a contiguous part of the block's.
__device__ __forceinline__ int64_t sort_index(int round) {
  return int64_t(blockIdx.x) * kSortBlock + (warp_id() * kSortRounds + round) * kWarp + lane_id();
}

template <class Key>
__device__ __forceinline__ int digit_of(Key key, int shift) {
  return int(key >> shift) & (kDigits - 1);
}

/// histogram[digit * gridDim.x + block]
template <class Key>
__global__ void __launch_bounds__(kSortThreads) count_digits(const Key* keys, SortCount count, int shift, uint32_t* histogram) {
  __shared__ uint32_t counts[kDigits];
  counts[threadIdx.x] = 0;
  __syncthreads();
  for (int round = 0; round < kSortRounds; ++round) {
    const int64_t i = sort_index(round);
    const Key key = i < count.get() ? keys[i] : kLeftOut<Key>;
    if (key != kLeftOut<Key>) atomicAdd(&counts[digit_of(key, shift)], 1u);
  }
  __syncthreads();
  histogram[int64_t(threadIdx.x) * gridDim.x + blockIdx.x] = counts[threadIdx.x];
}

/// Block d: exclusive scan of row d of the histogram; its sum to totals[d].
__global__ void __launch_bounds__(kSortThreads) scan_digits(uint32_t* histogram, int64_t blocks, uint32_t* totals) {
  __shared__ uint32_t scratch[kSortWarps];
  uint32_t* row = histogram + blockIdx.x * blocks;
  uint32_t carry = 0;
  for (int64_t first = 0; first < blocks; first += kSortThreads) {
    const int64_t i = first + threadIdx.x;
    uint32_t sum;
    const uint32_t before = block_exclusive_scan<kSortThreads>(i < blocks ? row[i] : 0u, scratch, sum);
    if (i < blocks) row[i] = carry + before;
    carry += sum;
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = carry;
}

/// Lanes whose digit is that of this one, among the valid.
__device__ __forceinline__ unsigned same_digit(int digit, bool valid) {
  unsigned peers = __ballot_sync(kAllLanes, valid);
#pragma unroll
  for (int bit = 0; bit < kDigitBits; ++bit) {
    const bool set = digit >> bit & 1;
    const unsigned ballot = __ballot_sync(kAllLanes, set);
    peers &= set ? ballot : ~ballot;
  }
  return peers;
}

/// Moves every element to its place. `values` may be nullptr: then they are the positions. `num_sorted` receives how many
/// elements there are, unless it is nullptr.
template <class Key>
__global__ void __launch_bounds__(kSortThreads)
    scatter(const Key* keys, const uint32_t* values, SortCount count, int shift, const uint32_t* histogram,
            const uint32_t* totals, Key* keys_out, uint32_t* values_out, int64_t* num_sorted) {
  __shared__ uint32_t counter[kSortWarps][kDigits];  // by warp: how many so far, then where its first one goes in the block
  __shared__ uint32_t target[kDigits];               // from a place in the block to that in the output
  __shared__ uint32_t scratch[kSortWarps];
  __shared__ Key sorted_keys[kSortBlock];
  __shared__ uint32_t sorted_values[kSortBlock];
  const int thread = threadIdx.x;
  for (int warp = 0; warp < kSortWarps; ++warp) counter[warp][thread] = 0;
  __syncthreads();

  const int64_t n = count.get();
  Key key[kSortRounds];
  uint32_t value[kSortRounds], rank[kSortRounds];
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const int64_t i = sort_index(round);
    key[round] = i < n ? keys[i] : kLeftOut<Key>;
    value[round] = i < n && values ? values[i] : uint32_t(i);
  }
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const bool valid = key[round] != kLeftOut<Key>;
    const int digit = digit_of(key[round], shift);
    const unsigned peers = same_digit(digit, valid);
    uint32_t* so_far = &counter[warp_id()][digit];
    rank[round] = valid ? *so_far + __popc(peers & lanes_below()) : 0;
    __syncwarp();
    if (valid && (peers & lanes_below()) == 0) *so_far += __popc(peers);
    __syncwarp();
  }
  __syncthreads();

  uint32_t in_block = 0, sum, num_block;
  for (int warp = 0; warp < kSortWarps; ++warp) {
    const uint32_t here = counter[warp][thread];
    counter[warp][thread] = in_block;
    in_block += here;
  }
  const uint32_t digit_begin = block_exclusive_scan<kSortThreads>(totals[thread], scratch, sum);
  const uint32_t local_begin = block_exclusive_scan<kSortThreads>(in_block, scratch, num_block);
  for (int warp = 0; warp < kSortWarps; ++warp) counter[warp][thread] += local_begin;
  target[thread] = digit_begin + histogram[int64_t(thread) * gridDim.x + blockIdx.x] - local_begin;
  if (num_sorted && blockIdx.x == 0 && thread == 0) *num_sorted = sum;
  __syncthreads();

#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    if (key[round] == kLeftOut<Key>) continue;
    const uint32_t to = counter[warp_id()][digit_of(key[round], shift)] + rank[round];
    sorted_keys[to] = key[round], sorted_values[to] = value[round];
  }
  __syncthreads();
  for (uint32_t i = thread; i < num_block; i += kSortThreads) {
    const uint32_t to = target[digit_of(sorted_keys[i], shift)] + i;
    keys_out[to] = sorted_keys[i], values_out[to] = sorted_values[i];
  }
}

/// Two buffers that the passes alternate between; an even number of them ends where it began.
template <class Key>
struct SortBuffers {
  Key* keys[2];
  uint32_t* values[2];
  uint32_t* histogram;  // sort_histogram_size(capacity)
};

inline int64_t sort_histogram_size(int64_t capacity) { return kDigits * (divide_up(capacity, kSortBlock) + 1); }

/// Sorts `count` elements by `bits` bits, a multiple of 16, of keys[0] into keys[0] and values[0]; values are the positions.
/// *num_sorted, on the device, receives how many were not left out.
template <class Key>
void sort_pairs(cudaStream_t stream, const SortBuffers<Key>& buffers, int64_t count, int bits, int64_t* num_sorted) {
  const int64_t blocks = divide_up(count, kSortBlock);
  if (blocks == 0) return;
  uint32_t* totals = buffers.histogram + kDigits * blocks;
  for (int pass = 0; pass < bits / kDigitBits; ++pass) {
    const int shift = pass * kDigitBits, from = pass % 2, to = 1 - from;
    const SortCount n = {count, pass == 0 ? nullptr : num_sorted};
    launch(blocks, kSortThreads, stream, count_digits<Key>, buffers.keys[from], n, shift, buffers.histogram);
    launch(kDigits, kSortThreads, stream, scan_digits, buffers.histogram, blocks, totals);
    launch(blocks, kSortThreads, stream, scatter<Key>, buffers.keys[from], pass == 0 ? nullptr : buffers.values[from], n, shift,
           buffers.histogram, totals, buffers.keys[to], buffers.values[to], pass == 0 ? num_sorted : nullptr);
  }
}

}  // namespace cuda
}  // namespace gs
