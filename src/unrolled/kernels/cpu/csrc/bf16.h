// Products whose factors are rounded to bf16 (to the nearest, ties to even) and whose sums are of float.
//
// A processor with AVX512-BF16 multiplies two numbers of k at a time: rows and packed matrix are of pairs, k / 2 of them,
// padded with a zero where k is odd, and lie as product.h says. Its products take subnormal numbers as zero. On other
// processors the rounded numbers are kept as float, whose products are as fast as any there.
#pragma once
#include <vector>

#include "product.h"

namespace {

#ifdef __AVX512BF16__

struct __attribute__((may_alias)) Pair {
    uint16_t first, second;
};

template <>
struct Factor<Pair> {
    typedef float Sum;
    typedef __m512i Register;
    static Register load(const Pair* p) { return _mm512_loadu_si512(p); }
    static Floats add(Floats sum, Pair left, Register right) {
        int32_t both;
        std::memcpy(&both, &left, sizeof both);
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(both), (__m512bh)right);
    }
};

// The pairs of two vectors, lane by lane.
inline __m512i paired(Floats first, Floats second) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                           20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

// Pairs of a row of k numbers.
inline void lower_row(const float* from, int64_t k, Pair* to) {
    typedef Simd<float> S;
    const int64_t lanes = S::lanes;
    for (int64_t i = 0; i < k; i += 2 * lanes, to += lanes) {
        const int64_t left = k - i;
        const Floats low = left < lanes ? S::load(from + i, int(left)) : S::load(from + i);
        const Floats high = left < 2 * lanes ? left <= lanes ? Floats{} : S::load(from + i + lanes, int(left - lanes))
                                             : S::load(from + i + lanes);
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
        if (left >= 2 * lanes) _mm512_storeu_si512(to, both);
        else _mm512_mask_storeu_epi32(to, __mmask16((1u << ((left + 1) / 2)) - 1), both);
    }
}

// Bytes of a packed (k, n) matrix.
inline int64_t lowered_size(int64_t k, int64_t n) { return int64_t(packed_size<Pair>((k + 1) / 2, n) * sizeof(Pair)); }

// As pack.
inline void pack_lowered(const float* from, int64_t row, int64_t column, int64_t k, int64_t n, void* packed) {
    typedef Simd<float> S;
    const int64_t lanes = S::lanes;
    Pair* to = static_cast<Pair*>(packed);
    const auto vector_at = [=](const float* source, int64_t left) {
        if (left >= lanes) return column == 1 ? S::load(source) : S::load_apart(source, column);
        float lane[S::lanes] = {};
        for (int64_t l = 0; l < left; ++l) lane[l] = source[l * column];
        return S::load(lane);
    };
    for (int64_t j = 0; j < n; j += panel_width<Pair>()) {
        const int64_t end = n - j < panel_width<Pair>() ? n : j + panel_width<Pair>();
        for (int64_t i = 0; i < k; i += 2)
            for (int64_t l = j; l < end; l += lanes, to += lanes) {
                const float* source = from + i * row + l * column;
                const Floats second = i + 1 < k ? vector_at(source + row, end - l) : Floats{};
                _mm512_storeu_si512(to, paired(vector_at(source, end - l), second));
            }
    }
}

// c (rows, n) = a (rows, k) times the packed matrix, + add (rows, n) if it is given (it may be c). memory: for the rows.
inline void product_lowered(int64_t rows, const float* a, int64_t a_row, const void* b, int64_t k, int64_t n,
                            const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
    const int64_t deep = (k + 1) / 2;
    memory.resize(size_t(rows * deep));
    Pair* const pairs = reinterpret_cast<Pair*>(memory.data());
    for (int64_t r = 0; r < rows; ++r) lower_row(a + r * a_row, k, pairs + r * deep);
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
