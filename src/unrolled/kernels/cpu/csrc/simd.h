// Vectors of the width that this file is compiled for, and the functions that gates are made of.
//
// The sources use the compiler's vector extension, so that one text serves every instruction set; they are compiled
// once for each (see build.py) and the widest that the processor has is taken at run time.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifndef VECTOR_BYTES
#define VECTOR_BYTES 16
#endif

namespace {

template <class T>
struct Simd {
    static constexpr int lanes = VECTOR_BYTES / int(sizeof(T));
    typedef T Register __attribute__((vector_size(VECTOR_BYTES)));
    typedef T Memory __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T)), may_alias));

    static Register load(const T* p) { return *reinterpret_cast<const Memory*>(p); }
    static void store(T* p, Register v) { *reinterpret_cast<Memory*>(p) = v; }
    static Register all(T x) { return x - Register{}; }
    // Every stride-th number.
    static Register load_apart(const T* p, int64_t stride) {
#ifdef __AVX512F__
        if (stride < (1 << 26)) {  // a lane's place is counted in 32 bits
            const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            const __m512i at = _mm512_mullo_epi32(lane, _mm512_set1_epi32(int(stride)));
            if constexpr (sizeof(T) == 4) return (Register)_mm512_i32gather_ps(at, p, 4);
            else return (Register)_mm512_i32gather_pd(_mm512_castsi512_si256(at), p, 8);
        }
#endif
        T lane[lanes];
        for (int l = 0; l < lanes; ++l) lane[l] = p[l * stride];
        return load(lane);
    }
    // The first count lanes; the others are zero.
    static Register load(const T* p, int count) {
#ifdef __AVX512F__
        const unsigned mask = (1u << count) - 1;
        if constexpr (sizeof(T) == 4) return (Register)_mm512_maskz_loadu_ps(__mmask16(mask), p);
        else return (Register)_mm512_maskz_loadu_pd(__mmask8(mask), p);
#endif
        T lane[lanes] = {};
        std::memcpy(lane, p, size_t(count) * sizeof(T));
        return load(lane);
    }
    static void store(T* p, Register v, int count) {
#ifdef __AVX512F__
        const unsigned mask = (1u << count) - 1;
        if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, __mmask16(mask), (__m512)v);
        else _mm512_mask_storeu_pd(p, __mmask8(mask), (__m512d)v);
        return;
#endif
        T lane[lanes];
        store(lane, v);
        std::memcpy(p, lane, size_t(count) * sizeof(T));
    }
};

// Asks for n numbers that are read soon (or written, if WRITTEN): in a large batch they are no longer near.
template <bool WRITTEN = false, class T>
inline void read_ahead(const T* from, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + i, WRITTEN);
}

typedef Simd<float>::Register Floats;
typedef int32_t Ints __attribute__((vector_size(VECTOR_BYTES)));

inline Floats either(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }

// e^x for |x| <= 87: 2^n times a polynomial on [-ln2/2, ln2/2], relative error below 2e-7.
inline Floats exponential(Floats x) {
    const Floats magic = Simd<float>::all(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
    Floats n = x * 1.44269504088896341f + magic;
    const Ints power = ((Ints)n - (Ints)magic) << 23;
    n -= magic;
    Floats r = x - n * 0.693145751953125f;
    r -= n * 1.42860682030941723e-6f;
    Floats p = Simd<float>::all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    return (Floats)((Ints)p + power);
}

inline Floats clamp(Floats x, float limit) {
    const Floats high = Simd<float>::all(limit);
    x = either(x > high, high, x);  // a NaN fails both comparisons and stays
    return either(x < -high, -high, x);
}

inline Floats logistic(Floats x) { return 1.f / (1.f + exponential(clamp(-x, 87.f))); }

// Near 0 a polynomial, elsewhere 1 - 2 / (e^2x + 1); the polynomial is Cephes's (S. Moshier, public domain).
inline Floats hyperbolic(Floats x) {
    const Floats wide = 1.f - 2.f / (exponential(clamp(x + x, 87.f)) + 1.f);
    const Floats s = x * x;
    Floats p = Simd<float>::all(-5.70498872745e-3f);
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    return either(s < 0.390625f, p * s * x + x, wide);
}

// e^x for any x: beyond the range of `exponential` the square of that of half of x, which overflows and vanishes as it should.
inline Floats whole_exponential(Floats x) {
    const Floats inside = exponential(clamp(x, 87.f)), half = exponential(clamp(0.5f * x, 87.f));
    return either(x == clamp(x, 87.f), inside, x != x ? x : half * half);
}

// log(1 / (1 + e^-x)) = min(x, 0) - log(1 + e^-|x|), the logarithm as twice the area tangent of z = y / (2 + y) <= 1/3.
inline Floats log_logistic(Floats x) {
    const Floats low = either(x < 0.f, x, Floats{}), y = exponential(clamp(either(x < 0.f, x, -x), 87.f));
    const Floats z = y / (2.f + y), s = z * z;
    Floats p = Simd<float>::all(1.f / 13);
    p = p * s + 1.f / 11;
    p = p * s + 1.f / 9;
    p = p * s + 1.f / 7;
    p = p * s + 1.f / 5;
    p = p * s + 1.f / 3;
    return low - 2.f * (p * s * z + z);
}

typedef Simd<double>::Register Doubles;

inline Doubles exponential(Doubles x) {
    for (int i = 0; i < Simd<double>::lanes; ++i) x[i] = std::exp(x[i]);
    return x;
}

inline Doubles whole_exponential(Doubles x) { return exponential(x); }

inline Doubles log_logistic(Doubles x) {
    for (int i = 0; i < Simd<double>::lanes; ++i) x[i] = std::fmin(x[i], 0.) - std::log1p(std::exp(-std::fabs(x[i])));
    return x;
}

inline Doubles logistic(Doubles x) {
    for (int i = 0; i < Simd<double>::lanes; ++i) x[i] = 1. / (1. + std::exp(-x[i]));
    return x;
}

inline Doubles hyperbolic(Doubles x) {
    for (int i = 0; i < Simd<double>::lanes; ++i) x[i] = std::tanh(x[i]);
    return x;
}

}  // namespace
