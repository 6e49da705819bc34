// The CPU core of one instruction set (isa.h): the order of its stages.
#include "binning.h"
#include "gaussians.h"
#include "gs/tensors.h"
#include "tiles.h"

namespace gs {
namespace GS_ISA {
namespace {

template <class T>
int forward(Frame& frame, const Inputs& in, const Outputs& out) {
  frame.tiles_x = (in.width + kTile - 1) / kTile;
  frame.tiles_y = (in.height + kTile - 1) / kTile;
  int32_t* radii = pointer<int32_t>(out.radii);
  if (const int invalid = pack_gaussians<T>(frame, in, radii)) return invalid;
  sort_by_depth<T>(frame, in, radii);
  bin_into_tiles<T>(frame, in, radii);
  memset(frame.hits.resize(frame.num_instances), 0, sizeof(uint16_t) * frame.num_instances);
  switch (in.num_identity) {
    case 0:
      forward_tiles<T, 4>(frame, in, out);
      break;
    case 16:
      forward_tiles<T, 20>(frame, in, out);
      break;
    default:
      forward_tiles<T, 0>(frame, in, out);
  }
  return 0;
}

template <class T>
void backward(Frame& frame, const Inputs& in, const Outputs& out, const OutputGradients& out_grad, const InputGradients& grad) {
  frame.packed_gradients.resize(frame.num_instances * gradient_stride(in.num_identity) * sizeof(T));
  switch (in.num_identity) {
    case 0:
      backward_tiles<T, 4>(frame, in, out, out_grad);
      break;
    case 16:
      backward_tiles<T, 20>(frame, in, out, out_grad);
      break;
    default:
      backward_tiles<T, 0>(frame, in, out, out_grad);
  }
  gaussians_backward<T>(frame, in, grad);
}

}  // namespace

#define GS_STRING_(x) #x
#define GS_STRING(x) GS_STRING_(x)
extern const Core core = {GS_STRING(GS_ISA), forward<float>, forward<double>, backward<float>, backward<double>};

}  // namespace GS_ISA
}  // namespace gs
