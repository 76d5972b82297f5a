// Products over all rows of a window: of rows with a packed matrix, and the gradient of a matrix, c (m, n) = a^T b for
// a (k, m) and b (k, n), + c if it is to be added, where k is a window's steps times its rows.
//
// E is what a product multiplies: numbers of T, or where the processor has such products pairs of k rounded to bf16 (see
// bf16.h). Sums are of T, and so is what comes out.
#include <memory>
#include <type_traits>

#include "bf16.h"
#include "threads.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

namespace {

// Rows for which the packed matrix is read once, and elements of k for which a gradient is. Of 64, 128, 256 and of 128,
// 256, 512 the fastest.
constexpr int64_t ROWS = 128, DEPTH = 256;
// Elements between strips, for them not to share places of the first-level cache.
constexpr int64_t GAP = 16;

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

// How a gradient's factors become elements of E: plainly.
template <class E>
struct Elements {
    static constexpr int64_t each = 1;  // numbers of k in an element
    static void panels(const E* from, int64_t row, int64_t k, int64_t n, E* to) { pack(from, row, 1, k, n, to); }
    // One row in strips of TILE_ROWS columns, `strip` elements from one to the next.
    static void strips(const E* from, const E*, int64_t m, int64_t strip, E* to) {
        for (; m >= TILE_ROWS; m -= TILE_ROWS, from += TILE_ROWS, to += strip) std::memcpy(to, from, TILE_ROWS * sizeof(E));
        std::memcpy(to, from, size_t(m) * sizeof(E));
    }
};

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
template <>
struct Elements<Pair> {
    static constexpr int64_t each = 2;
    static void panels(const float* from, int64_t row, int64_t k, int64_t n, Pair* to) { pack_lowered(from, row, 1, k, n, to); }
    // The same of two rows, or of one and zeros.
    static void strips(const float* first, const float* second, int64_t m, int64_t strip, Pair* to) {
        typedef Simd<float> S;
        static_assert(S::lanes == 2 * TILE_ROWS, "a vector is two strips");
        for (int64_t i = 0; i < m; i += S::lanes, to += 2 * strip) {
            const int64_t left = m - i;
            const auto at = [=](const float* p) {
                return !p ? Floats{} : left < S::lanes ? S::load(p + i, int(left)) : S::load(p + i);
            };
            const __m512i both = paired(at(first), at(second));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(both));
            if (left > TILE_ROWS) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + strip), _mm512_extracti64x4_epi64(both, 1));
        }
    }
};
#endif

// Columns first to last of a, and so rows of c.
template <class E>
void gradient_columns(int64_t k, int64_t n, const SumOf<E>* a, int64_t a_row, const SumOf<E>* b, int64_t b_row, SumOf<E>* c,
                      int64_t c_row, bool add, int64_t first, int64_t last) {
    typedef Elements<E> Of;
    const int64_t lanes = Simd<SumOf<E>>::lanes, most = Of::each * DEPTH < k ? DEPTH : (k + Of::each - 1) / Of::each;
    const int64_t tiles = (last - first + 2 * TILE_ROWS) / TILE_ROWS;  // one more: pairs of strips are written together
    const std::unique_ptr<E[]> panels(new E[packed_size<E>(most, n)]);
    const std::unique_ptr<E[]> strips(new E[size_t(tiles * (most * TILE_ROWS + GAP))]);
    for (int64_t low = 0; low < k; low += Of::each * DEPTH) {
        const int64_t count = k - low < Of::each * DEPTH ? k - low : Of::each * DEPTH;
        const int64_t depth = (count + Of::each - 1) / Of::each, strip = depth * TILE_ROWS + GAP;
        Of::panels(b + low * b_row, b_row, count, n, panels.get());
        for (int64_t i = 0; i < count; i += Of::each) {
            const SumOf<E>* from = a + (low + i) * a_row + first;
            Of::strips(from, i + 1 < count ? from + a_row : nullptr, last - first, strip, &strips[size_t(i / Of::each * TILE_ROWS)]);
        }
        const E* panel = panels.get();
        for (int64_t j = 0; j < n; j += panel_width<E>()) {
            const int left = int(n - j < panel_width<E>() ? n - j : panel_width<E>()), vectors = int((left + lanes - 1) / lanes);
            const E* from = strips.get();
            for (int64_t i = first; i < last; i += TILE_ROWS, from += strip) {
                SumOf<E>* to = c + i * c_row + j;
                tile_of<E, true>(int(last - i < TILE_ROWS ? last - i : TILE_ROWS), vectors, from, TILE_ROWS, panel,
                                 add || low ? to : nullptr, c_row, to, c_row, depth, left,
                                 reinterpret_cast<const char*>(from + strip), TILE_ROWS * sizeof(E));
            }
            panel += depth * vectors * lanes;
        }
    }
}

#ifdef __AMX_BF16__
// Columns of a whose tiles stay in the second-level cache.
constexpr int64_t COLUMNS = 512;

template <>
void gradient_columns<Pair>(int64_t k, int64_t n, const float* a, int64_t a_row, const float* b, int64_t b_row, float* c,
                            int64_t c_row, bool add, int64_t first, int64_t last) {
    std::vector<float> memory, turned;
    for (int64_t low = 0; low < k; low += 2 * DEPTH) {
        const int64_t count = k - low < 2 * DEPTH ? k - low : 2 * DEPTH, deep = pairs_of(count);
        Pair* const panels = room(memory, int64_t(packed_size<Pair>(deep, n)));
        pack_lowered(b + low * b_row, b_row, 1, count, n, panels);
        for (int64_t i = first; i < last; i += COLUMNS) {
            const int64_t width = last - i < COLUMNS ? last - i : COLUMNS;
            Pair* const tiles = room(turned, tiles_size(width, count));
            lower_columns(count, width, a + low * a_row + i, a_row, tiles);
            float* const to = c + i * c_row;
            tiled_product(width, tiles, deep, panels, n, add || low ? to : nullptr, c_row, to, c_row);
        }
    }
}
#endif

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
