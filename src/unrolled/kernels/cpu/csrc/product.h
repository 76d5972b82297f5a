// Products of a few rows with a matrix that was packed once for many of them.
//
// A recurrent step multiplies (rows, k) by a matrix far larger than the rows. The matrix lies in panels of
// TILE_VECTORS vectors, each panel (k, TILE_VECTORS * lanes) in order, so that it is read once from front to back. Each
// output is a sum over k in order whatever the number of rows, so that a row's result never depends on its batch.
#pragma once
#include <vector>

#include "simd.h"

namespace {

#if VECTOR_BYTES == 64
constexpr int TILE_ROWS = 8, TILE_VECTORS = 3;  // 24 of 32 registers hold sums
#else
constexpr int TILE_ROWS = 4, TILE_VECTORS = 3;  // 12 of 16
#endif
constexpr int BLOCK = 128;  // steps of k for which a panel stays in the first-level cache

// How an element of the left matrix and a vector of the right one are added to a sum. bf16.h has it for pairs of numbers.
template <class T>
struct Factor {
    typedef T Sum;
    static constexpr int vectors = TILE_VECTORS;  // that a panel is wide
    typedef typename Simd<T>::Register Register;
    static Register load(const T* p) { return Simd<T>::load(p); }
    static Register add(Register sum, T left, Register right) { return sum + Simd<T>::all(left) * right; }
};

template <class T>
using SumOf = typename Factor<T>::Sum;

template <class T>
constexpr int panel_width() {
    return Factor<T>::vectors * Simd<SumOf<T>>::lanes;
}

// Elements that a packed (k, n) matrix takes.
template <class T>
size_t packed_size(int64_t k, int64_t n) {
    const int64_t lanes = Simd<SumOf<T>>::lanes;
    return size_t(k * ((n + lanes - 1) / lanes) * lanes);
}

// from[i * row + j * column] is element (i, j) of the (k, n) matrix.
template <class T>
void pack(const T* from, int64_t row, int64_t column, int64_t k, int64_t n, T* to) {
    typedef Simd<T> S;
    constexpr int64_t lanes = S::lanes;
    for (int64_t j = 0; j < n; j += panel_width<T>()) {
        const int64_t left = n - j < panel_width<T>() ? n - j : panel_width<T>();
        const int64_t whole = left / lanes * lanes;
        for (int64_t i = 0; i < k; ++i) {
            const T* source = from + i * row + j * column;
            for (int64_t l = 0; l < whole; l += lanes, to += lanes)
                S::store(to, column == 1 ? S::load(source + l) : S::load_apart(source + l * column, column));
            if (whole == left) continue;
            for (int64_t l = whole; l < whole + lanes; ++l) *to++ = l < left ? source[l * column] : T(0);
        }
    }
}

// c (ROWS, left) = a times a panel of k rows, + add if it is given. Element (r, i) of a is a[r * a_row + i], or, TURNED,
// a[i * a_row + r]. ahead: what is going to be read next, with its stride in bytes.
template <class T, int ROWS, int VECTORS, bool TURNED>
void tile(const T* a, int64_t a_row, const T* b, const SumOf<T>* add, int64_t add_row, SumOf<T>* c, int64_t c_row,
          int64_t k, int left, const char* ahead, int64_t stride) {
    typedef Factor<T> F;
    typedef Simd<SumOf<T>> S;
    typename S::Register sum[ROWS][VECTORS];
    constexpr int lanes = S::lanes;
    const int tail = left - (VECTORS - 1) * lanes;
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) {
            const SumOf<T>* from = add + r * add_row + v * lanes;
            sum[r][v] = !add                               ? typename S::Register{}
                        : v == VECTORS - 1 && tail < lanes ? S::load(from, tail)
                                                           : S::load(from);
        }
    }
    for (int64_t i = 0; i < k; ++i) {
        typename F::Register right[VECTORS];
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) right[v] = F::load(b + v * lanes);
        b += VECTORS * lanes;
        __builtin_prefetch(ahead, 0, 2);  // what the next block will read, into the second-level cache
        ahead += stride;
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const T left_side = TURNED ? a[i * a_row + r] : a[r * a_row + i];
#pragma GCC unroll 3
            for (int v = 0; v < VECTORS; ++v) sum[r][v] = F::add(sum[r][v], left_side, right[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) {
            SumOf<T>* to = c + r * c_row + v * lanes;
            if (v == VECTORS - 1 && tail < lanes) S::store(to, sum[r][v], tail);
            else S::store(to, sum[r][v]);
        }
    }
}

template <class T, int VECTORS, bool TURNED>
void tile_rows(int rows, const T* a, int64_t a_row, const T* b, const SumOf<T>* add, int64_t add_row, SumOf<T>* c,
               int64_t c_row, int64_t k, int left, const char* ahead, int64_t stride) {
#define CASE(R) \
    case R: tile<T, R, VECTORS, TURNED>(a, a_row, b, add, add_row, c, c_row, k, left, ahead, stride); break;
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4)
#if VECTOR_BYTES == 64
        CASE(5) CASE(6) CASE(7) CASE(8)
#endif
    }
#undef CASE
}

// A tile of as many rows and vectors as are asked for.
template <class T, bool TURNED>
void tile_of(int rows, int vectors, const T* a, int64_t a_row, const T* b, const SumOf<T>* add, int64_t add_row,
             SumOf<T>* c, int64_t c_row, int64_t k, int left, const char* ahead, int64_t stride) {
    switch (vectors) {
        case 3: tile_rows<T, 3, TURNED>(rows, a, a_row, b, add, add_row, c, c_row, k, left, ahead, stride); break;
        case 2: tile_rows<T, 2, TURNED>(rows, a, a_row, b, add, add_row, c, c_row, k, left, ahead, stride); break;
        default: tile_rows<T, 1, TURNED>(rows, a, a_row, b, add, add_row, c, c_row, k, left, ahead, stride);
    }
}

// c (rows, n) = a (rows, k) times the packed (k, n) matrix, + add (rows, n) if it is given (it may be c).
template <class T>
void product(int64_t rows, const T* a, int64_t a_row, const T* b, int64_t k, int64_t n, const SumOf<T>* add,
             int64_t add_row, SumOf<T>* c, int64_t c_row) {
    const int64_t lanes = Simd<SumOf<T>>::lanes, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t j = 0; j < n; j += panel_width<T>()) {
        const int64_t left = n - j < panel_width<T>() ? n - j : panel_width<T>();
        const int64_t vectors = (left + lanes - 1) / lanes, width = vectors * lanes;
        for (int64_t low = 0; low < k; low += BLOCK) {
            const int64_t depth = k - low < BLOCK ? k - low : BLOCK;
            for (int64_t part = 0; part < tiles; ++part) {
                const int64_t first = rows * part / tiles, count = rows * (part + 1) / tiles - first;
                SumOf<T>* to = c + first * c_row + j;
                const SumOf<T>* base = low ? to : add ? add + first * add_row + j : nullptr;
                const int64_t base_row = low ? c_row : add_row;
                const T* from = a + first * a_row + low;
                const int64_t stride = width * int64_t(sizeof(T)) / tiles;
                const char* ahead = reinterpret_cast<const char*>(b + (low + depth) * width) + part * stride * depth;
                tile_of<T, false>(int(count), int(vectors), from, a_row, b + low * width, base, base_row, to, c_row, depth,
                                  int(left), ahead, stride);
            }
        }
        b += k * width;
    }
}

// Memory for so many elements, at the beginning of a cache line.
template <class E, class M>
E* room(std::vector<M>& memory, int64_t count) {
    const size_t line = 64, bytes = size_t(count) * sizeof(E) + line;
    if (memory.size() * sizeof(M) < bytes) memory.resize((bytes + sizeof(M) - 1) / sizeof(M));
    return reinterpret_cast<E*>((reinterpret_cast<uintptr_t>(memory.data()) + line - 1) / line * line);
}

}  // namespace
