// Sixteen lanes of float or double: one native vector where a register holds them all (AVX-512), else pairs of pairs of native
// vectors, 256 bits with AVX2, 128 on the baseline and on arm64. (A compiler vector type that is larger than a register would do
// without the pairs, but GCC takes it apart lane by lane, through memory.) Every instruction set has its own: hence the
// anonymous namespace.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "gs/config.h"

namespace gs {
namespace {

#if defined(__AVX512F__)
constexpr int kNativeBytes = 64;
constexpr bool kManyRegisters = true;  // 32 registers that hold sixteen floats each
#elif defined(__AVX2__)
constexpr int kNativeBytes = 32;
constexpr bool kManyRegisters = false;
#else
constexpr int kNativeBytes = 16;
constexpr bool kManyRegisters = false;
#endif

template <class T>
struct Native {
  typedef T V __attribute__((vector_size(kNativeBytes)));
};

/// Two vectors as one of twice as many lanes; H is a native vector or a pair.
template <class T, class H>
struct Pair {
  H lo, hi;
  T& operator[](int lane) { return reinterpret_cast<T*>(this)[lane]; }
  const T& operator[](int lane) const { return reinterpret_cast<const T*>(this)[lane]; }
  friend GS_HD Pair operator+(Pair a, Pair b) { return {a.lo + b.lo, a.hi + b.hi}; }
  friend GS_HD Pair operator+(Pair a, T b) { return {a.lo + b, a.hi + b}; }
  friend GS_HD Pair operator-(Pair a, Pair b) { return {a.lo - b.lo, a.hi - b.hi}; }
  friend GS_HD Pair operator-(Pair a, T b) { return {a.lo - b, a.hi - b}; }
  friend GS_HD Pair operator-(T a, Pair b) { return {a - b.lo, a - b.hi}; }
  friend GS_HD Pair operator*(Pair a, Pair b) { return {a.lo * b.lo, a.hi * b.hi}; }
  friend GS_HD Pair operator*(Pair a, T b) { return {a.lo * b, a.hi * b}; }
  friend GS_HD Pair operator*(T a, Pair b) { return b * a; }
  friend GS_HD Pair operator/(Pair a, Pair b) { return {a.lo / b.lo, a.hi / b.hi}; }
  friend GS_HD Pair operator/(T a, Pair b) { return {a / b.lo, a / b.hi}; }
  GS_HD Pair& operator+=(Pair b) { return *this = *this + b; }
  GS_HD Pair& operator-=(Pair b) { return *this = *this - b; }
  GS_HD Pair& operator*=(Pair b) { return *this = *this * b; }
};

template <class T, int kLanes>
struct Vector {
  using V = Pair<T, typename Vector<T, kLanes / 2>::V>;
};
template <>
struct Vector<float, kNativeBytes / 4> : Native<float> {};
template <>
struct Vector<double, kNativeBytes / 8> : Native<double> {};

#if defined(__AVX512F__)
struct Mask {  // one bit a lane: as a vector, a mask would be moved out of the mask registers and back at every step
  __mmask16 bits;
};
#endif

// Operations on native vectors.

template <class V>
GS_HD auto lane_less(V a, V b) {
  return a < b;
}
template <class M>
GS_HD M lane_and(M a, M b) {
  return a & b;
}
template <class M>
GS_HD M lane_and_not(M a, M b) {
  return a & ~b;
}
template <class M, class V>
GS_HD V lane_select(M m, V a, V b) {
  return m ? a : b;
}
template <class M>
GS_HD bool lane_any(M m) {
  const Native<int64_t>::V words = (Native<int64_t>::V)m;
  int64_t any = 0;
  for (int i = 0; i < kNativeBytes / 8; ++i) any |= words[i];
  return any != 0;
}
template <class V>
GS_HD V lane_min(V a, V b) {
  return a < b ? a : b;
}
template <class V>
GS_HD V lane_max(V a, V b) {
  return a > b ? a : b;
}
template <class V>
GS_HD V lane_divide(V a, V b) {
  return a / b;
}
template <class V>
GS_HD V lane_sqrt(V a) {
  for (int i = 0; i < int(sizeof a / sizeof a[0]); ++i) a[i] = sqrt(a[i]);
  return a;
}
/// x * 2^n, where `shifted` is n + 1.5 * 2^23: the shift drops everything but n.
GS_HD Native<float>::V lane_scale(Native<float>::V x, Native<float>::V shifted) {
  using I = Native<int32_t>::V;
  return (Native<float>::V)((I)x + ((I)shifted << 23));
}
#if defined(__AVX512F__)
using Float16 = Native<float>::V;
GS_HD Mask lane_less(Float16 a, Float16 b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)}; }
GS_HD Mask lane_and(Mask a, Mask b) { return {_kand_mask16(a.bits, b.bits)}; }
GS_HD Mask lane_and_not(Mask a, Mask b) { return {_kandn_mask16(b.bits, a.bits)}; }
GS_HD Float16 lane_select(Mask m, Float16 a, Float16 b) { return _mm512_mask_mov_ps(b, m.bits, a); }
GS_HD Float16 lane_sqrt(Float16 a) { return _mm512_sqrt_ps(a); }
GS_HD bool lane_any(Mask m) { return !_kortestz_mask16_u8(m.bits, m.bits); }
GS_HD Float16 lane_min(Float16 a, Float16 b) { return _mm512_min_ps(a, b); }
GS_HD Float16 lane_max(Float16 a, Float16 b) { return _mm512_max_ps(a, b); }
/// a / b within 1 ulp: the division unit takes 16 cycles for sixteen lanes, an estimate of 14 bits and a Newton step four.
GS_HD Float16 lane_divide(Float16 a, Float16 b) {
  const Float16 estimate = _mm512_rcp14_ps(b), quotient = a * estimate;
  return quotient + (a - b * quotient) * estimate;
}
#endif

// The same on pairs.

template <class M>
struct MaskPair {
  M lo, hi;
};
template <class M>
struct MaskLanes {
  static constexpr int kCount = sizeof(M) / sizeof(M{}[0]);
};
template <class M>
struct MaskLanes<MaskPair<M>> {
  static constexpr int kCount = 2 * MaskLanes<M>::kCount;
};
#if defined(__AVX512F__)
template <>
struct MaskLanes<Mask> {
  static constexpr int kCount = 16;
};
#endif
template <class T, class H>
GS_HD auto lane_less(Pair<T, H> a, Pair<T, H> b) -> MaskPair<decltype(lane_less(a.lo, b.lo))> {
  return {lane_less(a.lo, b.lo), lane_less(a.hi, b.hi)};
}
template <class M>
GS_HD MaskPair<M> lane_and(MaskPair<M> a, MaskPair<M> b) {
  return {lane_and(a.lo, b.lo), lane_and(a.hi, b.hi)};
}
template <class M>
GS_HD MaskPair<M> lane_and_not(MaskPair<M> a, MaskPair<M> b) {
  return {lane_and_not(a.lo, b.lo), lane_and_not(a.hi, b.hi)};
}
template <class M, class T, class H>
GS_HD Pair<T, H> lane_select(MaskPair<M> m, Pair<T, H> a, Pair<T, H> b) {
  return {lane_select(m.lo, a.lo, b.lo), lane_select(m.hi, a.hi, b.hi)};
}
template <class M>
GS_HD bool lane_any(MaskPair<M> m) {
  return lane_any(m.lo) | lane_any(m.hi);
}
template <class T, class H>
GS_HD Pair<T, H> lane_min(Pair<T, H> a, Pair<T, H> b) {
  return {lane_min(a.lo, b.lo), lane_min(a.hi, b.hi)};
}
template <class T, class H>
GS_HD Pair<T, H> lane_max(Pair<T, H> a, Pair<T, H> b) {
  return {lane_max(a.lo, b.lo), lane_max(a.hi, b.hi)};
}
template <class T, class H>
GS_HD Pair<T, H> lane_divide(Pair<T, H> a, Pair<T, H> b) {
  return {lane_divide(a.lo, b.lo), lane_divide(a.hi, b.hi)};
}
template <class T, class H>
GS_HD Pair<T, H> lane_sqrt(Pair<T, H> a) {
  return {lane_sqrt(a.lo), lane_sqrt(a.hi)};
}
template <class H>
GS_HD Pair<float, H> lane_scale(Pair<float, H> x, Pair<float, H> shifted) {
  return {lane_scale(x.lo, shifted.lo), lane_scale(x.hi, shifted.hi)};
}

template <class T>
struct Lanes {
  using V = typename Vector<T, 16>::V;
  using M = decltype(lane_less(V{}, V{}));
};
using V32 = Lanes<float>::V;
using V64 = Lanes<double>::V;

template <class V>
GS_HD V lane_log(V a) {
  for (int i = 0; i < 16; ++i) a[i] = log(a[i]);
  return a;
}

/// 2^x for x <= 0 (larger arguments are taken as 0), within 2 ulp; below -126 it is 2^-126, far under any alpha that counts.
/// Several vectors at once, operation by operation: the chain of one is too long for the processor to see past it.
template <int N>
GS_HD void lane_exp2(V32 (&x)[N]) {
  V32 shifted[N], p[N];
  for (int h = 0; h < N; ++h) x[h] = lane_max(lane_min(x[h], V32{}), V32{} - 126.f);
  for (int h = 0; h < N; ++h) shifted[h] = x[h] + 12582912.f;                   // 1.5 * 2^23: an integer in the low bits
  for (int h = 0; h < N; ++h) x[h] -= shifted[h] - 12582912.f;                  // |x| <= 1/2 from here on
  for (int h = 0; h < N; ++h) p[h] = x[h] * 1.326472731e-3f + 9.671512991e-3f;  // minimax of (2^x - 1) / x
  for (int h = 0; h < N; ++h) p[h] = p[h] * x[h] + 5.550733581e-2f;
  for (int h = 0; h < N; ++h) p[h] = p[h] * x[h] + 0.2402224243f;
  for (int h = 0; h < N; ++h) p[h] = p[h] * x[h] + 0.6931470037f;
  for (int h = 0; h < N; ++h) p[h] = p[h] * x[h] + 1.f;
  for (int h = 0; h < N; ++h) x[h] = lane_scale(p[h], shifted[h]);
}
template <int N>
GS_HD void lane_exp2(V64 (&x)[N]) {
  for (int h = 0; h < N; ++h)
    for (int i = 0; i < 16; ++i) x[h][i] = exp2(x[h][i] < 0 ? x[h][i] : 0);
}

/// The smallest integers that are not below |x| < 2^22.
template <class T, class V>
GS_HD V lane_ceil(V x) {
  const T shift = sizeof(T) == 4 ? T(12582912) : T(6755399441055744);  // 1.5 * 2^23 or 2^52: sums lose their fractions
  const V nearest = (x + shift) - shift;
  return lane_select(lane_less(nearest, x), nearest + T(1), nearest);
}

/// One bit a lane.
template <class V>
GS_HD unsigned lane_bits(V mask) {
  unsigned bits = 0;
  for (int i = 0; i < int(sizeof mask / sizeof mask[0]); ++i) bits |= unsigned(mask[i] != 0) << i;
  return bits;
}
template <class M>
GS_HD unsigned lane_bits(MaskPair<M> mask) {
  return lane_bits(mask.lo) | lane_bits(mask.hi) << MaskLanes<M>::kCount;
}
#if defined(__AVX512F__)
GS_HD unsigned lane_bits(Mask mask) { return mask.bits; }
#endif

/// Four vectors as a 4x4 matrix of quarters, transposed. Its own inverse.
template <class V>
GS_HD void transpose_quarters(V* v) {
  struct {
    char bytes[sizeof(V) / 4];
  } in[4][4], out[4][4];
  memcpy(in, v, sizeof in);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) out[i][j] = in[j][i];
  memcpy(v, out, sizeof out);
}
#if defined(__AVX512F__)
GS_HD void transpose_quarters(Float16* v) {
  const Float16 a = _mm512_shuffle_f32x4(v[0], v[1], 0x88), b = _mm512_shuffle_f32x4(v[0], v[1], 0xdd);  // quarters 0 2, 1 3
  const Float16 c = _mm512_shuffle_f32x4(v[2], v[3], 0x88), d = _mm512_shuffle_f32x4(v[2], v[3], 0xdd);
  v[0] = _mm512_shuffle_f32x4(a, c, 0x88), v[2] = _mm512_shuffle_f32x4(a, c, 0xdd);
  v[1] = _mm512_shuffle_f32x4(b, d, 0x88), v[3] = _mm512_shuffle_f32x4(b, d, 0xdd);
}
#endif

/// Sixteen vectors as a 16x16 matrix, transposed.
template <class V>
GS_HD void transpose(V (&m)[16]) {
  V out[16];
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) out[j][i] = m[i][j];
  memcpy(m, out, sizeof out);
}
#if defined(__AVX512F__)
GS_HD void transpose(Float16 (&m)[16]) {
  for (int i = 0; i < 16; i += 4) {  // 4x4 blocks within the quarters of four rows
    const Float16 a = _mm512_unpacklo_ps(m[i], m[i + 1]), b = _mm512_unpackhi_ps(m[i], m[i + 1]);
    const Float16 c = _mm512_unpacklo_ps(m[i + 2], m[i + 3]), d = _mm512_unpackhi_ps(m[i + 2], m[i + 3]);
    m[i] = _mm512_shuffle_ps(a, c, 0x44), m[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
    m[i + 2] = _mm512_shuffle_ps(b, d, 0x44), m[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; ++i) {  // then the quarters
    Float16 quarters[4] = {m[i], m[4 + i], m[8 + i], m[12 + i]};
    transpose_quarters(quarters);
    for (int q = 0; q < 4; ++q) m[i + 4 * q] = quarters[q];
  }
}
#endif

// Two numbers for each of sixteen pixels, side by side: `store_pairs` writes them and `load_pair` fills a vector a b a b ... with
// those of one pixel, which lie at pair_slot(pixel).

template <class T>
GS_HD constexpr int pair_slot(int pixel) {
  return pixel;
}
template <class V, class T>
GS_HD void store_pairs(V a, V b, T* to) {
  for (int i = 0; i < 16; ++i) to[2 * i] = a[i], to[2 * i + 1] = b[i];
}
GS_HD void load_pair(const double* pair, Native<double>::V& v) {
  for (int i = 0; i < kNativeBytes / 8; ++i) v[i] = pair[i % 2];
}
GS_HD void load_pair(const float* pair, Native<float>::V& v) {
  int64_t bits;
  memcpy(&bits, pair, sizeof bits);
  v = (Native<float>::V)(Native<int64_t>::V{} + bits);
}
template <class T, class H>
GS_HD void load_pair(const T* pair, Pair<T, H>& v) {
  load_pair(pair, v.lo);
  v.hi = v.lo;
}
#if defined(__SSE2__)
// Interleaving works within 128 bits: the first vector takes the pixels 0 1, 4 5, ... of the lanes, the second 2 3, 6 7, ...
template <>
GS_HD constexpr int pair_slot<float>(int pixel) {
  constexpr int kLanes = kNativeBytes / 4;
  return pixel / kLanes * kLanes + pixel % 4 / 2 * (kLanes / 2) + pixel % kLanes / 4 * 2 + pixel % 2;
}
GS_HD void store_pairs(Native<float>::V a, Native<float>::V b, float* to) {
#if defined(__AVX512F__)
  const Native<float>::V both[2] = {_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)};
#elif defined(__AVX2__)
  const Native<float>::V both[2] = {_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)};
#else
  const Native<float>::V both[2] = {_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)};
#endif
  memcpy(to, both, sizeof both);
}
template <class H>
GS_HD void store_pairs(Pair<float, H> a, Pair<float, H> b, float* to) {
  store_pairs(a.lo, b.lo, to);
  store_pairs(a.hi, b.hi, to + sizeof(Pair<float, H>) / sizeof(float));
}
#endif

/// Writes first + i for every set bit i of `bits`, in order, and returns how many there are; up to 16 entries are overwritten.
GS_HD int list_bits(unsigned bits, int first, uint16_t* to) {
#if defined(__AVX512F__)
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i found = _mm512_maskz_compress_epi32(__mmask16(bits), _mm512_add_epi32(lanes, _mm512_set1_epi32(first)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(found));
  return __builtin_popcount(bits);
#else
  int count = 0;
  for (; bits; bits &= bits - 1) to[count++] = uint16_t(first + __builtin_ctz(bits));
  return count;
#endif
}

/// Bit k is bit `bit` of words[k], k < 16.
GS_HD unsigned bits_at(const uint16_t* words, int bit) {
#if defined(__AVX512F__)
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
  return _mm256_test_epi16_mask(all, _mm256_set1_epi16(short(1 << bit)));
#else
  unsigned bits = 0;
  for (int k = 0; k < 16; ++k) bits |= (words[k] >> bit & 1u) << k;
  return bits;
#endif
}

}  // namespace

template <>
struct ScalarOf<V32> {
  using type = float;
};
template <>
struct ScalarOf<V64> {
  using type = double;
};

}  // namespace gs
