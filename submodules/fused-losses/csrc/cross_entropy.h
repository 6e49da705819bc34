// Softmax cross-entropy of a 1x1 convolution, with all its gradients, in one pass over the pixels.
//
// One vector of pixels at a time: their logits (classes x lanes) live in the level-1 cache and never reach
// memory. Naming: z logits, e = exp(z - largest z), dL_dz; `x` the features, W the weight (classes, padded
// channels). Channels are worked in groups of kGroup, held in registers; padding channels are 0.
//
// Pixels come in chunks of planes, or as the tiles of a rasterizer (tile_epilogue.h); a chunk, or a group of
// tiles, is a part, which has partial sums of its own.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace fused_losses {
namespace {  // internal linkage: see GS_HD

// Registers for one group of channels: half of 32 (AVX-512) or of 16.
constexpr int kGroup = FUSED_LOSSES_VECTOR_BYTES == 64 ? 16 : 8;
// Pixels ahead: the features and their gradients lie in as many pages as channels, more streams than the
// processor's own prefetcher follows.
constexpr int64_t kPrefetch = 64;
// What one thread does in the time that others take to wake up.
constexpr int64_t kSerialPixels = 1 << 16, kSerialSums = 1 << 15;
static_assert(kChannelPadding % kGroup == 0, "a group never crosses the padding");

// Labels and weights of a block of 4x4 pixels, row by row; label -1 outside the image.
template <class S>
struct TileTargets {
  int32_t labels[16];
  S weights[16];

  void gather(const int32_t* image_labels, const S* image_weights, int64_t left, int64_t top, int64_t width,
              int64_t height) {
    for (int row = 0; row < 4; ++row) {
      const int64_t y = top + row, first = y * width + left;
      if (y < height && left + 4 <= width)
        __builtin_memcpy(labels + 4 * row, image_labels + first, 4 * sizeof(int32_t));
      else
        for (int i = 0; i < 4; ++i)
          labels[4 * row + i] = y < height && left + i < width ? image_labels[first + i] : -1;
      for (int i = 0; image_weights && i < 4; ++i)
        weights[4 * row + i] = labels[4 * row + i] >= 0 ? image_weights[first + i] : S(0);
    }
  }
};

template <class S>
class CrossEntropyKernel {
 public:
  explicit CrossEntropyKernel(const CrossEntropyProblem<S>& problem)
      : p(problem),
        padded(round_up(p.channels, kChannelPadding)),
        per_chunk(chunk_pixels(p.pixels)),
        chunks(chunk_count(p.pixels)),
        layout(cross_entropy_scratch(p.channels, p.classes, p.pixels, p.parts, p.threads, sizeof(S))),
        labels(at<int32_t>(layout.labels)),
        W(at<S>(layout.weight)) {}

  CrossEntropy run() {
    pad_weight();
    const int64_t bad_labels = sum_weights();
    if (bad_labels) return {0, bad_labels};
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (int64_t i = 0; i < chunks; ++i) run_chunk(i);
    return {add_parts(chunks), 0};
  }

  // Of tiles: before all (returns the number of bad labels), for each, after all (returns the loss).

  int64_t begin_tiles(double& pixel_scale) {
    pad_weight();
    const int64_t bad_labels = sum_weights();
    pixel_scale = normalisation;
    return bad_labels;
  }

  void run_tile(const FinishedTile& tile, int64_t width, int64_t height, double pixel_scale) {
    normalisation = S(pixel_scale);
    Block b = block_of(tile.thread);
    if (tile.first) clear(b, tile.group);
    b.stride = 16, b.count = kL;
    Vec<S> loss{};
    TileTargets<S> targets;
    for (int block = 0; block < 16; ++block) {
      targets.gather(labels, p.pixel_weights, tile.left + 4 * (block % 4), tile.top + 4 * (block / 4), width,
                     height);
      for (int lane = 0; lane < 16; lane += kL) {
        b.features = static_cast<const S*>(tile.values) + block * tile.block_stride + lane;
        b.dL_dfeatures = static_cast<S*>(tile.gradients) + block * 16 * p.channels + lane;
        b.labels = targets.labels + lane,
        b.pixel_weights = p.pixel_weights ? targets.weights + lane : nullptr;
        loss += run_block<false>(b, part_dL_dweight(tile.group));
      }
    }
    part_losses()[tile.group] += sum_lanes<S>(loss);
    if (tile.last) sum_bias(b, tile.group);
  }

  double end_tiles(int64_t groups) const { return add_parts(groups); }

 private:
  static constexpr int kL = kLanes<S>;

  const CrossEntropyProblem<S>& p;
  const int64_t padded, per_chunk, chunks;
  const CrossEntropyScratch layout;
  int32_t* const labels;   // (pixels,), -1 where ignored, and so up to a whole vector
  S* const W;              // (classes, padded)
  S normalisation = S(0);  // scale / sum of the weights of all pixels

  template <class U>
  U* at(int64_t byte) const {
    return reinterpret_cast<U*>(p.scratch + byte);
  }
  double* part_losses() const { return at<double>(layout.part_sums); }
  double* chunk_weights() const { return part_losses() + p.parts; }
  S* part_dL_dweight(int64_t i) const {  // (classes, padded)
    return at<S>(layout.part_dL_dweight + i * round_up(p.classes * padded * int64_t(sizeof(S)), kAlign));
  }
  S* part_dL_dbias(int64_t i) const {  // (classes,)
    return at<S>(layout.part_dL_dbias + i * round_up(p.classes * int64_t(sizeof(S)), kAlign));
  }

  // What one thread works on: one vector of pixels.
  struct Block {
    S* z;               // (classes, lanes): logits, then exponentials, then dL_dz
    S* dL_dbias;        // (classes, lanes): sums over the blocks of a part
    S* x;               // (padded, lanes)
    int64_t count;      // fewer than the lanes at the end of a chunk
    const S* features;  // channels lie `stride` apart
    S* dL_dfeatures;    // likewise; null: not wanted
    int64_t stride;
    const int32_t* labels;   // -1: takes no part
    const S* pixel_weights;  // null: all 1
    Vec<S> weights;          // of the pixels, normalised; 0: takes no part
  };

  // ---- before the pass --------------------------------------------------------------------------

  void pad_weight() const {
    for (int64_t c = 0; c < p.classes; ++c)
      for (int64_t d = 0; d < padded; ++d)
        W[c * padded + d] = d < p.channels ? p.weight[c * p.channels + d] : S(0);
  }

  // Sets `labels` and `normalisation`; returns the number of labels that are neither a class nor ignored.
  int64_t sum_weights() {
    int64_t bad_labels = 0;
#pragma omp parallel for num_threads(p.threads) schedule(static) \
    reduction(+ : bad_labels) if (p.pixels > kSerialPixels)
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t begin = i * per_chunk, end = begin + per_chunk < p.pixels ? begin + per_chunk : p.pixels;
      switch (p.label_type) {
        case LabelType::kUint8:
          bad_labels += scan<uint8_t>(i, begin, end);
          break;
        case LabelType::kInt16:
          bad_labels += scan<int16_t>(i, begin, end);
          break;
        case LabelType::kInt32:
          bad_labels += scan<int32_t>(i, begin, end);
          break;
        case LabelType::kInt64:
          bad_labels += scan<int64_t>(i, begin, end);
          break;
      }
    }
    double total = 0;
    for (int64_t i = 0; i < chunks; ++i) total += chunk_weights()[i];
    normalisation = total != 0 ? S(p.scale / total) : S(0);
    return bad_labels;
  }

  template <class Label>
  int64_t scan(int64_t chunk, int64_t begin, int64_t end) const {
    using Wide = decltype(Label{} + 0);  // int, or int64_t for int64_t
    const Label* __restrict given = static_cast<const Label*>(p.labels);
    int32_t* __restrict out = labels;
    const Wide classes = Wide(p.classes), ignored = Wide(p.ignore_label);
    const bool ignores = p.ignores && ignored == p.ignore_label;  // else no Label can equal it
    int64_t bad = 0, kept = 0;
    for (int64_t i = begin; i < end; ++i) {
      const Wide label = given[i];
      const int keep = !ignores | (label != ignored);
      bad += keep & ((label < 0) | (label >= classes));
      kept += keep;
      out[i] = keep ? int32_t(label) : -1;
    }
    for (int64_t i = end; i < round_up(end, kL); ++i) labels[i] = -1;  // completes the last vector
    double weight = double(kept);
    if (p.pixel_weights) {
      weight = 0;
      for (int64_t i = begin; i < end; ++i) weight += labels[i] >= 0 ? double(p.pixel_weights[i]) : 0;
    }
    chunk_weights()[chunk] = weight;
    return bad;
  }

  // ---- one chunk --------------------------------------------------------------------------------

  void run_chunk(int64_t chunk) const {
    Block b = block_of(thread_index());
    clear(b, chunk);
    b.stride = p.pixels;
    Vec<S> loss{};
    const int64_t end = (chunk + 1) * per_chunk < p.pixels ? (chunk + 1) * per_chunk : p.pixels;
    for (int64_t first = chunk * per_chunk; first < end; first += kL) {
      b.count = end - first < kL ? end - first : kL;
      b.features = p.features + first, b.dL_dfeatures = p.dL_dfeatures ? p.dL_dfeatures + first : nullptr;
      b.labels = labels + first, b.pixel_weights = p.pixel_weights ? p.pixel_weights + first : nullptr;
      loss += run_block<true>(b, part_dL_dweight(chunk));
    }
    part_losses()[chunk] = sum_lanes<S>(loss);
    sum_bias(b, chunk);
  }

  static int thread_index();

  Block block_of(int64_t thread) const {
    Block b;
    b.z = at<S>(layout.thread + thread * layout.thread_stride);
    b.dL_dbias = b.z + p.classes * (kAlign / int64_t(sizeof(S)));
    b.x = b.dL_dbias + p.classes * (kAlign / int64_t(sizeof(S)));
    return b;
  }

  // Before a part, and after it.
  void clear(const Block& b, int64_t part) const {
    part_losses()[part] = 0;
    if (!p.dL_dweight) return;
    S* dL_dW = part_dL_dweight(part);
    for (int64_t i = 0; i < p.classes * padded; ++i) dL_dW[i] = 0;
    for (int64_t i = 0; i < p.classes * kL; ++i) b.dL_dbias[i] = 0;
  }
  void sum_bias(const Block& b, int64_t part) const {
    if (!p.dL_dweight) return;
    for (int64_t c = 0; c < p.classes; ++c)
      part_dL_dbias(part)[c] = S(sum_lanes<S>(load(b.dL_dbias + c * kL)));
  }

  // The loss of one vector of pixels; adds to dL_dW and b.dL_dbias, writes dL_dfeatures.
  template <bool kPlanes>
  Vec<S> run_block(Block& b, S* dL_dW) const {
    if (!load_targets(b)) {
      if (b.dL_dfeatures)
        for (int64_t d = 0; d < p.channels; ++d)
          store_first(b.dL_dfeatures + d * b.stride, Vec<S>{}, b.count);
      return Vec<S>{};
    }
    load_features<kPlanes>(b);
    const Vec<S> largest = logits(b);
    const Vec<S> z_label = label_logits(b);
    const Vec<S> sum = exponentials(b, largest);
    if (b.dL_dfeatures || p.dL_dweight) logit_gradients(b, sum);
    if (b.dL_dfeatures) feature_gradients(b);
    if (p.dL_dweight) weight_gradients(b, dL_dW);
    const Vec<S> loss = b.weights * cross_entropy(largest, log_positive<S>(sum), z_label);
    return b.weights != S(0) ? loss : Vec<S>{};
  }

  // Labels and weights; false if no pixel takes part.
  bool load_targets(Block& b) const {
    int32_t none = -1;
    for (int i = 0; i < kL; ++i) none &= b.labels[i];
    const Vec<S> weights = b.pixel_weights ? load_first(b.pixel_weights, b.count) : splat(S(1));
    b.weights = load_labels(b) >= 0 ? weights * normalisation : Vec<S>{};
    return none != -1;
  }

  static Ints<S> load_labels(const Block& b) {
    Ints<S> label;
    for (int i = 0; i < kL; ++i) label[i] = b.labels[i];
    return label;
  }

  // A pixel that takes no part gets features 0, so that its NaN cannot reach the weight's gradient.
  template <bool kPlanes>
  void load_features(const Block& b) const {
    const Ints<S> part = b.weights != S(0);
    const S* features = b.features;
    S* dL_dfeatures = b.dL_dfeatures;
    const int64_t channels = p.channels, stride = b.stride, count = b.count;
    for (int64_t d = 0; d < channels; ++d) {
      if (kPlanes) __builtin_prefetch(features + d * stride + kPrefetch);
      if (kPlanes && dL_dfeatures) __builtin_prefetch(dL_dfeatures + d * stride + kPrefetch, 1);
      store(b.x + d * kL, part ? load_first(features + d * stride, count) : Vec<S>{});
    }
    for (int64_t d = channels; d < padded; ++d) store(b.x + d * kL, Vec<S>{});
  }

  // The hot loops below copy what they read of `p` and `b` to locals: their stores could change members, as
  // far as the compiler knows. Sums over a group alternate between two accumulators, to halve the chain of
  // dependent additions.

  // z = W x + bias; returns the largest logit of each pixel.
  Vec<S> logits(const Block& b) const {
    Vec<S> largest{};
    for (int64_t group = 0; group < padded; group += kGroup) {
      Vec<S> x[kGroup];
#pragma GCC unroll 16
      for (int d = 0; d < kGroup; ++d) x[d] = load(b.x + (group + d) * kL);
      largest = splat(-S(__builtin_huge_val()));
      const S* w = W + group;
      const S* bias = p.bias;
      S* z = b.z;
      for (const S* end = z + p.classes * kL; z != end; z += kL, w += padded, ++bias) {
        Vec<S> even = group ? load(z) : splat(*bias), odd{};
#pragma GCC unroll 16
        for (int d = 0; d < kGroup; d += 2) {
          even += w[d] * x[d];
          odd += w[d + 1] * x[d + 1];
        }
        const Vec<S> sum = even + odd;
        store(z, sum);
        largest = sum > largest ? sum : largest;
      }
    }
    return largest;
  }

  static Vec<S> label_logits(const Block& b) {
    Vec<S> z;
    for (int i = 0; i < kL; ++i) z[i] = b.z[(b.labels[i] < 0 ? 0 : b.labels[i]) * int64_t(kL) + i];
    return z;
  }

  // e = exp(z - largest) in place of z; returns its sum over the classes.
  Vec<S> exponentials(const Block& b, Vec<S> largest) const {
    Vec<S> sum{};
    S* z = b.z;
    for (const S* end = z + p.classes * kL; z != end; z += kL) {
      const Vec<S> e = exp_nonpositive<S>(load(z) - largest);
      store(z, e);
      sum += e;
    }
    return sum;
  }

  // dL_dz in place of e; adds it to dL_dbias.
  void logit_gradients(const Block& b, Vec<S> sum) const {
    const Vec<S> weights = b.weights, scale = weights / sum;
    const Ints<S> label = load_labels(b);
    const bool wants_bias = p.dL_dweight;
    Ints<S> c{};
    S *z = b.z, *dL_dbias = b.dL_dbias;
    for (const S* end = z + p.classes * kL; z != end; z += kL, dL_dbias += kL, c += 1) {
      const Vec<S> dL_dz = logit_gradient(load(z), scale, label == c, weights);
      store(z, dL_dz);
      if (wants_bias) store(dL_dbias, load(dL_dbias) + dL_dz);
    }
  }

  // dL_dx = W^T dL_dz
  void feature_gradients(const Block& b) const {
    for (int64_t group = 0; group < padded; group += kGroup) {
      Vec<S> dL_dx[kGroup];
#pragma GCC unroll 16
      for (int d = 0; d < kGroup; ++d) dL_dx[d] = Vec<S>{};
      const S *w = W + group, *z = b.z;
      for (const S* end = z + p.classes * kL; z != end; z += kL, w += padded) {
        const Vec<S> dL_dz = load(z);
#pragma GCC unroll 16
        for (int d = 0; d < kGroup; ++d) dL_dx[d] += w[d] * dL_dz;
      }
      S* out = b.dL_dfeatures + group * b.stride;
      const int64_t stride = b.stride, channels = p.channels - group, count = b.count;
#pragma GCC unroll 16
      for (int d = 0; d < kGroup; ++d)
        if (d < channels) store_first(out + d * stride, dL_dx[d], count);
    }
  }

  // dL_dW += dL_dz x^T, with the channels along the lanes.
  void weight_gradients(const Block& b, S* dL_dW) const {
    constexpr int vectors = kGroup / kL;
    for (int64_t group = 0; group < padded; group += kGroup) {
      Vec<S> x[vectors][kL];  // x[v][pixel]: channels v * lanes ... of one pixel
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) x[v][i] = load(b.x + (group + v * kL + i) * kL);
        transpose<S>(x[v]);
      }
      S* row = dL_dW + group;
      const S* dL_dz = b.z;
      for (const S* end = dL_dz + p.classes * kL; dL_dz != end; dL_dz += kL, row += padded) {
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) {
          Vec<S> even = load(row + v * kL), odd{};
#pragma GCC unroll 16
          for (int i = 0; i < kL; i += 2) {
            even += dL_dz[i] * x[v][i];
            odd += dL_dz[i + 1] * x[v][i + 1];
          }
          store(row + v * kL, even + odd);
        }
      }
    }
  }

  // ---- after the pass ---------------------------------------------------------------------------

  // Adds the parts' gradients in their order; returns the loss.
  double add_parts(int64_t parts) const {
    if (p.dL_dweight) add_gradients(parts);
    double loss = 0;
    for (int64_t i = 0; i < parts; ++i) loss += part_losses()[i];
    return loss;
  }

  void add_gradients(int64_t parts) const {
#pragma omp parallel for num_threads(p.threads) \
    schedule(static) if (p.classes * p.channels * parts > kSerialSums)
    for (int64_t c = 0; c < p.classes; ++c) {
      for (int64_t d = 0; d < p.channels; ++d) {
        double sum = 0;
        for (int64_t i = 0; i < parts; ++i) sum += part_dL_dweight(i)[c * padded + d];
        p.dL_dweight[c * p.channels + d] = S(sum);
      }
      double sum = 0;
      for (int64_t i = 0; i < parts; ++i) sum += part_dL_dbias(i)[c];
      p.dL_dbias[c] = S(sum);
    }
  }
};

}  // namespace
}  // namespace fused_losses
