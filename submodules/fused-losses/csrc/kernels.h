// What module.cpp asks of the kernels: plain structs of raw pointers, and one table of functions per
// instruction set.
//
// All memory belongs to the caller. Results do not depend on `threads`: work is cut into chunks whose size
// depends on the problem only, and their partial sums are added in order.
#pragma once

#include <cstdint>

#include "tile_epilogue.h"

namespace fused_losses {

// image, target, dL_dimage: (channels, height, width), contiguous.
template <class S>
struct L1SsimProblem {
  const S* image;
  const void* target;
  bool target_is_uint8;  // 255 standing for 1; else of the image's type
  S* dL_dimage;          // null: no gradient wanted
  char* scratch;         // l1_ssim_scratch() bytes, 64-byte aligned
  int64_t channels, height, width;
  double lambda_dssim;  // L = (1 - lambda) L1 + lambda (1 - SSIM); SSIM is skipped where lambda is 0
  int threads;
};

struct L1Ssim {
  double l1, ssim;  // means over all elements; ssim is 0 where it was skipped
};

enum class LabelType : int { kUint8, kInt16, kInt32, kInt64 };

// features, dL_dfeatures: (channels, pixels); weight, dL_dweight: (classes, channels); bias, dL_dbias:
// (classes,); labels, pixel_weights: (pixels,). All contiguous.
template <class S>
struct CrossEntropyProblem {
  const S* features;
  const S* weight;
  const S* bias;
  const void* labels;
  LabelType label_type;
  const S* pixel_weights;  // null: all 1
  S* dL_dfeatures;         // null: not wanted
  S* dL_dweight;           // null: neither it nor dL_dbias wanted
  S* dL_dbias;
  char* scratch;  // cross_entropy_scratch() bytes, 64-byte aligned
  double scale;   // of loss and gradients
  int64_t channels, classes, pixels;
  bool ignores;  // whether `ignore_label` holds a label
  int64_t ignore_label;
  int threads;
  int64_t parts;  // that partial sums are kept for: chunk_count(pixels), or as many groups of tiles
};

// The same of features that the tiles of a rasterizer hold, and that get their gradients there: those of the
// problem are null.
template <class S>
struct TiledCrossEntropy {
  CrossEntropyProblem<S> problem;
  int64_t width, height;
  TileEpilogue epilogue;
  double pixel_scale;  // scale / sum of the weights of all pixels
};

struct CrossEntropy {
  double loss;
  int64_t bad_labels;  // labels outside [0, classes); nothing is computed unless this is 0
};

// One parameter with its gradient and moments, (rows, row_size).
struct AdamParameter {
  float* parameter;
  const float* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  const bool* visible;  // (rows,); rows that are not visible stay as they are. null: all are.
  int64_t rows, row_size;
  double lr, beta1, beta2, eps;
  double step;  // counted from 1
};

struct Kernels {
  int vector_bytes;
  L1Ssim (*l1_ssim_float)(const L1SsimProblem<float>&);
  L1Ssim (*l1_ssim_double)(const L1SsimProblem<double>&);
  CrossEntropy (*cross_entropy_float)(const CrossEntropyProblem<float>&);
  CrossEntropy (*cross_entropy_double)(const CrossEntropyProblem<double>&);
  // Before all tiles: prepares the epilogue, returns the number of bad labels.
  int64_t (*begin_tiles_float)(TiledCrossEntropy<float>&);
  int64_t (*begin_tiles_double)(TiledCrossEntropy<double>&);
  // After all tiles: fills the gradients, returns the loss.
  double (*end_tiles_float)(const TiledCrossEntropy<float>&);
  double (*end_tiles_double)(const TiledCrossEntropy<double>&);
  void (*adam)(const AdamParameter* parameters, int64_t count, int threads);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

// ---- sizes that kernels and callers share (internal linkage: see GS_HD) -------------------------

constexpr int64_t kAlign = 64;  // bytes: a cache line and the widest vector

static inline constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Largest tile of l1_ssim. A tile blurs 10 columns and 20 rows more than it keeps; its 11 blurred rows of 4
// and of 3 quantities take 42 KiB in float.
constexpr int64_t kTileWidth = 128, kTileHeight = 192;

static inline constexpr int64_t l1_ssim_tiles(int64_t size, int64_t largest) {
  return (size + largest - 1) / largest;
}
static inline constexpr int64_t l1_ssim_scratch(int64_t channels, int64_t height, int64_t width) {
  return channels * l1_ssim_tiles(height, kTileHeight) * l1_ssim_tiles(width, kTileWidth) *
         int64_t(sizeof(L1Ssim));
}

// Channels are padded to the largest group that the kernels hold in registers.
constexpr int64_t kChannelPadding = 16;
// Pixels per chunk: at most 128 chunks, of at least 1024 pixels, so that each outweighs its own partial sums.
static inline constexpr int64_t chunk_pixels(int64_t pixels) {
  const int64_t even = round_up((pixels + 127) / 128, 64);
  return even > 1024 ? even : 1024;
}
static inline constexpr int64_t chunk_count(int64_t pixels) {
  return (pixels + chunk_pixels(pixels) - 1) / chunk_pixels(pixels);
}

// The parts of the scratch of the cross-entropy, in bytes; each starts on a cache line.
struct CrossEntropyScratch {
  int64_t labels, weight, part_sums, part_dL_dweight, part_dL_dbias, thread, thread_stride, total;
};

static inline constexpr CrossEntropyScratch cross_entropy_scratch(int64_t channels, int64_t classes,
                                                                  int64_t pixels, int64_t parts, int threads,
                                                                  int64_t scalar_bytes) {
  const int64_t padded = round_up(channels, kChannelPadding);
  CrossEntropyScratch s{};
  s.weight = round_up(pixels * int64_t(sizeof(int32_t)), kAlign);
  s.part_sums = s.weight + round_up(classes * padded * scalar_bytes, kAlign);
  s.part_dL_dweight = s.part_sums + round_up((parts + chunk_count(pixels)) * int64_t(sizeof(double)), kAlign);
  s.part_dL_dbias = s.part_dL_dweight + parts * round_up(classes * padded * scalar_bytes, kAlign);
  s.thread = s.part_dL_dbias + parts * round_up(classes * scalar_bytes, kAlign);
  s.thread_stride =
      (2 * classes + padded) * kAlign;  // logits and bias gradients per class, features: one vector each
  s.total = s.thread + threads * s.thread_stride;
  return s;
}

}  // namespace fused_losses
