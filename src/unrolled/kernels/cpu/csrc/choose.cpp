// Says which of the instruction sets that this library was compiled for the processor has.
#include <cstring>

extern "C" int has_instruction_set(const char* name) {
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
