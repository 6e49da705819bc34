// Softmax cross-entropy of a 1x1 convolution with all its gradients, in one pass over the pixels; the C x H x
// W logits never exist.
//
// A block takes 32 pixels at a time, one per lane; its 8 warps share the classes. A thread keeps the logits
// of its classes in registers, then their exponentials, then dL_dz, so that each of the three products (z = W
// x, dL_dx = W^T dL_dz, dL_dW = dL_dz x^T) is taken once, in float32 multiply-adds. W lies in shared memory
// and is read by all lanes at once. For dL_dW the block turns dL_dz over in shared memory, and every thread
// gathers 4 x 4 elements in registers over all its pixels. Blocks write partial sums, which a last kernel
// adds in order.
#include <cuda_runtime.h>
#include <math_constants.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "block_sum.h"
#include "launch.h"
#include "losses.h"
#include "losses_math.h"

namespace fused_losses {
namespace gpu {
namespace {

using cuda_launch::launch;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPixels = 32;                   // of a block at a time
constexpr int kHalf = kPixels / 2;            // turned over at a time: all would not fit in 48 KB
constexpr int kChannels = int(kMaxChannels);  // those that a problem has not are 0
constexpr int kRow = kChannels + 4;           // floats: four lanes reading float4 then lie in different banks
constexpr int kMaxBlocks = 1056;  // 4 waves on an H100, 5 on an A100; fixed, for results fixed to the bit
constexpr int kWeightBlocks = 256;
constexpr int kFinishRows = 32;  // partial sums are added by as many threads for each output

// One warp's classes; 8 kClasses in all.
template <int kClasses>
struct Sizes {
  static constexpr int classes = kWarps * kClasses;
  static constexpr int outputs = classes * (kChannels + 1);  // dL_dW (classes, kChannels), then dL_dbias
  static constexpr int slices = 32 / kClasses;               // threads that share 4 x 4 elements of dL_dW
  static constexpr int turned_row = classes + 4;
  // Floats of working memory: the warps' dL_dx, half a tile's dL_dz, or all slices' sums.
  static constexpr int work = std::max({kWarps * kChannels * kPixels, kHalf * turned_row, slices * outputs});
};

struct Scratch {
  double* weights;       // (kWeightBlocks,)
  float* normalisation;  // scale * factor / sum of the weights
  float* losses;         // (blocks,)
  float* sums;           // (blocks, outputs)
};

int64_t tile_count(int64_t pixels) { return (pixels + kPixels - 1) / kPixels; }
int block_count(int64_t pixels) { return int(std::min<int64_t>(tile_count(pixels), kMaxBlocks)); }

Scratch scratch_at(void* memory) {
  Scratch s;
  s.weights = static_cast<double*>(memory);
  s.normalisation = reinterpret_cast<float*>(s.weights + kWeightBlocks);
  s.losses = s.normalisation + 4;
  s.sums = s.losses + kMaxBlocks;
  return s;
}

template <class Run>
void with_classes(int64_t classes, Run run) {
  if (classes <= 32)
    run(std::integral_constant<int, 4>{});
  else if (classes <= 64)
    run(std::integral_constant<int, 8>{});
  else if (classes <= 128)
    run(std::integral_constant<int, 16>{});
  else
    run(std::integral_constant<int, 32>{});
}

__device__ __forceinline__ int64_t label_at(const CrossEntropyInput& p, int64_t pixel) {
  switch (p.label_type) {
    case LabelType::kUint8:
      return static_cast<const uint8_t*>(p.labels)[pixel];
    case LabelType::kInt16:
      return static_cast<const int16_t*>(p.labels)[pixel];
    case LabelType::kInt32:
      return static_cast<const int32_t*>(p.labels)[pixel];
    default:
      return static_cast<const int64_t*>(p.labels)[pixel];
  }
}

// The pixel's label and its weight before normalisation; 0 where it takes no part.
struct Target {
  int label;
  float weight;
};
__device__ __forceinline__ Target target_at(const CrossEntropyInput& p, int64_t pixel) {
  if (pixel >= p.pixels) return {-1, 0.0f};
  const int64_t label = label_at(p, pixel);
  if (p.ignores && label == p.ignore_label) return {-1, 0.0f};
  return {int(label), p.pixel_weights ? p.pixel_weights[pixel] : 1.0f};
}

__global__ void __launch_bounds__(kThreads)
    weights_kernel(const __grid_constant__ CrossEntropyInput p, double* __restrict__ sums) {
  __shared__ double warp_sums[kWarps];
  double sum = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.pixels;
       i += int64_t{gridDim.x} * kThreads)
    sum += target_at(p, i).weight;
  sum = block_sum<kThreads>(sum, warp_sums);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const double* __restrict__ sums, double scale, const float* __restrict__ factor,
                     float* __restrict__ normalisation) {
  __shared__ double warp_sums[kWarps];
  static_assert(kWeightBlocks == kThreads, "one sum per thread");
  const double total = block_sum<kThreads>(sums[threadIdx.x], warp_sums);
  if (threadIdx.x == 0) *normalisation = total != 0 ? float(scale * (factor ? *factor : 1.0f) / total) : 0.0f;
}

__device__ __forceinline__ void multiply_add(float4& sum, float factor, const float4& x) {
  sum.x += factor * x.x;
  sum.y += factor * x.y;
  sum.z += factor * x.z;
  sum.w += factor * x.w;
}

template <int kClasses>
__global__ void __launch_bounds__(kThreads, 2)
    pixels_kernel(const __grid_constant__ CrossEntropyInput p, const float* __restrict__ normalisation,
                  float* __restrict__ dL_dfeatures, float* __restrict__ losses, float* __restrict__ sums) {
  using S = Sizes<kClasses>;
  constexpr int kVectors = kChannels / 4;
  __shared__ float4 weight[S::classes][kVectors];
  __shared__ float bias[S::classes];
  __shared__ float4 features[kPixels][kRow / 4];
  __shared__ float largest_of[kWarps][kPixels], sum_of[kWarps][kPixels], label_logit[kPixels];
  __shared__ float4 work4[S::work / 4];
  float* const work = &work4[0].x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_class = warp * kClasses;

  for (int i = threadIdx.x; i < S::classes * kChannels; i += kThreads) {
    const int c = i / kChannels, d = i % kChannels;
    (&weight[c][0].x)[d] = c < p.classes && d < p.channels ? p.weight[c * p.channels + d] : 0.0f;
  }
  for (int c = threadIdx.x; c < S::classes; c += kThreads)
    bias[c] = c < p.classes ? p.bias[c] : -CUDART_INF_F;

  // This thread's elements of dL_dW: 4 classes x 4 channels, over every `slices`-th pixel.
  const int quad = threadIdx.x % (S::classes), slice = threadIdx.x / S::classes;
  const int quad_class = quad / kVectors * 4, quad_vector = quad % kVectors;
  float4 dL_dweight[4] = {};
  float dL_dbias = 0;  // of one of the 4 classes
  float loss = 0;

  for (int64_t tile = blockIdx.x; tile * kPixels < p.pixels; tile += gridDim.x) {
    const int64_t pixel = tile * kPixels + lane;
    const Target target = target_at(p, pixel);
    const float pixel_weight = target.weight * *normalisation;
    const bool takes_part = pixel_weight != 0;
    if (!__any_sync(kAllLanes, takes_part)) {  // all warps see the same pixels and agree
      if (dL_dfeatures && pixel < p.pixels)
        for (int d = warp; d < p.channels; d += kWarps) dL_dfeatures[d * p.pixels + pixel] = 0.0f;
      continue;
    }
    // A pixel that takes no part gets features 0, so that its NaN cannot reach the weight's gradient.
    for (int d = warp; d < kChannels; d += kWarps)
      (&features[lane][0].x)[d] = takes_part && d < p.channels ? p.features[d * p.pixels + pixel] : 0.0f;
    if (warp == 0) label_logit[lane] = 0.0f;
    __syncthreads();

    float z[kClasses], largest = -CUDART_INF_F;
    {
      float4 x[kVectors];
#pragma unroll
      for (int v = 0; v < kVectors; ++v) x[v] = features[lane][v];
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        float even = bias[first_class + c], odd = 0;
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          const float4 w = weight[first_class + c][v];
          even += w.x * x[v].x;
          odd += w.y * x[v].y;
          even += w.z * x[v].z;
          odd += w.w * x[v].w;
        }
        z[c] = even + odd;
        largest = fmaxf(largest, z[c]);
        if (first_class + c == target.label) label_logit[lane] = z[c];
      }
    }
    const bool no_class = largest == -CUDART_INF_F;  // only padding: its exponentials are 0 by any shift
    const float shift = no_class ? 0.0f : largest;
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kClasses; ++c) {
      z[c] = __expf(z[c] - shift);
      sum += z[c];
    }
    largest_of[warp][lane] = largest;
    sum_of[warp][lane] = sum;
    __syncthreads();

    float largest_of_all = -CUDART_INF_F, sum_of_all = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) largest_of_all = fmaxf(largest_of_all, largest_of[w][lane]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      sum_of_all += sum_of[w][lane] * __expf(largest_of[w][lane] - largest_of_all);
    if (warp == 0 && takes_part)
      loss += pixel_weight * fused_losses::cross_entropy(largest_of_all, logf(sum_of_all), label_logit[lane]);

    const float scale = no_class ? 0.0f : __expf(shift - largest_of_all) / sum_of_all * pixel_weight;
#pragma unroll
    for (int c = 0; c < kClasses; ++c)
      z[c] = logit_gradient(z[c], scale, first_class + c == target.label, pixel_weight);

    if (dL_dfeatures) {
      float4 dL_dx[kVectors] = {};
#pragma unroll
      for (int c = 0; c < kClasses; ++c)
#pragma unroll
        for (int v = 0; v < kVectors; ++v) multiply_add(dL_dx[v], z[c], weight[first_class + c][v]);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        float* const column = work + (warp * kChannels + 4 * v) * kPixels + lane;
        column[0] = dL_dx[v].x;
        column[kPixels] = dL_dx[v].y;
        column[2 * kPixels] = dL_dx[v].z;
        column[3 * kPixels] = dL_dx[v].w;
      }
      __syncthreads();
      for (int d = warp; d < p.channels; d += kWarps) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) total += work[(w * kChannels + d) * kPixels + lane];
        if (pixel < p.pixels) dL_dfeatures[d * p.pixels + pixel] = total;
      }
      __syncthreads();
    }
    if (!sums) continue;
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      if (lane / kHalf == half) {
        float4* const row = work4 + (lane % kHalf * S::turned_row + first_class) / 4;
#pragma unroll
        for (int c = 0; c < kClasses; c += 4) row[c / 4] = make_float4(z[c], z[c + 1], z[c + 2], z[c + 3]);
      }
      __syncthreads();
      for (int i = slice; i < kHalf; i += S::slices) {
        const float4 dL_dz = work4[(i * S::turned_row + quad_class) / 4];
        const float4 x = features[half * kHalf + i][quad_vector];
        multiply_add(dL_dweight[0], dL_dz.x, x);
        multiply_add(dL_dweight[1], dL_dz.y, x);
        multiply_add(dL_dweight[2], dL_dz.z, x);
        multiply_add(dL_dweight[3], dL_dz.w, x);
        dL_dbias += work[i * S::turned_row + quad_class + quad_vector];
      }
      __syncthreads();
    }
  }

  if (warp == 0) {
    for (int step = 16; step; step /= 2) loss += __shfl_xor_sync(kAllLanes, loss, step);
    if (lane == 0) losses[blockIdx.x] = loss;
  }
  if (!sums) return;
  float* const mine = work + slice * S::outputs;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    float* const row = mine + (quad_class + c) * kChannels + 4 * quad_vector;
    row[0] = dL_dweight[c].x;
    row[1] = dL_dweight[c].y;
    row[2] = dL_dweight[c].z;
    row[3] = dL_dweight[c].w;
  }
  mine[S::classes * kChannels + quad_class + quad_vector] = dL_dbias;
  __syncthreads();
  for (int i = threadIdx.x; i < S::outputs; i += kThreads) {
    float total = 0;
#pragma unroll
    for (int s = 0; s < S::slices; ++s) total += work[s * S::outputs + i];
    sums[int64_t{blockIdx.x} * S::outputs + i] = total;
  }
}

// Adds the blocks' sums in a fixed order: 32 outputs per block, kFinishRows threads for each. Block 0 adds
// the losses, too.
__global__ void __launch_bounds__(32 * kFinishRows)
    finish_kernel(const float* __restrict__ losses, const float* __restrict__ sums, int blocks,
                  int padded_classes, int channels, int classes,
                  const __grid_constant__ CrossEntropyOutput out) {
  __shared__ double partial[kFinishRows][33];
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  const int outputs = padded_classes * (kChannels + 1), output = blockIdx.x * 32 + lane;
  double sum = 0;
  if (sums && output < outputs)
    for (int b = row; b < blocks; b += kFinishRows) sum += sums[int64_t{b} * outputs + output];
  partial[row][lane] = sum;
  __syncthreads();
  if (row == 0 && sums && output < outputs) {
    for (int r = 1; r < kFinishRows; ++r) sum += partial[r][lane];
    const int c = output / kChannels, d = output % kChannels;
    if (c < classes && d < channels) out.dL_dweight[c * channels + d] = float(sum);
    if (c >= padded_classes && output - padded_classes * kChannels < classes)
      out.dL_dbias[output - padded_classes * kChannels] = float(sum);
  }
  if (row == 1 && blockIdx.x == 0) {
    double loss = 0;
    for (int b = lane; b < blocks; b += 32) loss += losses[b];
    for (int step = 16; step; step /= 2) loss += __shfl_xor_sync(kAllLanes, loss, step);
    if (lane == 0) *out.loss = float(loss);
  }
}

}  // namespace

int64_t cross_entropy_bytes(int64_t classes, int64_t pixels) {
  int64_t outputs = 0;
  with_classes(classes, [&](auto count) { outputs = Sizes<decltype(count)::value>::outputs; });
  return kWeightBlocks * int64_t(sizeof(double)) +
         (4 + kMaxBlocks + block_count(pixels) * outputs) * int64_t(sizeof(float));
}

void cross_entropy(const CrossEntropyInput& input, const CrossEntropyOutput& output, void* memory,
                   cudaStream_t stream) {
  const Scratch scratch = scratch_at(memory);
  const int blocks = block_count(input.pixels);
  float* sums = output.dL_dweight ? scratch.sums : nullptr;
  launch(kWeightBlocks, kThreads, stream, weights_kernel, input, scratch.weights);
  launch(1, kThreads, stream, normalise_kernel, scratch.weights, input.scale, input.factor,
         scratch.normalisation);
  with_classes(input.classes, [&](auto count) {
    using S = Sizes<decltype(count)::value>;
    launch(unsigned(blocks), kThreads, stream, pixels_kernel<decltype(count)::value>, input,
           scratch.normalisation, output.dL_dfeatures, scratch.losses, sums);
    launch(unsigned(sums ? (S::outputs + 31) / 32 : 1), 32 * kFinishRows, stream, finish_kernel,
           scratch.losses, sums, blocks, int(S::classes), int(input.channels), int(input.classes), output);
  });
}

}  // namespace gpu
}  // namespace fused_losses
