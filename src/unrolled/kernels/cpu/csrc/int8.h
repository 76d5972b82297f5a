// Products of rows with a matrix of 8-bit integers: each column of the matrix has a scale, each row is rounded to
// 8-bit integers with a scale of its own when it is multiplied, and the sums of 32-bit integers are exact, so that they
// are the same with every instruction set.
//
// The matrix lies as narrow.h says, four numbers in a word, as the instruction vpdpbusd reads them. After the panels come
// the scales and the sums of the columns, as many of each as the panels have columns.
#pragma once
#include "narrow.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512VNNI__

// vpdpbusd multiplies unsigned by signed numbers: 128 is added to those of a row, and 128 times the column's sum is taken
// away at the end. A row is as many words as a column.
constexpr int32_t SHIFTED_BY = 128;
constexpr int PLANES = 1;
constexpr int INT8_ROWS = 6, INT8_VECTORS = 4;  // 24 of 32 registers hold sums

#else

// The numbers of a word are multiplied two by two as integers of 16 bits, first those at even places, then those at odd
// ones. A row lies so already: a word for each two even numbers, and after these the odd ones.
constexpr int32_t SHIFTED_BY = 0;
constexpr int PLANES = 2;
#if VECTOR_BYTES == 64
constexpr int INT8_ROWS = 8, INT8_VECTORS = 2;  // 16 of 32 registers hold sums; even and odd numbers want some too
#else
constexpr int INT8_ROWS = 4, INT8_VECTORS = 2;  // 8 of 16
#endif

typedef int16_t Shorts __attribute__((vector_size(VECTOR_BYTES)));

inline Ints multiply_pairs(Ints left, Ints right) {
#if defined(__AVX512BW__)
    return (Ints)_mm512_madd_epi16((__m512i)left, (__m512i)right);
#elif defined(__AVX2__)
    return (Ints)_mm256_madd_epi16((__m256i)left, (__m256i)right);
#elif defined(__SSE2__)
    return (Ints)_mm_madd_epi16((__m128i)left, (__m128i)right);
#else
    return (left << 16 >> 16) * (right << 16 >> 16) + (left >> 16) * (right >> 16);
#endif
}

#endif

typedef int8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 4), aligned(1), may_alias));

// Rounds k numbers, padded with zeros to whole words, as a row lies, and returns what one of the integers stands for; not a
// number where the row is not finite.
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
#ifndef __AVX512VNNI__
    const auto pair = [](uint32_t bits) { return int32_t(int8_t(bits) & 0xffff) | int32_t(int8_t(bits >> 16)) * 65536; };
    const int64_t deep = (k + 3) / 4;
    for (int64_t i = 0; i < deep; ++i) {
        const uint32_t word = uint32_t(words[i]);
        words[i] = pair(word);
        words[deep + i] = pair(word >> 8);
    }
#endif
    return top / 127.f + odd;
}

// Sums of `deep` words of each row times those of each panel. a_row: words from one row to the next.
template <int ROWS, int VECTORS>
inline void sum_words(const int32_t* a, int64_t a_row, const int8_t* b, int64_t deep, Ints (&sum)[ROWS][VECTORS]) {
    constexpr int lanes = Simd<float>::lanes;
    const int64_t panel = deep * 4 * lanes;
    for (int64_t i = 0; i < deep; ++i, ++a, b += 4 * lanes) {
#ifdef __AVX512VNNI__
        __m512i left[ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) left[r] = _mm512_set1_epi32(a[r * a_row]);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            __m512i right = _mm512_loadu_si512(b + v * panel);
            if (ROWS > 1) __asm__("" : "+v"(right));  // or the compiler reads it anew for each of a few rows
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) sum[r][v] = (Ints)_mm512_dpbusd_epi32((__m512i)sum[r][v], left[r], right);
        }
#else
        Ints even[VECTORS], odd[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            const Shorts right = (Shorts)*reinterpret_cast<const IntsMemory*>(b + v * panel);
            even[v] = (Ints)(right << 8 >> 8);
            odd[v] = (Ints)(right >> 8);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Ints left_even = a[r * a_row] - Ints{}, left_odd = a[r * a_row + deep] - Ints{};
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                sum[r][v] += multiply_pairs(left_even, even[v]);
                sum[r][v] += multiply_pairs(left_odd, odd[v]);
            }
        }
#endif
    }
}

// c (rows, n) = a (rows, k) times the matrix, + add (rows, n) if it is given (it may be c). memory: for the rows.
inline void product_int8(int64_t rows, const float* a, int64_t a_row, const int8_t* b, int64_t k, int64_t n,
                         const float* add, int64_t add_row, float* c, int64_t c_row, std::vector<int32_t>& memory) {
    typedef Simd<float> S;
    const int64_t deep = (k + 3) / 4, columns = (n + S::lanes - 1) / S::lanes * S::lanes;
    const float* scale = reinterpret_cast<const float*>(b + columns * deep * 4);
    const int32_t* column = reinterpret_cast<const int32_t*>(scale + columns);
    const int64_t words = PLANES * deep;
    memory.resize(size_t(rows * (words + 1)));
    float* const a_scale = reinterpret_cast<float*>(&memory[size_t(rows * words)]);
    for (int64_t r = 0; r < rows; ++r) {
        if (r + 1 < rows) read_ahead(a + (r + 1) * a_row, k);
        a_scale[r] = quantise(a + r * a_row, k, &memory[size_t(r * words)]);
    }
    const int32_t* const whole = memory.data();
    in_tiles<INT8_ROWS, INT8_VECTORS>(rows, n, [=](auto some_rows, auto some_vectors, int64_t first, int64_t j)
                                                   __attribute__((noinline)) {
        constexpr int ROWS = some_rows(), VECTORS = some_vectors();
        Ints sum[ROWS][VECTORS] = {};
        sum_words(whole + first * words, words, b + j * deep * 4, deep, sum);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                const int64_t row = first + r, at = j + v * S::lanes;
                const Ints shifted = *reinterpret_cast<const IntsMemory*>(column + at) * SHIFTED_BY;
                S::Register y = __builtin_convertvector(sum[r][v] - shifted, S::Register);
                y *= S::load(scale + at) * a_scale[row];
                finish(y, add ? add + row * add_row + at : nullptr, c + row * c_row + at, n - at);
            }
    });
}

}  // namespace
