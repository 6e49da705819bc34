// Sixteen lanes of float or double as compiler vectors: one zmm register with AVX-512, two ymm with AVX2, four 128-bit ones on
// the baseline and on arm64. Included into an anonymous namespace: every instruction set has its own.

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(64)));
  typedef int32_t M __attribute__((vector_size(64)));
};
template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(128)));
  typedef int64_t M __attribute__((vector_size(128)));
};
using V32 = Lanes<float>::V;
using M32 = Lanes<float>::M;
using V64 = Lanes<double>::V;
using M64 = Lanes<double>::M;

GS_HD M32 lane_and(M32 a, M32 b) { return a & b; }
GS_HD M64 lane_and(M64 a, M64 b) { return a & b; }
GS_HD M32 lane_and_not(M32 a, M32 b) { return a & ~b; }
GS_HD M64 lane_and_not(M64 a, M64 b) { return a & ~b; }
GS_HD V32 lane_select(M32 m, V32 a, V32 b) { return m ? a : b; }
GS_HD V64 lane_select(M64 m, V64 a, V64 b) { return m ? a : b; }

GS_HD bool lane_any(M32 m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m) != 0;
#else
  int32_t any = 0;
  for (int i = 0; i < 16; ++i) any |= m[i];
  return any != 0;
#endif
}
GS_HD bool lane_any(M64 m) {
  int64_t any = 0;
  for (int i = 0; i < 16; ++i) any |= m[i];
  return any != 0;
}

/// e^x for x <= 0 (larger arguments are taken as 0), within 2 ulp; below -87 it is e^-87, far under any alpha that counts.
GS_HD V32 lane_exp(V32 x) {
  x = x < 0.f ? x : V32{};
  x = x > -87.f ? x : V32{} - 87.f;
  const V32 shifted = x * 1.44269504088896341f + 12582912.f;  // 1.5 * 2^23: the integer part lands in the low mantissa bits
  const V32 n = shifted - 12582912.f;
  const V32 r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V32 p = r * (1.f / 5040) + (1.f / 720);
  p = p * r + (1.f / 120);
  p = p * r + (1.f / 24);
  p = p * r + (1.f / 6);
  p = p * r + 0.5f;
  p = p * r * r + r + 1.f;
  return (V32)((M32)p + (((M32)shifted - 0x4B400000) << 23));
}
GS_HD V64 lane_exp(V64 x) {
  V64 y;
  for (int i = 0; i < 16; ++i) y[i] = exp(x[i] < 0 ? x[i] : 0);
  return y;
}

/// Four vectors as a 4x4 matrix of quarters, transposed. Its own inverse.
template <class V>
GS_HD void transpose_quarters(V* v) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
  const V a = __builtin_shufflevector(v[0], v[1], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
  const V b = __builtin_shufflevector(v[0], v[1], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  const V c = __builtin_shufflevector(v[2], v[3], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
  const V d = __builtin_shufflevector(v[2], v[3], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  v[1] = __builtin_shufflevector(b, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  v[2] = __builtin_shufflevector(a, c, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  v[3] = __builtin_shufflevector(b, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  return;
#endif
#endif
  V t[4];
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < 16; ++lane) t[i][lane] = v[lane / 4][4 * i + lane % 4];
  for (int i = 0; i < 4; ++i) v[i] = t[i];
}
