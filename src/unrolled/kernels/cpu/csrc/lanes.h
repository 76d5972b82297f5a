// Rows taken register by register, the last of them in part.
#pragma once
#include "simd.h"

namespace {

// The first count lanes of a register's width.
template <class T>
struct Lanes {
    typedef Simd<T> S;
    typedef typename S::Register V;
    int count;
    V load(const T* p) const { return count == S::lanes ? S::load(p) : S::load(p, count); }
    void store(T* p, V v) const { count == S::lanes ? S::store(p, v) : S::store(p, v, count); }
};

// part(i, lanes) for every register's width of the columns from low to high.
template <class T, class F>
inline void columns_of(int64_t low, int64_t high, F part) {
    int64_t i = low;
    for (; i + Simd<T>::lanes <= high; i += Simd<T>::lanes) part(i, Lanes<T>{Simd<T>::lanes});
    if (i < high) part(i, Lanes<T>{int(high - i)});
}

}  // namespace
