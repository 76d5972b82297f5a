// The gradient of a matrix over all rows of a window: c (m, n) = a^T b, for a (k, m) and b (k, n), + c if it is to be added.
//
// k is a window's steps times its rows, far larger than m and n, for which common libraries are not made: 75 of 130
// GFLOP/s with 3,200 rows and widths of 128 and 512, where the products of the forward pass reach 122.
#include <thread>
#include <vector>

#include "product.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

constexpr int64_t DEPTH = 128; // steps of k for which a panel of b stays in the first-level cache
constexpr int64_t SOON = 8;    // rows of a that are asked for before they are needed: they lie far apart

// c (ROWS, left) (+)= the sum over i < k of a[i * a_row + r] times row i of the panel b. ahead: what the next block will
// read, with its stride in bytes.
template <class T, int ROWS, int VECTORS>
void gradient_tile(const T* a, int64_t a_row, const T* b, int64_t k, T* c, int64_t c_row, int left, bool add,
                   const char* ahead, int64_t stride) {
    typedef Simd<T> S;
    constexpr int lanes = S::lanes;
    const int tail = left - (VECTORS - 1) * lanes;
    typename S::Register sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) {
            const T* from = c + r * c_row + v * lanes;
            sum[r][v] = !add                               ? typename S::Register{}
                        : v == VECTORS - 1 && tail < lanes ? S::load(from, tail)
                                                           : S::load(from);
        }
    }
    for (int64_t i = 0; i < k; ++i) {
        typename S::Register right[VECTORS];
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) right[v] = S::load(b + v * lanes);
        b += VECTORS * lanes;
        __builtin_prefetch(a + SOON * a_row);
        __builtin_prefetch(ahead, 0, 2);
        ahead += stride;
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const typename S::Register left_side = S::all(a[r]);
#pragma GCC unroll 3
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += left_side * right[v];
        }
        a += a_row;
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) {
            T* to = c + r * c_row + v * lanes;
            if (v == VECTORS - 1 && tail < lanes) S::store(to, sum[r][v], tail);
            else S::store(to, sum[r][v]);
        }
    }
}

template <class T, int VECTORS>
void gradient_rows(int rows, const T* a, int64_t a_row, const T* b, int64_t k, T* c, int64_t c_row, int left, bool add,
                   const char* ahead, int64_t stride) {
#define CASE(R) \
    case R: gradient_tile<T, R, VECTORS>(a, a_row, b, k, c, c_row, left, add, ahead, stride); break;
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4)
#if VECTOR_BYTES == 64
        CASE(5) CASE(6) CASE(7) CASE(8)
#endif
    }
#undef CASE
}

// Columns first to last of a, and so rows of c.
template <class T>
void gradient_columns(int64_t k, int64_t n, const T* a, int64_t a_row, const T* b, int64_t b_row, T* c, int64_t c_row,
                      bool add, int64_t first, int64_t last) {
    const int64_t lanes = Simd<T>::lanes, panels = (n + panel_width<T>() - 1) / panel_width<T>();
    const int64_t tiles = (last - first + TILE_ROWS - 1) / TILE_ROWS;
    std::vector<T> packed(packed_size<T>(DEPTH, n));
    for (int64_t low = 0; low < k; low += DEPTH) {
        const int64_t depth = k - low < DEPTH ? k - low : DEPTH;
        const bool adds = add || low > 0;
        pack(b + low * b_row, b_row, 1, depth, n, packed.data());
        // the next rows of a lie one after another, and are asked for evenly over all tiles of this block
        const int64_t stride = a_row * int64_t(sizeof(T)) / (panels * tiles);
        const char* ahead = reinterpret_cast<const char*>(a + (low + depth) * a_row);
        const T* panel = packed.data();
        for (int64_t j = 0; j < n; j += panel_width<T>()) {
            const int left = int(n - j < panel_width<T>() ? n - j : panel_width<T>());
            const int vectors = int((left + lanes - 1) / lanes);
            for (int64_t i = first; i < last; i += TILE_ROWS) {
                const int rows = int(last - i < TILE_ROWS ? last - i : TILE_ROWS);
                const T* from = a + low * a_row + i;
                T* to = c + i * c_row + j;
                if (vectors == 3) gradient_rows<T, 3>(rows, from, a_row, panel, depth, to, c_row, left, adds, ahead, stride);
                else if (vectors == 2) gradient_rows<T, 2>(rows, from, a_row, panel, depth, to, c_row, left, adds, ahead, stride);
                else gradient_rows<T, 1>(rows, from, a_row, panel, depth, to, c_row, left, adds, ahead, stride);
                ahead += stride * depth;
            }
            panel += depth * vectors * lanes;
        }
    }
}

template <class T>
void gradient(int64_t k, int64_t m, int64_t n, const T* a, int64_t a_row, const T* b, int64_t b_row, T* c, int64_t c_row,
              int64_t add, int64_t threads) {
    const int64_t tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
    std::vector<std::thread> others;
    const auto part = [&](int64_t i) {
        const int64_t first = tiles * i / threads * TILE_ROWS, last = tiles * (i + 1) / threads * TILE_ROWS;
        gradient_columns(k, n, a, a_row, b, b_row, c, c_row, add != 0, first, last < m ? last : m);
    };
    for (int64_t i = 0; i + 1 < threads; ++i) others.emplace_back(part, i);
    part(threads - 1);
    for (std::thread& one : others) one.join();
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                 \
    extern "C" void NAME(gradient_##KIND)(int64_t k, int64_t m, int64_t n, const T* a, int64_t a_row, const T* b,        \
                                          int64_t b_row, T* c, int64_t c_row, int64_t add, int64_t threads) {           \
        gradient<T>(k, m, n, a, a_row, b, b_row, c, c_row, add, threads);                                               \
    }
EXPORT(float, float)
EXPORT(double, double)
