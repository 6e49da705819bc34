// The CUDA rasterizer as the Python module calls it. All memory is the caller's: each function takes addresses on the device.
#pragma once

#include <stdint.h>

#include "gs/call.h"

namespace gs {
namespace cuda {

/// Working memory and what `prepare` counted.
struct Workspace {
  uintptr_t gaussians = 0;  // gaussian_bytes; from prepare to backward
  uintptr_t instances = 0;  // instance_bytes; from render to backward
  uintptr_t gradients = 0;  // gradient_bytes; within backward
  uintptr_t counts = 0;     // kCountBytes of page-locked host memory
  uintptr_t stream = 0;
  int64_t num_visible = 0, num_instances = 0;
};
constexpr int64_t kCountBytes = 32;

template <class T>
int64_t gaussian_bytes(const Inputs& in);
template <class T>
int64_t instance_bytes(const Inputs& in, int64_t num_instances);
template <class T>
int64_t gradient_bytes(const Inputs& in, int64_t num_instances);

/// Projects and counts, waits for the counts; returns 0 or the bits of the inputs that hold NaN or Inf.
template <class T>
int prepare(Workspace& workspace, const Inputs& in, const Outputs& out);

/// Fills the images.
template <class T>
void render(const Workspace& workspace, const Inputs& in, const Outputs& out);

/// Fills the input gradients from what prepare and render left.
template <class T>
void backward(const Workspace& workspace, const Inputs& in, const Outputs& out, const OutputGradients& out_grad,
              const InputGradients& grad);

}  // namespace cuda
}  // namespace gs
