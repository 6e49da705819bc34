// The per-pixel stages. A block has one tile of 16x16 pixels, each of its eight warps 8x4 of them, one pixel a thread. A warp walks
// those Gaussians of the tile's list, nearest first, whose ellipse reaches its pixels, 32 of the list to a word of bits; the
// backward pass only those that contributed.
//
// Channels are blended in passes of at most kMaxChannels: weights and transmittances do not depend on the channels, and the
// gradients of the geometry are sums over them.
#pragma once

#include "frame.h"

namespace gs {
namespace cuda {

constexpr int kTileThreads = kTile * kTile, kTileWarps = kTileThreads / kWarp;
constexpr int kWarpWidth = 8, kWarpHeight = 4, kWarpsAcross = kTile / kWarpWidth;
constexpr int kWord = 32;         // instances of a tile whose hits lie in one word
constexpr int kMaxChannels = 20;  // depth, colour and 16 identity channels

/// The channels [first, first + count) of what is blended: depth, r, g, b, then the identity encoding.
struct Pass {
  int first, count;
};

/// The lists that the tiles' blocks walk.
struct TileLists {
  const uint32_t *tile_begin, *tile_order;
  const Instance* instances;
  uint32_t *words_done, *hits;
};

/// This thread's place, and its tile's list.
struct TilePixel {
  int tile, left, top, x, y;
  uint32_t begin, end, first_word;
  bool inside;

  __device__ TilePixel(const Inputs& in, const Grid& grid, const TileLists& lists) {
    tile = int(lists.tile_order[blockIdx.x]);
    left = tile % grid.tiles_x * kTile, top = tile / grid.tiles_x * kTile;
    x = left + warp_left() + lane_id() % kWarpWidth, y = top + warp_top() + lane_id() / kWarpWidth;
    inside = x < in.width && y < in.height;
    begin = lists.tile_begin[tile], end = lists.tile_begin[tile + 1];
    first_word = begin / kWord + tile;
  }
  static __device__ int warp_left() { return warp_id() % kWarpsAcross * kWarpWidth; }
  static __device__ int warp_top() { return warp_id() / kWarpsAcross * kWarpHeight; }
  __device__ uint32_t* hits(const TileLists& lists, int word) const {
    return lists.hits + int64_t(first_word + word) * kTileWarps + warp_id();
  }
};

/// This pixel of a channel's plane in a set of images, nullptr where there is none.
template <class T, class Images>
__device__ T* pixel_of(const Images& images, const Inputs& in, int channel, const TilePixel& at) {
  const bool identity = channel >= kIdentityChannels;
  const uintptr_t base = channel < kColorChannels ? images.depth : identity ? images.objects : images.color;
  const int first = channel < kColorChannels ? 0 : identity ? kIdentityChannels : kColorChannels;
  return base ? pointer<T>(base, (int64_t(channel - first) * in.height + at.y) * in.width + at.x) : nullptr;
}

/// Gaussian's opacity * exp(power) at (x, y), from the first six entries of its row in shared memory.
template <class T>
__device__ __forceinline__ T raw_alpha_at(const T* row, T x, T y) {
  const Four<T> head = load_four(row);
  const T power = gaussian_power<T, T>(head.v[kMeanX] - x, head.v[kMeanY] - y, head.v[kPowerA], head.v[kPowerB], row[kPowerC]);
  return row[kOpacity] * power_of_two(power);
}

// Forward.

constexpr int kForwardWords = 2, kForwardChunk = kForwardWords * kWord;  // instances that a block loads together

/// A row in shared memory: kDepth entries, then the pass's channels. Four more make lanes that each read their own row use
/// different banks.
template <int kChannels>
constexpr int kForwardRow = kDepth + kChannels + 4;

/// The block loads the rows of `count` instances; four threads have one.
template <class T, int kChannels>
__device__ void load_rows(const Inputs& in, const T* packed, const Instance* instances, int count, Pass pass, T* rows) {
  const int given = pass.first == 0 ? kIdentityChannels : 0;  // channels that the packed row has
#pragma unroll 1
  for (int k = threadIdx.x; k < 4 * count; k += kTileThreads) {
    const int n = k / 4, quarter = k % 4;
    const uint32_t gaussian = instances[n].gaussian;
    T* const row = rows + n * kForwardRow<kChannels>;
    if (quarter < kDepth / 4 || given) store_four(row + 4 * quarter, load_four(packed + int64_t(gaussian) * kPackedRow + 4 * quarter));
    const T* const encoding = pointer<const T>(in.identity, int64_t(gaussian) * in.num_identity + pass.first - kIdentityChannels);
#pragma unroll
    for (int c = quarter; c < kChannels; c += 4)
      if (c >= given) row[kDepth + c] = c < pass.count ? encoding[c] : T(0);
  }
}

template <class T, int kChannels>
__global__ void __launch_bounds__(kTileThreads, 4) forward_tiles(Inputs in, Outputs out, Grid grid, TileLists lists, const T* packed, Pass pass) {
  __shared__ __align__(16) T rows[kForwardChunk * kForwardRow<kChannels>];
  const TilePixel at(in, grid, lists);
  const T x = T(at.x), y = T(at.y);
  const T warp_left = T(at.left + TilePixel::warp_left()), warp_top = T(at.top + TilePixel::warp_top());
  T transmittance = 1, sum[kChannels] = {};
  bool live = at.inside;
  int word = 0;
  for (uint32_t begin = at.begin; begin < at.end; begin += kForwardChunk) {
    if (!__syncthreads_or(live)) break;
    const int count = min(int(at.end - begin), kForwardChunk);
    load_rows<T, kChannels>(in, packed, lists.instances + begin, count, pass, rows);
    __syncthreads();
    for (int first = 0; first < count; first += kWord, ++word) {
      const T* const word_rows = rows + first * kForwardRow<kChannels>;
      unsigned wanted;
      if (pass.first == 0) {
        T lo = 0, hi = 0;
        const bool reaches = first + lane_id() < count &&
                             ellipse_span(word_rows + lane_id() * kForwardRow<kChannels>, warp_top, warp_top + (kWarpHeight - 1), lo, hi);
        wanted = __ballot_sync(kAllLanes, reaches && lo <= warp_left + (kWarpWidth - 1) && hi >= warp_left);
      } else {
        wanted = *at.hits(lists, word);
      }
      unsigned hits = 0;
      if (!__any_sync(kAllLanes, live)) wanted = 0;
      for (; wanted; wanted &= wanted - 1) {
        const int n = __ffs(wanted) - 1;
        const T* const row = word_rows + n * kForwardRow<kChannels>;
        const bool before = live;
        const auto step = closing_step<T, bool, T>(raw_alpha_at(row, x, y), transmittance, live);
        if (!__any_sync(kAllLanes, step.hit)) {
          // Backward, too, has to meet what only finishes a pixel.
          if (__any_sync(kAllLanes, before && !live)) hits |= 1u << n;
          if (!__any_sync(kAllLanes, live)) break;
          continue;
        }
        hits |= 1u << n;
#pragma unroll
        for (int c = 0; c < kChannels; c += 4) {
          const Four<T> feature = load_four(row + kDepth + c);
#pragma unroll
          for (int k = 0; k < 4; ++k) sum[c + k] += step.weight * feature.v[k];
        }
      }
      if (pass.first == 0 && lane_id() == 0) *at.hits(lists, word) = hits;
    }
  }
  if (pass.first == 0 && threadIdx.x == 0) lists.words_done[at.tile] = word;
  if (!at.inside) return;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int channel = pass.first + c;
    if (c >= pass.count) break;
    if (T* to = pixel_of<T>(out, in, channel, at)) {
      const bool color = channel >= kColorChannels && channel < kIdentityChannels;
      *to = color ? sum[c] + transmittance * pointer<const T>(in.background)[channel - kColorChannels] : sum[c];
    }
  }
  if (out.alpha && pass.first == 0) pointer<T>(out.alpha)[int64_t(at.y) * in.width + at.x] = 1 - transmittance;
}

// Backward. Per Gaussian a warp computes weight and dL_dpower of its 32 pixels, puts them into shared memory, and multiplies them
// with the pixels' upstream gradients and moments there: lane c has column c of that 32-row matrix in registers. The warps'
// sums of one word are then added up in their order and written as the instances' gradient rows.

/// Sizes of the backward kernel, which fit into 48 KB of shared memory for float and double alike.
template <class T, int kChannels, int kGeometry>
struct BackwardSizes {
  static constexpr int kColumns = kChannels + kMoments;
  static constexpr int kSplit = kColumns <= kWarp / 2 ? 2 : 1;  // lanes that share a column, where there are few
  static constexpr int kWidth = kWarp / kSplit, kPixels = kWarp / kSplit;
  static constexpr int kBatch = 16 / sizeof(T);    // Gaussians whose pixels are in shared memory at a time
  static constexpr int kRows = 128 / sizeof(T);    // instances whose sums are
  static constexpr int kRow = 8 + kGeometry;       // of a Gaussian: what blending needs, and the channels
  static constexpr int kBlocks = kGeometry > 4 ? 2 : 3;  // on a multiprocessor: 128 or 80 registers a thread
  static_assert(kColumns <= kWarp, "a lane has one column");
};

/// Column `column` of the moments 1, x, y, x^2, xy, y^2 at (x, y).
template <class T>
__device__ T moment(int column, T x, T y) {
  return column == kQ    ? T(1)
         : column == kQx ? x
         : column == kQy ? y
                         : (column == kQyy ? y : x) * (column == kQxx ? x : y);
}

/// Moments about the tile's centre -> about the Gaussian's mean at (u, v) from there, of lane's column; `s`, `sx`, `sy` are the
/// first three.
template <class T>
__device__ T shift_moment(int column, T sum, T s, T sx, T sy, T u, T v) {
  switch (column) {
    case kQx: return u * s - sum;
    case kQy: return v * s - sum;
    case kQxx: return sum + u * u * s - 2 * u * sx;
    case kQxy: return sum + u * v * s - u * sy - v * sx;
    case kQyy: return sum + v * v * s - 2 * v * sy;
    default: return sum;
  }
}

template <class T, int kChannels, int kGeometry>
__global__ void __launch_bounds__(kTileThreads, BackwardSizes<T, kChannels, kGeometry>::kBlocks)
    backward_tiles(Inputs in, Outputs out, OutputGradients grad, Grid grid, TileLists lists, const T* packed,
                   GradientMemory<T> gradients, Pass pass) {
  using S = BackwardSizes<T, kChannels, kGeometry>;
  __shared__ __align__(16) T rows[S::kRows][S::kRow];
  __shared__ __align__(16) T staged[kTileWarps][S::kBatch][2][kWarp];  // weight and dL_dpower by pixel
  __shared__ T sums[kTileWarps][S::kRows][S::kWidth];
  __shared__ uint32_t word_hits[kTileWarps];
  const TilePixel at(in, grid, lists);
  const T x = T(at.x), y = T(at.y);
  const int warp = warp_id(), lane = lane_id();
  const int column = lane % S::kWidth, first_pixel = lane / S::kWidth * S::kPixels;

  // The upstream gradients: of this thread's pixel, for the scalar sums over channels, and of this lane's column.
  const int geometry_channels = in.identity_geometry_grad ? pass.count : min(pass.count, max(kIdentityChannels - pass.first, 0));
  T dL_dpixel[kGeometry], behind = 0, columns[S::kPixels];
#pragma unroll
  for (int p = 0; p < S::kPixels; ++p) {
    const int pixel = first_pixel + p;
    const T from_centre_x = T(TilePixel::warp_left() + pixel % kWarpWidth) - T(7.5);
    const T from_centre_y = T(TilePixel::warp_top() + pixel / kWarpWidth) - T(7.5);
    const bool is_moment = column >= kChannels && column < S::kColumns;
    columns[p] = is_moment ? moment(column - kChannels, from_centre_x, from_centre_y) : T(0);
  }
  constexpr int kTogether = 2 * S::kBatch;
  T(*const transposed)[kWarp] = &staged[warp][0][0];  // rows rotated by four more each: lanes read different banks
#pragma unroll
  for (int first = 0; first < kChannels; first += kTogether) {
#pragma unroll
    for (int c = first; c < first + kTogether && c < kChannels; ++c) {
      T g = 0;
      if (at.inside && c < pass.count)
        if (const T* from = pixel_of<const T>(grad, in, pass.first + c, at)) {
          g = *from;
          if (c < geometry_channels) behind += g * *pixel_of<const T>(out, in, pass.first + c, at);
        }
      transposed[c - first][(lane + 4 * (c - first)) % kWarp] = g;
      if (c < kGeometry) dL_dpixel[c < kGeometry ? c : 0] = c < geometry_channels ? g : T(0);
    }
    __syncwarp();
    if (column >= first && column < first + kTogether && column < kChannels) {
#pragma unroll
      for (int p = 0; p < S::kPixels; p += 4) {
        const Four<T> four = load_four(&transposed[column - first][(first_pixel + p + 4 * (column - first)) % kWarp]);
        for (int k = 0; k < 4; ++k) columns[p + k] = four.v[k];
      }
    }
    __syncwarp();
  }
  if (grad.alpha && pass.first == 0 && at.inside) {
    const int64_t pixel = int64_t(at.y) * in.width + at.x;
    behind += pointer<const T>(grad.alpha)[pixel] * (pointer<const T>(out.alpha)[pixel] - 1);
  }

  T transmittance = 1;
  bool live = at.inside;
  const int words = int(lists.words_done[at.tile]), stride = gradient_row(in.num_identity);
  for (int word = 0; word < words; ++word) {
    const uint32_t hits = *at.hits(lists, word);
    for (int half = 0; half < kWord; half += S::kRows) {
      const uint32_t half_mask = S::kRows < 32 ? ((1u << S::kRows % 32) - 1) << half : ~0u;
      if (!__syncthreads_or((hits & half_mask) != 0)) continue;
      const uint32_t begin = at.begin + word * kWord + half;
      const int count = min(int(at.end - begin), S::kRows);
      constexpr int kFours = S::kRow / 4;
#pragma unroll 1
      for (int k = threadIdx.x; k < count * kFours; k += kTileThreads) {
        const int n = k / kFours, first = k % kFours * 4;
        const uint32_t gaussian = lists.instances[begin + n].gaussian;
        Four<T> four = {};
        if (first < 8) {
          four = load_four(packed + int64_t(gaussian) * kPackedRow + first);
        } else if (pass.first + first - 8 < kIdentityChannels) {
          four = load_four(packed + int64_t(gaussian) * kPackedRow + kDepth);
        } else {
          const T* encoding = pointer<const T>(in.identity, int64_t(gaussian) * in.num_identity);
          for (int j = 0; j < 4; ++j)
            if (first - 8 + j < pass.count) four.v[j] = encoding[pass.first + first - 8 + j - kIdentityChannels];
        }
        store_four(&rows[n][first], four);
      }
      if (lane == 0) word_hits[warp] = hits >> half;
      __syncthreads();

      uint32_t wanted = (hits & half_mask) >> half;
      while (wanted) {
        int index[S::kBatch];
#pragma unroll
        for (int b = 0; b < S::kBatch; ++b) {
          index[b] = __ffs(wanted) - 1;
          if (index[b] < 0) continue;
          wanted &= wanted - 1;
          const T* const row = rows[index[b]];
          T value = 0;
#pragma unroll
          for (int c = 0; c < kGeometry; c += 4) {
            const Four<T> feature = load_four(row + 8 + c);
#pragma unroll
            for (int k = 0; k < 4; ++k) value += feature.v[k] * dL_dpixel[c + k];
          }
          const auto step = closing_step<T, bool, T>(raw_alpha_at(row, x, y), transmittance, live);
          behind -= step.weight * value;
          staged[warp][b][0][lane] = step.weight;
          staged[warp][b][1][lane] = power_backward<T, bool, T>(step, value, behind, T(1));
        }
        __syncwarp();
#pragma unroll
        for (int b = 0; b < S::kBatch; ++b) {
          if (index[b] < 0) continue;
          const T* const pixels = &staged[warp][b][column < kChannels ? 0 : 1][first_pixel];
          T partial[4] = {};
#pragma unroll
          for (int p = 0; p < S::kPixels; p += 4) {
            const Four<T> four = load_four(pixels + p);
#pragma unroll
            for (int k = 0; k < 4; ++k) partial[k] += four.v[k] * columns[p + k];
          }
          T sum = (partial[0] + partial[1]) + (partial[2] + partial[3]);
          if (S::kSplit == 2) sum += __shfl_xor_sync(kAllLanes, sum, S::kWidth);
          if (lane < S::kWidth) sums[warp][index[b]][lane] = sum;
        }
        __syncwarp();
      }
      __syncthreads();

      for (int n = warp; n < count; n += kTileWarps) {
        T sum = 0;
        bool any = false;
#pragma unroll
        for (int w = 0; w < kTileWarps; ++w)
          if (word_hits[w] >> n & 1) any = true, sum += sums[w][n][column];
        if (!any) continue;
        const T s = __shfl_sync(kAllLanes, sum, kChannels + kQ), sx = __shfl_sync(kAllLanes, sum, kChannels + kQx),
                sy = __shfl_sync(kAllLanes, sum, kChannels + kQy);
        const T u = rows[n][kMeanX] - (T(at.left) + T(7.5)), v = rows[n][kMeanY] - (T(at.top) + T(7.5));
        const uint32_t row = lists.instances[begin + n].row;
        T* const to = gradients.rows + int64_t(row) * stride;
        if (lane < kChannels) {
          if (lane < pass.count) to[kChannelSums + pass.first + lane] = sum;
        } else if (lane < S::kColumns) {
          const T shifted = shift_moment(lane - kChannels, sum, s, sx, sy, u, v);
          to[lane - kChannels] = pass.first == 0 ? shifted : to[lane - kChannels] + shifted;
        }
        if (lane == 0) gradients.touched[row] = 1;
      }
    }
  }
}

}  // namespace cuda
}  // namespace gs
