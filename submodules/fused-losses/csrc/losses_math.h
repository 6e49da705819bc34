// Per-element mathematics of the losses, once for every execution.
//
// `V` is a scalar (CUDA, plain loops) or a SIMD vector of scalars `S` (the CPU kernels): the functions use
// only operators and `condition ? a : b`, which both kinds share. Derivatives are named dX_dY.
#pragma once

#ifdef __CUDACC__
#define GS_HD __host__ __device__ __forceinline__
#else
// Internal linkage: the source is compiled for several instruction sets, which the linker must not merge.
#define GS_HD static inline __attribute__((always_inline))
#endif

namespace fused_losses {

template <class V>
struct ScalarOf {
  using type = V;
};
template <class V>
using Scalar = typename ScalarOf<V>::type;

// ---- L1 -----------------------------------------------------------------------------------------

template <class V>
GS_HD V absolute(V x) {
  return x < Scalar<V>(0) ? -x : x;
}

// Derivative of |x|; 0 at 0, and NaN stays NaN.
template <class V>
GS_HD V sign(V x) {
  const V zero = x - x;  // or NaN
  const V one = V{} + Scalar<V>(1);
  return x > Scalar<V>(0) ? one : x < Scalar<V>(0) ? -one : zero;
}

// ---- SSIM (Wang et al. 2004, the constants of 3DGS) ---------------------------------------------

constexpr int kWindowRadius = 5;  // 11 x 11 window
constexpr int kWindowSize = 2 * kWindowRadius + 1;
constexpr double kWindowSigma = 1.5;
constexpr double kC1 = 0.01 * 0.01;  // (K1 L)^2 with L = 1, the range of the image
constexpr double kC2 = 0.03 * 0.03;

template <class V>
struct SsimTerms {
  V value;      // SSIM of this pixel
  V d_mean;     // its derivatives by the blurred image G*x,
  V d_square;   //   the blurred square G*(x^2)
  V d_product;  //   and the blurred product G*(x y), each taken as independent of the others
};

// mean_x = G*x, mean_y = G*y, squares = G*(x^2 + y^2), product = G*(x y), G the Gaussian window.
// The variances appear only as a sum, so that one blur serves both.
template <class V>
GS_HD SsimTerms<V> ssim_terms(V mean_x, V mean_y, V squares, V product) {
  using S = Scalar<V>;
  const V mean_xy = mean_x * mean_y;
  const V mean_squares = mean_x * mean_x + mean_y * mean_y;
  const V luminance = S(2) * mean_xy + S(kC1);
  const V structure = S(2) * (product - mean_xy) + S(kC2);  // covariance
  const V mean_norm = mean_squares + S(kC1);
  const V variance_norm = (squares - mean_squares) + S(kC2);
  const V inverse = S(1) / (mean_norm * variance_norm);

  SsimTerms<V> t;
  t.value = luminance * structure * inverse;
  t.d_product = S(2) * luminance * inverse;
  t.d_square = -t.value * mean_norm * inverse;  // -value / variance_norm
  t.d_mean =
      S(2) * (mean_y * (structure - luminance) + t.value * mean_x * (mean_norm - variance_norm)) * inverse;
  return t;
}

// dSSIM/dx of a pixel from the three derivatives above, blurred by the same (symmetric) window.
template <class V>
GS_HD V ssim_gradient(V x, V y, V d_mean, V d_square, V d_product) {
  return d_mean + Scalar<V>(2) * x * d_square + y * d_product;
}

// ---- softmax cross-entropy ----------------------------------------------------------------------

// -log softmax(z)[label] from the largest logit and log sum_c exp(z_c - largest).
template <class V>
GS_HD V cross_entropy(V largest, V log_sum, V z_label) {
  return (largest - z_label) + log_sum;
}

// dL/dz_c = weight (softmax_c - [c is the label]); `scale` = weight / sum_c exp(z_c - largest).
template <class V, class Mask>
GS_HD V logit_gradient(V exponential, V scale, Mask is_label, V weight) {
  const V softmax = exponential * scale;
  return is_label ? softmax - weight : softmax;
}

// ---- Adam ---------------------------------------------------------------------------------------

template <class S>
struct AdamConstants {
  S one_minus_beta1;
  S beta2;
  S one_minus_beta2;
  S step_size;            // lr / (1 - beta1^step)
  S inverse_sqrt_second;  // 1 / sqrt(1 - beta2^step)
  S eps;
};

template <class S>
GS_HD void adam_moments(S gradient, S& exp_avg, S& exp_avg_sq, const AdamConstants<S>& k) {
  exp_avg = exp_avg + k.one_minus_beta1 * (gradient - exp_avg);
  exp_avg_sq = k.beta2 * exp_avg_sq + k.one_minus_beta2 * gradient * gradient;
}

template <class S>
GS_HD S adam_change(S exp_avg, S sqrt_exp_avg_sq, const AdamConstants<S>& k) {
  return -k.step_size * exp_avg / (sqrt_exp_avg_sq * k.inverse_sqrt_second + k.eps);
}

}  // namespace fused_losses
