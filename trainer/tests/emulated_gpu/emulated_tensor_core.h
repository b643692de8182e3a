// The tensor cores' instructions, lane by lane. Included where the types of fragments are known.
#pragma once

inline uint32_t pair(float low, float high) {
    return __float2bfloat16_rn(low).bits | (uint32_t)__float2bfloat16_rn(high).bits << 16;
}

inline int fragment_row() { return threadIdx.x % 32 / 4; }
inline int fragment_column() { return threadIdx.x % 4 * 2; }

inline void load_each(uint32_t (&to)[4], const bf16* row, bool transposed) {
    const uint64_t* rows = emulated::exchange(reinterpret_cast<uint64_t>(row));
    int g = fragment_row(), t = fragment_column();
    for (int matrix = 0; matrix < 4; matrix++) {
        auto element = [&](int row, int column) { return reinterpret_cast<const bf16*>(rows[8 * matrix + row])[column]; };
        bf16 low = transposed ? element(t, g) : element(g, t), high = transposed ? element(t + 1, g) : element(g, t + 1);
        to[matrix] = low.bits | (uint32_t)high.bits << 16;
    }
}
inline void load_matrices(uint32_t (&to)[4], const bf16* row) { load_each(to, row, false); }
inline void load_matrices_transposed(uint32_t (&to)[4], const bf16* row) { load_each(to, row, true); }

inline float half_of(uint64_t word, int half) { return __bfloat162float({(uint16_t)(word >> 16 * half)}); }

inline void multiply_add(Result& sum, const Left& left, uint32_t upper, uint32_t lower) {
    uint64_t above[32], below[32], right[32];
    auto all = [](uint64_t (&to)[32], uint32_t low, uint32_t high) {
        memcpy(to, emulated::exchange(low | (uint64_t)high << 32), sizeof(to));
    };
    // Of each lane, the words of rows g and g + 8, first of the left eight columns and then of the right ones.
    all(above, left.at[0], left.at[2]);
    all(below, left.at[1], left.at[3]);
    all(right, upper, lower);
    int g = fragment_row(), t = fragment_column();
    for (int k = 0; k < 16; k++) {
        // Element k of a row lies in lane (row, k % 8 / 2), of a column in lane (column, k % 8 / 2).
        int from = k % 8 / 2, half = k / 8 * 2 + k % 2;
        for (int j = 0; j < 2; j++) {
            float side = half_of(right[(t + j) * 4 + from], half);
            sum.at[j] += half_of(above[g * 4 + from], half) * side;
            sum.at[2 + j] += half_of(below[g * 4 + from], half) * side;
        }
    }
}
