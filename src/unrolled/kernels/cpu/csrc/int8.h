// Products of a few rows with a matrix of 8-bit integers: each column of the matrix has a scale, each row is rounded to
// 8-bit integers with a scale of its own when it is multiplied, and the sums of 32-bit integers are exact, so that they
// are the same with every instruction set.
//
// The matrix lies as narrow.h says, four numbers in a word, as the instruction vpdpbusd reads them. After the panels come
// the scales and the sums of the columns, as many of each as the panels have columns.
#pragma once
#include "narrow.h"
#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

namespace {

// A row as words of four numbers. vpdpbusd multiplies unsigned by signed numbers: 128 is added to those of the row here,
// and 128 times the column's sum is taken away at the end.
#ifdef __AVX512VNNI__
constexpr int32_t SHIFTED_BY = 128;
#else
constexpr int32_t SHIFTED_BY = 0;
#endif

typedef int8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 4), aligned(1), may_alias));

// Rounds k numbers, padded with zeros to whole words, and returns what one of the integers stands for; not a number where
// the row is not finite.
inline float quantise(const float* from, int64_t k, int32_t* words) {
    typedef Simd<float> S;
    S::Register largest = {}, difference = {};
    for (int64_t i = 0; i < k; i += S::lanes) {
        const S::Register x = k - i < S::lanes ? S::load(from + i, int(k - i)) : S::load(from + i);
        const S::Register size = either(x < 0, -x, x);
        largest = either(size > largest, size, largest);
        difference += x - x;  // zero but for what is not finite
    }
    float top = 0, odd = 0;
    for (int l = 0; l < S::lanes; ++l) {
        top = largest[l] > top ? largest[l] : top;
        odd += difference[l];
    }
    const float inverse = top > 0 && odd == 0 ? 127.f / top : 0.f;
    const S::Register magic = S::all(12582912.f);  // adding it rounds to an integer, ties to even
    int8_t* to = reinterpret_cast<int8_t*>(words);
    for (int64_t i = 0; i < k; i += S::lanes) {
        const int64_t left = k - i;
        const S::Register x = left < S::lanes ? S::load(from + i, int(left)) : S::load(from + i);
        const Ints whole = (Ints)(x * inverse + magic) - (Ints)magic + SHIFTED_BY;
        const Bytes bytes = __builtin_convertvector(whole, Bytes);
        if (left < S::lanes) std::memcpy(to + i, &bytes, size_t((left + 3) / 4 * 4));
        else *reinterpret_cast<Bytes*>(to + i) = bytes;
    }
    return top / 127.f + odd;
}

template <int ROWS, int VECTORS>
void tile_int8(const int32_t* a, int64_t a_row, const int8_t* b, int64_t panel, int64_t words, Ints (&sum)[ROWS][VECTORS]) {
    constexpr int lanes = Simd<float>::lanes;
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = Ints{};
    for (int64_t i = 0; i < words; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            const int8_t* at = b + v * panel + i * 4 * lanes;
            const Ints right = *reinterpret_cast<const IntsMemory*>(at);
#ifdef __AVX512VNNI__
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; ++r)
                sum[r][v] = (Ints)_mm512_dpbusd_epi32((__m512i)sum[r][v], _mm512_set1_epi32(a[r * a_row + i]), (__m512i)right);
#else
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const Ints one = (right << (24 - 8 * j)) >> 24;
#pragma GCC unroll 4
                for (int r = 0; r < ROWS; ++r)
                    sum[r][v] += one * int32_t(reinterpret_cast<const int8_t*>(a + r * a_row + i)[j]);
            }
#endif
        }
    }
}

// c (rows, n) = a (rows, k) times the matrix, + add (rows, n) if it is given (it may be c). words: memory for the rows.
inline void product_int8(int64_t rows, const float* a, int64_t a_row, const int8_t* b, int64_t k, int64_t n,
                         const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<int32_t>& words) {
    typedef Simd<float> S;
    const int64_t deep = (k + 3) / 4, panel = deep * 4 * S::lanes, columns = (n + S::lanes - 1) / S::lanes * S::lanes;
    const float* scale = reinterpret_cast<const float*>(b + columns * deep * 4);
    const int32_t* column = reinterpret_cast<const int32_t*>(scale + columns);
    words.resize(size_t(NARROW_ROWS * deep));
    float a_scale[NARROW_ROWS];
    for (int64_t first = 0; first < rows; first += NARROW_ROWS) {
        const int count = int(rows - first < NARROW_ROWS ? rows - first : NARROW_ROWS);
        for (int r = 0; r < count; ++r) a_scale[r] = quantise(a + (first + r) * a_row, k, &words[size_t(r * deep)]);
        for (int64_t j = 0; j < n; j += NARROW_VECTORS * S::lanes)
            with_tile(count, n - j, [&](auto some_rows, auto some_vectors) {
                constexpr int ROWS = some_rows(), VECTORS = some_vectors();
                Ints sum[ROWS][VECTORS];
                tile_int8<ROWS, VECTORS>(words.data(), deep, b + j * deep * 4, panel, deep, sum);
                for (int v = 0; v < VECTORS; ++v) {
                    const int64_t at = j + v * S::lanes;
                    const Ints shifted = *reinterpret_cast<const IntsMemory*>(column + at) * SHIFTED_BY;
                    for (int r = 0; r < ROWS; ++r) {
                        S::Register y = __builtin_convertvector(sum[r][v] - shifted, S::Register);
                        y *= S::load(scale + at) * a_scale[r];
                        finish(y, add ? add + (first + r) * add_row + at : nullptr, c + (first + r) * c_row + at, n - at);
                    }
                }
            });
    }
}

}  // namespace
