// Sixteen neighbouring Gaussians as the lanes of vectors: the stages per Gaussian load, compute and store them together.
#pragma once

#include "isa.h"
#include "simd.h"

namespace gs {
namespace GS_ISA {
namespace {

template <class T>
struct Sixteen {
  using V = typename Lanes<T>::V;
  using M = typename Lanes<T>::M;
  int64_t first;
  int count;  // of them, fewer at the end of the scene: the last one then stands in the lanes that are left

  Sixteen(int64_t begin, int64_t end) : first(begin), count(end - begin < 16 ? int(end - begin) : 16) {}
  int64_t index(int lane) const { return first + (lane < count ? lane : count - 1); }

  /// Fills values[k] with number k, of kCount, of every Gaussian; those of one lie `stride` behind those of the last. Long rows
  /// are too many streams for the processor to foresee: those of the next sixteen are asked for.
  template <int kCount>
  GS_HD void load(const T* base, int64_t stride, V* values) const {
    if constexpr (kCount < 8) {
      T lanes[kCount][16];
      for (int lane = 0; lane < 16; ++lane)
        for (int k = 0; k < kCount; ++k) lanes[k][lane] = base[index(lane) * stride + k];
      memcpy(values, lanes, sizeof lanes);
    } else {
      constexpr int kHere = kCount < 16 ? kCount : 16;
      V rows[16] = {};
      for (int lane = 0; lane < 16; ++lane) {
        const T* from = base + index(lane) * stride;
        memcpy(&rows[lane], from, sizeof(T) * kHere);
        __builtin_prefetch(from + 16 * stride);
      }
      transpose(rows);
      for (int k = 0; k < kHere; ++k) values[k] = rows[k];
      if constexpr (kCount > 16) load<kCount - 16>(base + 16, stride, values + 16);
    }
  }

  /// The reverse, to a gradient, if it is wanted; 0 in the lanes that are not `touched`.
  template <int kCount>
  GS_HD void store(T* base, int64_t stride, M touched, const V* values) const {
    if (!base) return;
    constexpr int kHere = kCount < 16 ? kCount : 16;
    V rows[16] = {};
    for (int k = 0; k < kHere; ++k) rows[k] = lane_select(touched, values[k], V{});
    if constexpr (kCount < 8) {
      T lanes[kCount][16];
      memcpy(lanes, rows, sizeof lanes);
      for (int lane = 0; lane < count; ++lane)
        for (int k = 0; k < kCount; ++k) base[(first + lane) * stride + k] = lanes[k][lane];
    } else {
      transpose(rows);
      for (int lane = 0; lane < count; ++lane) {
        T* to = base + (first + lane) * stride;
        memcpy(to, &rows[lane], sizeof(T) * kHere);
        __builtin_prefetch(to + 16 * stride, 1);
      }
      if constexpr (kCount > 16) store<kCount - 16>(base + 16, stride, touched, values + 16);
    }
  }
};

/// Bit i is set where lane i of one of `count` vectors holds NaN or Inf.
template <class T, class V>
GS_HD unsigned not_finite(const V* values, int count) {
  V sum = {};
  for (int k = 0; k < count; ++k) sum += values[k] * T(0);  // 0 or NaN
  return 0xffff & ~lane_bits(lane_less(V{} - T(1), sum));
}

/// The lanes whose bits are set.
template <class T>
GS_HD typename Lanes<T>::M lanes_of(unsigned bits) {
  typename Lanes<T>::V ones = {};
  for (int lane = 0; lane < 16; ++lane) ones[lane] = T(bits >> lane & 1);
  return lane_less(decltype(ones){}, ones);
}

}  // namespace
}  // namespace GS_ISA
}  // namespace gs
