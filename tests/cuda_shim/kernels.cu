// Kernels for test_shim.py: right ones, and each kind of mistake that the shim must find.
#include <cuda_runtime.h>

namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;

template <class... P, class... A>
int run(unsigned blocks, unsigned threads, void (*kernel)(P...), A... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// ---- right
// ----------------------------------------------------------------------------------------------------------

// out[block] = sum of the block's part of in: shared memory, shuffles and a vote.
__global__ void block_sums(const float* in, long long count, float* out) {
  __shared__ float warp_sums[32];
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  float sum = i < count ? in[i] : 0.0f;
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(kAll, sum, step);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  const int counted = __syncthreads_count(i < count);
  if (threadIdx.x == 0) {
    float total = 0;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) total += warp_sums[w];
    out[blockIdx.x] = counted ? total : 0.0f;
  }
}

// The last block to arrive adds what all have written.
__global__ void sum_by_last_block(const float* in, float* partial, unsigned* ticket, float* out) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = in[blockIdx.x];
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];
    *out = sum;
  }
}

// Every lane's results of the warp functions, 12 ints each.
__global__ void warp_functions(int* out) {
  const int lane = threadIdx.x;
  int* row = out + 12 * lane;
  row[0] = __shfl_sync(kAll, lane * 10, 3);
  row[1] = __shfl_up_sync(kAll, lane, 2);
  row[2] = __shfl_down_sync(kAll, lane, 2);
  row[3] = __shfl_xor_sync(kAll, lane, 5);
  row[4] = __shfl_sync(kAll, lane, 1, 8);
  row[5] = int(__ballot_sync(kAll, lane % 3 == 0));
  row[6] = __any_sync(kAll, lane == 31);
  row[7] = __all_sync(kAll, lane < 31);
  row[8] = int(__match_any_sync(kAll, lane / 4));
  row[9] = __reduce_add_sync(kAll, lane - 20);
  row[10] = __reduce_min_sync(kAll, lane - 20);
  if (lane < 16)
    row[11] = __reduce_max_sync(0x0000FFFFu, lane);
  else
    row[11] = __reduce_max_sync(0xFFFF0000u, -lane);
}

__global__ void exclusive_tickets(unsigned* counter, unsigned* seen) { seen[atomicAdd(counter, 1u)] = 1; }

// ---- wrong
// ----------------------------------------------------------------------------------------------------------

__global__ void missing_barrier(float* out) {
  __shared__ float tile[64];
  tile[threadIdx.x] = float(threadIdx.x);
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void missing_second_barrier(float* out) {
  __shared__ float tile[64];
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = float(round);
    __syncthreads();
    sum += tile[63 - threadIdx.x];  // the next round writes while others still read
  }
  out[threadIdx.x] = sum;
}

__global__ void missing_syncwarp(int* out) {
  __shared__ int slots[32];
  slots[threadIdx.x] = 1;
  __shfl_sync(kAll, 0, 0);  // no memory barrier
  out[threadIdx.x] = slots[threadIdx.x ^ 1];
}

__global__ void divergent_exit(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void divergent_branches(int* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void divergent_shuffle(int* out) {
  int value = 0;
  if (threadIdx.x < 16)
    value = __shfl_sync(kAll, 1, 0);
  else
    value = __shfl_sync(kAll, 2, 0);
  out[threadIdx.x] = value;
}

__global__ void incomplete_mask(int* out) { out[threadIdx.x] = __shfl_sync(0xFFu, 1, 0); }

__global__ void large_shared(int* out) {
  __shared__ int first[8192], second[8192];
  first[threadIdx.x] = second[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = first[threadIdx.x] + second[threadIdx.x];
}

__global__ void uninitialised_shared(int* out) {
  __shared__ int values[64];
  if (threadIdx.x < 63) values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void shared_overrun(int* out) {
  __shared__ int values[64];
  int* p = values;
  p[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = p[threadIdx.x + 1];
}

__global__ void write_behind(int* out) { out[threadIdx.x + 1] = 1; }
__global__ void read_before(const int* in, int* out) { out[threadIdx.x] = in[int(threadIdx.x) - 1]; }
__global__ void misaligned(const float* in, float* out) {
  reinterpret_cast<float4*>(out)[threadIdx.x] = reinterpret_cast<const float4*>(in + 1)[threadIdx.x];
}
__global__ void same_element(int* out) { out[0] = int(threadIdx.x); }
__global__ void across_blocks(int* out) {
  if (blockIdx.x == 0) out[1] = 5;
  if (blockIdx.x == 1) out[0] = out[1];
}
__global__ void plain_and_atomic(int* out) {
  if (threadIdx.x == 0) out[0] = 0;
  atomicAdd(out, 1);
}

}  // namespace

extern "C" {

int call_block_sums(const float* in, long long count, float* out, long long blocks) {
  return run(unsigned(blocks), 128, block_sums, in, count, out);
}
int call_sum_by_last_block(const float* in, float* partial, unsigned* ticket, float* out, long long blocks) {
  return run(unsigned(blocks), 64, sum_by_last_block, in, partial, ticket, out);
}
int call_warp_functions(int* out) { return run(1, 32, warp_functions, out); }
int call_exclusive_tickets(unsigned* counter, unsigned* seen, long long blocks) {
  return run(unsigned(blocks), 64, exclusive_tickets, counter, seen);
}
int call_too_many_threads(int* out) { return run(1, 1025, same_element, out); }

int call_missing_barrier(float* out) { return run(1, 64, missing_barrier, out); }
int call_missing_second_barrier(float* out) { return run(1, 64, missing_second_barrier, out); }
int call_missing_syncwarp(int* out) { return run(1, 32, missing_syncwarp, out); }
int call_divergent_exit(int* out) { return run(1, 64, divergent_exit, out); }
int call_divergent_branches(int* out) { return run(1, 64, divergent_branches, out); }
int call_divergent_shuffle(int* out) { return run(1, 32, divergent_shuffle, out); }
int call_incomplete_mask(int* out) { return run(1, 64, incomplete_mask, out); }
int call_large_shared(int* out) { return run(1, 64, large_shared, out); }
int call_uninitialised_shared(int* out) { return run(1, 64, uninitialised_shared, out); }
int call_shared_overrun(int* out) { return run(1, 64, shared_overrun, out); }
int call_write_behind(int* out) { return run(1, 64, write_behind, out); }
int call_read_before(const int* in, int* out) { return run(1, 64, read_before, in, out); }
int call_misaligned(const float* in, float* out) { return run(1, 4, misaligned, in, out); }
int call_same_element(int* out) { return run(1, 64, same_element, out); }
int call_across_blocks(int* out) { return run(2, 1, across_blocks, out); }
int call_plain_and_atomic(int* out) { return run(1, 64, plain_and_atomic, out); }
}
