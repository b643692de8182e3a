// Attention by cuDNN as plain functions, for `mod.rs`: the library's frontend is C++. Nothing here asks for a GPU before a plan
// is run: with a description of one, plans are made where there is none.
#include <cudnn_frontend.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace fe = cudnn_frontend;

// Where the frontend looks for cuDNN's functions.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace {
// The tensors, in the order in which their addresses come.
enum Tensor { QUERY, KEY, VALUE, OUT, LOG_SUMS, OUT_SLOPE, QUERY_SLOPE, KEY_SLOPE, VALUE_SLOPE, TENSORS };

struct Shape {
    int64_t sequences, positions, heads, groups, width;
};

struct Plan {
    fe::graph::Graph graph;
    int tensors;
};

// Where a failure is told; as much of it as there is room for.
struct Words {
    char* to;
    size_t room;

    int say(const std::string& words) const {
        snprintf(to, room, "%s", words.c_str());
        return 1;
    }
    int said(fe::error_object error) const { return error.is_good() ? 0 : say(error.get_message()); }
};

// What a function of the frontend throws is told like what it returns.
template <class F> int told(Words words, F f) {
    try {
        return f();
    } catch (const std::exception& error) {
        return words.say(error.what());
    }
}

// A graph of attention whose heads lie side by side in the rows of a token.
class Builder {
  public:
    Builder(fe::graph::Graph& graph, const Shape& shape) : graph(graph), shape(shape) {}

    int64_t side_by_side() const { return (shape.heads + 2 * shape.groups) * shape.width; }
    int64_t queries() const { return shape.heads * shape.width; }
    float scale() const { return 1 / std::sqrt((float)shape.width); }

    auto input(Tensor number, int64_t heads, int64_t row) {
        return graph.tensor(described(fe::graph::Tensor_attributes(), number, heads, row));
    }
    void output(std::shared_ptr<fe::graph::Tensor_attributes> tensor, Tensor number, int64_t heads, int64_t row) {
        described(*tensor, number, heads, row).set_output(true);
    }
    // Logarithms of the sums of the softmaxes: (sequences, heads, positions) in one piece.
    fe::graph::Tensor_attributes& log_sums(fe::graph::Tensor_attributes& tensor) {
        return tensor.set_uid(LOG_SUMS + 1)
            .set_data_type(fe::DataType_t::FLOAT)
            .set_dim({shape.sequences, shape.heads, shape.positions, 1})
            .set_stride({shape.heads * shape.positions, shape.positions, 1, 1});
    }

  private:
    fe::graph::Graph& graph;
    const Shape& shape;

    fe::graph::Tensor_attributes& described(fe::graph::Tensor_attributes&& tensor, Tensor number, int64_t heads, int64_t row) {
        return described(tensor, number, heads, row);
    }
    fe::graph::Tensor_attributes& described(fe::graph::Tensor_attributes& tensor, Tensor number, int64_t heads, int64_t row) {
        return tensor.set_uid(number + 1)
            .set_dim({shape.sequences, heads, shape.positions, shape.width})
            .set_stride({shape.positions * row, shape.width, row, 1});
    }
};

void forward(fe::graph::Graph& graph, const Shape& shape) {
    Builder build(graph, shape);
    int64_t row = build.side_by_side();
    auto query = build.input(QUERY, shape.heads, row);
    auto key = build.input(KEY, shape.groups, row), value = build.input(VALUE, shape.groups, row);
    auto wish = fe::graph::SDPA_attributes()
                    .set_name("attention")
                    .set_generate_stats(true)
                    .set_attn_scale(build.scale())
                    .set_causal_mask(true);
    auto [out, log_sums] = graph.sdpa(query, key, value, wish);
    build.output(out, OUT, shape.heads, build.queries());
    build.log_sums(*log_sums).set_output(true);
}

// No sum hangs on the order in which blocks come.
void backward(fe::graph::Graph& graph, const Shape& shape) {
    Builder build(graph, shape);
    int64_t row = build.side_by_side(), queries = build.queries();
    auto query = build.input(QUERY, shape.heads, row);
    auto key = build.input(KEY, shape.groups, row), value = build.input(VALUE, shape.groups, row);
    auto out = build.input(OUT, shape.heads, queries), slope = build.input(OUT_SLOPE, shape.heads, queries);
    fe::graph::Tensor_attributes of_log_sums;
    auto log_sums = graph.tensor(build.log_sums(of_log_sums));
    auto wish = fe::graph::SDPA_backward_attributes()
                    .set_name("attention")
                    .set_attn_scale(build.scale())
                    .set_causal_mask(true)
                    .set_deterministic_algorithm(true);
    auto [of_query, of_key, of_value] = graph.sdpa_backward(query, key, value, out, slope, log_sums, wish);
    build.output(of_query, QUERY_SLOPE, shape.heads, row);
    build.output(of_key, KEY_SLOPE, shape.groups, row);
    build.output(of_value, VALUE_SLOPE, shape.groups, row);
}
}  // namespace

extern "C" {
// Takes the opened library; its version, as 92000 for 9.20.0.
size_t lrpath_cudnn_use(void* library) {
    fe::cudnn_dlhandle = library;
    try {
        return fe::detail::get_backend_version();
    } catch (const std::exception&) {
        return 0;
    }
}

// Opens the present GPU, for work on a stream.
int lrpath_cudnn_open(void** handle, void* stream, char* to, size_t room) {
    Words words{to, room};
    return told(words, [&] {
        auto made = reinterpret_cast<cudnnHandle_t*>(handle);
        if (auto status = fe::detail::create_handle(made)) return words.say(fe::detail::get_error_string(status));
        if (auto status = fe::detail::set_stream(*made, static_cast<cudaStream_t>(stream))) {
            return words.say(fe::detail::get_error_string(status));
        }
        return 0;
    });
}

void lrpath_cudnn_close(void* handle) {
    told({nullptr, 0}, [&] { return (int)fe::detail::destroy_handle(static_cast<cudnnHandle_t>(handle)); });
}

// Makes the plan of a pass, for an opened GPU, or without one for a description of it (cuDNN's, in JSON).
int lrpath_cudnn_plan(void* handle, const char* description, int generation, const Shape* shape, int is_backward, Plan** plan,
                      int64_t* workspace, char* to, size_t room) {
    Words words{to, room};
    return told(words, [&]() -> int {
        auto made = std::make_unique<Plan>();
        made->tensors = is_backward ? TENSORS : LOG_SUMS + 1;
        fe::graph::Graph& graph = made->graph;
        graph.set_io_data_type(fe::DataType_t::BFLOAT16)
            .set_intermediate_data_type(fe::DataType_t::FLOAT)
            .set_compute_data_type(fe::DataType_t::FLOAT)
            .set_sm_version(generation);
        if (description) {
            std::string text = description;
            auto device = std::make_shared<fe::DeviceProperties>();
            if (int code = words.said(device->deserialize({text.begin(), text.end()}))) return code;
            graph.set_device_properties(device);
        }
        is_backward ? backward(graph, *shape) : forward(graph, *shape);
        if (int code = words.said(graph.validate())) return code;
        auto library = static_cast<cudnnHandle_t>(handle);
        if (int code = words.said(library ? graph.build_operation_graph(library) : graph.build_operation_graph())) return code;
        if (int code = words.said(graph.create_execution_plans({fe::HeurMode_t::A}))) return code;
        if (int code = words.said(graph.check_support())) return code;
        if (int code = words.said(graph.build_plans())) return code;
        if (int code = words.said(graph.get_workspace_size(*workspace))) return code;
        *plan = made.release();
        return 0;
    });
}

// Runs a plan on the stream, with the addresses of its tensors in their order.
int lrpath_cudnn_run(void* handle, Plan* plan, const uint64_t* addresses, uint64_t workspace, char* to, size_t room) {
    Words words{to, room};
    return told(words, [&] {
        std::unordered_map<int64_t, void*> tensors;
        for (int i = 0; i < plan->tensors; i++) tensors[i + 1] = reinterpret_cast<void*>(addresses[i]);
        auto library = static_cast<cudnnHandle_t>(handle);
        return words.said(plan->graph.execute(library, tensors, reinterpret_cast<void*>(workspace)));
    });
}

void lrpath_cudnn_free(Plan* plan) { delete plan; }
}
