// The per-Gaussian stages: everything before the tiles (forward) and after them (backward). A thread has one Gaussian; a warp
// moves the spherical harmonics and the gradient rows of its 32 through shared memory, so that memory sees whole lines.
#pragma once

#include "binning.h"

namespace gs {
namespace cuda {

constexpr int kGaussianThreads = 128, kGaussianWarps = kGaussianThreads / kWarp;

/// Fills a shared camera; a barrier ends it.
template <class T>
__device__ void load_camera(const View<T>& view, Camera<T>& camera) {
  const int t = threadIdx.x;
  if (t < 16)
    camera.view[t] = view.view[t];
  else if (t < 32)
    camera.proj[t - 16] = view.proj[t - 16];
  else if (t < 35)
    camera.position[t - 32] = view.position[t - 32];
  else if (t == 35) {
    camera.tan_fov_x = view.tan_fov_x, camera.tan_fov_y = view.tan_fov_y;
    camera.focal_x = view.focal_x, camera.focal_y = view.focal_y;
    camera.width = view.width, camera.height = view.height;
  }
  __syncthreads();
}

template <class T>
__device__ bool all_finite(const T* values, int count) {
  T sum = 0;
  for (int i = 0; i < count; ++i) sum += values[i] * 0;  // 0 unless a value is NaN or Inf
  return sum == 0;
}

template <class T>
__device__ int invalid_camera(const Camera<T>& camera, const T* background) {
  return (all_finite(camera.view, 16) ? 0 : kView) | (all_finite(camera.proj, 16) ? 0 : kProjection) |
         (all_finite(camera.position, 3) ? 0 : kPosition) | (all_finite(background, 3) ? 0 : kBackground);
}

template <class T, int kCount>
__device__ __forceinline__ void load(const T* from, T (&values)[kCount]) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) values[k] = from[k];
}

/// Writes to a gradient, if it is wanted.
template <class T, int kCount>
__device__ __forceinline__ void store(T* gradient, int64_t offset, const T (&values)[kCount]) {
  if (!gradient) return;
#pragma unroll
  for (int k = 0; k < kCount; ++k) gradient[offset + k] = values[k];
}

template <class T>
__device__ void load_sigma(const Gaussians<T>& in, int64_t i, T (&sigma)[6]) {
  if (in.covariances) return load(in.covariances + 6 * i, sigma);
  T scale[3], rotation[4];
  load(in.scales + 3 * i, scale), load(in.rotations + 4 * i, rotation);
  covariance_3d(scale, in.scale_modifier, rotation, sigma);
}

/// Coefficients after the first of a colour's spherical harmonics.
template <int kDegree>
constexpr int kRest = 3 * (sh_basis_count(kDegree) - 1);

/// The warp copies the coefficients of the Gaussians `wanted`, bit i for first + i, to rest[i * kRest].
template <class T, int kDegree>
__device__ void fetch_rest(const Gaussians<T>& in, int64_t first, unsigned wanted, T* rest) {
  for (; wanted; wanted &= wanted - 1) {
    const int lane = __ffs(wanted) - 1;
    const T* from = in.sh_rest + (first + lane) * in.sh_rest_stride;
    for (int c = lane_id(); c < kRest<kDegree>; c += kWarp) rest[lane * kRest<kDegree> + c] = from[c];
  }
  __syncwarp();
}

/// r g b of Gaussian i before the clamp at 0.
template <class T, int kDegree>
__device__ void color_of(const Gaussians<T>& in, const Camera<T>& camera, int64_t i, const T* mean, const T* rest, T (&rgb)[3]) {
  if (in.colors) return load(in.colors + 3 * i, rgb);
  T direction[3], basis[kMaxShBasis], dc[3];
  unit_direction(mean, camera.position, direction);
  sh_basis(kDegree, direction, basis);
  load(in.sh_dc + i * in.sh_dc_stride, dc);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    rgb[c] = T(0.5) + basis[0] * dc[c];
#pragma unroll
    for (int k = 1; k < sh_basis_count(kDegree); ++k) rgb[c] += basis[k] * rest[3 * (k - 1) + c];
  }
}

__device__ __forceinline__ uint32_t depth_key(float depth) {
  return __float_as_uint(depth);
}  // positive floats compare as their bits

/// Projects every Gaussian; fills the rows, tile counts and depth keys of those that are visible.
template <class T, int kDegree>
__global__ void __launch_bounds__(kGaussianThreads)
    project_gaussians(Gaussians<T> in, View<T> view, Grid grid, int32_t* radii, GaussianMemory<T> memory) {
  __shared__ Camera<T> camera;
  __shared__ T all_rest[kGaussianWarps][kRest<kDegree> * kWarp + 1];
  load_camera(view, camera);
  const int64_t i = int64_t(blockIdx.x) * kGaussianThreads + threadIdx.x;
  int invalid = i == 0 ? invalid_camera(camera, view.background) : 0;
  T mean[3], opacity[1], sigma[6];
  Projected<T> projected;
  TileBox box = {0, 0, 0, 0};
  if (i < in.count) {
    load(in.means + 3 * i, mean), load(in.opacities + i, opacity), load_sigma(in, i, sigma);
    if (!all_finite(mean, 3)) invalid |= kMeans;
    if (!all_finite(opacity, 1)) invalid |= kOpacities;
    if (!all_finite(sigma, 6)) invalid |= kShape;
    if (project(camera, mean, sigma, projected))
      box = tile_box(projected.mean, radius_of(projected.extent), grid.tiles_x, grid.tiles_y);
  }
  const bool visible = !box.empty();
  T* rest = all_rest[warp_id()];
  const unsigned visible_lanes = __ballot_sync(kAllLanes, visible);
  if (kDegree > 0 && !in.colors) fetch_rest<T, kDegree>(in, i - lane_id(), visible_lanes, rest);

  int tiles = 0;
  if (visible) {
    T row[kPackedRow] = {}, rgb[3];
    row[kMeanX] = projected.mean[0], row[kMeanY] = projected.mean[1];
    row[kOpacity] = opacity[0], row[kDepth] = projected.depth;
    pack_power(projected.conic, row);
    pack_ellipse(projected.cov, projected.conic, row);
    color_of<T, kDegree>(in, camera, i, mean, rest + lane_id() * kRest<kDegree>, rgb);
    if (!all_finite(rgb, 3)) invalid |= kColor;
    for (int c = 0; c < 3; ++c) row[kRgb + c] = rgb[c] > 0 || in.colors ? rgb[c] : T(0);
    if (!all_finite(in.identity + i * in.num_identity, in.num_identity)) invalid |= kIdentity;
    T* out = memory.packed + i * kPackedRow;
#pragma unroll
    for (int k = 0; k < kPackedRow; k += 4) store_four(out + k, Four<T>{{row[k], row[k + 1], row[k + 2], row[k + 3]}});
    for (int ty = box.y0; ty < box.y1; ++ty) {
      const Span span = reached_tiles(out, box.x0, box.x1, ty);
      if (span.begin < span.end) tiles += span.end - span.begin;
    }
  }
  if (i < in.count) {
    radii[i] = visible ? radius_of(projected.extent) : 0;
    memory.tile_count[i] = tiles;
    memory.by_depth.keys[0][i] = tiles > 0 ? depth_key(float(projected.depth)) : kLeftOut<uint32_t>;
  }
  if (invalid) atomicOr(&memory.counts->invalid, (unsigned long long)invalid);
}

// Backward.

constexpr int kGathered = 32;              // columns of the gradient rows that a warp sums at a time
constexpr int kSumStride = kGathered + 1;  // an odd stride keeps the lanes' own rows in different banks
constexpr int kManyRows = 128;             // from here on all lanes sum one Gaussian's rows

template <class T>
__device__ __forceinline__ void add(Four<T>& sum, const Four<T>& value) {
#pragma unroll
  for (int k = 0; k < 4; ++k) sum.v[k] += value.v[k];
}

/// The warp sums columns [column, column + kGathered) of the rows of its 32 Gaussians, each in the order of its tiles, to
/// sums[lane * kSumStride]; eight lanes work on one Gaussian. Returns whether any row of this lane's Gaussian was touched.
template <class T>
__device__ bool gather_rows(const GradientMemory<T>& memory, int column, uint32_t first, int count, T* sums) {
  const int group = lane_id() / 8, at = lane_id() % 8 * 4, stride = memory.stride;
  const bool inside = column + at < stride;
  const T* rows = memory.rows + column + at;
  bool mine = false;
  for (int turn = 0; turn < 8; ++turn) {
    const int lane = 4 * turn + group;
    const int64_t row = __shfl_sync(kAllLanes, first, lane);
    const int n = __shfl_sync(kAllLanes, count, lane);
    Four<T> sum = {};
    bool any = false;
#pragma unroll 4
    for (int r = 0; r < (n < kManyRows ? n : 0); ++r)
      if (memory.touched[row + r]) {
        any = true;
        if (inside) add(sum, load_four(rows + (row + r) * stride));
      }
    for (int k = 0; k < 4; ++k) sums[lane * kSumStride + at + k] = sum.v[k];
    const unsigned touched = __ballot_sync(kAllLanes, any);
    if (lane_id() / 4 == turn) mine = touched >> (lane_id() % 4 * 8) & 1;
  }
  __syncwarp();  // what follows overwrites sums of other lanes
  for (unsigned many = __ballot_sync(kAllLanes, count >= kManyRows); many; many &= many - 1) {
    const int lane = __ffs(many) - 1;
    const int64_t row = __shfl_sync(kAllLanes, first, lane);
    const int n = __shfl_sync(kAllLanes, count, lane);
    Four<T> sum = {};
    bool any = false;
#pragma unroll 8
    for (int r = group; r < n; r += 4)
      if (memory.touched[row + r]) {
        any = true;
        if (inside) add(sum, load_four(rows + (row + r) * stride));
      }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      sum.v[k] += __shfl_xor_sync(kAllLanes, sum.v[k], 8);
      sum.v[k] += __shfl_xor_sync(kAllLanes, sum.v[k], 16);
      if (group == 0) sums[lane * kSumStride + at + k] = sum.v[k];
    }
    if (__any_sync(kAllLanes, any) && lane_id() == lane) mine = true;
  }
  __syncwarp();
  return mine;
}

/// The warp copies the identity encodings' gradients among the gathered columns to the output.
template <class T>
__device__ void store_identity(const Gaussians<T>& in, const GaussianGradients<T>& grad, int64_t first, int column,
                               const T* sums) {
  constexpr int kBegin = kChannelSums + kIdentityChannels;
  const int begin = column > kBegin ? column : kBegin, last = kBegin + in.num_identity;
  const int width = (column + kGathered < last ? column + kGathered : last) - begin;
  if (!grad.identity || width <= 0) return;
  for (int k = lane_id(); k < kWarp * width; k += kWarp) {
    const int lane = k / width, c = k % width;
    if (first + lane >= in.count) break;
    grad.identity[(first + lane) * in.num_identity + begin - kBegin + c] = sums[lane * kSumStride + begin - column + c];
  }
}

/// Gradients of the colour's inputs; `rest` holds this Gaussian's coefficients, then their gradient.
template <class T, int kDegree>
__device__ void color_backward(const Gaussians<T>& in, const GaussianGradients<T>& grad, const Camera<T>& camera, int64_t i,
                               const T* mean, const T* rgb, const T (&dL_drgb)[3], T* rest, T* dL_dmean) {
  if (in.colors) return store(grad.colors, 3 * i, dL_drgb);
  constexpr int kCount = sh_basis_count(kDegree);
  T direction[3], basis[kMaxShBasis], dL_dbasis[kMaxShBasis], dL_dclamped[3], dL_ddirection[3], dL_ddc[3];
  const T inverse_length = unit_direction(mean, camera.position, direction);
  sh_basis(kDegree, direction, basis);
  for (int c = 0; c < 3; ++c) {
    dL_dclamped[c] = rgb[c] > 0 ? dL_drgb[c] : T(0);
    dL_ddc[c] = basis[0] * dL_dclamped[c];
  }
  store(grad.sh_dc, i * grad.sh_dc_stride, dL_ddc);
#pragma unroll
  for (int k = 1; k < kCount; ++k) {
    dL_dbasis[k] = dot3(rest + 3 * (k - 1), dL_dclamped);
    for (int c = 0; c < 3; ++c) rest[3 * (k - 1) + c] = basis[k] * dL_dclamped[c];
  }
  sh_basis_backward(kDegree, direction, dL_dbasis, dL_ddirection);
  const T along = dot3(direction, dL_ddirection);
  for (int j = 0; j < 3; ++j) dL_dmean[j] += inverse_length * (dL_ddirection[j] - along * direction[j]);
}

/// From the sums over a Gaussian's rows to the gradients of its parameters.
template <class T, int kDegree>
__device__ void gaussian_backward(const Gaussians<T>& in, const GaussianGradients<T>& grad, const Camera<T>& camera, int64_t i,
                                  const T* packed, const T* sum, T* rest) {
  T mean[3], sigma[6], row[kPackedRow];
#pragma unroll
  for (int k = 0; k < kPackedRow; k += 4) {
    const Four<T> four = load_four(packed + i * kPackedRow + k);
    for (int j = 0; j < 4; ++j) row[k + j] = four.v[j];
  }
  load(in.means + 3 * i, mean), load_sigma(in, i, sigma);
  T conic[3];
  unpack_conic(row, conic);
  const T dL_dmean2d[2] = {-conic[0] * sum[kQx] - conic[1] * sum[kQy], -conic[1] * sum[kQx] - conic[2] * sum[kQy]};
  const T dL_drgb[3] = {sum[kChannelSums + 1], sum[kChannelSums + 2], sum[kChannelSums + 3]};
  T dL_dcov2d[3], dL_dsigma[6], dL_dmean[3] = {0, 0, 0};
  conic_backward(conic, sum[kQxx], sum[kQxy], sum[kQyy], dL_dcov2d);
  project_backward(camera, mean, sigma, dL_dmean2d, dL_dcov2d, sum[kChannelSums], dL_dmean, dL_dsigma);
  color_backward<T, kDegree>(in, grad, camera, i, mean, row + kRgb, dL_drgb, rest, dL_dmean);
  store(grad.means, 3 * i, dL_dmean);
  // in NDC, as 3DGS's densification statistic expects
  const T means2d[3] = {dL_dmean2d[0] * T(0.5) * camera.width, dL_dmean2d[1] * T(0.5) * camera.height, 0};
  const T opacity[1] = {sum[kQ] / row[kOpacity]};
  store(grad.means2d, 3 * i, means2d), store(grad.opacities, i, opacity);
  if (in.covariances) {
    const T out[6] = {dL_dsigma[0], 2 * dL_dsigma[1], 2 * dL_dsigma[2], dL_dsigma[3], 2 * dL_dsigma[4], dL_dsigma[5]};
    return store(grad.covariances, 6 * i, out);
  }
  T scale[3], rotation[4], dL_dscale[3], dL_drotation[4];
  load(in.scales + 3 * i, scale), load(in.rotations + 4 * i, rotation);
  covariance_3d_backward(scale, in.scale_modifier, rotation, dL_dsigma, dL_dscale, dL_drotation);
  store(grad.scales, 3 * i, dL_dscale), store(grad.rotations, 4 * i, dL_drotation);
}

/// What no pixel saw learns nothing. The harmonics after the first and the encodings are written by whole warps.
template <class T>
__device__ void zero_gradients(const GaussianGradients<T>& grad, int64_t i) {
  const T zero[6] = {}, zero4[4] = {}, zero3[3] = {}, zero1[1] = {};
  store(grad.means, 3 * i, zero3), store(grad.means2d, 3 * i, zero3), store(grad.opacities, i, zero1);
  store(grad.scales, 3 * i, zero3), store(grad.rotations, 4 * i, zero4), store(grad.covariances, 6 * i, zero);
  store(grad.sh_dc, i * grad.sh_dc_stride, zero3), store(grad.colors, 3 * i, zero3);
}

/// Sums each Gaussian's rows and runs the chain rule down to the inputs.
template <class T, int kDegree>
__global__ void __launch_bounds__(kGaussianThreads, 6)
    gaussians_backward(Gaussians<T> in, View<T> view, GaussianGradients<T> grad, GaussianMemory<T> memory,
                       GradientMemory<T> gradients) {
  constexpr int kScratch = kRest<kDegree> > kSumStride ? kRest<kDegree> : kSumStride;
  __shared__ Camera<T> camera;
  __shared__ T scratch[kGaussianWarps][kScratch * kWarp];
  load_camera(view, camera);
  const int64_t i = int64_t(blockIdx.x) * kGaussianThreads + threadIdx.x, warp_first = i - lane_id();
  const bool inside = i < in.count;
  const int count = inside ? memory.tile_count[i] : 0;
  const uint32_t first = count > 0 ? memory.first_row[i] : 0;
  T* shared = scratch[warp_id()];

  const bool touched = gather_rows(gradients, 0, first, count, shared);
  T sum[kChannelSums + kIdentityChannels];
#pragma unroll
  for (int c = 0; c < kChannelSums + kIdentityChannels; ++c) sum[c] = shared[lane_id() * kSumStride + c];
  store_identity(in, grad, warp_first, 0, shared);
  for (int column = kGathered; column < kChannelSums + kIdentityChannels + in.num_identity; column += kGathered) {
    __syncwarp();
    gather_rows(gradients, column, first, count, shared);
    store_identity(in, grad, warp_first, column, shared);
  }
  __syncwarp();

  const unsigned touched_lanes = __ballot_sync(kAllLanes, touched);
  if (kDegree > 0 && !in.colors) fetch_rest<T, kDegree>(in, warp_first, touched_lanes, shared);
  if (touched)
    gaussian_backward<T, kDegree>(in, grad, camera, i, memory.packed, sum, shared + lane_id() * kRest<kDegree>);
  else if (inside)
    zero_gradients<T>(grad, i);
  if (!grad.sh_rest) return;
  __syncwarp();
  for (int lane = 0; lane < kWarp && warp_first + lane < in.count; ++lane) {
    const int known = touched_lanes >> lane & 1 ? kRest<kDegree> : 0;  // the degrees beyond are not reached yet
    T* out = grad.sh_rest + (warp_first + lane) * grad.sh_rest_stride;
    for (int c = lane_id(); c < 3 * in.num_rest; c += kWarp) out[c] = c < known ? shared[lane * kRest<kDegree> + c] : T(0);
  }
}

}  // namespace cuda
}  // namespace gs
