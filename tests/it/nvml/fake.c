/* Pretends to be NVIDIA's management library, for the few calls that labrun makes. Its answers
 * follow from the time, and a test can compute them: PCIe moves 5 GB/s into each GPU and 1 GB/s out of
 * it, NVLink 3 GiB/s into it and 1 GiB/s out of it, the power is 200 W and GPU n has 1000 + n MiB in
 * use. GPU 0 knows a sum over its NVLinks, GPU 1 answers for each of two links.
 *
 *   FAKE_NVML_BURN_US  CPU time that every call takes
 *   FAKE_NVML_LOST_MS  after so long GPU 1 is lost
 *   FAKE_NVML_GPM      GPM is there; as the real one, it bears one thread at a time
 *
 * Clocks and throttle reasons are not in it, as in an old driver. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3, GPU_LOST = 15 };

typedef struct {
    unsigned index;
} device;

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type;
    int result;
    union {
        double real;
        unsigned narrow;
        unsigned long long wide;
    } value;
} field_value;

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} memory;

static device gpus[2] = {{0}, {1}};
static uint64_t began_ns;

static uint64_t clock_ns(clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t passed_ns(void) { return clock_ns(CLOCK_MONOTONIC) - began_ns; }

static uint64_t setting(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

/* What every call begins with. */
static int answer(const device *gpu) {
    uint64_t burn_us = setting("FAKE_NVML_BURN_US"), lost_ms = setting("FAKE_NVML_LOST_MS");
    uint64_t until = clock_ns(CLOCK_THREAD_CPUTIME_ID) + burn_us * 1000;
    while (burn_us && clock_ns(CLOCK_THREAD_CPUTIME_ID) < until) {
    }
    return lost_ms && gpu->index == 1 && passed_ns() > lost_ms * 1000000 ? GPU_LOST : OK;
}

int nvmlInit_v2(void) {
    began_ns = clock_ns(CLOCK_MONOTONIC);
    return OK;
}

int nvmlShutdown(void) { return OK; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **gpu) {
    if (index > 1) return 2; /* an invalid argument */
    *gpu = &gpus[index];
    return OK;
}

int nvmlDeviceGetName(device *gpu, char *name, unsigned length) {
    snprintf(name, length, "Fake GPU");
    return answer(gpu);
}

int nvmlDeviceGetUUID(device *gpu, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-0000000%u", gpu->index);
    return answer(gpu);
}

int nvmlDeviceGetMaxPcieLinkGeneration(device *gpu, unsigned *generation) {
    *generation = 3;
    return answer(gpu);
}

int nvmlDeviceGetMaxPcieLinkWidth(device *gpu, unsigned *lanes) {
    *lanes = 16;
    return answer(gpu);
}

int nvmlDeviceGetCurrPcieLinkGeneration(device *gpu, unsigned *generation) {
    *generation = 3;
    return answer(gpu);
}

int nvmlDeviceGetCurrPcieLinkWidth(device *gpu, unsigned *lanes) {
    *lanes = 16;
    return answer(gpu);
}

int nvmlDeviceGetUtilizationRates(device *gpu, unsigned rates[2]) {
    rates[0] = 70;
    rates[1] = 30;
    return answer(gpu);
}

int nvmlDeviceGetPowerUsage(device *gpu, unsigned *milliwatts) {
    *milliwatts = 200000;
    return answer(gpu);
}

int nvmlDeviceGetTotalEnergyConsumption(device *gpu, unsigned long long *millijoules) {
    *millijoules = passed_ns() / 5000; /* 200 W */
    return answer(gpu);
}

int nvmlDeviceGetTemperature(device *gpu, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 55;
    return answer(gpu);
}

int nvmlDeviceGetMemoryInfo_v2(device *gpu, memory *info) {
    info->total = 80ull << 30;
    info->used = (1000ull + gpu->index) << 20;
    return answer(gpu);
}

int nvmlDeviceGetNvLinkState(device *gpu, unsigned link, unsigned *active) {
    *active = link < 2;
    return link < 4 ? answer(gpu) : NOT_SUPPORTED;
}

int nvmlDeviceGetFieldValues(device *gpu, int count, field_value *values) {
    for (int i = 0; i < count; i++) {
        field_value *at = &values[i];
        uint64_t us = passed_ns() / 1000, share = 1;
        at->result = OK;
        if (at->field == 138 || at->field == 139) { /* NVLink, KiB out of it and into it */
            int sums = at->scope == UINT32_MAX;
            if (sums != (gpu->index == 0) || (!sums && at->scope > 1)) {
                at->result = NOT_SUPPORTED;
                continue;
            }
            if (!sums) share = 2;
            at->type = 3;
            at->value.wide = us * (at->field == 138 ? 1024 : 3072) * 1024 / 1000000 / share;
        } else if (at->field == 197 || at->field == 198) { /* PCIe, 32 bits, out of it and into it */
            at->type = 1;
            at->value.narrow = (unsigned)(us * (at->field == 197 ? 1000 : 5000));
        } else {
            at->result = NOT_SUPPORTED;
        }
    }
    return answer(gpu);
}

typedef struct {
    unsigned version, supported;
} gpm_support;

typedef struct {
    unsigned version, count;
    void *samples[2];
    struct {
        unsigned id;
        int result;
        double value;
        char *names[3];
    } metrics[210];
} gpm_metrics;

/* Ends the process where two threads are in GPM at once. */
static void gpm_alone(void) {
    static atomic_int inside;
    struct timespec pause = {0, 3000000};
    if (atomic_fetch_add(&inside, 1)) abort();
    nanosleep(&pause, NULL);
    atomic_fetch_sub(&inside, 1);
}

int nvmlGpmQueryDeviceSupport(device *gpu, gpm_support *support) {
    support->supported = getenv("FAKE_NVML_GPM") != NULL;
    return answer(gpu);
}

int nvmlGpmSampleAlloc(void **sample) {
    *sample = malloc(8);
    return OK;
}

int nvmlGpmSampleFree(void *sample) {
    gpm_alone();
    free(sample);
    return OK;
}

int nvmlGpmSampleGet(device *gpu, void *sample) {
    gpm_alone();
    *(uint64_t *)sample = passed_ns();
    return answer(gpu);
}

int nvmlGpmMetricsGet(gpm_metrics *get) {
    gpm_alone();
    for (unsigned i = 0; i < get->count; i++) { /* MiB/s out of the GPU and into it */
        unsigned id = get->metrics[i].id;
        get->metrics[i].result = id == 20 || id == 21 ? OK : NOT_SUPPORTED;
        get->metrics[i].value = id == 20 ? 1000 : 5000;
    }
    return OK;
}
