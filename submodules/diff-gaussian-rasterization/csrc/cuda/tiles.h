// The per-pixel stages. A block has one tile of 16x16 pixels, each of its eight warps 8x4 of them, one pixel a thread. A warp
// walks those Gaussians of the tile's list, nearest first, whose ellipse reaches its pixels, 32 of the list to a word of bits;
// the backward pass only those that contributed.
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
  int geometry;  // the first of them, whose gradients move the geometry
};

/// The lists that the tiles' blocks walk.
struct TileLists {
  const uint32_t *tile_begin, *tile_order;
  const Instance* instances;
  uint32_t *words_done, *hits;
};

/// What the tiles read of the Gaussians: packed rows, and the encodings (N, num_identity).
template <class T>
struct TileGaussians {
  const T *packed, *identity;
  int num_identity;

  __device__ const T* row(uint32_t gaussian) const { return packed + int64_t(gaussian) * kPackedRow; }
  /// Where channel `channel` of an encoding is; those before the first of them are not there.
  __device__ const T* encoding(uint32_t gaussian, int channel) const {
    return identity + (int64_t(gaussian) * num_identity + channel - kIdentityChannels);
  }
};

/// This thread's place, and its tile's list.
struct TilePixel {
  int tile, left, top, x, y;
  uint32_t begin, end, first_word;
  bool inside;

  __device__ TilePixel(int width, int height, const Grid& grid, const TileLists& lists) {
    tile = int(lists.tile_order[blockIdx.x]);
    left = tile % grid.tiles_x * kTile, top = tile / grid.tiles_x * kTile;
    x = left + warp_left() + lane_id() % kWarpWidth, y = top + warp_top() + lane_id() / kWarpWidth;
    inside = x < width && y < height;
    begin = lists.tile_begin[tile], end = lists.tile_begin[tile + 1];
    first_word = begin / kWord + tile;
  }
  static __device__ int warp_left() { return warp_id() % kWarpsAcross * kWarpWidth; }
  static __device__ int warp_top() { return warp_id() / kWarpsAcross * kWarpHeight; }
  __device__ uint32_t* hits(const TileLists& lists, int word) const {
    return lists.hits + int64_t(first_word + word) * kTileWarps + warp_id();
  }
};

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
__device__ void load_rows(const TileGaussians<T>& gaussians, const Instance* instances, int count, Pass pass, T* rows) {
  const int given = pass.first == 0 ? kIdentityChannels : 0;  // channels that the packed row has
#pragma unroll 1
  for (int k = threadIdx.x; k < 4 * count; k += kTileThreads) {
    const int n = k / 4, quarter = k % 4;
    const uint32_t gaussian = instances[n].gaussian;
    T* const row = rows + n * kForwardRow<kChannels>;
    if (quarter < kDepth / 4 || given) store_four(row + 4 * quarter, load_four(gaussians.row(gaussian) + 4 * quarter));
    const T* const encoding = gaussians.encoding(gaussian, pass.first);
#pragma unroll
    for (int c = quarter; c < kChannels; c += 4)
      if (c >= given) row[kDepth + c] = c < pass.count ? encoding[c] : T(0);
  }
}

/// A word of bits: which of `count` instances have ellipses that reach the warp's pixels. Lane i tests instance i.
template <class T, int kChannels>
__device__ __forceinline__ unsigned reaching_warp(const T* rows, int count, T left, T top) {
  T lo = 0, hi = 0;
  const bool reaches =
      lane_id() < count && ellipse_span(rows + lane_id() * kForwardRow<kChannels>, top, top + (kWarpHeight - 1), lo, hi);
  return __ballot_sync(kAllLanes, reaches && lo <= left + (kWarpWidth - 1) && hi >= left);
}

/// A pixel on its way along its tile's list.
template <class T, int kChannels>
struct BlendedPixel {
  T transmittance = 1, sum[kChannels] = {};
  bool live;  // not finished
};

/// Blends the `wanted` ones of 32 instances into the warp's pixels; returns which of them contributed to one, or finished one:
/// the backward pass has to meet those, too.
template <class T, int kChannels>
__device__ __forceinline__ unsigned blend_word(const T* rows, unsigned wanted, T x, T y, BlendedPixel<T, kChannels>& pixel) {
  unsigned hits = 0;
  if (!__any_sync(kAllLanes, pixel.live)) return 0;
  for (; wanted; wanted &= wanted - 1) {
    const int n = __ffs(wanted) - 1;
    const T* const row = rows + n * kForwardRow<kChannels>;
    const bool before = pixel.live;
    const auto step = closing_step<T, bool, T>(raw_alpha_at(row, x, y), pixel.transmittance, pixel.live);
    if (!__any_sync(kAllLanes, step.hit)) {
      if (__any_sync(kAllLanes, before && !pixel.live)) hits |= 1u << n;
      if (!__any_sync(kAllLanes, pixel.live)) break;
      continue;
    }
    hits |= 1u << n;
#pragma unroll
    for (int c = 0; c < kChannels; c += 4) {
      const Four<T> feature = load_four(row + kDepth + c);
#pragma unroll
      for (int k = 0; k < 4; ++k) pixel.sum[c + k] += step.weight * feature.v[k];
    }
  }
  return hits;
}

template <class T, int kChannels>
__device__ __forceinline__ void write_pixel(const Images<T>& out, const T* background, const TilePixel& at, Pass pass,
                                            const BlendedPixel<T, kChannels>& pixel) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int channel = pass.first + c;
    if (c >= pass.count) break;
    if (T* to = out.pixel(channel, at.x, at.y)) {
      const bool color = channel >= kColorChannels && channel < kIdentityChannels;
      *to = color ? pixel.sum[c] + pixel.transmittance * background[channel - kColorChannels] : pixel.sum[c];
    }
  }
  if (out.alpha && pass.first == 0) out.alpha[int64_t(at.y) * out.width + at.x] = 1 - pixel.transmittance;
}

/// The first pass finds which instances reach and hit a warp, and writes it down for the later ones and for the backward pass. A
/// later pass is another kernel, which may round differently: it walks the words that the first one wrote, and no more.
template <class T, int kChannels>
__global__ void __launch_bounds__(kTileThreads, 4)
    forward_tiles(Images<T> out, const T* background, TileGaussians<T> gaussians, Grid grid, TileLists lists, Pass pass) {
  __shared__ __align__(16) T rows[kForwardChunk * kForwardRow<kChannels>];
  TilePixel at(out.width, out.height, grid, lists);
  const bool is_first = pass.first == 0;
  if (!is_first) at.end = min(at.end, at.begin + lists.words_done[at.tile] * kWord);
  const T x = T(at.x), y = T(at.y);
  const T warp_left = T(at.left + TilePixel::warp_left()), warp_top = T(at.top + TilePixel::warp_top());
  BlendedPixel<T, kChannels> pixel;
  pixel.live = at.inside;
  uint32_t begin = at.begin;
  for (; begin < at.end; begin += kForwardChunk) {
    if (!__syncthreads_or(pixel.live)) break;
    const int count = min(int(at.end - begin), kForwardChunk);
    load_rows<T, kChannels>(gaussians, lists.instances + begin, count, pass, rows);
    __syncthreads();
    for (int first = 0; first < count; first += kWord) {
      uint32_t* const word = at.hits(lists, int(begin - at.begin + first) / kWord);
      const T* const word_rows = rows + first * kForwardRow<kChannels>;
      const unsigned wanted =
          is_first ? reaching_warp<T, kChannels>(word_rows, count - first, warp_left, warp_top) : *word;
      const unsigned hits = blend_word(word_rows, wanted, x, y, pixel);
      if (is_first && lane_id() == 0) *word = hits;
    }
  }
  if (is_first && threadIdx.x == 0) lists.words_done[at.tile] = (min(begin, at.end) - at.begin + kWord - 1) / kWord;
  if (at.inside) write_pixel(out, background, at, pass, pixel);
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
  static constexpr int kBatch = 16 / sizeof(T);          // Gaussians whose pixels are in shared memory at a time
  static constexpr int kRows = 128 / sizeof(T);          // instances whose sums are
  static constexpr int kRow = kTileHead + kGeometry;     // of a Gaussian: what blending needs, and the channels
  static constexpr int kStaged = kWarp + 4;              // a row of pixels; rows begin in different banks
  static constexpr int kBlocks = kGeometry > 4 ? 2 : 3;  // on a multiprocessor: 128 or 80 registers a thread
  static_assert(kColumns <= kWarp, "a lane has one column");
};

/// What a thread of the backward kernel keeps of the upstream gradients: its pixel's, for the scalar sums over channels, and its
/// lane's column, for the sums over pixels.
template <class T, int kChannels, int kGeometry>
struct Upstream {
  using S = BackwardSizes<T, kChannels, kGeometry>;
  T dL_dpixel[kGeometry];
  T behind;  // sum over channels of gradient * value of what is blended behind the current Gaussian, at first all
  T columns[S::kPixels];
};

/// Column `column` of the moments 1, x, y, x^2, xy, y^2 at (x, y).
template <class T>
__device__ T moment(int column, T x, T y) {
  return column == kQ ? T(1) : column == kQx ? x : column == kQy ? y : (column == kQyy ? y : x) * (column == kQxx ? x : y);
}

/// The moments, about the tile's centre, of the pixels of a lane whose column is one.
template <class T, int kChannels, int kGeometry>
__device__ __forceinline__ void fill_moments(int column, int first_pixel, Upstream<T, kChannels, kGeometry>& upstream) {
  using S = BackwardSizes<T, kChannels, kGeometry>;
#pragma unroll
  for (int p = 0; p < S::kPixels; ++p) {
    const int pixel = first_pixel + p;
    const T from_centre_x = T(TilePixel::warp_left() + pixel % kWarpWidth) - T(7.5);
    const T from_centre_y = T(TilePixel::warp_top() + pixel / kWarpWidth) - T(7.5);
    const bool is_moment = column >= kChannels && column < S::kColumns;
    upstream.columns[p] = is_moment ? moment(column - kChannels, from_centre_x, from_centre_y) : T(0);
  }
}

/// Loads the gradients of this thread's pixel, turns those of the warp over in `staged`, a few channels at a time, and sums up
/// `behind`.
template <class T, int kChannels, int kGeometry>
__device__ __forceinline__ void load_upstream(const Images<const T>& out, const Images<const T>& grad, const TilePixel& at,
                                              Pass pass, int column, int first_pixel,
                                              T (*staged)[BackwardSizes<T, kChannels, kGeometry>::kStaged],
                                              Upstream<T, kChannels, kGeometry>& upstream) {
  using S = BackwardSizes<T, kChannels, kGeometry>;
  constexpr int kTogether = 2 * S::kBatch;  // rows of `staged`
  upstream.behind = 0;
#pragma unroll
  for (int first = 0; first < kChannels; first += kTogether) {
#pragma unroll
    for (int c = first; c < first + kTogether && c < kChannels; ++c) {
      T g = 0;
      if (at.inside && c < pass.count)
        if (const T* from = grad.pixel(pass.first + c, at.x, at.y)) {
          g = *from;
          if (c < pass.geometry) upstream.behind += g * *out.pixel(pass.first + c, at.x, at.y);
        }
      staged[c - first][lane_id()] = g;
      if (c < kGeometry) upstream.dL_dpixel[c < kGeometry ? c : 0] = c < pass.geometry ? g : T(0);
    }
    __syncwarp();
    if (column >= first && column < first + kTogether && column < kChannels) {
#pragma unroll
      for (int p = 0; p < S::kPixels; p += 4) {
        const Four<T> four = load_four(&staged[column - first][first_pixel + p]);
        for (int k = 0; k < 4; ++k) upstream.columns[p + k] = four.v[k];
      }
    }
    __syncwarp();
  }
  if (grad.alpha && pass.first == 0 && at.inside) {
    const int64_t pixel = int64_t(at.y) * grad.width + at.x;
    upstream.behind += grad.alpha[pixel] * (out.alpha[pixel] - 1);
  }
}

/// The block loads, of `count` instances, what blending needs and the channels whose gradients move the geometry.
template <class T, int kRow>
__device__ __forceinline__ void load_geometry_rows(const TileGaussians<T>& gaussians, const Instance* instances, int count,
                                                   Pass pass, T (*rows)[kRow]) {
  constexpr int kFours = kRow / 4;
#pragma unroll 1
  for (int k = threadIdx.x; k < count * kFours; k += kTileThreads) {
    const int n = k / kFours, first = k % kFours * 4, channel = first - kTileHead;
    const uint32_t gaussian = instances[n].gaussian;
    Four<T> four = {};
    if (channel < 0) {
      four = load_four(gaussians.row(gaussian) + first);
    } else if (pass.first + channel < kIdentityChannels) {
      four = load_four(gaussians.row(gaussian) + kDepth);
    } else {
      const T* encoding = gaussians.encoding(gaussian, pass.first + channel);
      for (int j = 0; j < 4; ++j)
        if (channel + j < pass.count) four.v[j] = encoding[j];
    }
    store_four(&rows[n][first], four);
  }
}

/// Blends one Gaussian again into this thread's pixel; its weight and dL_dpower go to this lane of `staged`.
template <class T, int kChannels, int kGeometry>
__device__ __forceinline__ void blend_again(const T* row, T x, T y, T& transmittance, bool& live,
                                            Upstream<T, kChannels, kGeometry>& upstream,
                                            T (*staged)[BackwardSizes<T, kChannels, kGeometry>::kStaged]) {
  T value = 0;
#pragma unroll
  for (int c = 0; c < kGeometry; c += 4) {
    const Four<T> feature = load_four(row + kTileHead + c);
#pragma unroll
    for (int k = 0; k < 4; ++k) value += feature.v[k] * upstream.dL_dpixel[c + k];
  }
  const auto step = closing_step<T, bool, T>(raw_alpha_at(row, x, y), transmittance, live);
  upstream.behind -= step.weight * value;
  staged[0][lane_id()] = step.weight;
  staged[1][lane_id()] = power_backward<T, bool, T>(step, value, upstream.behind, T(1));
}

/// The sum over the warp's pixels of this lane's column times what is staged: the weight for a channel, dL_dpower for a moment.
template <class T, int kChannels, int kGeometry>
__device__ __forceinline__ T sum_over_pixels(int column, int first_pixel, const Upstream<T, kChannels, kGeometry>& upstream,
                                             const T (*staged)[BackwardSizes<T, kChannels, kGeometry>::kStaged]) {
  using S = BackwardSizes<T, kChannels, kGeometry>;
  const T* const pixels = &staged[column < kChannels ? 0 : 1][first_pixel];
  T partial[4] = {};
#pragma unroll
  for (int p = 0; p < S::kPixels; p += 4) {
    const Four<T> four = load_four(pixels + p);
#pragma unroll
    for (int k = 0; k < 4; ++k) partial[k] += four.v[k] * upstream.columns[p + k];
  }
  T sum = (partial[0] + partial[1]) + (partial[2] + partial[3]);
  if (S::kSplit == 2) sum += __shfl_xor_sync(kAllLanes, sum, S::kWidth);
  return sum;
}

/// Moments about the tile's centre -> about the Gaussian's mean at (u, v) from there, of lane's column; `s`, `sx`, `sy` are the
/// first three. Selections, not branches: the lanes of a warp have different columns.
template <class T>
__device__ T shift_moment(int column, T sum, T s, T sx, T sy, T u, T v) {
  const bool a_is_x = column == kQx || column == kQxx || column == kQxy, b_is_x = column == kQxx;
  const T a = a_is_x ? u : v, sa = a_is_x ? sx : sy, b = b_is_x ? u : v, sb = b_is_x ? sx : sy;
  const T first = a * s - sum, second = sum + a * b * s - a * sb - b * sa;
  return column == kQ ? sum : column == kQx || column == kQy ? first : second;
}

/// Of one instance: adds up the warps' sums in this lane's column and writes the gradient row.
template <class T, int kChannels, int kGeometry>
__device__ __forceinline__ void write_gradient_row(const T* row, T left, T top, T sum, Pass pass, T* to) {
  using S = BackwardSizes<T, kChannels, kGeometry>;
  const int lane = lane_id();
  const T s = __shfl_sync(kAllLanes, sum, kChannels + kQ), sx = __shfl_sync(kAllLanes, sum, kChannels + kQx),
          sy = __shfl_sync(kAllLanes, sum, kChannels + kQy);
  const T u = row[kMeanX] - (left + T(7.5)), v = row[kMeanY] - (top + T(7.5));
  if (lane < kChannels) {
    if (lane < pass.count) to[kChannelSums + pass.first + lane] = sum;
  } else if (lane < S::kColumns) {
    const T shifted = shift_moment(lane - kChannels, sum, s, sx, sy, u, v);
    to[lane - kChannels] = pass.first == 0 ? shifted : to[lane - kChannels] + shifted;
  }
}

template <class T, int kChannels, int kGeometry>
__global__ void __launch_bounds__(kTileThreads, BackwardSizes<T, kChannels, kGeometry>::kBlocks)
    backward_tiles(Images<const T> out, Images<const T> grad, TileGaussians<T> gaussians, Grid grid, TileLists lists,
                   GradientMemory<T> gradients, Pass pass) {
  using S = BackwardSizes<T, kChannels, kGeometry>;
  __shared__ __align__(16) T rows[S::kRows][S::kRow];
  __shared__ __align__(16) T all_staged[kTileWarps][S::kBatch][2][S::kStaged];  // weight and dL_dpower by pixel
  __shared__ T sums[kTileWarps][S::kRows][S::kWidth];
  __shared__ uint32_t word_hits[kTileWarps];
  const TilePixel at(out.width, out.height, grid, lists);
  const T x = T(at.x), y = T(at.y), left = T(at.left), top = T(at.top);
  const int warp = warp_id(), lane = lane_id();
  const int column = lane % S::kWidth, first_pixel = lane / S::kWidth * S::kPixels;
  auto* const staged = all_staged[warp];

  Upstream<T, kChannels, kGeometry> upstream;
  fill_moments(column, first_pixel, upstream);
  load_upstream(out, grad, at, pass, column, first_pixel, staged[0], upstream);

  T transmittance = 1;
  bool live = at.inside;
  const int words = int(lists.words_done[at.tile]);
  for (int word = 0; word < words; ++word) {
    const uint32_t hits = *at.hits(lists, word);
    for (int part = 0; part < kWord; part += S::kRows) {
      const uint32_t part_mask = S::kRows < 32 ? ((1u << S::kRows % 32) - 1) << part : ~0u;
      if (!__syncthreads_or((hits & part_mask) != 0)) continue;
      const Instance* const instances = lists.instances + at.begin + word * kWord + part;
      const int count = min(int(at.end - at.begin) - word * kWord - part, S::kRows);
      load_geometry_rows(gaussians, instances, count, pass, rows);
      if (lane == 0) word_hits[warp] = hits >> part;
      __syncthreads();

      for (uint32_t wanted = (hits & part_mask) >> part; wanted;) {
        int index[S::kBatch];
#pragma unroll
        for (int b = 0; b < S::kBatch; ++b) {
          index[b] = __ffs(wanted) - 1;
          if (index[b] < 0) continue;
          wanted &= wanted - 1;
          blend_again(rows[index[b]], x, y, transmittance, live, upstream, staged[b]);
        }
        __syncwarp();
#pragma unroll
        for (int b = 0; b < S::kBatch; ++b) {
          if (index[b] < 0) continue;
          const T sum = sum_over_pixels(column, first_pixel, upstream, staged[b]);
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
        const uint32_t row = instances[n].row;
        write_gradient_row<T, kChannels, kGeometry>(rows[n], left, top, sum, pass, gradients.row(row));
        if (lane == 0) gradients.touched[row] = 1;
      }
    }
  }
}

}  // namespace cuda
}  // namespace gs
