// Products of rows with a matrix kept in fewer bits than float, which is what bounds the reading of one token.
//
// The (k, n) matrix lies in panels of one vector's columns, (k / count, lanes, count): a word of 32 bits holds `count`
// numbers of k side by side, padded with zeros. Several panels are read at a time, for the sums not to wait for each
// other, by all rows one tile after another while they are in the cache. As in product.h a row's result never depends
// on its batch.
#pragma once
#include <type_traits>
#include <vector>

#include "simd.h"

namespace {

typedef Ints IntsMemory __attribute__((aligned(1), may_alias));

constexpr int FEW = 2;  // rows whose tiles are wider, for enough sums side by side
#if VECTOR_BYTES == 64
constexpr int FEW_VECTORS = 6;
constexpr int BF16_ROWS = 6, BF16_VECTORS = 4;  // 24 of 32 registers hold sums
#elif VECTOR_BYTES == 32
constexpr int FEW_VECTORS = 4;
constexpr int BF16_ROWS = 6, BF16_VECTORS = 2;  // 12 of 16
#else
constexpr int FEW_VECTORS = 4;
constexpr int BF16_ROWS = 4, BF16_VECTORS = 4;  // all, but it is instructions that are scarce
#endif

// Calls f with the number of rows and of vectors as constants, at most those of the template.
template <int ROWS, int VECTORS, class F>
inline void with_tile(int64_t rows, int64_t vectors, F f) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return with_tile<ROWS - 1, VECTORS>(rows, vectors, f);
    if constexpr (VECTORS > 1)
        if (vectors < VECTORS) return with_tile<ROWS, VECTORS - 1>(rows, vectors, f);
    f(std::integral_constant<int, ROWS>{}, std::integral_constant<int, VECTORS>{});
}

template <int ROWS, int VECTORS, class F>
inline void each_tile(int64_t rows, int64_t n, F f) {
    constexpr int64_t lanes = Simd<float>::lanes;
    const int64_t tiles = (rows + ROWS - 1) / ROWS;
    for (int64_t j = 0; j < n; j += VECTORS * lanes)
        for (int64_t part = 0; part < tiles; ++part) {
            const int64_t first = rows * part / tiles, count = rows * (part + 1) / tiles - first;
            with_tile<ROWS, VECTORS>(count, (n - j + lanes - 1) / lanes, [&](auto r, auto v) { f(r, v, first, j); });
        }
}

// Calls f for every tile of (rows, n) sums: numbers of its rows and vectors as constants, first row, first column. ROWS,
// VECTORS: of a tile of more than a few rows.
template <int ROWS, int VECTORS, class F>
inline void in_tiles(int64_t rows, int64_t n, F f) {
    if (rows <= FEW) each_tile<FEW, FEW_VECTORS>(rows, n, f);
    else each_tile<ROWS, VECTORS>(rows, n, f);
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
// is that of float. memory: for the rows. Each tile is a function of its own: among others the compiler keeps sums in
// memory.
inline void product_bf16(int64_t rows, const float* a, int64_t a_row, const uint16_t* b, int64_t k, int64_t n,
                         const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
    typedef Simd<float> S;
    const int64_t deep = (k + 1) / 2, panel = deep * 2 * S::lanes;
    memory.resize(size_t(rows * deep * 2));
    for (int64_t r = 0; r < rows; ++r) {
        float* to = &memory[size_t(r * deep * 2)];
        to[deep * 2 - 1] = 0;
        std::memcpy(to, a + r * a_row, size_t(k) * sizeof(float));
    }
    const float* const whole = memory.data();
    in_tiles<BF16_ROWS, BF16_VECTORS>(rows, n, [=](auto some_rows, auto some_vectors, int64_t first, int64_t j)
                                                   __attribute__((noinline)) {
        constexpr int ROWS = some_rows(), VECTORS = some_vectors();
        S::Register sum[ROWS][VECTORS] = {};
        const float* left = whole + first * deep * 2;
        const uint16_t* right = b + j * deep * 2;
        for (int64_t i = 0; i < deep; ++i, left += 2, right += 2 * S::lanes)
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; ++odd) {
                S::Register number[VECTORS];
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) {
                    const Ints word = *reinterpret_cast<const IntsMemory*>(right + v * panel);
                    number[v] = (S::Register)(odd ? word & int32_t(0xffff0000) : word << 16);
                }
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r) {
                    const S::Register one = S::all(left[r * deep * 2 + odd]);
#pragma GCC unroll 8
                    for (int v = 0; v < VECTORS; ++v) sum[r][v] += one * number[v];
                }
            }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                const int64_t row = first + r, at = j + v * S::lanes;
                finish(sum[r][v], add ? add + row * add_row + at : nullptr, c + row * c_row + at, n - at);
            }
    });
}

}  // namespace
