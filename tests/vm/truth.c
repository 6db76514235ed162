// How far a guest's clock is from its host's, by the time stamp counter that they share.
//
// Under QEMU the guest's counter is the host's plus a constant: rdtsc is emulated by the host's own
// (TCG without -icount), or shifted by hardware (KVM). Both sides map the same page of memory (QEMU's
// ivshmem-plain), and the constant is found by questions and answers over it: the host reads its
// counter, asks, and reads it again when the guest has answered with its own; each round bounds the
// constant, and all rounds together do so to a fraction of a microsecond.
//
//   truth host FILE      on the host: find the constant, then print a line a second until killed:
//                        the host's clock (s), guest minus host (us), its greatest error (us)
//   truth khz            on the host: its counter's frequency
//   truth guest          in the guest: answer, then write (counter, clock) once a second
//   truth answer         in the guest: answer again: is the constant one?
//   truth set SECONDS    in the guest: set the clock to the host's plus SECONDS, to the nanosecond
//   truth until SECONDS  in the guest: wait until it is less than SECONDS from the host's
//   truth mark NAME      in the guest: a line in the host's output: its clock (s), NAME
//   truth state          in the guest: the kernel's clock discipline
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { ROUNDS = 20000, RING = 256, NAME = 16, PAST = 16 };
enum { APART = 200 }; // Ticks by which the counters of two of the host's cores may differ.
enum { OFF, ASKING, KNOWN }; // What the host can say about the constant.

typedef struct {
    uint64_t counter; // In the middle of reading the clock,
    int64_t clock;    // ns since 1970,
    uint64_t width;   // which took this many ticks.
    char mark[NAME];  // Not a reading but an event, if not empty.
} reading;

static volatile struct {
    uint64_t phase, question, answer, answer_counter;
    uint64_t constant;         // Guest's counter minus host's.
    uint64_t sequence;         // Odd while the host writes the three below.
    uint64_t counter;          // A recent reading of the host's clock, its counter being this,
    int64_t clock;             // its clock this,
    double ns_per_tick;        // and a tick lasting so long.
    uint64_t written;          // Readings by the guest so far.
    reading ring[RING];
} *page;
static int page_file;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t counter(void) {
    _mm_lfence();
    uint64_t now = __rdtsc();
    _mm_lfence();
    return now;
}

static reading read_clock(void) {
    reading best = {.width = UINT64_MAX};
    for (int i = 0; i < 16; i++) {
        struct timespec t;
        uint64_t before = counter();
        clock_gettime(CLOCK_REALTIME, &t);
        uint64_t width = counter() - before;
        if (width >= best.width) continue;
        best.counter = before + width / 2;
        best.clock = t.tv_sec * 1000000000LL + t.tv_nsec;
        best.width = width;
    }
    return best;
}

static void pause_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

// Guest minus host of what was read in the guest, in ns.
static double difference(const reading *guest, uint64_t host_counter, int64_t host_clock,
                         double ns_per_tick) {
    int64_t ticks = (int64_t)(guest->counter - page->constant - host_counter);
    return (double)(guest->clock - host_clock) - (double)ticks * ns_per_tick;
}

static void map(const char *path) {
    page_file = open(path, O_RDWR);
    if (page_file < 0) fail(path);
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, page_file, 0);
    if (page == MAP_FAILED) fail("mmap");
}

// The first page of memory of the device 1af4:1110.
static void map_device(void) {
    glob_t found;
    if (glob("/sys/bus/pci/devices/*/resource2", 0, NULL, &found)) found.gl_pathc = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char path[256], id[16] = "";
        snprintf(path, sizeof path, "%s", found.gl_pathv[i]);
        strcpy(strrchr(path, '/'), "/device");
        FILE *file = fopen(path, "r");
        if (file && fgets(id, sizeof id, file) && !strcmp(id, "0x1110\n")) {
            map(found.gl_pathv[i]);
            return;
        }
    }
    fputs("truth: no ivshmem device here\n", stderr);
    exit(1);
}

// --- the host ---

// Bounds the constant, further if that has been done before; returns by how many ticks it may be
// wrong.
static double find_constant(void) {
    static uint64_t low, high;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        uint64_t before = counter();
        page->question = i;
        while (page->answer != i) {}
        uint64_t after = counter(), guest = page->answer_counter;
        if (page->constant == 0) {
            low = guest - after;
            page->constant = high = guest - before;
        }
        if ((int64_t)(guest - after - low) > 0) low = guest - after;
        if ((int64_t)(guest - before - high) < 0) high = guest - before;
    }
    page->question = 0;
    int64_t width = (int64_t)(high - low);
    fprintf(stderr, "guest's counter minus host's: %lld to %lld\n", (long long)low, (long long)high);
    if (width < -APART) {
        fputs("truth: the counters do not differ by a constant\n", stderr);
        exit(1);
    }
    page->constant = low + (uint64_t)(width / 2);
    return (double)(width < 0 ? APART : width) / 2;
}

static void host(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    reading past[PAST] = {[0] = read_clock()};
    for (int i = 1; i < PAST; i++) past[i] = past[0];
    double error = 0;
    for (uint64_t seen = 0, polls = 0;; polls++) {
        pause_ms(100);
        if (page->phase == OFF) continue;
        int asked = page->phase == ASKING;
        if (asked) error = fmax(error, find_constant());
        uint64_t written = page->written;
        reading now = read_clock(), then = past[polls % PAST];
        past[polls % PAST] = now;
        // The frequency of late: the host's own clock may be disciplined.
        double tick = (double)(now.clock - then.clock) / (double)(now.counter - then.counter);
        page->sequence++;
        page->counter = now.counter;
        page->clock = now.clock;
        page->ns_per_tick = tick;
        page->sequence++;
        if (asked) page->phase = KNOWN;
        for (; seen < written; seen++) {
            reading guest;
            memcpy(&guest, (void *)&page->ring[seen % RING], sizeof guest);
            int64_t ago = (int64_t)(now.counter - (guest.counter - page->constant));
            printf("%.3f\t", ((double)now.clock - (double)ago * tick) / 1e9);
            if (guest.mark[0]) printf("%s\n", guest.mark);
            else
                printf("%.3f\t%.3f\n", difference(&guest, now.counter, now.clock, tick) / 1e3,
                       ((double)(guest.width + now.width) / 2 + error) * tick / 1e3);
        }
    }
}

static int khz(void) {
    reading first = read_clock();
    pause_ms(2000);
    reading last = read_clock();
    return printf("%.0f\n", (double)(last.counter - first.counter) /
                  (double)(last.clock - first.clock) * 1e6) < 0;
}

// --- the guest ---

static void write_reading(reading r) {
    flock(page_file, LOCK_EX); // Marks come from other processes.
    memcpy((void *)&page->ring[page->written % RING], &r, sizeof r);
    page->written++;
    flock(page_file, LOCK_UN);
}

static void answer(void) {
    page->phase = ASKING;
    for (uint64_t done = 0; done < ROUNDS;) {
        if (page->question == done) continue;
        page->answer_counter = counter();
        page->answer = done = page->question;
    }
}

static double offset(void) {
    while (page->phase != KNOWN) pause_ms(10);
    for (;;) {
        uint64_t sequence = page->sequence;
        reading r = read_clock();
        double ns = difference(&r, page->counter, page->clock, page->ns_per_tick);
        if (sequence % 2 == 0 && page->sequence == sequence) return ns;
    }
}

static int set(double seconds) {
    struct timex t = {.modes = ADJ_SETOFFSET | ADJ_NANO};
    double by = seconds * 1e9 - offset();
    t.time.tv_sec = (time_t)floor(by / 1e9);
    t.time.tv_usec = (suseconds_t)(by - (double)t.time.tv_sec * 1e9);
    if (adjtimex(&t) < 0) fail("adjtimex");
    return 0;
}

static int state(void) {
    static const char *const flag[] = {
        "PLL", "PPSFREQ", "PPSTIME", "FLL", "INS", "DEL", "UNSYNC", "FREQHOLD", "PPSSIGNAL",
        "PPSJITTER", "PPSWANDER", "PPSERROR", "CLOCKERR", "NANO", "MODE", "CLK",
    };
    struct timex t = {0};
    int result = adjtimex(&t);
    if (result < 0) fail("adjtimex");
    printf("state %d, status", result);
    for (int i = 0; i < 16; i++)
        if (t.status >> i & 1) printf(" %s", flag[i]);
    printf(", freq %+.4f ppm, tick %ld us, offset %ld %s, maxerror %ld us, esterror %ld us, "
           "constant %ld, tai %d\n", (double)t.freq / 65536, t.tick, t.offset,
           t.status & STA_NANO ? "ns" : "us", t.maxerror, t.esterror, t.constant, t.tai);
    return 0;
}

int main(int count, char **word) {
    const char *what = count > 1 ? word[1] : "", *argument = count > 2 ? word[2] : "";
    if (!strcmp(what, "state")) return state();
    if (!strcmp(what, "khz")) return khz();
    if (!strcmp(what, "host")) {
        map(argument);
        host();
    }
    map_device();
    if (!strcmp(what, "answer")) return answer(), 0;
    if (!strcmp(what, "guest")) {
        answer();
        for (;;) {
            pause_ms(1000);
            write_reading(read_clock());
        }
    }
    if (!strcmp(what, "set")) return set(atof(argument));
    if (!strcmp(what, "mark")) {
        reading mark = read_clock();
        snprintf(mark.mark, NAME, "%s", argument);
        return write_reading(mark), 0;
    }
    if (!strcmp(what, "until")) {
        while (fabs(offset()) >= atof(argument) * 1e9) pause_ms(100);
        return 0;
    }
    fputs("truth: host FILE | khz | guest | answer | set S | until S | mark NAME | state\n", stderr);
    return 2;
}
