// The gradient of a matrix over all rows of a window: c (m, n) = a^T b, for a (k, m) and b (k, n), + c if it is to be added.
//
// k is a window's steps times its rows, far larger than m and n, for which common libraries are not made: 75 of 130
// GFLOP/s with 3,200 rows and widths of 128 and 512, where the products of the forward pass reach 122.
#include "product.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Columns first to last of a, and so rows of c.
template <class T>
void gradient_columns(int64_t k, int64_t n, const T* a, int64_t a_row, const T* b, int64_t b_row, T* c, int64_t c_row,
                      bool add, int64_t first, int64_t last) {
    std::vector<T> packed(packed_size<T>(BLOCK, n));
    for (int64_t low = 0; low < k; low += BLOCK) {
        const int64_t depth = k - low < BLOCK ? k - low : BLOCK;
        pack(b + low * b_row, b_row, 1, depth, n, packed.data());
        turned_product(depth, last - first, n, a + low * a_row + first, a_row, packed.data(), add || low > 0, c + first * c_row,
                       c_row);
    }
}

template <class T>
void gradient(int64_t k, int64_t m, int64_t n, const T* a, int64_t a_row, const T* b, int64_t b_row, T* c, int64_t c_row,
              int64_t add, int64_t threads) {
    const int64_t tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
    in_parallel(threads, [&](int64_t i, int64_t of) {
        const int64_t first = tiles * i / of * TILE_ROWS, last = tiles * (i + 1) / of * TILE_ROWS;
        gradient_columns(k, n, a, a_row, b, b_row, c, c_row, add != 0, first, last < m ? last : m);
    });
}

}  // namespace

#define EXPORT(T, KIND)                                                                                                 \
    extern "C" void NAME(gradient_##KIND)(int64_t k, int64_t m, int64_t n, const T* a, int64_t a_row, const T* b,        \
                                          int64_t b_row, T* c, int64_t c_row, int64_t add, int64_t threads) {           \
        gradient<T>(k, m, n, a, a_row, b, b_row, c, c_row, add, threads);                                               \
    }
EXPORT(float, float)
EXPORT(double, double)
