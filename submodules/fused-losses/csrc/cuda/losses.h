// The losses and the optimizer on a GPU, float32. All pointers are to device memory, all calls only enqueue
// on `stream`, and all sums are taken in a fixed order: the same input gives the same bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace fused_losses {
namespace gpu {

// image, target, dL_dimage: (channels, height, width).
struct Images {
  const float* image;
  const void* target;  // float or, if `target_is_bytes`, uint8: 255 stands for 1
  bool target_is_bytes;
  int64_t channels, height, width;
  double lambda_dssim;  // L = (1 - lambda) L1 + lambda (1 - SSIM); SSIM is skipped where lambda is 0
};

// Floats: per block sums, and where `derivatives` are kept the three derivatives of SSIM per element.
int64_t l1_ssim_floats(int64_t channels, int64_t height, int64_t width, bool derivatives);

// result: {L, mean SSIM}. scratch: l1_ssim_floats() floats; what the backward pass reads stays in it.
void l1_ssim(const Images& images, float* scratch, bool derivatives, float* result, cudaStream_t stream);

// dL_dimage = *upstream dL/dimage
void l1_ssim_backward(const Images& images, const float* scratch, const float* upstream, float* dL_dimage,
                      cudaStream_t stream);

// features, dL_dfeatures: (channels, pixels); weight, dL_dweight: (classes, channels); bias, dL_dbias:
// (classes,); labels, pixel_weights: (pixels,). At most kMaxChannels and kMaxClasses.
constexpr int64_t kMaxChannels = 16, kMaxClasses = 256;
struct CrossEntropyInput {
  const float* features;
  const float* weight;
  const float* bias;
  const void* labels;
  LabelType label_type;
  const float* pixel_weights;  // null: all 1
  int64_t channels, classes, pixels;
  bool ignores;  // whether `ignore_label` holds a label
  int64_t ignore_label;
  double scale;
  const float* factor;  // of scale, one; null: 1
};
struct CrossEntropyOutput {
  float* loss;          // one
  float* dL_dfeatures;  // null: not wanted
  float* dL_dweight;    // null: neither it nor dL_dbias wanted
  float* dL_dbias;
};

int64_t cross_entropy_bytes(int64_t classes, int64_t pixels);

// scratch: cross_entropy_bytes() bytes, aligned to 16.
void cross_entropy(const CrossEntropyInput& input, const CrossEntropyOutput& output, void* scratch,
                   cudaStream_t stream);

void adam(const std::vector<AdamParameter>& parameters, cudaStream_t stream);

}  // namespace gpu
}  // namespace fused_losses
