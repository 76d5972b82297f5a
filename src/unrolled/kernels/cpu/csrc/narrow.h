// Products of a few rows with a matrix kept in fewer bits than float, which is what bounds the reading of one token.
//
// The (k, n) matrix lies in panels of one vector's columns, (k / count, lanes, count): a word of 32 bits holds `count`
// numbers of k side by side, padded with zeros. Several panels are read at a time, for the sums not to wait for each other.
// As in product.h a row's result never depends on its batch.
#pragma once
#include <type_traits>
#include <vector>

#include "simd.h"

namespace {

constexpr int NARROW_ROWS = 4, NARROW_VECTORS = 4;

typedef Ints IntsMemory __attribute__((aligned(1), may_alias));

// Calls f with the number of rows and of vectors (at most NARROW_VECTORS, for `left` columns) as constants.
template <class F>
inline void with_tile(int rows, int64_t left, F f) {
    const int vectors = left >= NARROW_VECTORS * Simd<float>::lanes ? NARROW_VECTORS
                                                                    : int((left + Simd<float>::lanes - 1) / Simd<float>::lanes);
#define CASE(R, V) \
    case R * 8 + V: f(std::integral_constant<int, R>{}, std::integral_constant<int, V>{}); break;
#define CASES(R) CASE(R, 1) CASE(R, 2) CASE(R, 3) CASE(R, 4)
    switch (rows * 8 + vectors) { CASES(1) CASES(2) CASES(3) CASES(4) }
#undef CASES
#undef CASE
}

// to = y (+ add), as many columns as are left.
inline void finish(Floats y, const float* add, float* to, int64_t left) {
    typedef Simd<float> S;
    if (left >= S::lanes) {
        S::store(to, add ? y + S::load(add) : y);
    } else {
        S::store(to, add ? y + S::load(add, int(left)) : y, int(left));
    }
}

// c (rows, n) = a (rows, k) times the matrix of bf16 numbers, + add (rows, n) if it is given (it may be c). The arithmetic
// is that of float. memory: for the rows.
inline void product_bf16(int64_t rows, const float* a, int64_t a_row, const uint16_t* b, int64_t k, int64_t n,
                         const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
    typedef Simd<float> S;
    const int64_t deep = (k + 1) / 2;
    memory.resize(size_t(NARROW_ROWS * deep * 2));
    for (int64_t first = 0; first < rows; first += NARROW_ROWS) {
        const int count = int(rows - first < NARROW_ROWS ? rows - first : NARROW_ROWS);
        for (int r = 0; r < count; ++r) {
            float* to = &memory[size_t(r * deep * 2)];
            to[deep * 2 - 1] = 0;
            std::memcpy(to, a + (first + r) * a_row, size_t(k) * sizeof(float));
        }
        for (int64_t j = 0; j < n; j += NARROW_VECTORS * S::lanes)
            with_tile(count, n - j, [&](auto some_rows, auto some_vectors) {
                constexpr int ROWS = some_rows(), VECTORS = some_vectors();
                S::Register sum[ROWS][VECTORS] = {};
                const float* left = memory.data();
                for (int64_t i = 0; i < deep; ++i) {
#pragma GCC unroll 4
                    for (int v = 0; v < VECTORS; ++v) {
                        const Ints word = *reinterpret_cast<const IntsMemory*>(b + (j + v * S::lanes) * deep * 2 + i * 2 * S::lanes);
                        const S::Register even = (S::Register)(word << 16), odd = (S::Register)(word & int32_t(0xffff0000));
#pragma GCC unroll 4
                        for (int r = 0; r < ROWS; ++r) {
                            sum[r][v] += left[(r * deep + i) * 2] * even;
                            sum[r][v] += left[(r * deep + i) * 2 + 1] * odd;
                        }
                    }
                }
                for (int r = 0; r < ROWS; ++r)
                    for (int v = 0; v < VECTORS; ++v) {
                        const int64_t at = j + v * S::lanes;
                        finish(sum[r][v], add ? add + (first + r) * add_row + at : nullptr, c + (first + r) * c_row + at, n - at);
                    }
            });
    }
}

}  // namespace
