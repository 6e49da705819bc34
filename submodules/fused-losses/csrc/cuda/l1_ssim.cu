// (1 - lambda) L1 + lambda (1 - SSIM), and its gradient by the image.
//
// A block blurs a tile of 32 x 32 elements, rows first, then columns, in shared memory. Every thread works
// out several neighbouring results, so that a value read once serves up to 11 of them. The forward pass
// leaves the three derivatives of SSIM per element; the backward pass blurs them in the same way (the window
// is symmetric: the transpose of the blur is the blur). Row strides are odd, so that 32 rows of one column
// lie in different banks.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "block_sum.h"
#include "launch.h"
#include "losses.h"
#include "losses_math.h"

namespace fused_losses {
namespace gpu {
namespace {

using cuda_launch::launch;

constexpr int kTile = 32;                         // rows and columns of results
constexpr int kLoaded = kTile + kWindowSize - 1;  // rows and columns that they depend on
constexpr int kRunOfRow = 8;                      // results of one thread along a row: 4 runs make the tile
constexpr int kRunOfColumn = 6;                   // and along a column: 6 runs, the last one cut off
constexpr int kThreads = 192;                     // 6 x 32 runs of columns; 42 x 4 = 168 runs of rows
constexpr int kFinishThreads = 256;

struct Window {
  float weight[kWindowSize];
};

Window make_window() {
  double weight[kWindowSize], sum = 0;
  for (int i = 0; i < kWindowSize; ++i) {
    const double x = i - kWindowRadius;
    sum += weight[i] = std::exp(-x * x / (2 * kWindowSigma * kWindowSigma));
  }
  Window window;
  for (int i = 0; i < kWindowSize; ++i) window.weight[i] = float(weight[i] / sum);
  return window;
}

struct Shape {
  int width, height;
  int64_t first;  // element of the block's channel
};

template <int kQuantities>
using Rows = float[kQuantities][kLoaded][kTile + 1];
using Tile = float[kLoaded][kLoaded + 1];

__device__ __forceinline__ float intensity(float value) { return value; }
__device__ __forceinline__ float intensity(uint8_t value) { return float(value) / 255.0f; }

// The tile with its halo, 0 outside the image.
template <class T>
__device__ __forceinline__ void load(const T* __restrict__ values, const Shape& shape, Tile& tile) {
  for (int i = threadIdx.x; i < kLoaded * kLoaded; i += kThreads) {
    const int row = i / kLoaded, column = i % kLoaded;
    const int y = int(blockIdx.y) * kTile + row - kWindowRadius,
              x = int(blockIdx.x) * kTile + column - kWindowRadius;
    const bool inside = y >= 0 && y < shape.height && x >= 0 && x < shape.width;
    tile[row][column] = inside ? intensity(values[shape.first + int64_t{y} * shape.width + x]) : 0.0f;
  }
}

// Blurs along the rows. quantities(row, column, out) gives what is blurred.
template <int kQuantities, class Quantities>
__device__ __forceinline__ void blur_rows(const Window& window, Quantities quantities,
                                          Rows<kQuantities>& blurred) {
  const int row = threadIdx.x % kLoaded, first = threadIdx.x / kLoaded * kRunOfRow;
  if (first >= kTile) return;
  float sums[kQuantities][kRunOfRow] = {};
#pragma unroll
  for (int i = 0; i < kRunOfRow + kWindowSize - 1; ++i) {
    float values[kQuantities];
    quantities(row, first + i, values);
#pragma unroll
    for (int o = 0; o < kRunOfRow; ++o)
      if (i - o >= 0 && i - o < kWindowSize)
#pragma unroll
        for (int q = 0; q < kQuantities; ++q) sums[q][o] += window.weight[i - o] * values[q];
  }
#pragma unroll
  for (int q = 0; q < kQuantities; ++q)
#pragma unroll
    for (int o = 0; o < kRunOfRow; ++o) blurred[q][row][first + o] = sums[q][o];
}

// Blurs along the columns and calls use(row, column, blurred) for each result of the tile.
template <int kQuantities, class Use>
__device__ __forceinline__ void blur_columns(const Window& window, const Rows<kQuantities>& rows, Use use) {
  const int column = threadIdx.x % kTile, first = threadIdx.x / kTile * kRunOfColumn;
  float sums[kRunOfColumn][kQuantities] = {};
#pragma unroll
  for (int i = 0; i < kRunOfColumn + kWindowSize - 1; ++i) {
    if (first + i >= kLoaded) break;
#pragma unroll
    for (int q = 0; q < kQuantities; ++q) {
      const float value = rows[q][first + i][column];
#pragma unroll
      for (int o = 0; o < kRunOfColumn; ++o)
        if (i - o >= 0 && i - o < kWindowSize) sums[o][q] += window.weight[i - o] * value;
    }
  }
#pragma unroll
  for (int o = 0; o < kRunOfColumn; ++o)
    if (first + o < kTile) use(first + o, column, sums[o]);
}

__device__ __forceinline__ Shape shape_of_block(int height, int width) {
  return {width, height, int64_t{blockIdx.z} * height * width};
}

// Index of the element at a place of the tile, -1 outside the image.
__device__ __forceinline__ int64_t element(const Shape& shape, int row, int column) {
  const int y = int(blockIdx.y) * kTile + row, x = int(blockIdx.x) * kTile + column;
  return y < shape.height && x < shape.width ? shape.first + int64_t{y} * shape.width + x : -1;
}

// sums: {L1, SSIM} of every block; derivatives (3, elements), may be null.
template <class T>
__global__ void __launch_bounds__(kThreads, 5)
    forward_kernel(const float* __restrict__ image, const T* __restrict__ target, int height, int width,
                   const __grid_constant__ Window window, int64_t elements, float* __restrict__ derivatives,
                   float2* __restrict__ sums) {
  __shared__ Tile x, y;
  __shared__ Rows<4> rows;
  __shared__ float warp_sums[2][kThreads / 32];
  const Shape shape = shape_of_block(height, width);
  load(image, shape, x);
  load(target, shape, y);
  __syncthreads();
  blur_rows<4>(
      window,
      [&](int row, int column, float* out) {
        const float a = x[row][column], b = y[row][column];
        out[0] = a, out[1] = b, out[2] = a * a + b * b, out[3] = a * b;
      },
      rows);
  __syncthreads();
  float l1 = 0, ssim = 0;
  blur_columns<4>(window, rows, [&](int row, int column, const float* blurred) {
    const int64_t i = element(shape, row, column);
    if (i < 0) return;
    const SsimTerms<float> terms = ssim_terms(blurred[0], blurred[1], blurred[2], blurred[3]);
    ssim += terms.value;
    l1 += absolute(x[row + kWindowRadius][column + kWindowRadius] -
                   y[row + kWindowRadius][column + kWindowRadius]);
    if (!derivatives) return;
    derivatives[i] = terms.d_mean;
    derivatives[elements + i] = terms.d_square;
    derivatives[2 * elements + i] = terms.d_product;
  });
  l1 = block_sum<kThreads>(l1, warp_sums[0]);
  ssim = block_sum<kThreads>(ssim, warp_sums[1]);
  if (threadIdx.x == 0)
    sums[blockIdx.x + gridDim.x * (blockIdx.y + int64_t{gridDim.y} * blockIdx.z)] = make_float2(l1, ssim);
}

template <class T>
__global__ void __launch_bounds__(kFinishThreads)
    l1_kernel(const float* __restrict__ image, const T* __restrict__ target, int64_t elements,
              float2* __restrict__ sums) {
  __shared__ float warp_sums[kFinishThreads / 32];
  float l1 = 0;
  for (int64_t i = int64_t{blockIdx.x} * kFinishThreads + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * kFinishThreads)
    l1 += absolute(image[i] - intensity(target[i]));
  l1 = block_sum<kFinishThreads>(l1, warp_sums);
  if (threadIdx.x == 0) sums[blockIdx.x] = make_float2(l1, 0.0f);
}

// result: {L, mean SSIM}
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(const float2* __restrict__ sums, int count, double elements, double lambda_dssim,
                  float* __restrict__ result) {
  __shared__ double warp_sums[2][kFinishThreads / 32];
  double l1 = 0, ssim = 0;
  for (int i = threadIdx.x; i < count; i += kFinishThreads) {
    l1 += sums[i].x;
    ssim += sums[i].y;
  }
  l1 = block_sum<kFinishThreads>(l1, warp_sums[0]) / elements;
  ssim = block_sum<kFinishThreads>(ssim, warp_sums[1]) / elements;
  if (threadIdx.x != 0) return;
  result[0] = float(lambda_dssim == 0 ? l1 : (1 - lambda_dssim) * l1 + lambda_dssim * (1 - ssim));
  result[1] = float(ssim);
}

// dL/dimage = l1_weight sign(x - y) + ssim_weight dSSIM/dx, times *upstream.
template <class T>
__global__ void __launch_bounds__(kThreads, 5)
    backward_kernel(const float* __restrict__ image, const T* __restrict__ target, int height, int width,
                    const __grid_constant__ Window window, int64_t elements,
                    const float* __restrict__ derivatives, float l1_weight, float ssim_weight,
                    const float* __restrict__ upstream, float* __restrict__ dL_dimage) {
  __shared__ Tile tiles[3];
  __shared__ Rows<3> rows;
  const Shape shape = shape_of_block(height, width);
  for (int q = 0; q < 3; ++q) load(derivatives + q * elements, shape, tiles[q]);
  __syncthreads();
  blur_rows<3>(
      window,
      [&](int row, int column, float* out) {
#pragma unroll
        for (int q = 0; q < 3; ++q) out[q] = tiles[q][row][column];
      },
      rows);
  __syncthreads();
  const float scale = *upstream;
  blur_columns<3>(window, rows, [&](int row, int column, const float* blurred) {
    const int64_t i = element(shape, row, column);
    if (i < 0) return;
    const float x = image[i], y = intensity(target[i]);
    const float dSSIM_dx = ssim_gradient(x, y, blurred[0], blurred[1], blurred[2]);
    dL_dimage[i] = scale * (l1_weight * sign(x - y) + ssim_weight * dSSIM_dx);
  });
}

template <class T>
__global__ void __launch_bounds__(kFinishThreads)
    l1_backward_kernel(const float* __restrict__ image, const T* __restrict__ target, int64_t elements,
                       float l1_weight, const float* __restrict__ upstream, float* __restrict__ dL_dimage) {
  const int64_t i = int64_t{blockIdx.x} * kFinishThreads + threadIdx.x;
  if (i < elements) dL_dimage[i] = *upstream * l1_weight * sign(image[i] - intensity(target[i]));
}

dim3 tiles_of(int64_t channels, int64_t height, int64_t width) {
  return dim3(unsigned((width + kTile - 1) / kTile), unsigned((height + kTile - 1) / kTile),
              unsigned(channels));
}
int64_t block_count(const dim3& grid) { return int64_t{grid.x} * grid.y * grid.z; }

template <class T>
void forward(const Images& p, float* scratch, bool derivatives, float* result, cudaStream_t stream) {
  const T* target = static_cast<const T*>(p.target);
  const int64_t elements = p.channels * p.height * p.width;
  const dim3 grid = tiles_of(p.channels, p.height, p.width);
  float2* sums = reinterpret_cast<float2*>(scratch);
  if (p.lambda_dssim == 0)
    launch(unsigned(block_count(grid)), kFinishThreads, stream, l1_kernel<T>, p.image, target, elements,
           sums);
  else
    launch(grid, kThreads, stream, forward_kernel<T>, p.image, target, int(p.height), int(p.width),
           make_window(), elements, derivatives ? scratch + 2 * block_count(grid) : nullptr, sums);
  launch(1, kFinishThreads, stream, finish_kernel, sums, int(block_count(grid)), double(elements),
         p.lambda_dssim, result);
}

template <class T>
void backward(const Images& p, const float* scratch, const float* upstream, float* dL_dimage,
              cudaStream_t stream) {
  const T* target = static_cast<const T*>(p.target);
  const int64_t elements = p.channels * p.height * p.width;
  const float l1_weight = float((1 - p.lambda_dssim) / double(elements));
  if (p.lambda_dssim == 0)
    return launch(unsigned((elements + kFinishThreads - 1) / kFinishThreads), kFinishThreads, stream,
                  l1_backward_kernel<T>, p.image, target, elements, l1_weight, upstream, dL_dimage);
  const dim3 grid = tiles_of(p.channels, p.height, p.width);
  launch(grid, kThreads, stream, backward_kernel<T>, p.image, target, int(p.height), int(p.width),
         make_window(), elements, scratch + 2 * block_count(grid), l1_weight,
         float(-p.lambda_dssim / double(elements)), upstream, dL_dimage);
}

}  // namespace

int64_t l1_ssim_floats(int64_t channels, int64_t height, int64_t width, bool derivatives) {
  return 2 * block_count(tiles_of(channels, height, width)) +
         (derivatives ? 3 * channels * height * width : 0);
}

void l1_ssim(const Images& images, float* scratch, bool derivatives, float* result, cudaStream_t stream) {
  (images.target_is_bytes ? forward<uint8_t> : forward<float>)(images, scratch, derivatives, result, stream);
}

void l1_ssim_backward(const Images& images, const float* scratch, const float* upstream, float* dL_dimage,
                      cudaStream_t stream) {
  (images.target_is_bytes ? backward<uint8_t> : backward<float>)(images, scratch, upstream, dL_dimage,
                                                                 stream);
}

}  // namespace gpu
}  // namespace fused_losses
