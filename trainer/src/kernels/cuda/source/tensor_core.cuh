// Matrices in the registers of a warp, and the instructions that multiply them: bf16, sums in f32.
//
// A fragment's elements lie in the lanes as the instruction wants them (PTX ISA, "Matrix fragments for mma.m16n8k16"): with
// g = lane / 4 and t = lane % 4, lane (g, t) has of a 16 x 8 result the elements (g, 2t), (g, 2t + 1), (g + 8, 2t) and
// (g + 8, 2t + 1).
#pragma once
#include "common.cuh"

// Sixteen rows of sixteen columns, the left side of a product.
struct Left {
    uint32_t at[4];
};

// A sixteen by eight result.
struct Result {
    float at[4] = {0, 0, 0, 0};
};

// Two numbers, rounded, in a word.
__device__ __forceinline__ uint32_t pair(float low, float high);

// Two results side by side, rounded, as the left side of the next product.
__device__ __forceinline__ Left as_left(const Result& first, const Result& second) {
    return {{pair(first.at[0], first.at[1]), pair(first.at[2], first.at[3]), pair(second.at[0], second.at[1]),
             pair(second.at[2], second.at[3])}};
}

#ifdef EMULATED
#include "emulated_tensor_core.h"
#else
__device__ __forceinline__ uint32_t pair(float low, float high) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// Four matrices of 8 x 8 from shared memory; lane 8 i + j says where row j of matrix i begins. Lane (g, t) gets of each the
// elements (g, 2t) and (g, 2t + 1), ...
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const bf16* row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address));
}

// ... or (2t, g) and (2t + 1, g).
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const bf16* row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address));
}

// sum += left right; the right side has sixteen rows of eight columns, its upper and its lower half in a word each.
__device__ __forceinline__ void multiply_add(Result& sum, const Left& left, uint32_t upper, uint32_t lower) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum.at[0]), "+f"(sum.at[1]), "+f"(sum.at[2]), "+f"(sum.at[3])
                 : "r"(left.at[0]), "r"(left.at[1]), "r"(left.at[2]), "r"(left.at[3]), "r"(upper), "r"(lower));
}
#endif

// Rows in shared memory are eight elements longer than they must be, so that eight rows are in different banks.
template <int WIDTH> struct Rows {
    static constexpr int STRIDE = WIDTH + 8;
    bf16* memory;

    __device__ const bf16* at(int row, int column) const { return memory + row * STRIDE + column; }

    // `COUNT` rows from the one at `from`, `stride` apart, by all `threads`; zeros where there are only `exist`.
    template <int COUNT> __device__ void fetch(const bf16* from, size_t stride, int exist, int threads) const {
        constexpr int PIECES = WIDTH / 8;
        for (int i = threadIdx.x; i < COUNT * PIECES; i += threads) {
            int row = i / PIECES, column = i % PIECES * 8;
            Vector<bf16, 8> piece = {};
            if (row < exist) piece = *reinterpret_cast<const Vector<bf16, 8>*>(from + row * stride + column);
            *reinterpret_cast<Vector<bf16, 8>*>(memory + row * STRIDE + column) = piece;
        }
    }

    // Sixteen rows and columns as the left side of a product.
    __device__ Left left(int row, int column) const {
        int lane = threadIdx.x % 32;
        Left left;
        load_matrices(left.at, at(row + lane % 16, column + lane / 16 * 8));
        return left;
    }
};

// sums (16, N) += left (16, WIDTH) times the transpose of N of the rows: rows of the result's columns.
template <int WIDTH, int N>
__device__ __forceinline__ void times_rows(Result (&sums)[N / 8], const Rows<WIDTH>& left, int first, const Rows<WIDTH>& rows) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < WIDTH; k += 16) {
        Left side = left.left(first, k);
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            // Rows n to n + 7 and n + 8 to n + 15, of each the upper and the lower eight of the columns.
            uint32_t right[4];
            load_matrices(right, rows.at(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
            multiply_add(sums[n / 8], side, right[0], right[1]);
            multiply_add(sums[n / 8 + 1], side, right[2], right[3]);
        }
    }
}

// sums (16, WIDTH) += left (16, N) times N of the rows; `left` as results that are rounded.
template <int WIDTH, int N>
__device__ __forceinline__ void times(Result (&sums)[WIDTH / 8], const Result (&left)[N / 8], const Rows<WIDTH>& rows) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N; k += 16) {
        Left side = as_left(left[k / 8], left[k / 8 + 1]);
#pragma unroll
        for (int n = 0; n < WIDTH; n += 16) {
            // The upper and the lower eight of the rows, of each the columns n to n + 7 and n + 8 to n + 15.
            uint32_t right[4];
            load_matrices_transposed(right, rows.at(k + lane % 16, n + lane / 16 * 8));
            multiply_add(sums[n / 8], side, right[0], right[1]);
            multiply_add(sums[n / 8 + 1], side, right[2], right[3]);
        }
    }
}
