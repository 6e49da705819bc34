// Device pointers and the stream arrive as integers: the Python side checks the tensors and allocates
// everything.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "arguments.h"
#include "losses.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace fused_losses;
cudaStream_t stream_of(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

gpu::Images images(Pointer image, Pointer target, bool target_is_bytes, int64_t channels, int64_t height,
                   int64_t width, double lambda_dssim) {
  return {pointer<const float>(image),
          pointer<const void>(target),
          target_is_bytes,
          channels,
          height,
          width,
          lambda_dssim};
}

void l1_ssim(Pointer image, Pointer target, bool target_is_bytes, int64_t channels, int64_t height,
             int64_t width, double lambda_dssim, Pointer scratch, bool derivatives, Pointer result,
             uintptr_t stream) {
  gpu::l1_ssim(images(image, target, target_is_bytes, channels, height, width, lambda_dssim),
               pointer<float>(scratch), derivatives, pointer<float>(result), stream_of(stream));
}

void l1_ssim_backward(Pointer image, Pointer target, bool target_is_bytes, int64_t channels, int64_t height,
                      int64_t width, double lambda_dssim, Pointer scratch, Pointer upstream,
                      Pointer dL_dimage, uintptr_t stream) {
  gpu::l1_ssim_backward(images(image, target, target_is_bytes, channels, height, width, lambda_dssim),
                        pointer<const float>(scratch), pointer<const float>(upstream),
                        pointer<float>(dL_dimage), stream_of(stream));
}

void cross_entropy(Pointer features, Pointer weight, Pointer bias, Pointer labels, int label_type,
                   Pointer pixel_weights, int64_t channels, int64_t classes, int64_t pixels, bool ignores,
                   int64_t ignore_label, double scale, Pointer factor, Pointer loss, Pointer dL_dfeatures, Pointer dL_dweight,
                   Pointer dL_dbias, Pointer scratch, uintptr_t stream) {
  gpu::cross_entropy(
      {pointer<const float>(features), pointer<const float>(weight), pointer<const float>(bias),
       pointer<const void>(labels), LabelType(label_type), pointer<const float>(pixel_weights), channels,
       classes, pixels, ignores, ignore_label, scale, pointer<const float>(factor)},
      {pointer<float>(loss), pointer<float>(dL_dfeatures), pointer<float>(dL_dweight),
       pointer<float>(dL_dbias)},
      pointer<void>(scratch), stream_of(stream));
}

void adam(const std::vector<Pointer>& pointers, const std::vector<int64_t>& sizes,
          const std::vector<double>& settings, uintptr_t stream) {
  gpu::adam(adam_parameters(pointers, sizes, settings), stream_of(stream));
}

}  // namespace

NB_MODULE(_cuda, m) {
  m.attr("MAX_CHANNELS") = gpu::kMaxChannels;
  m.attr("MAX_CLASSES") = gpu::kMaxClasses;
  m.def("l1_ssim_floats", gpu::l1_ssim_floats, "channels"_a, "height"_a, "width"_a, "derivatives"_a);
  m.def("l1_ssim", l1_ssim, "image"_a, "target"_a, "target_is_bytes"_a, "channels"_a, "height"_a, "width"_a,
        "lambda_dssim"_a, "scratch"_a, "derivatives"_a, "result"_a, "stream"_a);
  m.def("l1_ssim_backward", l1_ssim_backward, "image"_a, "target"_a, "target_is_bytes"_a, "channels"_a,
        "height"_a, "width"_a, "lambda_dssim"_a, "scratch"_a, "upstream"_a, "dL_dimage"_a, "stream"_a);
  m.def("cross_entropy_bytes", gpu::cross_entropy_bytes, "classes"_a, "pixels"_a);
  m.def("cross_entropy", cross_entropy, "features"_a, "weight"_a, "bias"_a, "labels"_a, "label_type"_a,
        "pixel_weights"_a, "channels"_a, "classes"_a, "pixels"_a, "ignores"_a, "ignore_label"_a, "scale"_a,
        "factor"_a, "loss"_a, "dL_dfeatures"_a, "dL_dweight"_a, "dL_dbias"_a, "scratch"_a, "stream"_a);
  m.def("adam", adam, "pointers"_a, "sizes"_a, "settings"_a, "stream"_a);
}
