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

// Columns first to last of a, and so rows of c.
template <class T>
void gradient_columns(int64_t k, int64_t n, const T* a, int64_t a_row, const T* b, int64_t b_row, T* c, int64_t c_row,
                      bool add, int64_t first, int64_t last) {
    const int64_t lanes = Simd<T>::lanes, panels = (n + panel_width<T>() - 1) / panel_width<T>();
    const int64_t tiles = (last - first + TILE_ROWS - 1) / TILE_ROWS;
    std::vector<T> packed(packed_size<T>(BLOCK, n));
    for (int64_t low = 0; low < k; low += BLOCK) {
        const int64_t depth = k - low < BLOCK ? k - low : BLOCK;
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
                tile_of<T, true>(rows, vectors, from, a_row, panel, adds ? to : nullptr, c_row, to, c_row, depth, left, ahead,
                                 stride);
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
