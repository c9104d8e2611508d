// Convolutions by cuDNN 9's graph interface, f32 or bf16, channels last, added in f32. Of the engines that the library's
// heuristic names, the first one is taken that is deterministic and neither rounds operands (but to TF32 on tensor cores, where
// the shape's precision is that) nor reduces in less than f32; for bf16, whose operands tensor cores take as they are, one that
// transforms them first (Winograd's, which would round the transformed ones) is left out. A shape for which there is none, and
// f64, is the tiled kernel's. Plans are made once a shape and kept.
#include <cudnn.h>

#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "../table.h"
#include "check.h"

namespace costate::cuda {
namespace {

// A descriptor of the backend, destroyed with its last owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = nullptr;
    check(cudnnBackendCreateDescriptor(type, &d), "describing a convolution");
    owner_.reset(d, [](void* p) { cudnnBackendDestroyDescriptor(p); });
  }
  cudnnBackendDescriptor_t raw() const { return owner_.get(); }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count, const void* values) {
    check(cudnnBackendSetAttribute(raw(), name, type, count, values), "describing a convolution");
    return *this;
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<std::int64_t>& v) {
    return set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(v.size()), v.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t type) { return set(name, CUDNN_TYPE_DATA_TYPE, 1, &type); }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& d) {
    const cudnnBackendDescriptor_t raw_d = d.raw();
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw_d);
  }
  // Whether the library offers what was described.
  bool finalised() { return cudnnBackendFinalize(raw()) == CUDNN_STATUS_SUCCESS; }
  Descriptor& finalise() {
    check(cudnnBackendFinalize(raw()), "describing a convolution");
    return *this;
  }

 private:
  std::shared_ptr<void> owner_;
};

constexpr std::int64_t aligned = 16;  // bytes, of every operand: what vector loads want

// Dimensions in cuDNN's order (n, channels, height, width), laid out as (n, height, width, channels).
Descriptor tensor(cudnnDataType_t type, std::int64_t id, std::int64_t n, std::int64_t channels, std::int64_t height,
                  std::int64_t width) {
  Descriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  return d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, std::vector<std::int64_t>{id})
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::vector<std::int64_t>{aligned})
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, {n, channels, height, width})
      .set(CUDNN_ATTR_TENSOR_STRIDES, {height * width * channels, 1, width * channels, channels})
      .finalise();
}

enum Id : std::int64_t { id_x = 1, id_weight, id_y };

// What is missing below and to the right of the image; negative where its last rows or columns are not read.
std::int64_t padding_after(std::int64_t extent, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                           std::int64_t before) {
  return (out - 1) * stride + kernel - extent - before;
}

Descriptor graph_of(const ConvShape& s, cudnnHandle_t handle) {
  const cudnnDataType_t type = s.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
  const Descriptor x = tensor(type, id_x, s.n, s.channels, s.height, s.width),
                   w = tensor(type, id_weight, s.out_channels, s.channels / s.groups, s.kernel_height, s.kernel_width),
                   y = tensor(type, id_y, s.n, s.out_channels, s.out_height, s.out_width);
  Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::vector<std::int64_t>{2})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {s.top, s.left})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {padding_after(s.height, s.out_height, s.kernel_height, s.stride, s.top),
                                                  padding_after(s.width, s.out_width, s.kernel_width, s.stride, s.left)})
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {s.stride, s.stride})
      .finalise();
  const float one = 1, zero = 0;
  const auto operation = [&](cudnnBackendDescriptorType_t type, cudnnBackendAttributeName_t alpha,
                             cudnnBackendAttributeName_t beta, cudnnBackendAttributeName_t of_conv,
                             cudnnBackendAttributeName_t of_x, cudnnBackendAttributeName_t of_w,
                             cudnnBackendAttributeName_t of_y) {
    Descriptor o(type);
    return o.set(alpha, CUDNN_TYPE_FLOAT, 1, &one)
        .set(beta, CUDNN_TYPE_FLOAT, 1, &zero)
        .set(of_conv, conv)
        .set(of_x, x)
        .set(of_w, w)
        .set(of_y, y)
        .finalise();
  };
  Descriptor op;
  switch (s.pass) {
    case ConvShape::Pass::forward:
      op = operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
      break;
    case ConvShape::Pass::data_gradient:
      op = operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY);
      break;
    case ConvShape::Pass::weight_gradient:
      op = operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY);
      break;
  }
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  return graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, op).finalise();
}

std::vector<Descriptor> configurations(const Descriptor& graph, cudnnBackendHeurMode_t mode) {
  Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph).set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (!heuristic.finalised()) return {};
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(heuristic.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count,
                                 nullptr),
        "asking for engines");
  std::vector<Descriptor> all;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < count; ++i) {
    all.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    raw.push_back(all.back().raw());
  }
  if (count)
    check(cudnnBackendGetAttribute(heuristic.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count,
                                   raw.data()),
          "asking for engines");
  all.resize(static_cast<std::size_t>(count));
  return all;
}

// Whether an engine keeps what this file's opening says.
bool is_faithful(const Descriptor& configuration, const ConvShape& s) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.raw();
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(configuration.raw(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                 &raw),
        "asking about an engine");
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  check(cudnnBackendGetAttribute(raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes),
        "asking about an engine");
  for (std::int64_t i = 0; i < count; ++i) switch (notes[i]) {
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        if (s.precision != Precision::tf32 && s.dtype != DType::bf16) return false;
        break;
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        return false;
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        if (!s.winograd || s.dtype == DType::bf16) return false;
        break;
      default:
        break;
    }
  return true;
}

struct Plan {
  bool offered = false;
  Descriptor plan;
  std::int64_t workspace = 0;
};

using Key = std::tuple<int, DType, bool, bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                       std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                       std::int64_t>;

struct Library {
  std::mutex mutex;  // a handle is for one thread at a time
  cudnnHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
};
Library& library() {
  static Library& l = *new Library;
  return l;
}

Plan make_plan(const Library& l, const ConvShape& s) {
  Plan made;
  if (padding_after(s.height, s.out_height, s.kernel_height, s.stride, s.top) < 0 ||
      padding_after(s.width, s.out_width, s.kernel_width, s.stride, s.left) < 0)
    return made;
  const Descriptor graph = graph_of(s, l.handle);
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK})
    for (const Descriptor& configuration : configurations(graph, mode)) {
      if (!is_faithful(configuration, s)) continue;
      Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &l.handle)
          .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
      if (!plan.finalised()) continue;
      std::int64_t count = 0;
      check(cudnnBackendGetAttribute(plan.raw(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                     &made.workspace),
            "asking about a plan");
      made.plan = plan, made.offered = true;
      return made;
    }
  return made;
}

// The lock is held by the caller.
const Plan& plan_of(Library& l, const ConvShape& s) {
  if (!l.handle) {
    const cudaStream_t stream = runtime::stream();
    check(cudnnCreate(&l.handle), "starting");
    check(cudnnSetStream(l.handle, stream), "starting");
  }
  const Key key{static_cast<int>(s.pass),
                s.dtype,
                s.winograd,
                s.precision == Precision::tf32,
                s.n,
                s.height,
                s.width,
                s.channels,
                s.out_height,
                s.out_width,
                s.out_channels,
                s.kernel_height,
                s.kernel_width,
                s.stride,
                s.top,
                s.left,
                s.groups};
  auto found = l.plans.find(key);
  if (found == l.plans.end()) found = l.plans.emplace(key, make_plan(l, s)).first;
  return found->second;
}

bool takes(const ConvShape& s) {
  return s.dtype != DType::f64 && s.n * s.height * s.width * s.channels * s.out_height * s.out_width * s.out_channels > 0;
}

}  // namespace

std::int64_t library_conv_workspace(const ConvShape& s) {
  if (!takes(s)) return 0;
  Library& l = library();
  const std::lock_guard lock(l.mutex);
  return plan_of(l, s).workspace;
}

bool library_conv(const ConvCall& call) {
  if (!takes(call.shape)) return false;
  Library& l = library();
  const std::lock_guard lock(l.mutex);
  const Plan& plan = plan_of(l, call.shape);
  if (!plan.offered) return false;
  using Pass = ConvShape::Pass;
  const Pass pass = call.shape.pass;
  const std::int64_t ids[] = {id_x, id_weight, id_y};
  const void* const data[] = {pass == Pass::data_gradient ? call.out : call.x,
                              pass == Pass::weight_gradient ? call.out : call.weight,
                              pass == Pass::forward ? call.out : call.y};
  for (const void* p : data)
    if (reinterpret_cast<std::uintptr_t>(p) % aligned) return false;
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, data)
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &call.workspace)
      .finalise();
  runtime::count_launch();
  check(cudnnBackendExecute(l.handle, plan.plan.raw(), pack.raw()), "a convolution");
  return true;
}

}  // namespace costate::cuda
