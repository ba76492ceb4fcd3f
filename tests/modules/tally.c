/*
 * Tally: a rules module in C, written from the specification in sdk/abi/src/lib.rs and from nothing else of this repository.
 *
 * Each player sends one byte per frame; fresh bytes are added up. An action adds 100. After 100 frames the game is finished.
 * The snapshot is one u32 per player. tally.wat is the same game by hand; a test holds the two to the same bytes.
 *
 * Built with:
 *   clang --target=wasm32 -O2 -nostdlib -fno-builtin -Wl,--no-entry -Wl,-zstack-size=16384 -Wl,--strip-debug -o tally-c.wasm tally.c
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(#name))) name

#define PLAYERS_MAX 8
#define LAST_FRAME 99

/* 256 actions of 1 KiB, and the rest of a record. */
static u64 buffer[(300 << 10) / 8];
static u8 out[8 << 10];
static u8 state[4 + 4 * PLAYERS_MAX];
static u32 tally[PLAYERS_MAX];
static u32 players;
static u32 frames;

static const char manifest[] =
    "{\"name\":\"tally\",\"version\":\"1.0.0\",\"state_version\":1,\"players_min\":1,\"players_max\":8,\"input_bytes_max\":1,"
    "\"frames_max\":1000}";

static u64 span(const void *address, u32 len) { return ((u64)(u32)address << 32) | len; }

static u64 text(const char *words) {
    u32 len = 0;
    while (words[len]) len++;
    return span(words, len);
}

static u16 u16_at(const u8 *at) { return at[0] | at[1] << 8; }
static u32 u32_at(const u8 *at) { return u16_at(at) | (u32)u16_at(at + 2) << 16; }
static u8 *put_u32(u8 *at, u32 value) {
    for (int i = 0; i < 4; i++) at[i] = value >> (8 * i);
    return at + 4;
}
static u8 *put_text(u8 *at, const char *words) {
    while (*words) *at++ = *words++;
    return at;
}
static u8 *put_decimal(u8 *at, u32 value) {
    u8 digits[10];
    int count = 0;
    do digits[count++] = '0' + value % 10; while (value /= 10);
    while (count) *at++ = digits[--count];
    return at;
}
static u32 padded(u32 len) { return (len + 3) & ~3u; }
static u8 *pad(u8 *at) {
    while ((at - out) & 3) *at++ = 0;
    return at;
}
/* The header of an item. The length of its data is filled in by item_end. */
static u8 *item(u8 *at, u32 kind, const char *name) {
    u32 len = 0;
    while (name[len]) len++;
    at = put_u32(at, kind | len << 8);
    at = put_u32(at, 0);
    return pad(put_text(at, name));
}
static u8 *item_end(u8 *start, u8 *data, u8 *at) {
    put_u32(start + 4, at - data);
    return pad(at);
}

int EXPORT(holeshot_abi_version)(void) { return 0x00010000; }
u64 EXPORT(holeshot_manifest)(void) { return text(manifest); }
u32 EXPORT(holeshot_buffer)(u32 len) { return len <= sizeof buffer ? (u32)buffer : 0; }

u64 EXPORT(holeshot_init)(u32 len) {
    const u8 *record = (const u8 *)buffer;
    players = u16_at(record + 12);
    if (u32_at(record + 16)) return text("tally takes no options");
    if (players > PLAYERS_MAX) return text("tally takes 1 to 8 players");
    return 0;
}

u64 EXPORT(holeshot_tick)(u32 len) {
    const u8 *at = (const u8 *)buffer;
    u32 frame = u32_at(at), changes = u16_at(at + 6), actions = u16_at(at + 8), stride = u16_at(at + 10);
    u32 items = 0;
    u8 *end = out + 8, *start, *data;

    frames = frame + 1;
    at += 16;
    for (u32 player = 0; player < players; player++, at += 4 + stride)
        if (at[0] == 1 && at[1] >= 1) tally[player] += at[4];
    for (; changes; changes--, at += 4) {
        start = end;
        data = end = item(end, 3, at[2] == 1 ? "joined" : "left");
        end = put_text(end, "{\"player\":");
        end = put_decimal(end, u16_at(at));
        end = put_text(end, "}");
        end = item_end(start, data, end);
        items++;
    }
    for (; actions; actions--) {
        tally[u16_at(at)] += 100;
        at += 4 + padded(u16_at(at + 2));
    }
    start = end;
    data = end = item(end, 1, "");
    for (u32 player = 0; player < players; player++) end = put_u32(end, tally[player]);
    end = item_end(start, data, end);
    items++;
    if (frame == LAST_FRAME) {
        start = end;
        data = end = item(end, 5, "");
        end = put_text(end, "[");
        for (u32 player = 0; player < players; player++) {
            end = put_text(end, player ? ",{\"player\":" : "{\"player\":");
            end = put_decimal(end, player);
            end = put_text(end, ",\"outcome\":\"counted\",\"data\":");
            end = put_decimal(end, tally[player]);
            end = put_text(end, "}");
        }
        end = put_text(end, "]");
        end = item_end(start, data, end);
        items++;
    }
    put_u32(put_u32(out, items), 0);
    return span(out, end - out);
}

u64 EXPORT(holeshot_save)(void) {
    u8 *end = put_u32(state, frames);
    for (u32 player = 0; player < players; player++) end = put_u32(end, tally[player]);
    return span(state, end - state);
}

u64 EXPORT(holeshot_restore)(u32 len) {
    const u8 *record = (const u8 *)buffer;
    if (u32_at(record) != 1) return text("tally knows state version 1 only");
    if (len != 8 + 4 + 4 * players) return text("the state is of another number of players");
    frames = u32_at(record + 8);
    for (u32 player = 0; player < players; player++) tally[player] = u32_at(record + 12 + 4 * player);
    return 0;
}
