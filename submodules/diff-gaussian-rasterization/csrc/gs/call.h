// The arguments of one call, forward or backward, and what both executions make of them. Plain types only: translation units for
// different instruction sets and devices share this header.
#pragma once

#include <stdint.h>

namespace gs {

/// Pointers are those of contiguous tensors, 0 where an input was not given or an output is not wanted.
struct Inputs {
  int64_t num_gaussians = 0;
  int width = 0, height = 0, sh_degree = 0, num_identity = 0, num_rest = 0, threads = 1;
  bool identity_geometry_grad = true;
  double tan_fov_x = 0, tan_fov_y = 0, scale_modifier = 1;
  uintptr_t view = 0, proj = 0, camera_position = 0, background = 0;
  uintptr_t means = 0, opacities = 0, scales = 0, rotations = 0, covariances = 0;
  uintptr_t sh_dc = 0, sh_rest = 0, colors = 0, identity = 0;
  uintptr_t epilogue = 0;  // a TileEpilogue: takes the identity channels, which are then not written. CPU only
  int64_t sh_dc_stride = 3, sh_rest_stride = 45;  // elements from one Gaussian to the next
};

struct Outputs {
  uintptr_t color = 0, objects = 0, radii = 0, alpha = 0, depth = 0;
};

struct OutputGradients {
  uintptr_t color = 0, objects = 0, alpha = 0, depth = 0;
  double epilogue = 0;  // factor of the gradients that the epilogue left
};

struct InputGradients {
  uintptr_t means = 0, means2d = 0, opacities = 0, scales = 0, rotations = 0, covariances = 0;
  uintptr_t sh_dc = 0, sh_rest = 0, colors = 0, identity = 0;
  int64_t sh_dc_stride = 3, sh_rest_stride = 45;
};

/// Bits of the input that held NaN or Inf.
enum Invalid : int { kMeans = 1, kOpacities = 2, kShape = 4, kColor = 8, kIdentity = 16 };

/// One entry of a tile's depth-ordered list.
struct Instance {
  uint32_t gaussian;
  uint32_t row;  // its gradient row; the rows of one Gaussian are neighbours
};

}  // namespace gs
