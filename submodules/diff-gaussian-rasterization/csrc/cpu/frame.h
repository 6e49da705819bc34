// What one forward pass leaves for its backward pass, in buffers that grow and stay. Plain types only: this header is shared by
// translation units that are compiled for different instruction sets. So its functions are always inline (GS_HD): of copies in
// several units the linker would keep one, perhaps that of an instruction set which the processor lacks.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <new>

#include "gs/call.h"
#include "gs/config.h"

namespace gs {

constexpr size_t kLargePage = size_t(2) << 20;

/// Uninitialised memory, 128-byte aligned (sixteen doubles), to be given back with `free`. What is read and written in no order
/// lies on large pages where Linux grants them: a processor does not remember the addresses of ten thousand small ones.
GS_HD void* allocate(size_t bytes) {
  const bool large = bytes >= 4 * kLargePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, large ? kLargePage : 128, bytes) != 0) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

/// Grow-only memory.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(data_); }

  GS_HD T* resize(int64_t count) {
    if (count > capacity_) {
      free(data_);
      data_ = nullptr, capacity_ = 0;
      const int64_t wanted = count + count / 4 + 64;
      data_ = static_cast<T*>(allocate(size_t(wanted) * sizeof(T)));
      capacity_ = wanted;
    }
    return data_;
  }
  GS_HD T* data() { return data_; }
  GS_HD const T* data() const { return data_; }
  /// Of raw memory: the rows in it.
  template <class U>
  GS_HD U* as() const {
    static_assert(sizeof(T) == 1, "of raw memory");
    return reinterpret_cast<U*>(data_);
  }
  GS_HD T& operator[](int64_t i) { return data_[i]; }
  GS_HD const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t capacity_ = 0;
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

struct Frame {
  int64_t num_visible = 0, num_instances = 0;
  int tiles_x = 0, tiles_y = 0;
  Buffer<char> packed, packed_gradients;  // rows of T, see packed.h
  Buffer<char> handed_on;                 // per tile, of T: what an epilogue left, see HandedOn
  Buffer<char> keys, keys_swap;
  Buffer<uint32_t> order, order_swap;  // visible Gaussians, nearest first
  Buffer<int32_t> tile_count;          // tiles per Gaussian
  Buffer<TileRows> tile_rows;          // per visible Gaussian
  Buffer<int64_t> first_row;           // per Gaussian
  Buffer<uint32_t> place_of_row;       // per gradient row: its place among the instances
  Buffer<int64_t> histogram;
  Buffer<int64_t> tile_begin;  // tiles + 1
  Buffer<Instance> instances;  // by tile, then by depth
  Buffer<uint16_t> hits;       // per instance: the 4x4-pixel blocks of the tile that the Gaussian reached
};

struct Core {
  const char* name;
  int (*forward_f32)(Frame&, const Inputs&, const Outputs&);
  int (*forward_f64)(Frame&, const Inputs&, const Outputs&);
  void (*backward_f32)(Frame&, const Inputs&, const Outputs&, const OutputGradients&, const InputGradients&);
  void (*backward_f64)(Frame&, const Inputs&, const Outputs&, const OutputGradients&, const InputGradients&);
};

}  // namespace gs
