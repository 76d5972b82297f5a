// Causal attention and its gradients (attention.h, attention_back.h). Threads share sequences and groups of heads. Compiled
// as scan.cpp.
#include "attention_back.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

// shape: batch, steps, keys, heads, groups, size, values, always, threads, whether `first` is said of each head. strides: three each of q, k, v, y, grad.
#define EXPORT(T, KIND)                                                                                                  \
    namespace {                                                                                                          \
    Asked<T> NAME(asked_##KIND)(const int64_t* n, const int64_t* s, const T* q, const T* k, const T* v, const T* level,  \
                                const int64_t* first, double scale) {                                                    \
        return {{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]}, {q, s[0], s[1], s[2]}, {k, s[3], s[4], s[5]},          \
                {v, s[6], s[7], s[8]}, level, first, T(scale), n[9] != 0};                                                          \
    }                                                                                                                    \
    }                                                                                                                    \
    extern "C" void NAME(attention_forward_##KIND)(const int64_t* shape, const int64_t* strides, const T* q, const T* k, \
                                                   const T* v, const T* level, const int64_t* first, double scale,       \
                                                   T* y, T* lse) {                                                       \
        attend<T>(NAME(asked_##KIND)(shape, strides, q, k, v, level, first, scale),                                      \
                  {y, strides[9], strides[10], strides[11]}, lse, shape[8]);                                             \
    }                                                                                                                    \
    extern "C" void NAME(attention_backward_##KIND)(                                                                     \
        const int64_t* shape, const int64_t* strides, const T* q, const T* k, const T* v, const T* level,                \
        const int64_t* first, double scale, const T* y, const T* lse, const T* grad, const T* grad_lse, T* grad_q,       \
        T* grad_k, T* grad_v, T* grad_level) {                                                                           \
        const int64_t heads = shape[3], groups = shape[4], size = shape[5], values = shape[6];                           \
        attend_back<T>(NAME(asked_##KIND)(shape, strides, q, k, v, level, first, scale),                                 \
                       {y, strides[9], strides[10], strides[11]}, lse, {grad, strides[12], strides[13], strides[14]},    \
                       grad_lse,                                                                                         \
                       {{grad_q, shape[1] * heads * size, heads * size, size},                                           \
                        {grad_k, shape[2] * groups * size, groups * size, size},                                         \
                        {grad_v, shape[2] * groups * values, groups * values, values}, grad_level},                      \
                       shape[8]);                                                                                        \
    }
EXPORT(float, float)
EXPORT(double, double)
