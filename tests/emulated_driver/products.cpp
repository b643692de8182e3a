// cuBLASLt's products of matrices that lie by columns, and what candle calls of cuBLAS when it opens a GPU.
#include <cstdio>
#include <cstring>
#include <vector>

#include "emulated.h"
#include "gpu.h"

namespace {
enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };

struct Product {
    int compute, scale;
    int left_transposed = 0, right_transposed = 0;
};

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
};

struct Preference {
    size_t workspace = 0;
};

// What cublasLt.h has.
struct Algorithm {
    uint64_t words[8];
};
struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

float read(const void* memory, int type, size_t place) {
    if (type == F32) return static_cast<const float*>(memory)[place];
    return __bfloat162float(static_cast<const __nv_bfloat16*>(memory)[place]);
}

void write(void* memory, int type, size_t place, float value) {
    if (type == F32) {
        static_cast<float*>(memory)[place] = value;
        return;
    }
    static_cast<__nv_bfloat16*>(memory)[place] = __float2bfloat16_rn(value);
}

// A side as (rows, columns) numbers by rows.
std::vector<float> side(const void* memory, const Layout& layout, bool transposed) {
    uint64_t rows = transposed ? layout.columns : layout.rows, columns = transposed ? layout.rows : layout.columns;
    std::vector<float> all(rows * columns);
    for (uint64_t row = 0; row < rows; row++) {
        for (uint64_t column = 0; column < columns; column++) {
            uint64_t place = transposed ? row * layout.leading + column : column * layout.leading + row;
            all[row * columns + column] = read(memory, layout.type, place);
        }
    }
    return all;
}

bool fits(const Product& product, const Layout& left, const Layout& right, const Layout& into) {
    uint64_t inner = product.left_transposed ? left.rows : left.columns;
    return inner == (product.right_transposed ? right.columns : right.rows) &&
           into.rows == (product.left_transposed ? left.columns : left.rows) &&
           into.columns == (product.right_transposed ? right.rows : right.columns);
}

void multiply(const Product& product, float alpha, const void* a, const Layout& left, const void* b, const Layout& right,
              float beta, void* c, const Layout& into) {
    // Each column of both sides in one piece: the sums of a column are taken beside each other.
    auto lefts = side(a, left, !product.left_transposed), rights = side(b, right, !product.right_transposed);
    size_t rows = into.rows, inner = lefts.size() / rows;
    std::vector<float> sums(rows);
    for (uint64_t column = 0; column < into.columns; column++) {
        sums.assign(rows, 0);
        for (size_t i = 0; i < inner; i++) {
            const float *x = &lefts[i * rows], y = rights[column * inner + i];
            for (size_t row = 0; row < rows; row++) sums[row] += x[row] * y;
        }
        for (size_t row = 0; row < rows; row++) {
            uint64_t place = column * into.leading + row;
            write(c, into.type, place, alpha * sums[row] + (beta != 0 ? beta * read(c, into.type, place) : 0));
        }
    }
}
}  // namespace

extern "C" {
size_t cublasLtGetVersion() { return 130100; }
int cublasLtCreate(void** handle) {
    static int all;
    *handle = &all;
    return SUCCESS;
}
int cublasLtDestroy(void*) { return SUCCESS; }
int cublasLtMatmulDescCreate(Product** product, int compute, int scale) {
    *product = new Product{compute, scale};
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(Product* product) {
    delete product;
    return SUCCESS;
}
int cublasLtMatmulDescSetAttribute(Product* product, int attribute, const void* value, size_t size) {
    enum { LEFT = 3, RIGHT = 4 };
    if (size != 4 || (attribute != LEFT && attribute != RIGHT)) return INVALID_VALUE;
    memcpy(attribute == LEFT ? &product->left_transposed : &product->right_transposed, value, 4);
    return SUCCESS;
}
int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (leading < (int64_t)rows || (type != F32 && type != BF16)) return INVALID_VALUE;
    *layout = new Layout{type, rows, columns, leading};
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return SUCCESS;
}
int cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return SUCCESS;
}
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t size) {
    enum { WORKSPACE = 1, FIRST_ALIGNMENT = 5, LAST_ALIGNMENT = 8 };
    if (attribute == WORKSPACE && size == sizeof(size_t)) {
        memcpy(&preference->workspace, value, size);
        return SUCCESS;
    }
    return attribute >= FIRST_ALIGNMENT && attribute <= LAST_ALIGNMENT && size == 4 ? SUCCESS : INVALID_VALUE;
}
int cublasLtMatmulAlgoGetHeuristic(void*, Product* product, Layout* left, Layout* right, Layout* before, Layout* into,
                                   Preference*, int wanted, Heuristic* found, int* count) {
    if (!fits(*product, *left, *right, *into) || before != into || wanted < 1) return NOT_SUPPORTED;
    if (left->type != right->type || (left->type == F32 && into->type != F32)) return NOT_SUPPORTED;
    *found = {};
    *count = 1;
    return SUCCESS;
}
int cublasLtMatmul(void*, Product* product, const void* alpha, const void* a, Layout* left, const void* b, Layout* right,
                   const void* beta, const void* before, Layout*, void* c, Layout* into, const Algorithm*, void*, size_t,
                   gpu::Stream* stream) {
    if (!fits(*product, *left, *right, *into) || before != c) return INVALID_VALUE;
    std::lock_guard<std::recursive_mutex> locked(gpu::lock);
    float by = *static_cast<const float*>(alpha), more = *static_cast<const float*>(beta);
    gpu::ask(stream, [=] {
        multiply(*product, by, a, *left, b, *right, more, c, *into);
        return true;
    });
    return SUCCESS;
}

int cublasCreate_v2(void** handle) { return cublasLtCreate(handle); }
int cublasDestroy_v2(void*) { return SUCCESS; }
int cublasSetStream_v2(void*, gpu::Stream*) { return SUCCESS; }
}
