// Numbers rounded to bf16 two of k at a time, as a processor with AVX512-BF16 or AMX multiplies them.
//
// A matrix lies in panels as product.h says, k / 2 pairs deep, padded with zeros to a whole pair, and where tiles multiply
// it to a whole tile. Both kinds of product take subnormal numbers as zero.
#pragma once
#include "product.h"

#ifdef __AVX512BF16__

namespace {

struct __attribute__((may_alias)) Pair {
    uint16_t first, second;
};

#ifdef __AMX_BF16__
constexpr int64_t WHOLE = 16;  // pairs of k that a tile is deep
#else
constexpr int64_t WHOLE = 1;
#endif

template <>
struct Factor<Pair> {
    typedef float Sum;
    typedef __m512i Register;
#ifdef __AMX_BF16__
    static constexpr int vectors = 2;
#else
    static constexpr int vectors = TILE_VECTORS;
#endif
    static Register load(const Pair* p) { return _mm512_loadu_si512(p); }
    static Floats add(Floats sum, Pair left, Register right) {
        int32_t both;
        std::memcpy(&both, &left, sizeof both);
        const __m512i all = _mm512_set1_epi32(both);
#ifdef __clang__  // whose version 16 never comes to an end with the intrinsic
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(all), "v"(right));
        return sum;
#else
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)all, (__m512bh)right);
#endif
    }
};

// Pairs that k numbers take.
inline int64_t pairs_of(int64_t k) { return ((k + 1) / 2 + WHOLE - 1) / WHOLE * WHOLE; }

// The pairs of two vectors, lane by lane.
inline __m512i paired(Floats first, Floats second) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                           20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

// A vector of the first `left` numbers, or of as many as it holds; the others are zero, and so are all without an address.
inline Floats some(const float* from, int64_t left) {
    typedef Simd<float> S;
    if (!from || left <= 0) return Floats{};
    return left < S::lanes ? S::load(from, int(left)) : S::load(from);
}

// Pairs of numbers side by side.
inline __m512i pairs_at(const float* from, int64_t left) {
    const int64_t lanes = Simd<float>::lanes;
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)some(from + lanes, left - lanes), (__m512)some(from, left));
}

// Bytes of a packed (k, n) matrix.
inline int64_t lowered_size(int64_t k, int64_t n) { return int64_t(packed_size<Pair>(pairs_of(k), n) * sizeof(Pair)); }

// As pack.
inline void pack_lowered(const float* from, int64_t row, int64_t column, int64_t k, int64_t n, void* packed) {
    typedef Simd<float> S;
    const int64_t lanes = S::lanes;
    Pair* to = static_cast<Pair*>(packed);
    const auto vector_at = [=](int64_t i, int64_t l, int64_t left) {
        if (i >= k) return Floats{};
        const float* source = from + i * row + l * column;
        if (left >= lanes) return column == 1 ? S::load(source) : S::load_apart(source, column);
        float lane[S::lanes] = {};
        for (int64_t j = 0; j < left; ++j) lane[j] = source[j * column];
        return S::load(lane);
    };
    for (int64_t j = 0; j < n; j += panel_width<Pair>()) {
        const int64_t end = n - j < panel_width<Pair>() ? n : j + panel_width<Pair>();
        for (int64_t i = 0; i < 2 * pairs_of(k); i += 2)
            for (int64_t l = j; l < end; l += lanes, to += lanes)
                _mm512_storeu_si512(to, paired(vector_at(i, l, end - l), vector_at(i + 1, l, end - l)));
    }
}

}  // namespace

#endif
