// Real and complex numbers in vectors: one text computes with both. A complex number is two real ones side by side.
#pragma once
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "simd.h"

namespace {

template <class T>
struct Real {
    typedef T Number;
    typedef typename Simd<T>::Register V;
    static V times(V x, V y) { return x * y; }
    static V conj(V x) { return x; }
    static V same(const T* p) { return Simd<T>::all(*p); }  // one number in all places
    static void sum(T* to, V v) {                            // *to += all places
        T total = 0;
        for (int l = 0; l < Simd<T>::lanes; ++l) total += v[l];
        *to += total;
    }
};

template <class T>
struct Complex {
    typedef T Number;
    typedef typename Simd<T>::Register V;
    static constexpr int lanes = Simd<T>::lanes;

    template <int... L>
    static V pick(V v, std::integer_sequence<int, L...>, int which) {
#ifdef __clang__
        return which == 0   ? __builtin_shufflevector(v, v, (L & ~1)...)
               : which == 1 ? __builtin_shufflevector(v, v, (L | 1)...)
                            : __builtin_shufflevector(v, v, (L ^ 1)...);
#else
        typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Int;
        typedef Int Places __attribute__((vector_size(VECTOR_BYTES)));
        return which == 0   ? __builtin_shuffle(v, Places{(L & ~1)...})
               : which == 1 ? __builtin_shuffle(v, Places{(L | 1)...})
                            : __builtin_shuffle(v, Places{(L ^ 1)...});
#endif
    }
    template <int... L>
    static V signs(std::integer_sequence<int, L...>, T even, T odd) {
        return V{(L & 1 ? odd : even)...};
    }
    typedef std::make_integer_sequence<int, lanes> Lanes;

    static V times(V x, V y) {
        const V minus = signs(Lanes(), T(-1), T(1));
        return pick(x, Lanes(), 0) * y + pick(x, Lanes(), 1) * (minus * pick(y, Lanes(), 2));
    }
    static V conj(V x) { return x * signs(Lanes(), T(1), T(-1)); }
    static V same(const T* p) { return signs(Lanes(), p[0], p[1]); }
    static void sum(T* to, V v) {
        T re = 0, im = 0;
        for (int l = 0; l < lanes; l += 2) re += v[l], im += v[l + 1];
        to[0] += re, to[1] += im;
    }
};

}  // namespace
