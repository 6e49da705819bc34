// The per-Gaussian stages: everything before the tiles (forward) and after them (backward).

template <class T>
Camera<T> camera_of(const Inputs& in) {
  Camera<T> c;
  memcpy(c.view, reinterpret_cast<const T*>(in.view), sizeof c.view);
  memcpy(c.proj, reinterpret_cast<const T*>(in.proj), sizeof c.proj);
  memcpy(c.position, reinterpret_cast<const T*>(in.camera_position), sizeof c.position);
  c.tan_fov_x = T(in.tan_fov_x), c.tan_fov_y = T(in.tan_fov_y);
  c.focal_x = T(in.width / (2 * in.tan_fov_x)), c.focal_y = T(in.height / (2 * in.tan_fov_y));
  c.width = in.width, c.height = in.height;
  return c;
}

template <class T>
bool all_finite(const T* values, int count) {
  T sum = 0;
  for (int i = 0; i < count; ++i) sum += values[i] * 0;  // 0 unless a value is NaN or Inf
  return sum == 0;
}

template <class T>
const T* at(uintptr_t base, int64_t offset) {
  return reinterpret_cast<const T*>(base) + offset;
}
template <class T>
T* out_at(uintptr_t base, int64_t offset) {
  return reinterpret_cast<T*>(base) + offset;
}

template <class T>
void sigma_of(const Inputs& in, int64_t i, T* sigma) {
  if (in.covariances)
    memcpy(sigma, at<T>(in.covariances, 6 * i), sizeof(T) * 6);
  else
    covariance_3d(at<T>(in.scales, 3 * i), T(in.scale_modifier), at<T>(in.rotations, 4 * i), sigma);
}

/// Coefficient k of the SH colour of Gaussian i: the first lies in sh_dc, the others in sh_rest.
template <class T>
const T* sh_coefficient(const Inputs& in, int64_t i, int k) {
  return k == 0 ? at<T>(in.sh_dc, i * in.sh_dc_stride) : at<T>(in.sh_rest, i * in.sh_rest_stride + 3 * (k - 1));
}

/// r g b of Gaussian i before the clamp at 0.
template <class T>
void color_of(const Inputs& in, const Camera<T>& camera, int64_t i, T* rgb) {
  if (in.colors) {
    memcpy(rgb, at<T>(in.colors, 3 * i), sizeof(T) * 3);
    return;
  }
  T direction[3], basis[kMaxShBasis];
  unit_direction(at<T>(in.means, 3 * i), camera.position, direction);
  sh_basis(in.sh_degree, direction, basis);
  for (int c = 0; c < 3; ++c) rgb[c] = T(0.5);
  for (int k = 0; k < sh_basis_count(in.sh_degree); ++k) {
    const T* coefficient = sh_coefficient<T>(in, i, k);
    for (int c = 0; c < 3; ++c) rgb[c] += basis[k] * coefficient[c];
  }
}

/// Fills the packed row of Gaussian i; returns its radius (0: not visible) and adds to `invalid`.
template <class T>
int pack_gaussian(Frame& frame, const Inputs& in, const Camera<T>& camera, int64_t i, T* row, int& invalid) {
  const T *mean = at<T>(in.means, 3 * i), *opacity = at<T>(in.opacities, i);
  T sigma[6];
  sigma_of(in, i, sigma);
  if (!all_finite(mean, 3)) invalid |= kMeans;
  if (!all_finite(opacity, 1)) invalid |= kOpacities;
  if (!all_finite(sigma, 6)) invalid |= kShape;
  Projected<T> p;
  frame.tile_count[i] = 0;
  if (!project(camera, mean, sigma, p)) return 0;
  const TileBox box = tile_box(p.mean, p.radius, frame.tiles_x, frame.tiles_y);
  if (box.empty()) return 0;

  row[kMeanX] = p.mean[0], row[kMeanY] = p.mean[1];
  row[kOpacity] = *opacity, row[kDepth] = p.depth;
  pack_power(p.conic, row);
  pack_ellipse(p.cov, p.conic, row);
  T* rgb = row + kRgb;
  color_of(in, camera, i, rgb);
  if (!all_finite(rgb, 3)) invalid |= kColor;
  if (!in.colors)
    for (int c = 0; c < 3; ++c) rgb[c] = rgb[c] > 0 ? rgb[c] : T(0);
  const T* identity = at<T>(in.identity, i * in.num_identity);
  memcpy(row + kEncoding, identity, sizeof(T) * in.num_identity);
  if (!all_finite(identity, in.num_identity)) invalid |= kIdentity;
  int tiles = 0;
  for_tile_rows(row, box, [&](int x0, int x1, int) { tiles += x1 - x0; });
  frame.tile_count[i] = tiles;
  return p.radius;
}

template <class T>
int pack_gaussians(Frame& frame, const Inputs& in, int32_t* radii) {
  const Camera<T> camera = camera_of<T>(in);
  const int stride = row_stride(in.num_identity);
  T* packed = reinterpret_cast<T*>(frame.packed.resize(in.num_gaussians * stride * sizeof(T)));
  frame.tile_count.resize(in.num_gaussians);
  int invalid = 0;
#pragma omp parallel for num_threads(in.threads) schedule(static, 256) reduction(| : invalid)
  for (int64_t i = 0; i < in.num_gaussians; ++i)
    radii[i] = pack_gaussian(frame, in, camera, i, packed + i * stride, invalid);
  return invalid;
}

template <class T>
void color_backward(const Inputs& in, const InputGradients& grad, const Camera<T>& camera, int64_t i, const T* row, const T* dL_drgb,
                    T* dL_dmean) {
  if (in.colors) {
    memcpy(out_at<T>(grad.colors, 3 * i), dL_drgb, sizeof(T) * 3);
    return;
  }
  T direction[3], basis[kMaxShBasis], dL_dbasis[kMaxShBasis], dL_dclamped[3], dL_ddirection[3];
  const T inverse_length = unit_direction(at<T>(in.means, 3 * i), camera.position, direction);
  sh_basis(in.sh_degree, direction, basis);
  for (int c = 0; c < 3; ++c) dL_dclamped[c] = row[kRgb + c] > 0 ? dL_drgb[c] : T(0);
  const int count = sh_basis_count(in.sh_degree);
  for (int k = 0; k < count; ++k) {
    const T* coefficient = sh_coefficient<T>(in, i, k);
    T* out = k == 0 ? out_at<T>(grad.sh_dc, i * grad.sh_dc_stride) : out_at<T>(grad.sh_rest, i * grad.sh_rest_stride + 3 * (k - 1));
    for (int c = 0; c < 3; ++c) out[c] = basis[k] * dL_dclamped[c];
    dL_dbasis[k] = dot3(coefficient, dL_dclamped);
  }
  if (grad.sh_rest && count - 1 < in.num_rest)  // degrees not reached yet
    memset(out_at<T>(grad.sh_rest, i * grad.sh_rest_stride + 3 * (count - 1)), 0, sizeof(T) * 3 * (in.num_rest - count + 1));
  sh_basis_backward(in.sh_degree, direction, dL_dbasis, dL_ddirection);
  const T along = dot3(direction, dL_ddirection);
  for (int j = 0; j < 3; ++j) dL_dmean[j] += inverse_length * (dL_ddirection[j] - along * direction[j]);
}

template <class T>
void zero_gradients(const Inputs& in, const InputGradients& grad, int64_t i) {
  auto zero = [](uintptr_t base, int64_t offset, int count) {
    if (base) memset(out_at<T>(base, offset), 0, sizeof(T) * count);
  };
  zero(grad.means, 3 * i, 3), zero(grad.means2d, 3 * i, 3), zero(grad.opacities, i, 1);
  zero(grad.scales, 3 * i, 3), zero(grad.rotations, 4 * i, 4), zero(grad.covariances, 6 * i, 6);
  zero(grad.sh_dc, i * grad.sh_dc_stride, 3), zero(grad.sh_rest, i * grad.sh_rest_stride, 3 * in.num_rest);
  zero(grad.colors, 3 * i, 3), zero(grad.identity, i * in.num_identity, in.num_identity);
}

/// From the summed gradient row of Gaussian i to the gradients of its parameters.
template <class T>
void gaussian_backward(const Inputs& in, const InputGradients& grad, const Camera<T>& camera, int64_t i, const T* row, const T* sum) {
  T conic[3];
  unpack_conic(row, conic);
  const T dL_dmean2d[2] = {-conic[0] * sum[kQx] - conic[1] * sum[kQy], -conic[1] * sum[kQx] - conic[2] * sum[kQy]};
  T dL_dcov2d[3], dL_dsigma[6], sigma[6], dL_dmean[3] = {0, 0, 0};
  conic_backward(conic, sum[kQxx], sum[kQxy], sum[kQyy], dL_dcov2d);
  sigma_of(in, i, sigma);
  project_backward(camera, at<T>(in.means, 3 * i), sigma, dL_dmean2d, dL_dcov2d, sum[kGradDepth], dL_dmean, dL_dsigma);
  const T dL_drgb[3] = {sum[kGradRgb], sum[kGradRgb + 2], sum[kGradRgb + 4]};
  color_backward(in, grad, camera, i, row, dL_drgb, dL_dmean);
  memcpy(out_at<T>(grad.means, 3 * i), dL_dmean, sizeof dL_dmean);

  T* means2d = out_at<T>(grad.means2d, 3 * i);  // in NDC, as 3DGS's densification statistic expects
  means2d[0] = dL_dmean2d[0] * T(0.5) * in.width, means2d[1] = dL_dmean2d[1] * T(0.5) * in.height, means2d[2] = 0;
  *out_at<T>(grad.opacities, i) = sum[kQ] / row[kOpacity];
  if (in.covariances) {
    T* out = out_at<T>(grad.covariances, 6 * i);
    for (int k = 0; k < 6; ++k) out[k] = dL_dsigma[k] * (k == 0 || k == 3 || k == 5 ? 1 : 2);
  } else {
    covariance_3d_backward(at<T>(in.scales, 3 * i), T(in.scale_modifier), at<T>(in.rotations, 4 * i), dL_dsigma,
                           out_at<T>(grad.scales, 3 * i), out_at<T>(grad.rotations, 4 * i));
  }
  memcpy(out_at<T>(grad.identity, i * in.num_identity), sum + kGradEncoding, sizeof(T) * in.num_identity);
}

/// Sums each Gaussian's instance rows, in the order of its tiles, and runs the chain rule down to the inputs.
template <class T>
void gaussians_backward(Frame& frame, const Inputs& in, const int32_t* radii, const InputGradients& grad) {
  const Camera<T> camera = camera_of<T>(in);
  const int packed_stride = row_stride(in.num_identity), stride = gradient_stride(in.num_identity);
  const T* packed = reinterpret_cast<const T*>(frame.packed.data());
  const T* rows = reinterpret_cast<const T*>(frame.packed_gradients.data());
#pragma omp parallel for num_threads(in.threads) schedule(static, 256)
  for (int64_t i = 0; i < in.num_gaussians; ++i) {
    alignas(64) T sum[kMaxStride] = {};
    bool touched = false;
    const int64_t first = radii[i] > 0 ? frame.first_row[i] : 0, count = radii[i] > 0 ? frame.tile_count[i] : 0;
    for (int64_t r = first; r < first + count; ++r) {
      if (frame.hits[r] == 0) continue;
      touched = true;
      for (int c = 0; c < stride; ++c) sum[c] += rows[r * stride + c];
    }
    if (touched)
      gaussian_backward(in, grad, camera, i, packed + i * packed_stride, sum);
    else
      zero_gradients<T>(in, grad, i);
  }
}
