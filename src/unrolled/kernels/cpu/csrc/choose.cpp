// What the processor is, and which of the instruction sets that this library was compiled for it has.
#include <cstring>

extern "C" int has_instruction_set(const char* name) {
#ifdef HAVE_AVX512_BF16
    if (!std::strcmp(name, "avx512_bf16"))
        return has_instruction_set("avx512_vnni") && __builtin_cpu_supports("avx512bf16");
#endif
#ifdef HAVE_AVX512_VNNI
    if (!std::strcmp(name, "avx512_vnni"))
        return has_instruction_set("avx512") && __builtin_cpu_supports("avx512vnni");
#endif
#ifdef HAVE_AVX512
    if (!std::strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#ifdef HAVE_AVX2
    if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef HAVE_PLAIN
    if (!std::strcmp(name, "plain")) return 1;
#endif
    return 0;
}

extern "C" int is_amd() {
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_is("amd") != 0;
#else
    return 0;
#endif
}
