// Products over all rows of a window: of rows with a packed matrix, and the gradient of a matrix, c (m, n) = a^T b for
// a (k, m) and b (k, n), + c if it is to be added, where k is a window's steps times its rows.
#include <type_traits>

#include "elements.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Rows for which the packed matrix is read once. Of 64, 128, 256 the fastest.
constexpr int64_t ROWS = 128;

// y (rows, n) = x (rows, k) times the packed (k, n) matrix, + bias (n,) if it is given.
template <class T>
void linear(int64_t rows, int64_t k, int64_t n, const T* x, int64_t x_row, const void* matrix, const T* bias, T* y, bool low) {
    std::vector<T> memory;
    for (int64_t r = 0; r < rows; r += ROWS, x += ROWS * x_row, y += ROWS * n) {
        const int64_t count = rows - r < ROWS ? rows - r : ROWS;
        if constexpr (std::is_same<T, float>::value)
            if (low) {
                product_lowered(count, x, x_row, matrix, k, n, bias, 0, y, n, memory);
                continue;
            }
        product(count, x, x_row, static_cast<const T*>(matrix), k, n, bias, 0, y, n);
    }
}

// Columns first to last of a, and so rows of c.
template <class E>
void gradient_columns(int64_t k, int64_t n, const SumOf<E>* a, int64_t a_row, const SumOf<E>* b, int64_t b_row, SumOf<E>* c,
                      int64_t c_row, bool add, int64_t first, int64_t last) {
    typedef Elements<E> Of;
    const int64_t most = Of::each * DEPTH;
    std::vector<E> packed, memory;
    for (int64_t low = 0; low < k; low += most) {
        const int64_t count = k - low < most ? k - low : most;
        E* const panels = room<E>(packed, Of::size(count, n));
        Of::pack(b + low * b_row, b_row, 1, count, n, panels);
        turned_product<E>(count, last - first, n, a + low * a_row + first, a_row, panels, add || low, c + first * c_row, c_row,
                          memory);
    }
}

template <class E>
void gradient(int64_t k, int64_t m, int64_t n, const SumOf<E>* a, int64_t a_row, const SumOf<E>* b, int64_t b_row,
              SumOf<E>* c, int64_t c_row, int64_t add, int64_t threads) {
    const int64_t tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
    in_parallel(threads, [&](int64_t i, int64_t of) {
        const int64_t first = tiles * i / of * TILE_ROWS, last = tiles * (i + 1) / of * TILE_ROWS;
        gradient_columns<E>(k, n, a, a_row, b, b_row, c, c_row, add != 0, first, last < m ? last : m);
    });
}

}  // namespace

#define EXPORT_GRADIENT(E, T, KIND)                                                                                      \
    extern "C" void NAME(gradient_##KIND)(int64_t k, int64_t m, int64_t n, const T* a, int64_t a_row, const T* b,        \
                                          int64_t b_row, T* c, int64_t c_row, int64_t add, int64_t threads) {           \
        gradient<E>(k, m, n, a, a_row, b, b_row, c, c_row, add, threads);                                               \
    }
#define EXPORT(T, KIND)                                                                                                 \
    EXPORT_GRADIENT(T, T, KIND)                                                                                         \
    extern "C" void NAME(linear_##KIND)(int64_t rows, int64_t k, int64_t n, const T* x, int64_t x_row, const void* matrix, \
                                        const T* bias, T* y, int64_t low, int64_t threads) {                            \
        in_parallel(threads, [=](int64_t i, int64_t of) {                                                               \
            const int64_t first = rows * i / of, last = rows * (i + 1) / of;                                            \
            linear(last - first, k, n, x + first * x_row, x_row, matrix, bias, y + first * n, low != 0);                \
        });                                                                                                             \
    }
EXPORT(float, float)
EXPORT(double, double)
#ifdef __AVX512BF16__
EXPORT_GRADIENT(Pair, float, lowered)
#endif
