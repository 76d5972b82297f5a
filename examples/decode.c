/* Greedy text from a step that `unrolled export RUN step.onnx` wrote, by ONNX Runtime's C interface and nothing else.

   gcc -O2 -I INCLUDE decode.c -o decode LIBRARY/libonnxruntime.so.1 -Wl,-rpath,LIBRARY
   ./decode step.onnx 200            the first 200 tokens of a text
   ./decode step.onnx 200 17 4 52    200 tokens after these, given by their ids

   INCLUDE has onnxruntime_c_api.h, of a release of ONNX Runtime not newer than the library. */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 256 /* tensors of state */

static const OrtApi *ort;
static OrtAllocator *memory;
static OrtModelMetadata *metadata;

static void check(OrtStatus *status) {
    if (status == NULL) return;
    fprintf(stderr, "decode: %s\n", ort->GetErrorMessage(status));
    exit(1);
}

static char *text(const char *name) { /* of the file's metadata */
    char *value = NULL;
    check(ort->ModelMetadataLookupCustomMetadataMap(metadata, memory, name, &value));
    if (value == NULL) fprintf(stderr, "decode: the file has no %s; export it again.\n", name), exit(1);
    return value;
}

static OrtValue *initial(OrtSession *session, size_t input, const char *name) { /* one row, before the first token */
    char key[300], *numbers;
    OrtTypeInfo *info;
    const OrtTensorTypeAndShapeInfo *tensor;
    ONNXTensorElementDataType type;
    int64_t shape[16];
    size_t rank, count = 1;
    OrtValue *value;
    void *data;
    check(ort->SessionGetInputTypeInfo(session, input, &info));
    check(ort->CastTypeInfoToTensorInfo(info, &tensor));
    check(ort->GetTensorElementType(tensor, &type));
    check(ort->GetDimensionsCount(tensor, &rank));
    if (rank > 16) rank = 16;
    check(ort->GetDimensions(tensor, shape, rank));
    shape[0] = 1;
    for (size_t i = 0; i < rank; ++i) count *= (size_t)shape[i];
    check(ort->CreateTensorAsOrtValue(memory, shape, rank, type, &value));
    check(ort->GetTensorMutableData(value, &data));
    snprintf(key, sizeof key, "initial.%s", name);
    numbers = text(key);
    double one = 0; /* one number for all of them, or as many as there are */
    for (size_t i = 0; i < count; ++i) {
        char *end;
        double next = strtod(numbers, &end);
        if (end != numbers) one = next, numbers = end;
        if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) ((int64_t *)data)[i] = (int64_t)one;
        else if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL) ((char *)data)[i] = one != 0;
        else ((float *)data)[i] = (float)one;
    }
    return value;
}

static int piece(const char *hex, int closed, int shown) { /* hexadecimal, with + where a space goes before it */
    int last = 0;
    if (*hex == '+' && !closed && shown) putchar(' ');
    for (hex += *hex == '+'; hex[0] && hex[1]; hex += 2) {
        char two[3] = {hex[0], hex[1], 0};
        last = (int)strtol(two, NULL, 16);
        if (shown) putchar(last);
    }
    return last == 0 || strchr(" \t\n\v\f\r", last) != NULL;
}

int main(int count, char **words) {
    if (count < 3) return fprintf(stderr, "decode: MODEL.onnx TOKENS [ID ...]\n"), 2;
    OrtEnv *environment;
    OrtSessionOptions *options;
    OrtSession *session;
    char *names[MOST + 1], *outputs[MOST + 1], *field;
    OrtValue *values[MOST + 1], *found[MOST + 1];
    size_t inputs;
    if ((ort = OrtGetApiBase()->GetApi(ORT_API_VERSION)) == NULL)
        return fprintf(stderr, "decode: the library is older than the header; take those of one release.\n"), 1;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "decode", &environment));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, 1));
    check(ort->CreateSession(environment, words[1], options, &session));
    check(ort->GetAllocatorWithDefaultOptions(&memory));
    check(ort->SessionGetModelMetadata(session, &metadata));
    check(ort->SessionGetInputCount(session, &inputs));
    if (inputs > MOST) return fprintf(stderr, "decode: more than %d tensors of state.\n", MOST), 1;
    for (size_t i = 0; i < inputs; ++i) { /* ids, then the state; outputs in the same order */
        check(ort->SessionGetInputName(session, i, memory, &names[i]));
        check(ort->SessionGetOutputName(session, i, memory, &outputs[i]));
        if (i) values[i] = initial(session, i, names[i]);
    }
    long vocabulary = strtol(text("vocab_size"), NULL, 10), end = strtol(text("end_id"), NULL, 10), given = count - 3;
    char **pieces = calloc((size_t)vocabulary, sizeof *pieces);
    field = strtok(text("pieces"), " ");
    for (long i = 0; i < vocabulary && field; ++i, field = strtok(NULL, " ")) pieces[i] = field;
    int64_t shape[2] = {1, 1}, *id;
    check(ort->CreateTensorAsOrtValue(memory, shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &values[0]));
    check(ort->GetTensorMutableData(values[0], (void **)&id));
    *id = strtol(text("start_id"), NULL, 10);
    int closed = 1;
    for (long step = 0; step < given + strtol(words[2], NULL, 10); ++step) {
        float *scores;
        for (size_t i = 0; i < inputs; ++i) found[i] = NULL;
        check(ort->Run(session, NULL, (const char *const *)names, (const OrtValue *const *)values, inputs,
                       (const char *const *)outputs, inputs, found));
        for (size_t i = 1; i < inputs; ++i) ort->ReleaseValue(values[i]), values[i] = found[i];
        check(ort->GetTensorMutableData(found[0], (void **)&scores));
        long best = 0;
        for (long i = 1; i < vocabulary; ++i)
            if (scores[i] > scores[best]) best = i;
        ort->ReleaseValue(found[0]);
        *id = step < given ? strtol(words[3 + step], NULL, 10) : best;
        if (*id < 0 || *id >= vocabulary) return fprintf(stderr, "decode: no token %ld.\n", (long)*id), 1;
        closed = piece(pieces[*id], closed, step >= given); /* what was given is read, and not shown */
        if (*id == end) break;
    }
    return 0;
}
