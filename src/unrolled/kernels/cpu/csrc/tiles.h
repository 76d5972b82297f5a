// Products of pairs by AMX: tiles of 16 rows of 16 pairs of k, times 16 pairs of k by 16 columns, into 16 x 16 sums of float.
//
// The left factor lies tile by tile, those of the same rows one after another. The right one lies in panels two tiles wide.
// What is written plainly and read as a tile, or the other way round, the compiler is told of: tiles are beyond its view.
#pragma once
#include "pairs.h"

namespace {

constexpr int64_t SIDE = WHOLE;  // of a tile, in rows, in pairs and in columns

inline void seen_by_tiles(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// Pairs that the tiles of (rows, k) numbers take.
inline int64_t tiles_size(int64_t rows, int64_t k) { return (rows + SIDE - 1) / SIDE * SIDE * pairs_of(k); }

// Tiles of (rows, k) numbers. Rows that the last ones lack are left as they are: nothing reads them.
inline void lower_rows(int64_t rows, int64_t k, const float* a, int64_t a_row, Pair* to) {
    for (int64_t r = 0; r < rows; ++r, a += a_row) {
        Pair* at = to + r / SIDE * SIDE * pairs_of(k) + r % SIDE * SIDE;
        for (int64_t i = 0; i < k; i += 2 * SIDE, at += SIDE * SIDE) _mm512_store_si512(at, pairs_at(a + i, k - i));
    }
}

// Rows become columns.
inline void turn(__m512i (&row)[SIDE]) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#pragma GCC unroll 4
    for (int step = 1; step < SIDE; step *= 2) {
        const __mmask16 odd = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(step));
        // of two rows that are `step` apart, the even groups of lanes and the odd ones; 16 and more name the second row's
        const __m512i shift = _mm512_set1_epi32(step), other = _mm512_set1_epi32(SIDE);
        const __m512i even_lanes = _mm512_mask_add_epi32(lane, odd, _mm512_sub_epi32(lane, shift), other);
        const __m512i odd_lanes = _mm512_add_epi32(even_lanes, shift);
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; ++i) {
            if (i & step) continue;
            const __m512i first = row[i], second = row[i + step];
            row[i] = _mm512_permutex2var_epi32(first, even_lanes, second);
            row[i + step] = _mm512_permutex2var_epi32(first, odd_lanes, second);
        }
    }
}

// Tiles of the transpose of (k, m) numbers.
inline void lower_columns(int64_t k, int64_t m, const float* a, int64_t a_row, Pair* to) {
    const int64_t deep = pairs_of(k);
    for (int64_t p = 0; p < deep; p += SIDE)
        for (int64_t i = 0; i < m; i += SIDE) {
            const auto at = [=](int64_t number) { return some(number < k ? a + number * a_row + i : nullptr, m - i); };
            __m512i pairs[SIDE];
            for (int64_t l = 0; l < SIDE; ++l) pairs[l] = paired(at(2 * (p + l)), at(2 * (p + l) + 1));
            turn(pairs);
            Pair* const tile = to + i * deep + p * SIDE;
            for (int64_t l = 0; l < SIDE; ++l) _mm512_store_si512(tile + l * SIDE, pairs[l]);
        }
}

// Tiles 0 to 3 hold sums, of `upper` rows and of `lower` ones below them; 4 and 5 the left factor of those, 6 and 7 the
// right one.
inline void shape_tiles(int64_t upper, int64_t lower) {
    struct alignas(64) {
        uint8_t palette, first, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {};
    static_assert(sizeof shape == 64, "as the processor reads it");
    const int64_t rows[] = {upper, upper, lower, lower, upper, lower, SIDE, SIDE};
    shape.palette = 1;
    for (int i = 0; i < 8; ++i) {
        shape.rows[i] = uint8_t(rows[i]);
        shape.bytes[i] = rows[i] ? 64 : 0;
    }
    seen_by_tiles(&shape);
    _tile_loadconfig(&shape);
}

// Sums of one row of tiles or two, and one column of them or two: c = add + a b, or a b. next: from one row of tiles of a to
// the next.
template <bool DOWN, bool ACROSS>
void sum_tiles(const Pair* a, int64_t next, const Pair* b, int64_t deep, const float* add, int64_t add_row, float* c,
               int64_t c_row) {
    const int64_t row = SIDE * int64_t(sizeof(Pair)), b_row = (ACROSS ? 2 : 1) * row;
    add_row *= int64_t(sizeof(float)), c_row *= int64_t(sizeof(float));
    const char* const add_below = reinterpret_cast<const char*>(add) + SIDE * add_row;
    char* const c_below = reinterpret_cast<char*>(c) + SIDE * c_row;
    if (add) {
        _tile_loadd(0, add, add_row);
        if (ACROSS) _tile_loadd(1, add + SIDE, add_row);
        if (DOWN) _tile_loadd(2, add_below, add_row);
        if (DOWN && ACROSS) _tile_loadd(3, add_below + row, add_row);
    } else {
        _tile_zero(0);
        if (ACROSS) _tile_zero(1);
        if (DOWN) _tile_zero(2);
        if (DOWN && ACROSS) _tile_zero(3);
    }
    for (int64_t i = 0; i < deep; i += SIDE, a += SIDE * SIDE, b += SIDE * b_row / int64_t(sizeof(Pair))) {
        _tile_loadd(6, b, b_row);
        _tile_loadd(4, a, row);
        _tile_dpbf16ps(0, 4, 6);
        if (ACROSS) {
            _tile_loadd(7, b + SIDE, b_row);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (DOWN) {
            _tile_loadd(5, a + next, row);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (DOWN && ACROSS) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_row);
    if (ACROSS) _tile_stored(1, c + SIDE, c_row);
    if (DOWN) _tile_stored(2, c_below, c_row);
    if (DOWN && ACROSS) _tile_stored(3, c_below + row, c_row);
}

// c (rows, n) = tiles of (rows, k) times the packed (k, n) matrix, + add (rows, n) if it is given (it may be c); deep: pairs
// of k.
inline void tiled_product(int64_t rows, const Pair* tiles, int64_t deep, const Pair* b, int64_t n, const float* add,
                          int64_t add_row, float* c, int64_t c_row) {
    const int64_t side = 2 * SIDE;
    alignas(64) float part[2 * SIDE * 2 * SIDE];
    for (int64_t low = 0, high; low < rows; low = high) {
        high = rows - low < side ? rows : low + (rows - low) / side * side;  // all blocks but the last are whole
        const int64_t count = high - low < side ? high - low : side;
        shape_tiles(count < SIDE ? count : SIDE, count > SIDE ? count - SIDE : 0);
        seen_by_tiles(tiles);
        for (int64_t j = 0; j < n; j += side) {
            const int64_t left = n - j < side ? n - j : side;
            const auto sums = count > SIDE ? left > SIDE ? sum_tiles<true, true> : sum_tiles<true, false>
                                           : left > SIDE ? sum_tiles<false, true> : sum_tiles<false, false>;
            const bool whole = left % SIDE == 0;  // else what is beyond the last column is not to be touched
            for (int64_t r = low; r < high; r += side) {
                const Pair* const a = tiles + r * deep;
                const float* const from = add ? add + r * add_row + j : nullptr;
                float* const to = c + r * c_row + j;
                if (whole) {
                    sums(a, SIDE * deep, b + j * deep, deep, from, add_row, to, c_row);
                    continue;
                }
                for (int64_t i = 0; from && i < count; ++i)
                    std::memcpy(part + i * side, from + i * add_row, size_t(left) * sizeof(float));
                seen_by_tiles(part);
                sums(a, SIDE * deep, b + j * deep, deep, from ? part : nullptr, side, part, side);
                seen_by_tiles(part);
                for (int64_t i = 0; i < count; ++i)
                    std::memcpy(to + i * c_row, part + i * side, size_t(left) * sizeof(float));
            }
        }
    }
    seen_by_tiles(c);
    _tile_release();
}

// c (rows, n) = a (rows, k) times the packed matrix, + add (rows, n) if it is given (it may be c). memory: for the rows.
inline void product_lowered(int64_t rows, const float* a, int64_t a_row, const void* b, int64_t k, int64_t n,
                            const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
    Pair* const tiles = room<Pair>(memory, tiles_size(rows, k));
    lower_rows(rows, k, a, a_row, tiles);
    tiled_product(rows, tiles, pairs_of(k), static_cast<const Pair*>(b), n, add, add_row, c, c_row);
}

}  // namespace
