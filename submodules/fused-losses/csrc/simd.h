// SIMD vectors of the width this file is compiled for, as GCC/Clang vector extensions: arithmetic, comparison
// and `?:` are the compiler's own.
#pragma once

#include <cstdint>
#include <utility>

#include "losses_math.h"

#if defined(__AVX512F__)
#define FUSED_LOSSES_VECTOR_BYTES 64
#elif defined(__AVX__)
#define FUSED_LOSSES_VECTOR_BYTES 32
#else
#define FUSED_LOSSES_VECTOR_BYTES 16  // SSE2, NEON
#endif

namespace fused_losses {

template <class S>
struct Simd;
template <>
struct Simd<float> {
  typedef float Vector __attribute__((vector_size(FUSED_LOSSES_VECTOR_BYTES)));
  typedef int32_t Integers __attribute__((vector_size(FUSED_LOSSES_VECTOR_BYTES)));
};
template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(FUSED_LOSSES_VECTOR_BYTES)));
  typedef int64_t Integers __attribute__((vector_size(FUSED_LOSSES_VECTOR_BYTES)));
};
template <>
struct ScalarOf<Simd<float>::Vector> {
  using type = float;
};
template <>
struct ScalarOf<Simd<double>::Vector> {
  using type = double;
};

template <class S>
using Vec = typename Simd<S>::Vector;
template <class S>
using Ints = typename Simd<S>::Integers;  // lanes as wide as S: masks, labels, bits
template <class S>
constexpr int kLanes = FUSED_LOSSES_VECTOR_BYTES / sizeof(S);

template <class S>
GS_HD Vec<S> load(const S* p) {
  Vec<S> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class S>
GS_HD void store(S* p, Vec<S> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The first `count` lanes from memory, the others 0.
template <class S>
GS_HD Vec<S> load_first(const S* p, int64_t count) {
  if (count >= kLanes<S>) return load(p);
  Vec<S> v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
}

template <class S>
GS_HD void store_first(S* p, Vec<S> v, int64_t count) {
  if (count >= kLanes<S>) return store(p, v);
  for (int i = 0; i < count; ++i) p[i] = v[i];
}

template <class S>
GS_HD Vec<S> splat(S s) {
  return s - Vec<S>{};  // exact even for -0, so the compiler drops the subtraction
}

// A mask of the first `count` lanes.
template <class S>
GS_HD Ints<S> first_lanes(int64_t count) {
  using I = decltype(Ints<S>{}[0] + 0);
  Ints<S> lane{};
  for (int i = 0; i < kLanes<S>; ++i) lane[i] = i;
  return lane < I(count);
}

// Sum of the lanes in double, in lane order.
template <class S>
GS_HD double sum_lanes(Vec<S> v) {
  double sum = 0;
  for (int i = 0; i < kLanes<S>; ++i) sum += v[i];
  return sum;
}

// ---- transposition of kLanes x kLanes -----------------------------------------------------------

#ifdef __clang__
#define FUSED_LOSSES_SHUFFLE(I, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FUSED_LOSSES_SHUFFLE(I, a, b, ...) __builtin_shuffle(a, b, I{__VA_ARGS__})
#endif

// Swaps the upper half of each 2*Step lanes of `a` with the lower half of `b`.
template <class S, int Step, int... Lane>
GS_HD void exchange(Vec<S>& a, Vec<S>& b, std::integer_sequence<int, Lane...>) {
  constexpr int n = kLanes<S>;
  const Vec<S> low = FUSED_LOSSES_SHUFFLE(Ints<S>, a, b, (Lane & Step ? n + Lane - Step : Lane)...);
  b = FUSED_LOSSES_SHUFFLE(Ints<S>, a, b, (Lane & Step ? n + Lane : Lane + Step)...);
  a = low;
}

// rows[i][j] <-> rows[j][i]: blocks of 1, 2, 4, ... lanes trade places across the diagonal.
template <class S, int Step = 1>
GS_HD void transpose(Vec<S>* rows) {
  if constexpr (Step < kLanes<S>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<S>; ++i)
      if (!(i & Step))
        exchange<S, Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, kLanes<S>>{});
    transpose<S, 2 * Step>(rows);
  }
}

// ---- exp and log --------------------------------------------------------------------------------

template <class S>
struct FloatFormat;
template <>
struct FloatFormat<float> {
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
  static constexpr float round = 0x1.8p23f;  // adding it leaves the nearest integer in the low mantissa bits
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;  // n * ln2_high is exact
  static constexpr float smallest_exponent = -87.0f;   // e^x is a normal number from here on
  static constexpr int exp_degree = 7, log_terms = 6;  // truncation error below half an ulp
};
template <>
struct FloatFormat<double> {
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
  static constexpr double round = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double smallest_exponent = -708.0;
  static constexpr int exp_degree = 13, log_terms = 12;
};

template <class S>
struct InverseFactorials {
  S value[FloatFormat<S>::exp_degree + 1] = {};
  constexpr InverseFactorials() {
    double factorial = 1;
    for (int k = 0; k <= FloatFormat<S>::exp_degree; ++k, factorial *= k) value[k] = S(1 / factorial);
  }
};

// e^x for x <= 0 (or NaN): 2^n e^r with |r| <= ln(2)/2, e^r by its Taylor polynomial. 0 where the result
// would be denormal.
template <class S>
GS_HD Vec<S> exp_nonpositive(Vec<S> x) {
  using F = FloatFormat<S>;
  constexpr S log2_e = S(1.44269504088896340736);
  const Vec<S> shifted = x * log2_e + F::round;
  const Vec<S> n = shifted - F::round;
  const Vec<S> r = (x - n * F::ln2_high) - n * F::ln2_low;
  constexpr InverseFactorials<S> coefficient;
  Vec<S> polynomial = splat(coefficient.value[F::exp_degree]);
#pragma GCC unroll 16
  for (int k = F::exp_degree - 1; k >= 0; --k) polynomial = polynomial * r + coefficient.value[k];
  const Vec<S> result = (Vec<S>)((Ints<S>)polynomial + ((Ints<S>)shifted << F::mantissa_bits));
  return x < F::smallest_exponent ? Vec<S>{} : result;
}

// log x for normal x > 0 (or NaN): x = 2^n m with m in [sqrt(1/2), sqrt(2)), and
// log m = 2 artanh((m - 1) / (m + 1)) by its series.
template <class S>
GS_HD Vec<S> log_positive(Vec<S> x) {
  using F = FloatFormat<S>;
  using I = decltype(Ints<S>{}[0] + 0);
  constexpr S ln2 = S(0.69314718055994530942), sqrt_half = S(0.70710678118654752440);
  constexpr I one_bits = I(F::exponent_bias) << F::mantissa_bits;
  Ints<S> exponent = (Ints<S>)x - one_bits;
  exponent >>= F::mantissa_bits;
  Vec<S> m = (Vec<S>)((Ints<S>)x - (exponent << F::mantissa_bits));  // [1, 2)
  const Ints<S> upper = m > S(2) * sqrt_half;
  m = upper ? m * S(0.5) : m;
  const Vec<S> n = __builtin_convertvector(exponent - upper, Vec<S>);  // a true lane is -1
  const Vec<S> s = (m - S(1)) / (m + S(1)), s2 = s * s;
  Vec<S> series = splat(S(1) / (2 * F::log_terms - 1));
#pragma GCC unroll 16
  for (int k = F::log_terms - 2; k >= 0; --k) series = series * s2 + S(1) / (2 * k + 1);
  const Vec<S> result = n * ln2 + S(2) * s * series;
  return x == x ? result : x;
}

}  // namespace fused_losses
