// The per-pixel stages. A tile has 16 blocks of 4x4 pixels; the 16 pixels of a block are the lanes of one vector. Each block
// walks its own list of the Gaussians whose ellipse reaches it, nearest first.
#pragma once

#include "frame.h"
#include "gs/blend.h"
#include "gs/tensors.h"
#include "packed.h"
#include "sixteen.h"
#include "tile_epilogue.h"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace gs {
namespace GS_ISA {
namespace {

constexpr int kBlocks = 16;
constexpr int kTogether = kManyRegisters ? 8 : 4;  // instances worked on together: hides latencies and shares loads
constexpr int kChunk = 256;  // instances whose block lists are built at a time: bounds the work wasted behind opaque surfaces
constexpr int kAhead = 8;    // instances between asking for a packed row and reading it
constexpr int kSoon = 3, kLater = 2;  // asked for into the first cache, or the second: the first holds the work of one tile

/// Number of channels blended: a compile-time constant where it pays (16 identity channels or none), else a run-time value.
template <int kStatic>
struct Channels {
  explicit Channels(int) {}
  static constexpr int kMax = kStatic;
  constexpr int count() const { return kStatic; }
};
template <>
struct Channels<0> {
  explicit Channels(int n) : n_(n) {}
  static constexpr int kMax = kIdentityChannels + kMaxIdentity;
  int count() const { return n_; }
  int n_;
};

template <class T>
struct TileView {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  const Frame& frame;
  const Inputs& in;
  int left, top, width, height;
  int64_t begin, end;  // its instances

  TileView(const Frame& f, const Inputs& i, int64_t tile)
      : frame(f),
        in(i),
        left(int(tile % f.tiles_x) * kTile),
        top(int(tile / f.tiles_x) * kTile),
        width(i.width),
        height(i.height),
        begin(f.tile_begin[tile]),
        end(f.tile_begin[tile + 1]) {}

  const T* row(int64_t instance) const {
    return frame.packed.as<const T>() + frame.instances[instance].gaussian * int64_t(row_stride(in.num_identity));
  }
  void pixel_centres(int block, V& x, V& y) const {
    for (int lane = 0; lane < 16; ++lane) {
      x[lane] = T(left + 4 * (block % 4) + lane % 4);
      y[lane] = T(top + 4 * (block / 4) + lane / 4);
    }
  }
  M inside_image(int block) const {
    V x, y;
    pixel_centres(block, x, y);
    return lane_and(lane_less(x, V{} + T(width)), lane_less(y, V{} + T(height)));
  }
  bool whole() const { return left + kTile <= width && top + kTile <= height; }

  /// Where a plane's first pixel row leaves this tile, or the one `tiles` to its right: in the cache line that tiles to the left
  /// have not touched.
  const T* edge(const T* plane, int tiles = 0) const {
    return plane ? plane + int64_t(top) * width + left + (tiles + 1) * kTile - 1 : nullptr;
  }
  int rows() const { return height - top < kTile ? height - top : kTile; }
  /// Asks for the packed row of an instance of this tile (kSoon) or a later one (kLater).
  template <int kWhen>
  GS_HD void prefetch_row(int64_t instance) const {
    if (instance >= frame.num_instances) return;
    const char* from = reinterpret_cast<const char*>(row(instance));
    for (int byte = 0; byte < row_stride(in.num_identity) * int(sizeof(T)); byte += 64) __builtin_prefetch(from + byte, 0, kWhen);
  }

  /// The part of a plane under the blocks 4 * band to 4 * band + 3; 0 outside the image, of which a `whole` tile has nothing.
  template <bool kWhole>
  void load_band(const T* plane, int band, V* blocks) const {
    for (int r = 0; r < 4; ++r) {
      const int y = top + 4 * band + r;
      const T* from = plane + int64_t(y) * width + left;
      V row = {};
      if (kWhole)  // a constant size makes the copy one move
        memcpy(&row, from, sizeof row);
      else if (y < height)
        memcpy(&row, from, sizeof(T) * columns());
      blocks[r] = row;
    }
    transpose_quarters(blocks);
  }
  template <bool kWhole>
  void store_band(T* plane, int band, V* blocks) const {
    transpose_quarters(blocks);
    for (int r = 0; r < 4; ++r) {
      const int y = top + 4 * band + r;
      T* to = plane + int64_t(y) * width + left;
      const V row = blocks[r];
      if (kWhole)
        memcpy(to, &row, sizeof row);
      else if (y < height)
        memcpy(to, &row, sizeof(T) * columns());
    }
  }

 private:
  int columns() const { return width - left < kTile ? width - left : kTile; }
};

/// What is going to be read and written, asked for in time. Tiles jump from plane to plane, row to row and Gaussian to Gaussian,
/// which no processor foresees: each access would wait for memory in turn. And all at once they would wait, too: a core asks for
/// some sixteen lines at a time. So the loops over instances ask for a few lines a turn. What only prefetches must be inlined:
/// GCC takes such a function for one without effect and drops the calls.
template <class T, int kMostPlanes>
struct Ahead {
  static constexpr int kAtOnce = 6;
  const T* edges[kMostPlanes];  // `edge` of planes
  int num_planes, plane, y, rows, width;
  const char *line, *last_line;  // of memory in one piece
  int64_t instance, last_instance;

  void start(const TileView<T>& tile) {
    num_planes = plane = y = 0, rows = tile.rows(), width = tile.width, line = last_line = nullptr;
    instance = tile.end, last_instance = tile.end + kChunk;
  }
  void add(const T* edge) {
    if (edge) edges[num_planes++] = edge;
  }
  void add_piece(const void* from, int64_t bytes) { line = static_cast<const char*>(from), last_line = line + bytes; }
  bool some_pixels() const { return num_planes && y < rows; }
  /// The next lines of the piece and of the planes.
  GS_HD void prefetch_pixels() {
    for (int i = 0; i < kAtOnce && line < last_line; ++i, line += 64) __builtin_prefetch(line, 0, kLater);
    for (int i = 0; i < kAtOnce && some_pixels(); ++i) {
      __builtin_prefetch(edges[plane] + int64_t(y) * width, 0, kLater);
      if (++plane == num_planes) plane = 0, ++y;
    }
  }
  /// Of the tiles that follow: the next instance. Its packed row is asked for.
  GS_HD int64_t next_instance(const TileView<T>& tile) {
    if (instance < last_instance) tile.template prefetch_row<kLater>(instance++);
    return instance - 1;
  }
};

/// What an epilogue left of one tile: the gradient of every identity channel, and per pixel sum_c channel * gradient, which is
/// all that the backward pass needs of the channels themselves.
template <class T>
struct HandedOn {
  using V = typename Lanes<T>::V;
  int num_identity;
  V* gradients;  // [kBlocks][num_identity]
  V* products;   // [kBlocks]

  HandedOn(const Frame& frame, const Inputs& in, int64_t tile)
      : num_identity(in.num_identity),
        gradients(frame.handed_on.template as<V>() + tile * kBlocks * (num_identity + 1)),
        products(gradients + kBlocks * num_identity) {}
  /// Of a blended channel (config.h: their order).
  V& gradient(int block, int channel) const { return gradients[block * num_identity + channel - kIdentityChannels]; }
  static int64_t bytes(const Inputs& in, int64_t tiles) { return tiles * kBlocks * (in.num_identity + 1) * int64_t(sizeof(V)); }
};

inline int thread_index() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/// For each block, which instances of the current chunk it has to look at.
struct BlockLists {
  uint16_t list[kBlocks][kChunk + 16];
  int count[kBlocks];

  /// Appends, of the instances first to first + 15, those whose bits are set.
  GS_HD void append(int block, int first, unsigned bits) { count[block] += list_bits(bits, first, list[block] + count[block]); }
  void clear() { memset(count, 0, sizeof count); }
  /// Fills the lists up to a multiple of kTogether with the stand-in.
  void pad() {
    for (int block = 0; block < kBlocks; ++block)
      for (int n = count[block]; n % kTogether; ++n) list[block][n] = kChunk;
  }
};

/// opacity * exp(power) at the 16 pixels of a block for kTogether instances.
template <class T, class V>
GS_HD void raw_alphas(const T* const* rows, const uint16_t* list, V x, V y, V* raw_alpha) {
  V power[kTogether];
  for (int h = 0; h < kTogether; ++h) {
    const T* row = rows[list[h]];
    power[h] = gaussian_power<V, T>(row[kMeanX] - x, row[kMeanY] - y, row[kPowerA], row[kPowerB], row[kPowerC]);
  }
  lane_exp2(power);
  for (int h = 0; h < kTogether; ++h) raw_alpha[h] = rows[list[h]][kOpacity] * power[h];
}

template <class T, int kStatic>
struct ForwardTile {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  using C = Channels<kStatic>;
  static constexpr int kChannelsAtOnce = kManyRegisters && kStatic ? kStatic : 4;  // sums that stay in registers
  V transmittance[kBlocks], blended[kBlocks][C::kMax];
  M live[kBlocks];
  BlockLists lists;
  const T* rows[kChunk + 1];  // the last entry is the stand-in's
  uint16_t hits[kChunk + 1];
  V weight[kChunk + kTogether];  // of the hits of one block
  const T* hit_row[kChunk + kTogether];
  Ahead<T, C::kMax> ahead;

  ForwardTile() { rows[kChunk] = kNowhere<T>; }

  /// For the blocks that are `open`, the instances of the chunk whose ellipses reach them.
  void list_blocks(const TileView<T>& tile, int count, unsigned open) {
    lists.clear();
    for (int k = count; k % 16; ++k) rows[k] = kNowhere<T>;
    for (int first = 0; first < count; first += 16) {
      unsigned reached[kBlocks];
      blocks_reached(rows + first, tile.left, tile.top, reached);
      const unsigned given = count - first < 16 ? (1u << (count - first)) - 1 : 0xffff;
      for (int block = 0; block < kBlocks; ++block)
        if (open >> block & 1) lists.append(block, first, reached[block] & given);
    }
    lists.pad();
  }

  /// Weights of the Gaussians that contribute to a block; returns how many do.
  int weigh(const TileView<T>& tile, int block) {
    V x, y, t = transmittance[block];
    M alive = live[block];
    tile.pixel_centres(block, x, y);
    const uint16_t* list = lists.list[block];
    int count = 0;
    for (int n = 0; n < lists.count[block] && lane_any(alive); n += kTogether) {
      V raw_alpha[kTogether];
      BlendStep<V, M> steps[kTogether];
      ahead.prefetch_pixels();
      ahead.next_instance(tile);
      raw_alphas(rows, list + n, x, y, raw_alpha);
      const M before = alive;
      blend_steps<V, M, T>(raw_alpha, t, alive, steps);
      const bool finished = lane_any(lane_and_not(before, alive));  // backward, too, has to meet what finishes a pixel
      for (int h = 0; h < kTogether; ++h) {
        const int k = list[n + h];
        const bool hit = lane_any(steps[h].hit);  // taken in without a branch, which would often be mispredicted
        weight[count] = steps[h].weight;
        hit_row[count] = rows[k];
        count += hit;
        hits[k] |= uint16_t((hit | finished) << block);
      }
    }
    transmittance[block] = t, live[block] = alive;
    return count;
  }

  /// Adds weight * feature to kCount channels, their sums in registers.
  template <int kCount>
  void blend_channels(int block, int first, int count) {
    V sum[kCount];
    for (int c = 0; c < kCount; ++c) sum[c] = blended[block][first + c];
    for (int n = 0; n < count; ++n) {
      const T* feature = hit_row[n] + kDepth + first;
      const V w = weight[n];
#pragma GCC unroll 20
      for (int c = 0; c < kCount; ++c) sum[c] += w * feature[c];
    }
    for (int c = 0; c < kCount; ++c) blended[block][first + c] = sum[c];
  }
  void blend(C channels, int block, int count) {
    int c = 0;
    for (; c + kChannelsAtOnce <= channels.count(); c += kChannelsAtOnce) blend_channels<kChannelsAtOnce>(block, c, count);
    for (; c < channels.count(); ++c) blend_channels<1>(block, c, count);
  }

  template <bool kWhole>
  void write(const TileView<T>& tile, C channels, const Images<T>& out) {
    const T* background = pointer<const T>(tile.in.background) - kColorChannels;
    V blocks[4];
    for (int band = 0; band < 4; ++band) {
      const int first = 4 * band;
      for (int c = 0; c < channels.count(); ++c) {
        T* plane = out.pixel(c, 0, 0);
        if (!plane) continue;
        for (int i = 0; i < 4; ++i) blocks[i] = blended[first + i][c];
        if (c >= kColorChannels && c < kIdentityChannels)
          for (int i = 0; i < 4; ++i) blocks[i] += transmittance[first + i] * background[c];
        tile.template store_band<kWhole>(plane, band, blocks);
      }
      if (!out.alpha) continue;
      for (int i = 0; i < 4; ++i) blocks[i] = T(1) - transmittance[first + i];
      tile.template store_band<kWhole>(out.alpha, band, blocks);
    }
  }

  /// Hands the identity channels on while they are in the cache.
  void hand_on(const TileView<T>& tile, C channels, int64_t index) {
    const int64_t tiles = int64_t(tile.frame.tiles_x) * tile.frame.tiles_y, group = tiles_in_group(tiles);
    const HandedOn<T> to(tile.frame, tile.in, index);
    const TileEpilogue& epilogue = *pointer<const TileEpilogue>(tile.in.epilogue);
    epilogue.run(epilogue.state,
                 {&blended[0][kIdentityChannels], 16 * C::kMax, to.gradients, tile.left, tile.top, int(index / group),
                  index % group == 0, (index + 1) % group == 0 || index + 1 == tiles, thread_index()});
    for (int block = 0; block < kBlocks; ++block) {
      V sum = {};
      for (int c = kIdentityChannels; c < channels.count(); ++c) sum += blended[block][c] * to.gradient(block, c);
      to.products[block] = sum;
    }
  }

  void run(Frame& frame, const Inputs& in, const Images<T>& out, int64_t index) {
    const TileView<T> tile(frame, in, index);
    const C channels(kIdentityChannels + in.num_identity);
    for (int block = 0; block < kBlocks; ++block) {
      transmittance[block] = V{} + T(1), live[block] = tile.inside_image(block);
      for (int c = 0; c < channels.count(); ++c) blended[block][c] = V{};
    }
    ahead.start(tile);
    for (int c = 0; c < channels.count(); ++c) ahead.add(tile.edge(out.pixel(c, 0, 0)));
    if (in.epilogue) ahead.add_piece(HandedOn<T>(frame, in, index).gradients, HandedOn<T>::bytes(in, 1));
    for (int64_t begin = tile.begin; begin < tile.end; begin += kChunk) {
      const int count = int(tile.end - begin < kChunk ? tile.end - begin : kChunk);
      unsigned open = 0;
      for (int block = 0; block < kBlocks; ++block) open |= unsigned(lane_any(live[block])) << block;
      if (!open) break;
      for (int k = 0; k < count; ++k) {
        rows[k] = tile.row(begin + k), hits[k] = 0;
        tile.template prefetch_row<kSoon>(begin + k + kAhead);
      }
      list_blocks(tile, count, open);
      for (int block = 0; block < kBlocks; ++block)
        if (lists.count[block]) blend(channels, block, weigh(tile, block));
      memcpy(&frame.hits[begin], hits, sizeof(uint16_t) * count);
    }
    while (ahead.some_pixels()) ahead.prefetch_pixels();
    tile.whole() ? write<true>(tile, channels, out) : write<false>(tile, channels, out);
    if (in.epilogue) hand_on(tile, channels, index);
  }
};

template <class T, int kStatic>
struct BackwardTile {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  using C = Channels<kStatic>;
  static constexpr int kGroups = 1 + (C::kMax - kIdentityChannels + 15) / 16;  // vectors in a gradient row
  static constexpr int kGroupsAtOnce = kManyRegisters && kStatic ? kGroups : 1;
  V transmittance[kBlocks], behind[kBlocks];
  M live[kBlocks];
  V dL_dpixel[kBlocks][C::kMax];    // lanes are pixels
  V dL_drow[kBlocks][16][kGroups];  // per pixel; lanes are the entries of a gradient row, moments among them
  BlockLists lists;
  const T* rows[kChunk + 1];  // the last entry is the stand-in's
  V gradients[kChunk + 1][kGroups];
  V value[kTogether];      // of the instances that are worked on
  T pairs[kTogether][32];  // their weight and dL_dpower at each pixel
  Ahead<T, 2 * C::kMax> ahead;

  BackwardTile() { rows[kChunk] = kNowhere<T>; }

  int groups(const Inputs& in) const { return kStatic ? kGroups : gradient_stride(in.num_identity) / 16; }

  /// How many of the channels reach the geometry by their gradients.
  static int geometry_channels(const Inputs& in) { return kIdentityChannels + (in.identity_geometry_grad ? in.num_identity : 0); }

  /// Gathers the upstream gradients of four blocks, and `behind` = all that was blended, as one scalar a pixel.
  template <bool kWhole>
  void load(const TileView<T>& tile, C channels, const Images<const T>& out, const Images<const T>& grad, int band) {
    const int first = 4 * band;
    V g[4], value[4], rest[4] = {};
    const int count = tile.in.epilogue ? kIdentityChannels : channels.count();
    for (int c = 0; c < count; ++c) {
      for (int i = 0; i < 4; ++i) g[i] = V{};
      if (const T* plane = grad.pixel(c, 0, 0)) {
        tile.template load_band<kWhole>(plane, band, g);
        if (c < geometry_channels(tile.in)) {
          tile.template load_band<kWhole>(out.pixel(c, 0, 0), band, value);
          for (int i = 0; i < 4; ++i) rest[i] += g[i] * value[i];
        }
      }
      for (int i = 0; i < 4; ++i) dL_dpixel[first + i][c] = g[i];
    }
    if (grad.alpha) {
      tile.template load_band<kWhole>(grad.alpha, band, g);
      tile.template load_band<kWhole>(out.alpha, band, value);
      for (int i = 0; i < 4; ++i) rest[i] += g[i] * (value[i] - 1);
    }
    for (int i = 0; i < 4; ++i)
      transmittance[first + i] = V{} + T(1), behind[first + i] = rest[i], live[first + i] = tile.inside_image(first + i);
  }

  /// `load` of what the epilogue left, times `factor`; no images hold it.
  void load_handed_on(const HandedOn<T>& from, C channels, T factor, bool moves_geometry) {
    for (int block = 0; block < kBlocks; ++block) {
      for (int c = kIdentityChannels; c < channels.count(); ++c) dL_dpixel[block][c] = factor * from.gradient(block, c);
      if (moves_geometry) behind[block] += factor * from.products[block];
    }
  }

  /// Pixels as lanes -> entries of a gradient row as lanes.
  void transpose_gradients(C channels, int block) {
    V x, y, m[16] = {};
    for (int lane = 0; lane < 16; ++lane)
      x[lane] = T(4 * (block % 4) + lane % 4) - T(7.5), y[lane] = T(4 * (block / 4) + lane / 4) - T(7.5);
    m[kQ] = V{} + T(1), m[kQx] = x, m[kQy] = y, m[kQxx] = x * x, m[kQxy] = x * y, m[kQyy] = y * y;
    for (int c = 0; c < kIdentityChannels; ++c) m[kGradDepth + 2 * c] = dL_dpixel[block][c];
    int group = 0;
    for (int c = kIdentityChannels;; ++group) {
      transpose(m);
      for (int lane = 0; lane < 16; ++lane) dL_drow[block][lane][group] = m[lane];
      if (c >= channels.count()) break;
      for (int i = 0; i < 16; ++i, ++c) m[i] = c < channels.count() ? dL_dpixel[block][c] : V{};
    }
  }

  /// Scalar sums over the first `count` channels, or kCount if that is positive, of feature * gradient for kTogether instances.
  template <int kCount>
  void sum_channels(int count, int block, const uint16_t* list) {
    V sum[kTogether] = {};
    const T* row[kTogether];
    for (int h = 0; h < kTogether; ++h) row[h] = rows[list[h]] + kDepth;
#pragma GCC unroll 20
    for (int c = 0; c < (kCount ? kCount : count); ++c) {
      const V g = dL_dpixel[block][c];
      for (int h = 0; h < kTogether; ++h) sum[h] += g * row[h][c];
    }
    for (int h = 0; h < kTogether; ++h) value[h] = sum[h];
  }

  /// Adds the sums over the block's pixels to kAtOnce vectors, from `group` on, of the gradient rows of kTogether instances; the
  /// first vector of a row takes pairs of weight and dL_dpower, the others the weight.
  template <bool kFirst, int kAtOnce>
  void accumulate(int block, const uint16_t* list, int group) {
    V sum[kTogether][kAtOnce] = {};
#pragma GCC unroll 16
    for (int p = 0; p < 16; ++p)
      for (int h = 0; h < kTogether; ++h) {
        const T* pair = pairs[h] + 2 * pair_slot<T>(p);
        V by_pair;
        load_pair(pair, by_pair);
        const V by_weight = pair[0] - V{};  // x - 0 is x to the compiler, 0 + x is not
        for (int g = 0; g < kAtOnce; ++g) sum[h][g] += (kFirst && g == 0 ? by_pair : by_weight) * dL_drow[block][p][group + g];
      }
    for (int h = 0; h < kTogether; ++h)
      for (int g = 0; g < kAtOnce; ++g) gradients[list[h]][group + g] += sum[h][g];
  }

  /// Repeats the blending of one block front to back, and adds what follows from it to the gradient rows.
  void blend_block(const TileView<T>& tile, C channels, int block) {
    V x, y, t = transmittance[block], rest = behind[block];
    M alive = live[block];
    tile.pixel_centres(block, x, y);
    for (int n = 0; n < lists.count[block]; n += kTogether) {
      const uint16_t* list = lists.list[block] + n;
      V raw_alpha[kTogether];
      BlendStep<V, M> steps[kTogether];
      prefetch_next(tile);
      raw_alphas(rows, list, x, y, raw_alpha);
      tile.in.identity_geometry_grad ? sum_channels<kStatic>(geometry_channels(tile.in), block, list)
                                     : sum_channels<0>(geometry_channels(tile.in), block, list);
      blend_steps<V, M, T>(raw_alpha, t, alive, steps);
      for (int h = 0; h < kTogether; ++h) {
        rest -= steps[h].weight * value[h];
        store_pairs(steps[h].weight, power_backward<V, M, T>(steps[h], value[h], rest, T(1)), pairs[h]);
      }
      accumulate<true, kGroupsAtOnce>(block, list, 0);
      for (int group = kGroupsAtOnce; group < groups(tile.in); ++group) accumulate<false, 1>(block, list, group);
    }
    transmittance[block] = t, behind[block] = rest, live[block] = alive;
  }

  /// For each block, the instances that the forward pass blended into it.
  void list_hits(const uint16_t* hits, int count) {
    lists.clear();
    for (int first = 0; first < count; first += 16)
      for (int block = 0; block < kBlocks; ++block) lists.append(block, first, bits_at(hits + first, block));
    lists.pad();
  }

  /// A few lines of what `load` of the next tile in the row is going to read, and the rows of one instance that follows.
  GS_HD void prefetch_next(const TileView<T>& tile) {
    ahead.prefetch_pixels();
    const int64_t next = ahead.next_instance(tile);
    if (next < tile.frame.num_instances) prefetch_gradients(tile, next);
  }
  GS_HD void prefetch_gradients(const TileView<T>& tile, int64_t instance) {
    const V* row =
        tile.frame.packed_gradients.template as<const V>() + int64_t(tile.frame.instances[instance].row) * groups(tile.in);
    for (int g = 0; g < groups(tile.in); ++g) __builtin_prefetch(row + g, 0, kLater);
  }

  /// Moments about the tile's centre -> sums of q times 1, d, d d^T with d = mean - pixel; then to the instance's row.
  void write_row(const TileView<T>& tile, int k, V* out) {
    V head = gradients[k][0];
    const T u = rows[k][kMeanX] - (tile.left + T(7.5)), v = rows[k][kMeanY] - (tile.top + T(7.5));
    const T s = head[kQ], sx = head[kQx], sy = head[kQy];
    head[kQx] = u * s - sx, head[kQy] = v * s - sy;
    head[kQxx] += u * u * s - 2 * u * sx, head[kQyy] += v * v * s - 2 * v * sy;
    head[kQxy] += u * v * s - u * sy - v * sx;
    out[0] = head;
    for (int g = 1; g < groups(tile.in); ++g) out[g] = gradients[k][g];
  }

  void run(Frame& frame, const Inputs& in, const Images<const T>& out, const Images<const T>& grad, T factor, int64_t index) {
    const TileView<T> tile(frame, in, index);
    const int num_groups = groups(in);
    V* gradient_rows = frame.packed_gradients.as<V>();
    const C channels(kIdentityChannels + in.num_identity);
    for (int band = 0; band < 4; ++band)
      tile.whole() ? load<true>(tile, channels, out, grad, band) : load<false>(tile, channels, out, grad, band);
    if (in.epilogue) load_handed_on({frame, in, index}, channels, factor, in.identity_geometry_grad);
    for (int block = 0; block < kBlocks; ++block) transpose_gradients(channels, block);
    ahead.start(tile);
    if (in.epilogue && index + 1 < int64_t(frame.tiles_x) * frame.tiles_y)
      ahead.add_piece(HandedOn<T>(frame, in, index + 1).gradients, HandedOn<T>::bytes(in, 1));
    for (int c = 0; c < channels.count(); ++c) {
      ahead.add(tile.edge(grad.pixel(c, 0, 0), 1));
      if (c < geometry_channels(in)) ahead.add(tile.edge(out.pixel(c, 0, 0), 1));
    }
    for (int64_t begin = tile.begin; begin < tile.end; begin += kChunk) {
      const int count = int(tile.end - begin < kChunk ? tile.end - begin : kChunk);
      uint16_t hits[kChunk + 16] = {};
      memcpy(hits, &frame.hits[begin], sizeof(uint16_t) * count);
      for (int k = 0; k < count; ++k) {
        rows[k] = tile.row(begin + k);
        tile.template prefetch_row<kSoon>(begin + k + kAhead);
        prefetch_gradients(tile, begin + k);
        for (int g = 0; g < num_groups; ++g) gradients[k][g] = V{};
      }
      list_hits(hits, count);
      for (int block = 0; block < kBlocks; ++block)
        if (lists.count[block]) blend_block(tile, channels, block);
      for (int k = 0; k < count; ++k) {
        const uint32_t row = frame.instances[begin + k].row;
        if (hits[k]) write_row(tile, k, gradient_rows + int64_t(row) * num_groups);
      }
    }
  }
};

/// Tiles that are neighbours share cache lines of the images, which threads must not hand to and fro: a thread takes several at a
/// time, so few that all end together. An epilogue has groups of its own.
inline int64_t tiles_together(const Inputs& in, int64_t tiles) {
  if (in.epilogue) return tiles_in_group(tiles);
  const int64_t share = tiles / (16 * in.threads);
  return share < 1 ? 1 : share < 16 ? share : 16;
}

/// Runs body(scratch, tile) over all tiles from a queue; every thread keeps one scratch object.
template <class Scratch, class Body>
void for_each_tile(const Frame& frame, const Inputs& in, Body body) {
  const int64_t tiles = int64_t(frame.tiles_x) * frame.tiles_y, together = tiles_together(in, tiles);
#pragma omp parallel num_threads(in.threads)
  {
    Buffer<Scratch> memory;
    Scratch* scratch = new (memory.resize(1)) Scratch;
#pragma omp for schedule(dynamic, together)
    for (int64_t tile = 0; tile < tiles; ++tile) body(*scratch, tile);
  }
}

template <class T, int kStatic>
void forward_tiles(Frame& frame, const Inputs& in, const Outputs& outputs) {
  const Images<T> out(outputs, in);
  if (in.epilogue) frame.handed_on.resize(HandedOn<T>::bytes(in, int64_t(frame.tiles_x) * frame.tiles_y));
  for_each_tile<ForwardTile<T, kStatic>>(frame, in, [&](auto& scratch, int64_t tile) { scratch.run(frame, in, out, tile); });
}

template <class T, int kStatic>
void backward_tiles(Frame& frame, const Inputs& in, const Outputs& outputs, const OutputGradients& gradients) {
  const Images<const T> out(outputs, in), grad(gradients, in);
  for_each_tile<BackwardTile<T, kStatic>>(
      frame, in, [&](auto& scratch, int64_t tile) { scratch.run(frame, in, out, grad, T(gradients.epilogue), tile); });
}

}  // namespace
}  // namespace GS_ISA
}  // namespace gs
