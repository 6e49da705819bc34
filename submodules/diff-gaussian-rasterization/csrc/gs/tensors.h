// The caller's tensors with their types. A call (call.h) brings addresses, since Python knows no others; both executions turn
// them into these before they read anything.
#pragma once

#include <stdint.h>

#include "call.h"
#include "config.h"

namespace gs {

template <class T>
GS_HD T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

/// What is rendered; nullptr where an input was not given.
template <class T>
struct Gaussians {
  int64_t count;
  const T *means, *opacities;                 // (N, 3), (N)
  const T *scales, *rotations, *covariances;  // (N, 3) and (N, 4), or (N, 6)
  const T *sh_dc, *sh_rest, *colors;          // (N, 1, 3) and (N, num_rest, 3), strided over Gaussians, or (N, 3)
  const T* identity;                          // (N, num_identity)
  int64_t sh_dc_stride, sh_rest_stride;
  int sh_degree, num_identity, num_rest;
  T scale_modifier;

  GS_HD explicit Gaussians(const Inputs& in)
      : count(in.num_gaussians),
        means(pointer<const T>(in.means)),
        opacities(pointer<const T>(in.opacities)),
        scales(pointer<const T>(in.scales)),
        rotations(pointer<const T>(in.rotations)),
        covariances(pointer<const T>(in.covariances)),
        sh_dc(pointer<const T>(in.sh_dc)),
        sh_rest(pointer<const T>(in.sh_rest)),
        colors(pointer<const T>(in.colors)),
        identity(pointer<const T>(in.identity)),
        sh_dc_stride(in.sh_dc_stride),
        sh_rest_stride(in.sh_rest_stride),
        sh_degree(in.sh_degree),
        num_identity(in.num_identity),
        num_rest(in.num_rest),
        scale_modifier(T(in.scale_modifier)) {}
};

/// Where their gradients go; nullptr where one is not wanted.
template <class T>
struct GaussianGradients {
  T *means, *means2d, *opacities, *scales, *rotations, *covariances, *sh_dc, *sh_rest, *colors, *identity;
  int64_t sh_dc_stride, sh_rest_stride;

  GS_HD explicit GaussianGradients(const InputGradients& grad)
      : means(pointer<T>(grad.means)),
        means2d(pointer<T>(grad.means2d)),
        opacities(pointer<T>(grad.opacities)),
        scales(pointer<T>(grad.scales)),
        rotations(pointer<T>(grad.rotations)),
        covariances(pointer<T>(grad.covariances)),
        sh_dc(pointer<T>(grad.sh_dc)),
        sh_rest(pointer<T>(grad.sh_rest)),
        colors(pointer<T>(grad.colors)),
        identity(pointer<T>(grad.identity)),
        sh_dc_stride(grad.sh_dc_stride),
        sh_rest_stride(grad.sh_rest_stride) {}
};

/// The camera. Its tensors lie where the Gaussians do.
template <class T>
struct View {
  const T *view, *proj, *position, *background;  // (4, 4), (4, 4), (3), (3)
  T tan_fov_x, tan_fov_y, focal_x, focal_y;
  int width, height;

  GS_HD explicit View(const Inputs& in)
      : view(pointer<const T>(in.view)),
        proj(pointer<const T>(in.proj)),
        position(pointer<const T>(in.camera_position)),
        background(pointer<const T>(in.background)),
        tan_fov_x(T(in.tan_fov_x)),
        tan_fov_y(T(in.tan_fov_y)),
        focal_x(T(in.width / (2 * in.tan_fov_x))),
        focal_y(T(in.height / (2 * in.tan_fov_y))),
        width(in.width),
        height(in.height) {}
};

/// Images, or their gradients, plane by plane; nullptr where there is none.
template <class T>
struct Images {
  T *depth, *color, *objects, *alpha;  // (H, W), (3, H, W), (num_identity, H, W), (H, W)
  int width, height;

  template <class Pointers>  // Outputs or OutputGradients
  GS_HD Images(const Pointers& pointers, const Inputs& in)
      : depth(pointer<T>(pointers.depth)),
        color(pointer<T>(pointers.color)),
        objects(pointer<T>(pointers.objects)),
        alpha(pointer<T>(pointers.alpha)),
        width(in.width),
        height(in.height) {}

  /// Pixel (x, y) of a blended channel's plane (config.h: their order).
  GS_HD T* pixel(int channel, int x, int y) const {
    const bool is_identity = channel >= kIdentityChannels;
    T* const base = channel < kColorChannels ? depth : is_identity ? objects : color;
    const int first = channel < kColorChannels ? 0 : is_identity ? kIdentityChannels : kColorChannels;
    return base ? base + (int64_t(channel - first) * height + y) * width + x : nullptr;
  }
};

}  // namespace gs
