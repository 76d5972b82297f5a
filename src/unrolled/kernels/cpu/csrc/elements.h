// What the products over many rows multiply: numbers of T or, where the processor multiplies such, pairs of them rounded to
// bf16 (pairs.h). Sums are of T, and so is what comes out.
#pragma once
#include "bf16.h"

namespace {

// Numbers, plainly.
template <class E>
struct Elements {
    static constexpr int64_t each = 1;  // numbers of k in an element
    // Elements of a packed (k, n) matrix; pack it.
    static int64_t size(int64_t k, int64_t n) { return int64_t(packed_size<E>(k, n)); }
    static void pack(const E* from, int64_t row, int64_t column, int64_t k, int64_t n, E* to) {
        ::pack(from, row, column, k, n, to);
    }
    // As product. memory: for rows that are rounded before.
    static void multiply(int64_t rows, const E* a, int64_t a_row, const E* b, int64_t k, int64_t n, const E* add,
                         int64_t add_row, E* c, int64_t c_row, std::vector<E>&) {
        product(rows, a, a_row, b, k, n, add, add_row, c, c_row);
    }
    // One row of m in strips of TILE_ROWS columns, `strip` elements from one to the next.
    static void strips(const E* from, const E*, int64_t m, int64_t strip, E* to) {
        for (; m >= TILE_ROWS; m -= TILE_ROWS, from += TILE_ROWS, to += strip) std::memcpy(to, from, TILE_ROWS * sizeof(E));
        std::memcpy(to, from, size_t(m) * sizeof(E));
    }
};

#ifdef __AVX512BF16__
template <>
struct Elements<Pair> {
    static constexpr int64_t each = 2;
    static int64_t size(int64_t k, int64_t n) { return lowered_size(k, n) / int64_t(sizeof(Pair)); }
    static void pack(const float* from, int64_t row, int64_t column, int64_t k, int64_t n, Pair* to) {
        pack_lowered(from, row, column, k, n, to);
    }
    static void multiply(int64_t rows, const float* a, int64_t a_row, const Pair* b, int64_t k, int64_t n, const float* add,
                         int64_t add_row, float* c, int64_t c_row, std::vector<float>& memory) {
        product_lowered(rows, a, a_row, b, k, n, add, add_row, c, c_row, memory);
    }
    // Of two rows, or of one and zeros.
    static void strips(const float* first, const float* second, int64_t m, int64_t strip, Pair* to) {
        typedef Simd<float> S;
        static_assert(S::lanes == 2 * TILE_ROWS, "a vector is two strips");
        for (int64_t i = 0; i < m; i += S::lanes, to += 2 * strip) {
            const __m512i both = paired(some(first + i, m - i), second ? some(second + i, m - i) : Floats{});
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(both));
            if (m - i > TILE_ROWS) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + strip), _mm512_extracti64x4_epi64(both, 1));
        }
    }
};
#endif

// Elements of k for which the right factor of a turned product is packed at once. Of 128, 256, 512 the fastest.
constexpr int64_t DEPTH = 256;
// Elements between strips, for them not to share places of the first-level cache.
constexpr int64_t GAP = 16;

// c (m, n) = a^T b, + c if it is to be added, for a (k, m) and b (k, n), packed, of at most DEPTH elements of k. memory: for
// a in strips, which are read as they lie.
template <class E>
void turned_product(int64_t k, int64_t m, int64_t n, const SumOf<E>* a, int64_t a_row, const E* b, bool add, SumOf<E>* c,
                    int64_t c_row, std::vector<E>& memory) {
    typedef Elements<E> Of;
    const int64_t lanes = Simd<SumOf<E>>::lanes, depth = (k + Of::each - 1) / Of::each, strip = depth * TILE_ROWS + GAP;
    const size_t strips = size_t((m + 2 * TILE_ROWS) / TILE_ROWS);  // one more: pairs of strips are written together
    if (memory.size() < strips * size_t(strip)) memory.resize(strips * size_t(strip));
    for (int64_t i = 0; i < k; i += Of::each, a += Of::each * a_row)
        Of::strips(a, i + 1 < k ? a + a_row : nullptr, m, strip, &memory[size_t(i / Of::each * TILE_ROWS)]);
    for (int64_t j = 0; j < n; j += panel_width<E>()) {
        const int left = int(n - j < panel_width<E>() ? n - j : panel_width<E>()), vectors = int((left + lanes - 1) / lanes);
        const E* from = memory.data();
        for (int64_t i = 0; i < m; i += TILE_ROWS, from += strip) {
            SumOf<E>* to = c + i * c_row + j;
            tile_of<E, true>(int(m - i < TILE_ROWS ? m - i : TILE_ROWS), vectors, from, TILE_ROWS, b, add ? to : nullptr, c_row,
                             to, c_row, depth, left, reinterpret_cast<const char*>(from + strip), TILE_ROWS * sizeof(E));
        }
        b += depth * vectors * lanes;
    }
}

#ifdef __AMX_BF16__
// Columns of a whose tiles stay in the second-level cache.
constexpr int64_t COLUMNS = 512;

template <>
void turned_product<Pair>(int64_t k, int64_t m, int64_t n, const float* a, int64_t a_row, const Pair* b, bool add, float* c,
                          int64_t c_row, std::vector<Pair>& memory) {
    for (int64_t i = 0; i < m; i += COLUMNS) {
        const int64_t width = m - i < COLUMNS ? m - i : COLUMNS;
        Pair* const tiles = room<Pair>(memory, tiles_size(width, k));
        lower_columns(k, width, a + i, a_row, tiles);
        float* const to = c + i * c_row;
        tiled_product(width, tiles, pairs_of(k), b, n, add ? to : nullptr, c_row, to, c_row);
    }
}
#endif

}  // namespace
