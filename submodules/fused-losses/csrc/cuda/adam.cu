// One Adam step over all parameters, in one launch (per kMaxTensors of them).
//
// A block takes a chunk of one parameter; which one, it finds in the table that travels with the launch. The
// step moves 28 bytes per element and does almost nothing else, so that it reads and writes 16 bytes at a
// time where it can.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "adam_constants.h"
#include "launch.h"
#include "losses.h"
#include "losses_math.h"

namespace fused_losses {
namespace gpu {
namespace {

using cuda_launch::launch;

constexpr int kThreads = 256;
constexpr int64_t kChunk = 4096;  // elements of a block: four vectors per thread
constexpr int kMaxTensors = 40;   // 3.3 KB: the table fits in the 4 KB of a launch's parameters

struct Tensor {
  float* parameter;
  const float* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  const bool* visible;  // (rows,), null: all are
  int64_t count, row_size;
  AdamConstants<float> constants;
  unsigned first_block;
  bool in_vectors;  // all four are aligned to 16 bytes, and no row is masked
};
struct Table {
  Tensor tensors[kMaxTensors];
  int count;
};
static_assert(sizeof(Table) <= 4096, "the parameters of a launch");

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

Tensor describe(const AdamParameter& p, unsigned first_block) {
  const bool vectors = !p.visible && aligned(p.parameter) && aligned(p.gradient) && aligned(p.exp_avg) &&
                       aligned(p.exp_avg_sq);
  return {p.parameter,         p.gradient, p.exp_avg,         p.exp_avg_sq, p.visible,
          p.rows * p.row_size, p.row_size, adam_constants(p), first_block,  vectors};
}

__device__ __forceinline__ void update(float gradient, float& parameter, float& first, float& second,
                                       const AdamConstants<float>& k) {
  adam_moments(gradient, first, second, k);
  parameter += adam_change(first, sqrtf(second), k);
}

__device__ __forceinline__ void update_vector(const Tensor& t, int64_t i) {
  const float4 gradient = *reinterpret_cast<const float4*>(t.gradient + i);
  float4 parameter = *reinterpret_cast<const float4*>(t.parameter + i);
  float4 first = *reinterpret_cast<const float4*>(t.exp_avg + i);
  float4 second = *reinterpret_cast<const float4*>(t.exp_avg_sq + i);
  update(gradient.x, parameter.x, first.x, second.x, t.constants);
  update(gradient.y, parameter.y, first.y, second.y, t.constants);
  update(gradient.z, parameter.z, first.z, second.z, t.constants);
  update(gradient.w, parameter.w, first.w, second.w, t.constants);
  *reinterpret_cast<float4*>(t.parameter + i) = parameter;
  *reinterpret_cast<float4*>(t.exp_avg + i) = first;
  *reinterpret_cast<float4*>(t.exp_avg_sq + i) = second;
}

__global__ void __launch_bounds__(kThreads) adam_kernel(const __grid_constant__ Table table) {
  int index = 0;
  while (index + 1 < table.count && blockIdx.x >= table.tensors[index + 1].first_block) ++index;
  const Tensor& t = table.tensors[index];
  const int64_t begin = int64_t{blockIdx.x - t.first_block} * kChunk, end = min(begin + kChunk, t.count);
  int64_t scalars = begin;  // from here on one by one
  if (t.in_vectors) {
    scalars = begin + (end - begin) / 4 * 4;
    for (int64_t i = begin + 4 * int64_t{threadIdx.x}; i < scalars; i += 4 * kThreads) update_vector(t, i);
  }
  for (int64_t i = scalars + threadIdx.x; i < end; i += kThreads)
    if (!t.visible || t.visible[i / t.row_size])
      update(t.gradient[i], t.parameter[i], t.exp_avg[i], t.exp_avg_sq[i], t.constants);
}

}  // namespace

void adam(const std::vector<AdamParameter>& parameters, cudaStream_t stream) {
  Table table = {};
  unsigned blocks = 0;
  const auto flush = [&] {
    if (table.count) launch(blocks, kThreads, stream, adam_kernel, table);
    table.count = 0;
    blocks = 0;
  };
  for (const AdamParameter& p : parameters) {
    const int64_t count = p.rows * p.row_size;
    if (count == 0) continue;
    table.tensors[table.count++] = describe(p, blocks);
    blocks += unsigned((count + kChunk - 1) / kChunk);
    if (table.count == kMaxTensors) flush();
  }
  flush();
}

}  // namespace gpu
}  // namespace fused_losses
