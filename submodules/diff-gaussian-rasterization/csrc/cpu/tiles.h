// The per-pixel stages. A tile has 16 blocks of 4x4 pixels; the 16 pixels of a block are the lanes of one vector. Each block walks
// its own list of the Gaussians whose ellipse reaches it, nearest first.

constexpr int kBlocks = 16;
constexpr int kTogether = 8;  // instances summed together: hides the latency of the additions and shares the loads
constexpr int kChunk = 256;  // instances whose block lists are built at a time: bounds the work wasted behind opaque surfaces

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
  static constexpr int kMax = 3 + kMaxIdentity;
  int count() const { return n_; }
  int n_;
};

template <class T>
struct TileView {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  const Frame& frame;
  const Inputs& in;
  int left, top;
  int64_t begin, end;  // its instances

  TileView(const Frame& f, const Inputs& i, int64_t tile)
      : frame(f), in(i), left(int(tile % f.tiles_x) * kTile), top(int(tile / f.tiles_x) * kTile),
        begin(f.tile_begin[tile]), end(f.tile_begin[tile + 1]) {}

  const T* row(int64_t instance) const {
    return reinterpret_cast<const T*>(frame.packed.data()) + frame.instances[instance].gaussian * int64_t(row_stride(in.num_identity));
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
    return lane_and(x < T(in.width), y < T(in.height));
  }
  int columns() const { return in.width - left < kTile ? in.width - left : kTile; }
  /// The part of an image plane under the four blocks 4 * band to 4 * band + 3; 0 outside the image.
  void load_band(const T* plane, int band, V* blocks) const {
    for (int r = 0; r < 4; ++r) {
      const int y = top + 4 * band + r;
      const T* from = plane + int64_t(y) * in.width + left;
      blocks[r] = V{};
      if (y >= in.height) continue;
      if (columns() == kTile)  // a constant size makes the copy one move
        memcpy(&blocks[r], from, sizeof(V));
      else
        memcpy(&blocks[r], from, sizeof(T) * columns());
    }
    transpose_quarters(blocks);
  }
  void store_band(T* plane, int band, V* blocks) const {
    transpose_quarters(blocks);
    for (int r = 0; r < 4; ++r) {
      const int y = top + 4 * band + r;
      T* to = plane + int64_t(y) * in.width + left;
      if (y >= in.height) continue;
      if (columns() == kTile)
        memcpy(to, &blocks[r], sizeof(V));
      else
        memcpy(to, &blocks[r], sizeof(T) * columns());
    }
  }
};

/// For each block, which instances of the current chunk it has to look at.
struct BlockLists {
  uint16_t list[kBlocks][kChunk + kTogether];
  int count[kBlocks];

  template <class Mask>
  void build(int instances, Mask mask_of) {
    memset(count, 0, sizeof count);
    for (int k = 0; k < instances; ++k)
      for (unsigned mask = unsigned(mask_of(k)); mask; mask &= mask - 1) {
        const int block = __builtin_ctz(mask);
        list[block][count[block]++] = uint16_t(k);
      }
  }
  /// Fills the list up to a multiple of kTogether with the stand-in kChunk; returns the length.
  int pad(int block) {
    int n = count[block];
    while (n % kTogether) list[block][n++] = kChunk;
    return n;
  }
};

template <class T, int kStatic>
struct ForwardTile {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  using C = Channels<kStatic>;
  V transmittance[kBlocks], depth[kBlocks], blended[kBlocks][C::kMax];
  M live[kBlocks];
  BlockLists lists;
  const T* rows[kChunk];
  uint16_t hits[kChunk];
  V weight[kChunk];          // of the hits of one block
  const T* hit_row[kChunk];

  /// Weights of the Gaussians that contribute to a block; returns how many do.
  int weigh(const TileView<T>& tile, int block) {
    V x, y, t = transmittance[block];
    M alive = live[block];
    tile.pixel_centres(block, x, y);
    int count = 0;
    for (int n = 0; n < lists.count[block]; ++n) {
      const int k = lists.list[block][n];
      const T* row = rows[k];
      const V power = gaussian_power<V, T>(row[kMeanX] - x, row[kMeanY] - y, row[kPowerA], row[kPowerB], row[kPowerC]);
      const auto step = blend_step<V, M, T>(power, row[kOpacity], t, alive);
      if (lane_any(step.hit)) {
        weight[count] = step.weight;
        hit_row[count++] = row;
        hits[k] |= uint16_t(1 << block);
      } else if (!lane_any(alive)) {
        break;
      }
    }
    transmittance[block] = t, live[block] = alive;
    return count;
  }

  /// The matrix product of features and weights, its sums in registers.
  void blend(C channels, int block, int count) {
    V sum[C::kMax], z = depth[block];
#pragma GCC unroll 20
    for (int c = 0; c < channels.count(); ++c) sum[c] = blended[block][c];
    for (int n = 0; n < count; ++n) {
      const T* feature = hit_row[n] + kFeatures;
      const V w = weight[n];
#pragma GCC unroll 20
      for (int c = 0; c < channels.count(); ++c) sum[c] += w * feature[c];
      z += w * hit_row[n][kDepth];
    }
#pragma GCC unroll 20
    for (int c = 0; c < channels.count(); ++c) blended[block][c] = sum[c];
    depth[block] = z;
  }

  void write(const TileView<T>& tile, C channels, const Outputs& out, int band) {
    const int64_t pixels = int64_t(tile.in.width) * tile.in.height;
    const T* background = at<T>(tile.in.background, 0);
    auto store = [&](uintptr_t plane, int64_t offset, auto value_of) {
      V blocks[4];
      for (int i = 0; i < 4; ++i) blocks[i] = value_of(4 * band + i);
      tile.store_band(out_at<T>(plane, offset), band, blocks);
    };
    for (int c = 0; c < 3; ++c)
      store(out.color, c * pixels, [&](int block) { return blended[block][c] + transmittance[block] * background[c]; });
    for (int c = 3; c < channels.count(); ++c)
      store(out.objects, (c - 3) * pixels, [&](int block) { return blended[block][c]; });
    if (out.alpha) store(out.alpha, 0, [&](int block) { return T(1) - transmittance[block]; });
    if (out.depth) store(out.depth, 0, [&](int block) { return depth[block]; });
  }

  void run(Frame& frame, const Inputs& in, const Outputs& out, int64_t index) {
    const TileView<T> tile(frame, in, index);
    const C channels(3 + in.num_identity);
    for (int block = 0; block < kBlocks; ++block) {
      transmittance[block] = V{} + T(1), depth[block] = V{}, live[block] = tile.inside_image(block);
      for (int c = 0; c < channels.count(); ++c) blended[block][c] = V{};
    }
    for (int64_t begin = tile.begin; begin < tile.end; begin += kChunk) {
      const int count = int(tile.end - begin < kChunk ? tile.end - begin : kChunk);
      unsigned open = 0;
      for (int block = 0; block < kBlocks; ++block) open |= unsigned(lane_any(live[block])) << block;
      if (!open) break;
      lists.build(count, [&](int k) {
        rows[k] = tile.row(begin + k), hits[k] = 0;
        return block_mask(rows[k], tile.left, tile.top) & int(open);
      });
      for (int block = 0; block < kBlocks; ++block)
        if (lists.count[block]) blend(channels, block, weigh(tile, block));
      for (int k = 0; k < count; ++k) frame.hits[frame.instances[begin + k].row] = hits[k];
    }
    for (int band = 0; band < 4; ++band) write(tile, channels, out, band);
  }
};

template <class T, int kStatic>
struct BackwardTile {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  using C = Channels<kStatic>;
  static constexpr int kGroups = kStatic ? (kFeatures + kStatic + 15) / 16 : kMaxStride / 16;  // vectors in a gradient row
  V transmittance[kBlocks], behind[kBlocks];
  M live[kBlocks];
  V dL_dpixel[kBlocks][C::kMax];        // lanes are pixels
  V dL_drow[kBlocks][16][kGroups];      // per pixel; lanes are the entries of a gradient row
  V moments[kBlocks][16];               // per pixel: 1, x, y, x^2, xy, y^2 from the tile's centre
  V dL_ddepth[kBlocks];
  BlockLists lists;
  const T* rows[kChunk + 1];  // the last entry stands in where a list is padded
  V gradients[kChunk + 1][kGroups];
  V value[kChunk], weight[kChunk], dL_dpower[kChunk];  // of the instances in one block's list

  BackwardTile() {
    for (int block = 0; block < kBlocks; ++block)
      for (int lane = 0; lane < 16; ++lane) {
        const T x = T(4 * (block % 4) + lane % 4) - T(7.5), y = T(4 * (block / 4) + lane / 4) - T(7.5);
        V m = {};
        m[kQ] = 1, m[kQx] = x, m[kQy] = y, m[kQxx] = x * x, m[kQxy] = x * y, m[kQyy] = y * y;
        moments[block][lane] = m;
      }
  }

  int groups(const Inputs& in) const { return kStatic ? kGroups : row_stride(in.num_identity) / 16; }

  /// Gathers the upstream gradients of four blocks in both layouts, and `behind` = all that was blended, as one scalar a pixel.
  void load_band(const TileView<T>& tile, C channels, const Outputs& out, const OutputGradients& grad, int band) {
    const int64_t pixels = int64_t(tile.in.width) * tile.in.height;
    const int geometry_channels = tile.in.identity_geometry_grad ? channels.count() : 3, first = 4 * band;
    V g[4], value[4], rest[4] = {};
    auto load = [&](uintptr_t plane, int64_t offset, V* blocks) { tile.load_band(at<T>(plane, offset), band, blocks); };
    auto add_blended = [&](uintptr_t plane, int64_t offset, T shift) {
      load(plane, offset, value);
      for (int i = 0; i < 4; ++i) rest[i] += g[i] * (value[i] + shift);
    };
    for (int c = 0; c < channels.count(); ++c) {
      const uintptr_t gradient = c < 3 ? grad.color : grad.objects;
      const int64_t plane = (c < 3 ? c : c - 3) * pixels;
      for (int i = 0; i < 4; ++i) g[i] = V{};
      if (gradient) {
        load(gradient, plane, g);
        if (c < geometry_channels) add_blended(c < 3 ? out.color : out.objects, plane, 0);
      }
      for (int i = 0; i < 4; ++i) dL_dpixel[first + i][c] = g[i];
    }
    if (grad.alpha) load(grad.alpha, 0, g), add_blended(out.alpha, 0, -1);
    for (int i = 0; i < 4; ++i) g[i] = V{};
    if (grad.depth) load(grad.depth, 0, g), add_blended(out.depth, 0, 0);
    for (int i = 0; i < 4; ++i) {
      transmittance[first + i] = V{} + T(1), behind[first + i] = rest[i], dL_ddepth[first + i] = g[i];
      live[first + i] = tile.inside_image(first + i);
      transpose_gradients(channels, first + i);
    }
  }

  /// Pixels as lanes -> entries of a gradient row as lanes.
  void transpose_gradients(C channels, int block) {
    const T* by_channel = reinterpret_cast<const T*>(dL_dpixel[block]);
    T* by_pixel = reinterpret_cast<T*>(dL_drow[block]);
    for (int lane = 0; lane < 16; ++lane, by_pixel += 16 * kGroups) {
      memset(by_pixel, 0, sizeof(T) * 16 * kGroups);
      for (int c = 0; c < channels.count(); ++c) by_pixel[kFeatures + c] = by_channel[16 * c + lane];
      by_pixel[kGradDepth] = dL_ddepth[block][lane];
    }
  }

  /// Scalar sums over channels of feature * gradient for every instance in a block's list.
  void sum_channels(const TileView<T>& tile, C channels, int block, int length) {
    const int count = tile.in.identity_geometry_grad ? channels.count() : 3;
    const V* gradient = dL_dpixel[block];
    for (int n = 0; n < length; n += kTogether) {
      const T* row[kTogether];
      V sum[kTogether];
      for (int h = 0; h < kTogether; ++h) {
        row[h] = rows[lists.list[block][n + h]];
        sum[h] = dL_ddepth[block] * row[h][kDepth];
      }
      for (int c = 0; c < count; ++c) {
        const V g = gradient[c];
        for (int h = 0; h < kTogether; ++h) sum[h] += g * row[h][kFeatures + c];
      }
      for (int h = 0; h < kTogether; ++h) value[n + h] = sum[h];
    }
  }

  /// Weights and dL_dpower of every instance in a block's list.
  void weigh(const TileView<T>& tile, int block) {
    V x, y, t = transmittance[block], rest = behind[block];
    M alive = live[block];
    tile.pixel_centres(block, x, y);
    for (int n = 0; n < lists.count[block]; ++n) {
      const T* row = rows[lists.list[block][n]];
      const V power = gaussian_power<V, T>(row[kMeanX] - x, row[kMeanY] - y, row[kPowerA], row[kPowerB], row[kPowerC]);
      const V in_front = t;
      const auto step = blend_step<V, M, T>(power, row[kOpacity], t, alive);
      rest -= step.weight * value[n];
      weight[n] = step.weight;
      dL_dpower[n] = power_backward<V, M, T>(step, in_front, value[n], rest, T(1));
    }
    transmittance[block] = t, behind[block] = rest, live[block] = alive;
  }

  /// Adds the sum over the block's pixels to the gradient rows of kTogether instances of its list, from the n-th on.
  GS_HD void accumulate(int block, int n, int num_groups) {
    const T *w = reinterpret_cast<const T*>(weight + n), *q = reinterpret_cast<const T*>(dL_dpower + n);
    for (int g = 0; g < num_groups; ++g) {
      V sum[kTogether] = {};
      for (int p = 0; p < 16; ++p) {
        const V gradient = dL_drow[block][p][g];
        for (int h = 0; h < kTogether; ++h) sum[h] += w[16 * h + p] * gradient;
      }
      if (g == 0)
        for (int p = 0; p < 16; ++p) {
          const V moment = moments[block][p];
          for (int h = 0; h < kTogether; ++h) sum[h] += q[16 * h + p] * moment;
        }
      for (int h = 0; h < kTogether; ++h) gradients[lists.list[block][n + h]][g] += sum[h];
    }
  }

  void blend_block(const TileView<T>& tile, C channels, int block) {
    const int length = lists.pad(block);
    sum_channels(tile, channels, block, length);
    weigh(tile, block);
    for (int n = lists.count[block]; n < length; ++n) weight[n] = dL_dpower[n] = V{};
    for (int n = 0; n < length; n += kTogether) accumulate(block, n, groups(tile.in));
  }

  /// Moments about the tile's centre -> sums of q times 1, d, d d^T with d = mean - pixel; then to the instance's row.
  void write_row(Frame& frame, const TileView<T>& tile, int k, const Instance& instance) {
    const int num_groups = groups(tile.in);
    V head = gradients[k][0];
    const T u = rows[k][kMeanX] - (tile.left + T(7.5)), v = rows[k][kMeanY] - (tile.top + T(7.5));
    const T s = head[kQ], sx = head[kQx], sy = head[kQy];
    head[kQx] = u * s - sx, head[kQy] = v * s - sy;
    head[kQxx] += u * u * s - 2 * u * sx, head[kQyy] += v * v * s - 2 * v * sy;
    head[kQxy] += u * v * s - u * sy - v * sx;
    V* out = reinterpret_cast<V*>(frame.packed_gradients.data()) + int64_t(instance.row) * num_groups;
    out[0] = head;
    for (int g = 1; g < num_groups; ++g) out[g] = gradients[k][g];
  }

  void run(Frame& frame, const Inputs& in, const Outputs& out, const OutputGradients& grad, int64_t index) {
    const TileView<T> tile(frame, in, index);
    const C channels(3 + in.num_identity);
    for (int band = 0; band < 4; ++band) load_band(tile, channels, out, grad, band);
    for (int64_t begin = tile.begin; begin < tile.end; begin += kChunk) {
      const int count = int(tile.end - begin < kChunk ? tile.end - begin : kChunk);
      rows[kChunk] = tile.row(begin);
      lists.build(count, [&](int k) {
        rows[k] = tile.row(begin + k);
        for (int g = 0; g < groups(in); ++g) gradients[k][g] = V{};
        return frame.hits[frame.instances[begin + k].row];
      });
      for (int block = 0; block < kBlocks; ++block)
        if (lists.count[block]) blend_block(tile, channels, block);
      for (int k = 0; k < count; ++k)
        if (frame.hits[frame.instances[begin + k].row]) write_row(frame, tile, k, frame.instances[begin + k]);
    }
  }
};

/// Runs body(tile) over all tiles, heaviest work shared by a queue; every thread keeps one scratch object.
template <class Scratch, class Body>
void for_each_tile(const Frame& frame, int threads, Body body) {
  const int64_t tiles = int64_t(frame.tiles_x) * frame.tiles_y;
#pragma omp parallel num_threads(threads)
  {
    Buffer<Scratch> memory;
    Scratch* scratch = new (memory.resize(1)) Scratch;
#pragma omp for schedule(dynamic, 1)
    for (int64_t tile = 0; tile < tiles; ++tile) body(*scratch, tile);
  }
}

template <class T, int kStatic>
void forward_tiles(Frame& frame, const Inputs& in, const Outputs& out) {
  for_each_tile<ForwardTile<T, kStatic>>(frame, in.threads, [&](auto& scratch, int64_t tile) { scratch.run(frame, in, out, tile); });
}

template <class T, int kStatic>
void backward_tiles(Frame& frame, const Inputs& in, const Outputs& out, const OutputGradients& grad) {
  for_each_tile<BackwardTile<T, kStatic>>(frame, in.threads,
                                          [&](auto& scratch, int64_t tile) { scratch.run(frame, in, out, grad, tile); });
}
