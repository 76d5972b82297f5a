// Products whose factors are rounded to bf16 (to the nearest, ties to even) and whose sums are of float.
//
// By tiles (tiles.h) or by vectors of pairs (pairs.h) where the processor has instructions for them. On others the rounded
// numbers are kept as float, whose products are as fast as any there.
#pragma once
#include "product.h"

#ifdef __AMX_BF16__

#include "tiles.h"

#else

#include "pairs.h"

namespace {

#ifdef __AVX512BF16__

// c (rows, n) = a (rows, k) times the packed matrix, + add (rows, n) if it is given (it may be c). memory: for the rows.
inline void product_lowered(int64_t rows, const float* a, int64_t a_row, const void* b, int64_t k, int64_t n,
                            const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
    const int64_t deep = pairs_of(k), lanes = Simd<float>::lanes;
    memory.resize(size_t(rows * deep));
    Pair* const pairs = reinterpret_cast<Pair*>(memory.data());
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < deep; i += lanes) {
            const __m512i both = pairs_at(a + r * a_row + 2 * i, k - 2 * i);
            Pair* const to = pairs + r * deep + i;
            if (deep - i >= lanes) _mm512_storeu_si512(to, both);
            else _mm512_mask_storeu_epi32(to, __mmask16((1u << (deep - i)) - 1), both);
        }
    product(rows, pairs, deep, static_cast<const Pair*>(b), deep, n, add, add_row, c, c_row);
}

#else

// What is not a number stays so.
inline void round_row(const float* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, from + i, 4);
        const uint32_t even = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
        bits = from[i] == from[i] ? even : bits | 0x400000u;
        std::memcpy(to + i, &bits, 4);
    }
}

inline int64_t lowered_size(int64_t k, int64_t n) { return int64_t(packed_size<float>(k, n) * sizeof(float)); }

inline void pack_lowered(const float* from, int64_t row, int64_t column, int64_t k, int64_t n, void* packed) {
    float* const to = static_cast<float*>(packed);
    pack(from, row, column, k, n, to);
    round_row(to, to, int64_t(packed_size<float>(k, n)));
}

inline void product_lowered(int64_t rows, const float* a, int64_t a_row, const void* b, int64_t k, int64_t n,
                            const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
    memory.resize(size_t(rows * k));
    for (int64_t r = 0; r < rows; ++r) round_row(a + r * a_row, &memory[size_t(r * k)], k);
    product(rows, memory.data(), k, static_cast<const float*>(b), k, n, add, add_row, c, c_row);
}

#endif

}  // namespace

#endif
