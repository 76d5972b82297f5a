// Matrix states and their gradients (matrix.h, matrix_back.h). Threads share sequences and heads. Compiled as scan.cpp.
#include "matrix_back.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, INSTRUCTION_SET)

// shape: batch, time, heads, keys, values, kind of decay, before, threads. strides: three each of q, k, v, decay, a, b, grad_o.
#define EXPORT(T, KIND)                                                                                                  \
    namespace {                                                                                                          \
    Inputs<T> NAME(inputs_##KIND)(const int64_t* shape, const int64_t* s, const T* q, const T* k, const T* v, const T* decay, \
                                  const T* a, const T* b, const unsigned char* reset) {                                  \
        return {{q, s[0], s[1], s[2]},     {k, s[3], s[4], s[5]},    {v, s[6], s[7], s[8]}, {decay, s[9], s[10], s[11]},  \
                {a, s[12], s[13], s[14]}, {b, s[15], s[16], s[17]}, reset,                 Decay(shape[5]), shape[6] != 0}; \
    }                                                                                                                    \
    }                                                                                                                    \
    extern "C" void NAME(matrix_forward_##KIND)(                                                                         \
        const int64_t* shape, const int64_t* strides, const T* q, const T* k, const T* v, const T* decay, const T* a,    \
        const T* b, const unsigned char* reset, const T* start, double scale, T* o, T* last, T* kept, T* z) {            \
        forward<T>({shape[0], shape[1], shape[2], shape[3], shape[4]},                                                   \
                   NAME(inputs_##KIND)(shape, strides, q, k, v, decay, a, b, reset), start, T(scale), o, last, kept, z,  \
                   shape[7]);                                                                                            \
    }                                                                                                                    \
    extern "C" void NAME(matrix_backward_##KIND)(                                                                        \
        const int64_t* shape, const int64_t* strides, const T* q, const T* k, const T* v, const T* decay, const T* a,    \
        const T* b, const unsigned char* reset, const T* kept, const T* z, double scale, const T* grad_o,                \
        const T* grad_last, T* grad_q, T* grad_k, T* grad_v, T* grad_decay, T* grad_a, T* grad_b, T* grad_start) {       \
        backward<T>({shape[0], shape[1], shape[2], shape[3], shape[4]},                                                  \
                    NAME(inputs_##KIND)(shape, strides, q, k, v, decay, a, b, reset), kept, z, T(scale),                 \
                    {grad_o, strides[18], strides[19], strides[20]}, grad_last,                                          \
                    {grad_q, grad_k, grad_v, grad_decay, grad_a, grad_b, grad_start}, shape[7]);                         \
    }
EXPORT(float, float)
EXPORT(double, double)
