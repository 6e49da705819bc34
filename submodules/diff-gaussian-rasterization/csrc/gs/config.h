// Constants of the 3DGS rasterizer and the host/device marker. Both executions, CPU and CUDA, share them.
#pragma once

#if defined(__CUDACC__)
#define GS_HD __host__ __device__ __forceinline__
#else
#define GS_HD inline __attribute__((always_inline))
#endif

namespace gs {

/// The mathematics of one Gaussian is templated on V: a scalar, or a SIMD vector with a Gaussian in every lane, for which the
/// execution names the scalar here.
template <class V>
struct ScalarOf {
  using type = V;
};
template <class V>
using Scalar = typename ScalarOf<V>::type;

constexpr int kTile = 16;                   // pixels per tile edge; also the granularity of the 3-sigma box
constexpr double kLowPass = 0.3;            // px^2 added to the 2D covariance: every splat covers about one pixel
constexpr double kAlphaMax = 0.99;          // keeps 1 - alpha away from 0; the gradient passes this clamp
constexpr double kAlphaMin = 1. / 255;      // below one step of an 8-bit image
constexpr double kTransmittanceMin = 1e-4;  // a pixel is finished before the Gaussian that would fall below it
constexpr double kNear = 0.2;               // scene units in front of the camera
constexpr double kFrustumClamp = 1.3;       // times tan(fov / 2): bounds the linearisation off screen
constexpr double kMinLength2 = 1e-24;       // of a quaternion, squared: one of length 0 is taken for no rotation
constexpr double kRadiusSigmas = 3;         // half-size of the tile box, in standard deviations

// What is blended, in this order: depth, red, green, blue, then the identity encoding.
constexpr int kColorChannels = 1, kIdentityChannels = 4;  // where they begin
constexpr int kMaxIdentity = 64;

}  // namespace gs
