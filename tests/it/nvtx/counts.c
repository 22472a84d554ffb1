// An NVTX injection library that counts: for each message its starts, its ends and its payloads,
// and what was registered. Writes the counts to $NVTX_COUNTS when the process ends.
// The declarations are NVTX's binary interface (nvtxDetail/nvtxTypes.h), which NVIDIA keeps stable.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES 64
#define PAYLOADS 65536
#define RANGES (1 << 20)

typedef struct {
  uint16_t version, size;
  uint32_t category;
  int32_t color_type;
  uint32_t color;
  int32_t payload_type, reserved;
  uint64_t payload;
  int32_t message_type;
  const void *message;
} Attributes;

typedef struct {
  char text[64];
  unsigned category, starts, ends;
  unsigned char seen[PAYLOADS];
} Name;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Name names[NAMES];
static unsigned registered, ranges, pushed, wrong_ends, unnamed, repeated;
static unsigned char name_of[RANGES], open_range[RANGES];
static char domains[256], categories[256];
static long rss_early_kib;

static long rss_kib(void) {
  long kib = 0;
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) sscanf(line, "VmRSS: %ld", &kib);
  if (status) fclose(status);
  return kib;
}

static void *domain_create(const char *name) {
  strncat(domains, name, sizeof domains - strlen(domains) - 2);
  strcat(domains, " ");
  return domains;
}

static void name_category(void *domain, uint32_t id, const char *name) {
  (void)domain, (void)id;
  strncat(categories, name, sizeof categories - strlen(categories) - 2);
  strcat(categories, " ");
}

static void *register_string(void *domain, const char *text) {
  (void)domain;
  pthread_mutex_lock(&lock);
  Name *name = &names[registered < NAMES - 1 ? registered : NAMES - 1];
  registered++;
  snprintf(name->text, sizeof name->text, "%s", text);
  pthread_mutex_unlock(&lock);
  return name;
}

static uint64_t range_start(void *domain, const Attributes *attributes) {
  (void)domain;
  pthread_mutex_lock(&lock);
  uint64_t id = ++ranges;
  Name *name = (Name *)attributes->message;
  if (attributes->message_type != 3 || id >= RANGES) {  // 3: a registered string
    unnamed++;
  } else {
    name->starts++;
    name->category = attributes->category;
    name_of[id] = name - names;
    open_range[id] = 1;
    if (attributes->payload < PAYLOADS && name->seen[attributes->payload]++) repeated++;
    if (!strcmp(name->text, "Prefill") && name->starts == 2000) rss_early_kib = rss_kib();
  }
  pthread_mutex_unlock(&lock);
  return id;
}

static void range_end(void *domain, uint64_t id) {
  (void)domain;
  pthread_mutex_lock(&lock);
  if (id >= RANGES || !open_range[id]) {
    wrong_ends++;
  } else {
    open_range[id] = 0;
    names[name_of[id]].ends++;
  }
  pthread_mutex_unlock(&lock);
}

static int range_push(void *domain, const Attributes *attributes) {
  (void)domain, (void)attributes;
  return pushed++;
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("NVTX_COUNTS");
  FILE *out = path ? fopen(path, "w") : NULL;
  if (!out) return;
  fprintf(out, "{\"domains\":\"%s\",\"categories\":\"%s\",\"registered\":%u,\"pushed\":%u,",
          domains, categories, registered, pushed);
  fprintf(out, "\"wrong_ends\":%u,\"unnamed\":%u,\"repeated\":%u,", wrong_ends, unnamed, repeated);
  fprintf(out, "\"rss_early_kib\":%ld,\"rss_late_kib\":%ld,\"names\":{", rss_early_kib, rss_kib());
  for (unsigned at = 0; at < registered && at < NAMES; at++) {
    unsigned payloads = 0;
    for (unsigned payload = 0; payload < PAYLOADS; payload++) payloads += names[at].seen[payload] > 0;
    fprintf(out, "%s\"%s\":{\"starts\":%u,\"ends\":%u,\"payloads\":%u,\"category\":%u}",
            at ? "," : "", names[at].text, names[at].starts, names[at].ends, payloads,
            names[at].category);
  }
  fprintf(out, "}}\n");
  fclose(out);
}

typedef struct {
  size_t size;
  int (*module)(int module, void ****functions, unsigned *count);
} Callbacks;

int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t)) {
  const Callbacks *callbacks = export_table(1);
  void ***functions = NULL;
  unsigned count = 0;
  if (!callbacks || !callbacks->module(5, &functions, &count) || count < 13) return 0;
  *functions[2] = (void *)range_start;
  *functions[3] = (void *)range_end;
  *functions[4] = (void *)range_push;
  *functions[8] = (void *)name_category;
  *functions[10] = (void *)register_string;
  *functions[12] = (void *)domain_create;
  return 1;
}
