// Renders a fixed scene with the rasterizer's baseline core, forward and backward, in double and float, and prints the norm of every
// image and gradient. scripts/check_aarch64.sh compares what it prints on two processors.
#include <math.h>
#include <stdio.h>

#include <vector>

#include "cpu/frame.h"

namespace gs {
namespace baseline {
extern const Core core;
}
}  // namespace gs

namespace {

constexpr int kCount = 2000, kIdentity = 16, kRest = 15, kWidth = 131, kHeight = 97;

/// Numbers in [0, 1), the same everywhere.
double next_random() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return double(state >> 40) / double(1 << 24);
}

template <class T>
std::vector<T> random_values(int count, double low, double high) {
  std::vector<T> values(count);
  for (T& value : values) value = T(low + (high - low) * next_random());
  return values;
}

template <class T>
void print_norm(const char* type, const char* name, const std::vector<T>& values) {
  double sum = 0;
  for (T value : values) sum += double(value) * double(value);
  printf("%s %s %.9e\n", type, name, sqrt(sum));
}

template <class T, class Forward, class Backward>
void run(const char* type, Forward forward, Backward backward) {
  const auto address = [](const std::vector<T>& values) { return reinterpret_cast<uintptr_t>(values.data()); };
  const std::vector<T> view = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1}, position = {0, 0, -3}, background = {0.1, 0.2, 0.3};
  const T x = 2, y = T(2.0 * kWidth / kHeight);
  const std::vector<T> proj = {x, 0, 0, 0, 0, y, 0, 0, 0, 0, 1, 1, 0, 0, 3, 3};
  const auto means = random_values<T>(3 * kCount, -1, 1), scales = random_values<T>(3 * kCount, 0.01, 0.1);
  const auto rotations = random_values<T>(4 * kCount, -1, 1), opacities = random_values<T>(kCount, 0.05, 0.9);
  const auto dc = random_values<T>(3 * kCount, -1, 1), rest = random_values<T>(3 * kRest * kCount, -0.1, 0.1);
  const auto identity = random_values<T>(kIdentity * kCount, -1, 1);
  gs::Inputs in;
  in.num_gaussians = kCount, in.width = kWidth, in.height = kHeight, in.sh_degree = 3, in.num_identity = kIdentity;
  in.num_rest = kRest, in.tan_fov_x = 1 / double(x), in.tan_fov_y = 1 / double(y);
  in.view = address(view), in.proj = address(proj), in.camera_position = address(position), in.background = address(background);
  in.means = address(means), in.opacities = address(opacities), in.scales = address(scales), in.rotations = address(rotations);
  in.sh_dc = address(dc), in.sh_rest = address(rest), in.identity = address(identity);

  constexpr int kPixels = kWidth * kHeight;
  std::vector<T> color(3 * kPixels), objects(kIdentity * kPixels);
  std::vector<int32_t> radii(kCount);
  gs::Outputs out;
  out.color = address(color), out.objects = address(objects), out.radii = reinterpret_cast<uintptr_t>(radii.data());
  gs::Frame frame;
  forward(frame, in, out);
  print_norm(type, "color", color), print_norm(type, "objects", objects);

  const auto dL_dcolor = random_values<T>(3 * kPixels, -1, 1), dL_dobjects = random_values<T>(kIdentity * kPixels, -1, 1);
  gs::OutputGradients upstream;
  upstream.color = address(dL_dcolor), upstream.objects = address(dL_dobjects);
  const char* const names[] = {"means", "means2d", "opacities", "scales", "rotations", "sh_dc", "sh_rest", "identity"};
  const int widths[] = {3, 3, 1, 3, 4, 3, 3 * kRest, kIdentity};
  std::vector<T> gradients[8];
  for (int k = 0; k < 8; ++k) gradients[k].resize(widths[k] * kCount);
  gs::InputGradients grad;
  grad.means = address(gradients[0]), grad.means2d = address(gradients[1]), grad.opacities = address(gradients[2]);
  grad.scales = address(gradients[3]), grad.rotations = address(gradients[4]), grad.sh_dc = address(gradients[5]);
  grad.sh_rest = address(gradients[6]), grad.identity = address(gradients[7]);
  backward(frame, in, out, upstream, grad);
  for (int k = 0; k < 8; ++k) print_norm(type, names[k], gradients[k]);
}

}  // namespace

int main() {
  const gs::Core& core = gs::baseline::core;
  run<double>("double", core.forward_f64, core.backward_f64);
  run<float>("float", core.forward_f32, core.backward_f32);
}
