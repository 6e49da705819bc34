// What one forward pass leaves for its backward pass, in buffers that grow and stay. Plain types only: this header is shared by
// translation units that are compiled for different instruction sets.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include <new>

namespace gs {

/// Grow-only, 128-byte aligned (sixteen doubles), uninitialised memory.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(data_); }

  T* resize(int64_t count) {
    if (count > capacity_) {
      free(data_);
      data_ = nullptr;
      const int64_t wanted = count + count / 4 + 64;
      if (posix_memalign(reinterpret_cast<void**>(&data_), 128, size_t(wanted) * sizeof(T)) != 0) {
        capacity_ = 0;
        throw std::bad_alloc();
      }
      capacity_ = wanted;
    }
    return data_;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

/// One entry of a tile's depth-ordered list.
struct Instance {
  uint32_t gaussian;
  uint32_t row;  // its gradient row; the rows of one Gaussian are neighbours
};

/// The rows of tiles that a Gaussian reaches: packing finds them, binning reads them. Nine in ten Gaussians reach no more.
struct TileRows {
  static constexpr int kMost = 5;
  struct Span {
    int32_t y, begin, end;
  };
  int32_t count;  // more than kMost: they are not all here
  Span spans[kMost];
};

/// Pointers are those of contiguous tensors, 0 where an input was not given or an output is not wanted.
struct Inputs {
  int64_t num_gaussians = 0;
  int width = 0, height = 0, sh_degree = 0, num_identity = 0, num_rest = 0, threads = 1;
  bool identity_geometry_grad = true;
  double tan_fov_x = 0, tan_fov_y = 0, scale_modifier = 1;
  uintptr_t view = 0, proj = 0, camera_position = 0, background = 0;
  uintptr_t means = 0, opacities = 0, scales = 0, rotations = 0, covariances = 0;
  uintptr_t sh_dc = 0, sh_rest = 0, colors = 0, identity = 0;
  int64_t sh_dc_stride = 3, sh_rest_stride = 45;  // elements from one Gaussian to the next
};

struct Outputs {
  uintptr_t color = 0, objects = 0, radii = 0, alpha = 0, depth = 0;
};

struct OutputGradients {
  uintptr_t color = 0, objects = 0, alpha = 0, depth = 0;
};

struct InputGradients {
  uintptr_t means = 0, means2d = 0, opacities = 0, scales = 0, rotations = 0, covariances = 0;
  uintptr_t sh_dc = 0, sh_rest = 0, colors = 0, identity = 0;
  int64_t sh_dc_stride = 3, sh_rest_stride = 45;
};

struct Frame {
  int64_t num_visible = 0, num_instances = 0;
  int tiles_x = 0, tiles_y = 0;
  Buffer<char> packed, packed_gradients;  // rows of T, see packed.h
  Buffer<char> keys, keys_swap;
  Buffer<uint32_t> order, order_swap;      // visible Gaussians, nearest first
  Buffer<int32_t> tile_count;              // tiles per Gaussian
  Buffer<TileRows> tile_rows;              // per visible Gaussian
  Buffer<int64_t> first_row;               // per Gaussian
  Buffer<uint32_t> place_of_row;           // per gradient row: its place among the instances
  Buffer<int64_t> histogram;
  Buffer<int64_t> tile_begin;              // tiles + 1
  Buffer<Instance> instances;              // by tile, then by depth
  Buffer<uint16_t> hits;                   // per instance: the 4x4-pixel blocks of the tile that the Gaussian reached
};

/// Bits of the input that held NaN or Inf.
enum Invalid : int { kMeans = 1, kOpacities = 2, kShape = 4, kColor = 8, kIdentity = 16 };

struct Core {
  const char* name;
  int (*forward_f32)(Frame&, const Inputs&, const Outputs&);
  int (*forward_f64)(Frame&, const Inputs&, const Outputs&);
  void (*backward_f32)(Frame&, const Inputs&, const Outputs&, const OutputGradients&, const InputGradients&);
  void (*backward_f64)(Frame&, const Inputs&, const Outputs&, const OutputGradients&, const InputGradients&);
};

}  // namespace gs
